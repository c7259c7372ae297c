"""Makes the paper's table and figures from a trained network, beside their controls: PNG, CSV and JSON.

bin/experiments                                       everything, of the network of `make demo`, into experiments/
bin/experiments --experiment=features song.mp3        sheets of features for sound files of yours (Figures 3, 5 to 8)
bin/experiments --experiment=invariance --random_networks=5 --null_workdir=runs/shuffled     Figure 10
bin/experiments --experiment=invariance --signals=DIR     Figure 10 of your recordings; DIR/signals.csv names them
bin/experiments --network=DIR                         of a network of your own (bin/import_network)

A network for --null_workdir: bin/train --config.data.shuffle_labels=True --workdir=runs/shuffled
"""

import sys
from pathlib import Path

from absl import flags

from deconv_jax.cli.launch import define_number, launch, numbers

_EXPERIMENT = flags.DEFINE_enum(
    "experiment",
    "all",
    ["all", "table1", "kernels", "features", "invariance"],
    "table1: effective sizes. kernels: Figure 4. features: Figures 3 and 5 to 8. invariance: Figures 9 and 10.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the training run (default: that of bin/train).")
_NETWORK = flags.DEFINE_string("network", None, "Folder of a network file, in the place of a training run.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "One checkpoint, such as WORKDIR/checkpoints/last/1230.")
_OUT = flags.DEFINE_string("out", "experiments", "Folder for what is made.")
_LAYER = flags.DEFINE_string("layer", "all", "features, invariance: layers, from 1, as in 1,3; or all.")
_FEATURES = flags.DEFINE_string(
    "features", None, "features: numbers from 0 as in 3,17 (default: four active and distinct ones of each layer)."
)
_OFFSET = define_number(
    "offset", None, "features: seconds to skip in every file (default: 0; 12 in the built-in ones).", 0.0, 1e6
)
_SPECTROGRAM = flags.DEFINE_enum(
    "spectrogram",
    "linear",
    ["linear", "decibel", "mask"],
    "invariance: compare images as they are, in dB, or multiplied with the magnitude (what the mask reading plays).",
)
_RANDOM_NETWORKS = flags.DEFINE_integer(
    "random_networks",
    1,
    "invariance: networks with random weights; the first is the one before training if its seed is known.",
    0,
    100,
)
_NULL_WORKDIR = flags.DEFINE_string("null_workdir", None, "invariance: run of a network trained on shuffled labels.")
_SIGNALS = flags.DEFINE_string(
    "signals", None, "invariance: folder with signals.csv (a column file, and one for each attribute) and the files."
)
_SECONDS = define_number(
    "seconds", 2.0, "invariance: length that is compared, from each signal's beginning.", 0.1, 3600.0
)
_CACHE_DIR = flags.DEFINE_string("cache_dir", None, "Where the built-in music is kept (default: the platform's cache).")


def _experiments(arguments: list[str]) -> int:
    wanted = {"table1", "kernels", "features", "invariance"} if _EXPERIMENT.value == "all" else {_EXPERIMENT.value}
    if arguments and "features" not in wanted:
        raise flags.Error(f"{arguments[0]!r}: --experiment={_EXPERIMENT.value} takes no sound files")
    layers = None if _LAYER.value == "all" else sorted(numbers("layer", _LAYER.value))
    chosen = None if _FEATURES.value is None else numbers("features", _FEATURES.value)
    from deconv_jax.deconvolution import deconvolve
    from deconv_jax.experiments import architecture, figure10, sheets
    from deconv_jax.system import locks, runtime
    from deconv_jax.training import workdir

    runtime.keep_compiled()
    elsewhere = _CHECKPOINT.value or _NETWORK.value
    run = _WORKDIR.value or (None if elsewhere else workdir.default_workdir())
    trained = workdir.load(run, _CHECKPOINT.value, _NETWORK.value)
    null = workdir.load(_NULL_WORKDIR.value) if _NULL_WORKDIR.value else None
    layers = layers or list(range(1, len(trained.network.blocks) + 1))
    for layer in layers:
        deconvolve.check_features(trained.network.blocks, layer, chosen if "features" in wanted else None)
    paths = _paths(arguments) if "features" in wanted else []
    failed: list[str] = []
    with locks.writing(_OUT.value, "--out", ["correlations"]) as out:
        if "table1" in wanted:
            architecture.table1(trained, out)
        if "kernels" in wanted:
            print(architecture.figure4(trained, out))
        if "features" in wanted:
            offset = (0.0 if arguments else 12.0) if _OFFSET.value is None else _OFFSET.value
            failed += sheets.feature_sheets(trained, paths, out, layers, chosen, offset)
        if "invariance" in wanted:
            figure10.figure9(trained, out)
            settings = figure10.Invariance(layers, _SPECTROGRAM.value, _SECONDS.value, _RANDOM_NETWORKS.value)
            folder = Path(_SIGNALS.value) if _SIGNALS.value else None
            sentences, unused = figure10.figure10(trained, out, settings, null, folder)
            failed += unused
            print(*sentences, sep="\n")
        print(out.absolute())
    if failed:
        print(f"{len(failed)} file(s) could not be used:", *failed, sep="\n  ", file=sys.stderr)
    return 1 if failed else 0


def _paths(arguments: list[str]) -> list[Path]:
    from deconv_jax.errors import InputError
    from deconv_jax.music import builtin
    from deconv_jax.sound import audio
    from deconv_jax.system import files

    if not arguments:
        return builtin.excerpts(_CACHE_DIR.value or builtin.default_cache_dir())
    paths = audio.find(arguments)
    if not paths:
        raise InputError(
            f"{', '.join(map(files.shown, arguments))}: holds no sound files; name a file or another folder"
        )
    return paths


def main() -> int:
    """Entry point of `bin/experiments` and `deconv-experiments`."""
    return launch(_experiments, __name__, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
