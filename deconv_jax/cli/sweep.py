"""Measures every feature in every clip of a collection, and finds the clips that excite each feature most.

bin/sweep                                       layer 5 in the built-in excerpts, into swept/
bin/sweep --layer=5 songs/ more/song.mp3        of any sound files, and of all below a folder
bin/sweep --layer=all --top=0 songs/            the table alone
bin/sweep --index=tracks.csv --root=DIR         of the songs that a table names
bin/sweep --share=2/8 songs/                    the second of eight processes or machines with a common OUT

OUT/statistics.parquet has a row for every clip and feature; OUT/top/index.html lets you hear the strongest clips. The
same command goes on after it was stopped.

Songs are decoded once, into CACHE_DIR/clips, which bin/train shares; another layer or network with clips of the same
length decodes nothing. That takes 88 kB for a clip of 4 s at 11,025 Hz: 0.9 MB for a song of ten clips, 9 GB for
10,000 songs. It may be removed at any time.

All devices of this machine take part. With --distributed, so do other processes and hosts that give the same command
and see the same OUT (a shared file system). Slurm, Open MPI, Kubernetes and Cloud TPU say who is there; elsewhere add
--coordinator=HOST:PORT --processes=N --process=I. With --share, nothing needs to know of the others.
"""

import sys
from pathlib import Path

from absl import flags

from deconv_jax.cli.launch import define_distributed, define_number, launch, numbers

_LAYER = flags.DEFINE_string("layer", "5", "Layer to measure, from 1; several as in 1,3; or all.")
_INDEX = flags.DEFINE_string("index", None, "CSV or TSV that names the songs, as for bin/train.")
_ROOT = flags.DEFINE_string("root", None, "What the paths in the index are relative to (default: its own folder).")
_CLIPS = flags.DEFINE_integer("clips_per_song", 10, "Clips of a song, spread evenly over it.", lower_bound=1)
_TOP = flags.DEFINE_integer("top", 20, "Strongest clips of each feature to hear; 0: no sounds.", lower_bound=0)
_BY = flags.DEFINE_enum(
    "by", "maximum", ["maximum", "mean"], "Strongest by the maximum of a feature's map in the clip, or by its mean."
)
_PER_SONG = flags.DEFINE_integer(
    "per_song", 1, "Clips of one song among a feature's strongest at most; 0: any number.", lower_bound=0
)
_READING = flags.DEFINE_enum(
    "reading", None, ["phase", "mask"], "As in bin/auralise (default: phase; mask if the network hears logarithms)."
)
_METHOD = flags.DEFINE_enum("method", "deconvnet", ["deconvnet", "guided", "gradient"], "As in bin/auralise.")
_NORM_BACK = flags.DEFINE_enum("norm_back", "transpose", ["transpose", "inverse"], "As in bin/auralise.")
_SHARE = flags.DEFINE_string("share", None, "Which share of the work this process does, as in 2/8 (default: all).")
_FAILED = define_number(
    "failed_share", 0.5, "Exit with an error if more than this share of the songs cannot be used.", 0.0, 1.0
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the training run (default: that of bin/train).")
_NETWORK = flags.DEFINE_string("network", None, "Folder of a network file, in the place of a training run.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "One checkpoint, such as WORKDIR/checkpoints/last/1230.")
_OUT = flags.DEFINE_string("out", "swept", "Folder for what is made.")
_CACHE_DIR = flags.DEFINE_string(
    "cache_dir", None, "Where decoded clips and the built-in music are kept (default: the platform's cache)."
)
_join = define_distributed()


def _share(text: str) -> tuple[int, int]:
    """ "2/8" → (1, 8)."""
    first, _, count = text.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise flags.Error(f"--share={text}: wanted is the number of a share and how many there are, as in 2/8")
    return int(first) - 1, int(count)


def _sweep(arguments: list[str]) -> int:
    layers = None if _LAYER.value == "all" else sorted(numbers("layer", _LAYER.value))
    named = _share(_SHARE.value) if _SHARE.value else None
    _join()
    from deconv_jax.music import builtin
    from deconv_jax.results import collection, strongest
    from deconv_jax.system import hosts, runtime
    from deconv_jax.training import workdir

    if named and hosts.joined():
        raise flags.Error(f"--share={_SHARE.value}: leave it out with --distributed, which shares the work out itself")

    runtime.keep_compiled()
    elsewhere = _CHECKPOINT.value or _NETWORK.value
    folder = _WORKDIR.value or (None if elsewhere else workdir.default_workdir())
    trained = workdir.load(folder, _CHECKPOINT.value, _NETWORK.value)
    layers = layers or list(range(1, len(trained.network.blocks) + 1))
    settings = collection.Settings(tuple(layers), _CLIPS.value, _METHOD.value, _NORM_BACK.value)
    phase = trained.front_end.linear
    reading = _READING.value or ("phase" if phase else "mask")
    options = strongest.Options(_TOP.value, f"activation_{_BY.value}", _PER_SONG.value, reading)
    strongest.check(trained, settings, options)
    cache = Path(_CACHE_DIR.value or builtin.default_cache_dir())
    songs, left_out = collection.find_songs(arguments, _INDEX.value, _ROOT.value, cache)

    def sweep() -> collection.Swept:
        share = named or hosts.share()
        return collection.sweep(trained, songs, _OUT.value, cache / "clips", settings, share, left_out=left_out)

    swept = sweep()
    if hosts.joined():
        hosts.barrier("swept")
        swept = sweep()  # nothing is left to measure: who came last has joined the table
    used = swept.songs - len(swept.skipped)
    if hosts.first():
        _report(swept, used)
        if swept.table and _TOP.value and used:
            page = strongest.make(trained, songs, _OUT.value, cache / "clips", settings, options)
            print(f"The {_TOP.value} strongest clips of each feature, to look and listen; keep it beside its folders:")
            print(page.absolute())
    hosts.barrier("reported")  # a process that ends with an error ends the others
    return 1 if not used or len(swept.skipped) > _FAILED.value * swept.songs else 0


def _report(swept, used: int) -> None:
    if swept.table is None:
        print(f"This share is done; {swept.missing} part(s) of others are missing. Whoever comes last joins them.")
    else:
        print(f"{used:,} song(s), a row for every clip and feature:")
        print(swept.table.absolute())
    if swept.skipped:
        print(f"{len(swept.skipped)} of {swept.songs} song(s) could not be used:", file=sys.stderr)
        print(*(f"  {name}: {reason}" for name, reason in swept.skipped[:20]), sep="\n", file=sys.stderr)


def main() -> int:
    """Entry point of `bin/sweep` and `deconv-sweep`."""
    return launch(_sweep, __name__, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
