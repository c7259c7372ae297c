"""Makes the features of a trained network audible and visible, and writes a page to listen to them.

bin/auralise                                    layer 5 of built-in excerpts, into auralised/
bin/auralise --layer=5 song.mp3 folder/         of any sound files, and of all below a folder
bin/auralise --layer=all --features=top:12 --offset=30 song.mp3
bin/auralise --network=DIR --reading=mask song.mp3      a network of your own (bin/import_network)

Open OUT/index.html in a browser: it needs no server and no network.
"""

import dataclasses
import sys

from absl import flags

from deconv_jax.cli.launch import define_number, launch, numbers

_LAYER = flags.DEFINE_string("layer", "5", "Layer to explain, from 1; several as in 1,3; or all.")
_FEATURES = flags.DEFINE_string("features", "all", "all, a list of numbers from 0 as in 3,17, or top:N by energy.")
_OFFSET = define_number(
    "offset", None, "Seconds to skip in every file (default: 0; 12 in the built-in excerpts).", 0.0, 1e6
)
_DURATION = flags.DEFINE_string("duration", "4", "Seconds to explain, or full for the whole file.")
_READING = flags.DEFINE_enum(
    "reading", "phase", ["phase", "mask"], "phase: the image is the magnitude (the paper). mask: it scales the STFT."
)
_RECTIFY = flags.DEFINE_boolean("rectify", False, "Drop the negative values of an image.")
_GAIN = flags.DEFINE_enum(
    "gain", "match", ["match", "peak", "none"], "match: the original's loudness. peak: its peak. none: as it comes."
)
_PAGE = flags.DEFINE_enum(
    "page",
    None,
    ["single", "folder", "none"],
    "The page, OUT/index.html. single: all in one file. folder: beside the folders, for much (default for "
    "--layer=all, --duration=full and more than eight files).",
)
_UNTRAINED = flags.DEFINE_boolean(
    "untrained", None, "--page=none: compare with an untrained twin all the same, which takes twice as long again."
)
_EXCERPTS = flags.DEFINE_boolean("excerpts", False, "Explain the built-in excerpts before the files that are named.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the training run (default: that of bin/train).")
_NETWORK = flags.DEFINE_string("network", None, "Folder of a network file, in the place of a training run.")
_METHOD = flags.DEFINE_enum(
    "method",
    "deconvnet",
    ["deconvnet", "guided", "gradient"],
    "What passes an activation on the way back: the rectified signal; that, where the unit was active; the gradient.",
)
_NORM_BACK = flags.DEFINE_enum(
    "norm_back",
    "transpose",
    ["transpose", "inverse"],
    "What batch norm does on the way back: multiply by its scale as the gradient does, or divide by it.",
)
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "One checkpoint, such as WORKDIR/checkpoints/last/1230.")
_OUT = flags.DEFINE_string("out", "auralised", "Folder for what is made, a sub-folder for each file.")
_CACHE_DIR = flags.DEFINE_string("cache_dir", None, "Where the built-in music is kept (default: the platform's cache).")


def _chosen(text: str) -> str | list[int]:
    if text == "all":
        return text
    if text.startswith("top:"):
        if not text[4:].isdecimal() or int(text[4:]) < 1:
            raise flags.Error(f"--features={text}: top: takes a whole number from 1, as in top:12")
        return text
    return numbers("features", text)


def _seconds(text: str) -> float | None:
    if text == "full":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise flags.Error(f"--duration={text}: wanted is a number of seconds above 0, or full")
    return seconds


def _auralise(arguments: list[str]) -> int:
    layers = None if _LAYER.value == "all" else sorted(numbers("layer", _LAYER.value))
    chosen, duration = _chosen(_FEATURES.value), _seconds(_DURATION.value)
    from deconv_jax.errors import InputError
    from deconv_jax.music import builtin
    from deconv_jax.results import clip_folder
    from deconv_jax.sound import audio
    from deconv_jax.system import files, runtime
    from deconv_jax.training import workdir

    runtime.keep_compiled()
    elsewhere = _CHECKPOINT.value or _NETWORK.value
    folder = _WORKDIR.value or (None if elsewhere else workdir.default_workdir())
    trained = workdir.load(folder, _CHECKPOINT.value, _NETWORK.value)
    options = clip_folder.Options(
        layers=layers or list(range(1, len(trained.network.blocks) + 1)),
        chosen=chosen,
        reading=_READING.value,
        rectify=_RECTIFY.value,
        gain=_GAIN.value,
        duration=duration,
        method=_METHOD.value,
        norm_back=_NORM_BACK.value,
        untrained=_UNTRAINED.value,
    )
    clip_folder.check(trained, dataclasses.replace(options, page=_PAGE.value or "single"))
    built_in = []
    if _EXCERPTS.value or not arguments:
        built_in = builtin.excerpts(_CACHE_DIR.value or builtin.default_cache_dir())
    named = audio.find(arguments)
    paths = [*built_in, *named]
    if arguments and not named:
        raise InputError(
            f"{', '.join(map(files.shown, arguments))}: holds no sound files; name a file or another folder"
        )
    much = layers is None or duration is None or len(paths) > 8
    options = dataclasses.replace(options, page=_PAGE.value or ("folder" if much else "single"))
    offsets = [_OFFSET.value or 0.0] * len(paths)
    if _OFFSET.value is None:
        offsets[: len(built_in)] = [12.0] * len(built_in)
    made = clip_folder.export(trained, paths, _OUT.value, options, offsets)
    for clip in made.folders:
        print(clip.absolute())
    if made.page:
        about = "all in one file" if options.page == "single" else "keep it beside its folders"
        print(f"The page to look and listen, {made.page.stat().st_size / 1e6:.1f} MB, {about}:")
        print(made.page.absolute())
    if made.failed:
        print(
            f"{len(made.failed)} of {len(paths)} file(s) could not be used:", *made.failed, sep="\n  ", file=sys.stderr
        )
    return 1 if made.failed else 0


def main() -> int:
    """Entry point of `bin/auralise` and `deconv-auralise`."""
    return launch(_auralise, __name__, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
