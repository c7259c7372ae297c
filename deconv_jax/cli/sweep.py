"""Measures every feature in every clip of a collection, and finds the clips that excite each feature most.

bin/sweep                                       layer 5 in the built-in excerpts, into swept/
bin/sweep --layer=5 songs/ more/song.mp3        of any sound files, and of all below a folder
bin/sweep --layer=all --top=0 songs/            the table alone
bin/sweep --index=tracks.csv --root=DIR         of the songs that a table names
bin/sweep --share=2/8 songs/                    the second of eight processes or machines, into one OUT by themselves

OUT/statistics.parquet has a row for every clip and feature; OUT/top/index.html lets you hear the strongest clips. The
same command goes on after it was stopped. Songs are decoded once, into CACHE_DIR/clips, which bin/train shares; another
layer or network with clips of the same length decodes nothing. That takes 88 kB for a clip of 4 s at 11,025 Hz: 0.9 MB
for a song of ten clips, 9 GB for 10,000 songs. It may be removed at any time.
"""

import sys

from absl import flags

from deconv_jax.cli import explaining, networks, sounds, values
from deconv_jax.cli.launch import launch, say_unused
from deconv_jax.cli.together import define_distributed

_layers = networks.define_layers("5", "Layer to measure, from 1; several as in 1,3; or all.")
_INDEX = flags.DEFINE_string("index", None, "CSV or TSV that names the songs, as for bin/train.")
_ROOT = flags.DEFINE_string("root", None, "What the paths in the index are relative to (default: its own folder).")
_CLIPS = flags.DEFINE_integer("clips_per_song", 10, "Clips of a song, spread evenly over it.", lower_bound=1)
_TOP = flags.DEFINE_integer("top", 20, "Strongest clips of each feature to hear; 0: no sounds.", lower_bound=0)
_BY = flags.DEFINE_enum("by", "maximum", ["maximum", "mean"], "Strongest by a feature's maximum in a clip, or mean.")
_PER_SONG = flags.DEFINE_integer("per_song", 1, "Clips of a song among a feature's strongest at most; 0: any.", 0)
_READING = explaining.define_reading(None, " (Default: phase; mask if the network hears logarithms.)")
_SHARE = values.define("share", None, "Share of the work to do, as in 2/8 (default: all).", values.share)
_FAILED = values.define_number("failed_share", 0.5, "End with an error if more of the songs are unusable.", 0.0, 1.0)
_load, _way_back = networks.define_network(), explaining.define_way_back()
_OUT = flags.DEFINE_string("out", "swept", "Folder for what is made.")
_cache = sounds.define_cache("decoded clips and the built-in music are")
_join = define_distributed()


def _sweep(arguments: list[str]) -> int:
    _join()
    from deconv_jax.results import collection, strongest
    from deconv_jax.system import hosts

    trained = _load(arguments or _INDEX.value)
    settings = collection.Settings(tuple(_layers(trained)), _CLIPS.value, **_way_back())
    reading = _READING.value or ("phase" if trained.front_end.linear else "mask")
    options = strongest.Options(_TOP.value, f"activation_{_BY.value}", _PER_SONG.value, reading)
    strongest.check(trained, settings, options)
    songs, left_out = collection.find_songs(arguments, _INDEX.value, _ROOT.value, _cache())
    work = collection.Work(trained, songs, _cache() / "clips", settings, left_out)
    swept = collection.sweep_together(work, _OUT.value, _SHARE.value)
    if hosts.first():
        print(*swept.said(), sep="\n")
        failed = f"{len(swept.skipped)} of {swept.songs} song(s)"
        say_unused(failed, [f"{name}: {why}" for name, why in swept.skipped[:20]])
        if swept.table and _TOP.value and swept.used:
            about = f"The {_TOP.value} strongest clips of each feature, to look and listen; keep it beside its folders:"
            print(about, strongest.make(work, _OUT.value, options).absolute(), sep="\n")
    hosts.barrier("reported")  # a process that ends with an error ends the others
    return 1 if not swept.used or len(swept.skipped) > _FAILED.value * swept.songs else 0


def main() -> int:
    """Entry point of `bin/sweep` and `deconv-sweep`."""
    return launch(_sweep, __name__, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
