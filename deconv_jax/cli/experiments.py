"""Makes the paper's table and figures from a trained network, beside their controls: PNG, CSV and JSON.

bin/experiments                                       everything, of the packaged builtin3, into experiments/
bin/experiments --experiment=features song.mp3        sheets of features for sound files of yours (Figures 3, 5 to 8)
bin/experiments --experiment=invariance --network=real3 --null_workdir=shuffled3 --random_networks=5     Figure 10
bin/experiments --experiment=invariance --signals=DIR     Figure 10 of your recordings; DIR/signals.csv names them
bin/experiments --experiment=faithfulness --network=real3 songs/     attributions: methods, measures, controls
bin/experiments --experiment=cues [--quick]           attributions where the truth is known: planted cues
bin/experiments --network=DIR                         of a network of your own (bin/import_network)

--null_workdir takes a network's name or folder as well; the null of your own training, with its flags besides:
bin/train --config.data.shuffle_labels=True --workdir=runs/shuffled
"""

import sys

from absl import flags

from deconv_jax.cli import networks, sounds, values
from deconv_jax.cli.launch import launch, say_unused

_KINDS = """table1: effective sizes. kernels: Figure 4. features: 3, 5 to 8. invariance: 9 and 10. all: these.
faithfulness: whether attributions point at what the answer hangs on. cues: whether they do where that is known."""
_HEARD = ["all", "features", "faithfulness"]
_KIND = flags.DEFINE_enum("experiment", "all", [*_HEARD, "table1", "kernels", "invariance", "cues"], _KINDS)
_QUICK = flags.DEFINE_bool("quick", False, "cues: tiny networks and few songs, to see that it runs; no result.")
_load = networks.define_network()
_OUT = flags.DEFINE_string("out", "experiments", "Folder for what is made.")
_layers = networks.define_layers("all", "features, invariance: layers, from 1, as in 1,3; or all.")
_FEATURES = networks.define_features(None, "features: numbers from 0 as in 3,17 (default: four active, distinct ones).")
_OFFSET = sounds.define_offset("features, faithfulness: seconds to skip in every file")
_VIEWS = "invariance: compare images as they are, in dB, or times the magnitude (what the mask reading plays)."
_SPECTROGRAM = flags.DEFINE_enum("spectrogram", "linear", ["linear", "decibel", "mask"], _VIEWS)
_RANDOM = "invariance: networks with random weights; the first is the one before training if its seed is known."
_RANDOM_NETWORKS = flags.DEFINE_integer("random_networks", 1, _RANDOM, 0, 100)
_NULL_WORKDIR = flags.DEFINE_string("null_workdir", None, "invariance: run of a network trained on shuffled labels.")
_SIGNALS = flags.DEFINE_string("signals", None, "invariance: folder with the files that its signals.csv names.")
_LENGTH = "invariance: length that is compared, from each signal's beginning."
_SECONDS = values.define_number("seconds", 2.0, _LENGTH, 0.1, 3600.0)
_cache = sounds.define_cache()


def _experiments(arguments: list[str]) -> int:
    from deconv_jax.experiments import figure10, run
    from deconv_jax.training import workdir

    if arguments and _KIND.value not in _HEARD:
        raise flags.Error(f"{arguments[0]!r}: --experiment={_KIND.value} takes no sound files")
    if _KIND.value == "cues":
        print(*run.planted_cues(_OUT.value, _cache(), _QUICK.value), sep="\n")
        return 0
    trained = _load(arguments)
    null = workdir.load(_NULL_WORKDIR.value, called="null_workdir") if _NULL_WORKDIR.value else None
    settings = figure10.Invariance(_layers(trained), _SPECTROGRAM.value, _SECONDS.value, _RANDOM_NETWORKS.value)
    wanted = run.Wanted(_KIND.value, settings, _FEATURES.value, _SIGNALS.value)
    run.check(trained, wanted)
    paths, offsets = sounds.find_sounds(arguments, _cache(), _OFFSET.value) if _KIND.value in _HEARD else ([], [0.0])
    folder, sentences, failed = run.run(trained, _OUT.value, wanted, paths, offsets[0], null)
    print(*sentences, folder.absolute(), sep="\n")
    return say_unused(f"{len(failed)} file(s)", failed)


def main() -> int:
    """Entry point of `bin/experiments` and `deconv-experiments`."""
    return launch(_experiments, __name__, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
