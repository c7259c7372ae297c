"""Makes the features of a trained network audible and visible, and writes a page to listen to them.

bin/auralise                                    layer 5 of built-in excerpts, as builtin3 hears them, into auralised/
bin/auralise song.mp3 folder/                   of any sound files, and of all below a folder, as real3 does
bin/auralise --workdir=runs/mine song.mp3       a network that you trained (bin/train)
bin/auralise --layer=all --features=top:12 --offset=30 song.mp3
bin/auralise --network=DIR --reading=mask song.mp3      a network of your own (bin/import_network); list names some

Open OUT/index.html in a browser: it needs no server and no network.
"""

import sys

from absl import flags

from deconv_jax.cli import explaining, networks, sounds
from deconv_jax.cli.launch import launch, say_unused

_layers = networks.define_layers("5", "Layer to explain, from 1; several as in 1,3; or all.")
_FEATURES = networks.define_features("all", "all, a list of numbers from 0 as in 3,17, or top:N of the order.")
_OFFSET = sounds.define_offset("Seconds to skip in every file")
_DURATION = sounds.define_duration("4", "Seconds to explain, or full for the whole file.")
_READING = explaining.define_reading("phase")
_RECTIFY = flags.DEFINE_boolean("rectify", False, "Drop the negative values of an image.")
_GAINS = "match: the original's loudness. peak: its peak. none: as it comes."
_GAIN = flags.DEFINE_enum("gain", "match", ["match", "peak", "none"], _GAINS)
_PAGES = "The page, OUT/index.html. single: all in one file. folder: beside the folders, for much (default for "
_PAGES += "--layer=all, --duration=full and more than eight files)."
_PAGE = flags.DEFINE_enum("page", None, ["single", "folder", "none"], _PAGES)
_TWIN = "--page=none: compare with an untrained twin all the same, which takes twice as long again."
_UNTRAINED = flags.DEFINE_boolean("untrained", None, _TWIN)
_EXCERPTS = flags.DEFINE_boolean("excerpts", False, "Explain the built-in excerpts before the files that are named.")
_STEMS = flags.DEFINE_string("stems", None, "Folder of the files' stems: the page plays the mix without a named one.")
_load, _way_back, _answer = networks.define_network(), explaining.define_way_back(), explaining.define_answer()
_OUT = flags.DEFINE_string("out", "auralised", "Folder for what is made, a sub-folder for each file.")
_cache = sounds.define_cache()


def _auralise(arguments: list[str]) -> int:
    from deconv_jax.results import clip_folder

    trained = _load(arguments)
    options = clip_folder.Options(
        layers=_layers(trained),
        chosen=_FEATURES.value,
        reading=_READING.value,
        rectify=_RECTIFY.value,
        gain=_GAIN.value,
        duration=None if _DURATION.value == "full" else _DURATION.value,
        page=_PAGE.value,
        untrained=_UNTRAINED.value,
        stems=_STEMS.value,
        **_answer(),
        **_way_back(),
    )
    clip_folder.check(trained, options)
    paths, offsets = sounds.find_sounds(arguments, _cache(), _OFFSET.value, _EXCERPTS.value)
    made = clip_folder.export(trained, paths, _OUT.value, options, offsets)
    print(*made.said(), sep="\n")
    return say_unused(f"{len(made.failed)} of {len(paths)} file(s)", made.failed)


def main() -> int:
    """Entry point of `bin/auralise` and `deconv-auralise`."""
    return launch(_auralise, __name__, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
