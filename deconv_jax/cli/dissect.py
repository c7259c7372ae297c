"""Finds out what the features of a network are, over many songs whose stems are known: names, beside false ones.

bin/dissect                                     the packaged builtin3, with 60 built-in songs, into dissected/
bin/dissect --network=real3 --null_workdir=shuffled3 --out=DIR
bin/dissect --network=DIR --out=DIR/dissected   a network of yours carries its names there, and pages show them
bin/dissect --stems=MUSDB18-HQ                  with your songs: a folder for each, a sound file for each stem
bin/dissect --index=tracks.csv --root=DIR       by labels of whole songs, or --tags=genre,mood: by columns of tags
bin/dissect --concepts=DIR                      by folders of sound, one for each concept
bin/dissect --ways                              and which way back makes a feature sound like its name: OUT/ways.csv
bin/dissect --quick                             a few songs and controls, to see that it runs

OUT/dissected.csv has a row for every feature and stem, OUT/dissected.json the names and how many a network that learnt
nothing gets by the same rule, OUT/dissected.png that as a figure. The same command goes on after it was stopped.
"""

import sys
from pathlib import Path

from absl import flags

from deconv_jax.cli import networks, sounds
from deconv_jax.cli.launch import launch, say_unused

_load = networks.define_network()
_OUT = flags.DEFINE_string("out", "dissected", "Folder for what is made.")
_STEMS = flags.DEFINE_string("stems", None, "Folder of songs with stems (default: built-in music).")
_INDEX = flags.DEFINE_string("index", None, "Table of songs and their tags, as for bin/train, in place of stems.")
_ROOT = flags.DEFINE_string("root", None, "What the paths in the index are relative to (default: its folder).")
_TAGS = flags.DEFINE_list("tags", [], "Columns of the index that hold tags, as in genre,mood (default: the label's).")
_CONCEPTS = flags.DEFINE_string("concepts", None, "Folder with a folder of sounds for each concept, in place of stems.")
_SONGS = flags.DEFINE_integer("songs", 20, "Built-in songs of each genre.", 1, 10_000)
_CLIPS = flags.DEFINE_integer("clips", 6, "Clips of a song.", 1)
_REMOVED = flags.DEFINE_integer("removed", 2, "Clips of a song in which each stem is taken out.", 1)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Controls of each kind.", 1, 100)
_NULL = flags.DEFINE_string("null_workdir", None, "The network trained on shuffled labels: a run, a folder or a name.")
_QUICK = flags.DEFINE_boolean("quick", False, "A few songs, clips and controls: says nothing about the network.")
_WAYS = flags.DEFINE_boolean("ways", False, "Compare ways back by where the stem sounds that a feature is named after.")
_layers = networks.define_layers("all", "Layers, from 1, as in 1,3; or all.")
_cache = sounds.define_cache("stems of the built-in music are")


def _dissect(arguments: list[str]) -> int:
    from deconv_jax.results import dissected, dissection, ways_back
    from deconv_jax.training import workdir

    if arguments:
        raise flags.Error(f"bin/dissect takes flags only, not {arguments[0]!r}; name songs with stems by --stems=DIR")
    trained = _load(_STEMS.value or _INDEX.value or _CONCEPTS.value)
    null = workdir.load(_NULL.value, called="null_workdir") if _NULL.value else None
    clips, removed, seeds = (2, 1, 1) if _QUICK.value else (_CLIPS.value, _REMOVED.value, _SEEDS.value)
    settings = dissection.Settings(clips, removed, seeds, tuple(_layers(trained)))
    songs = 2 if _QUICK.value else _SONGS.value
    music = dissected.Music(_STEMS.value, _INDEX.value, _ROOT.value, _TAGS.value, _CONCEPTS.value, _cache(), songs)
    ways = ways_back.Settings() if _WAYS.value else None
    about = dissected.make(trained, music, Path(_OUT.value), settings, null, ways)
    print(*dissected.said(about), Path(_OUT.value).absolute(), sep="\n")
    return say_unused(f"{len(about['failed'])} song(s)", about["failed"])


def main() -> int:
    """Entry point of `bin/dissect` and `deconv-dissect`."""
    return launch(_dissect, __name__, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
