"""Trains a network that names the genre of 4-second clips, and reports how well it does.

    bin/train                                       the built-in music as the paper trains, into runs/genre3
    bin/train --config=configs/genre3.py:augmented  the same music by the recipe of configs/music.py
    bin/train --config.data.root=DIR --workdir=W    your music: DIR/genre/song or DIR/genre/artist/song
    bin/train --config.data.index=tracks.csv --workdir=W    a table: path, label, and artist and split if known
    bin/train --config.data.index=fma_metadata/tracks.csv --config.data.root=fma_small --workdir=W
    bin/train --config.data.index=tracks.csv --config.data.fold=2/5 --workdir=W    test on the second of five folds
    bin/train --config.data.root=DIR --folds=5 --workdir=W          all five, and one report over every song
    bin/train --config.data.root=DIR --curve=2,4,8,all --workdir=W  how much more artists help

Where artists are known (a second level of folders, a column of the table), none is in two parts of the split.
An interrupted run goes on from its last checkpoint when the same command is given again.
"""

import sys
from pathlib import Path

from absl import flags

from deconv_jax.cli import configs, sounds, values
from deconv_jax.cli.launch import launch
from deconv_jax.cli.together import define_distributed

_config = configs.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints and the report (default: runs/NAME OF CONFIG).")
_cache = sounds.define_cache()
_MANY = "Train so many folds, in WORKDIR/fold1 and so on, and pool their tests into one report."
_FOLDS = flags.DEFINE_integer("folds", 0, _MANY, lower_bound=0)
_ARTISTS = "Train with so many artists of each genre, such as 2,4,8,all, in WORKDIR/artists2 and so on."
_CURVE = values.define("curve", None, _ARTISTS, values.counts)
_join = define_distributed()


def _train(arguments: list[str]) -> int:
    if arguments:
        raise flags.Error(
            f"bin/train takes flags only, not {arguments[0]!r}; name music by --config.data.root=DIR "
            "or --config.data.index=FILE"
        )
    _join()
    from deconv_jax.system import hosts, runtime
    from deconv_jax.training import folds, loop, summary, workdir

    runtime.keep_compiled()
    config = _config()
    folder = Path(_WORKDIR.value or workdir.default_workdir(config.get("name", "unnamed"))).absolute()
    if _CURVE.value:
        text = summary.curve_text(folds.learning_curve(config, folder, _CURVE.value, _FOLDS.value, _cache()))
        said = f"table: {folder / 'curve.csv'}"
    elif _FOLDS.value:
        text = summary.report_text(folds.train_folds(config, folder, _FOLDS.value, _cache()))
        said = f"report: {folder / 'report.json'}"
    else:
        text = summary.report_text(loop.train(config, folder, _cache()))
        said = f"report: {folder / 'report.json'}, {folder / 'report.png'}"
    if hosts.first():
        print(text, said, sep="\n")
    return 0


def main() -> int:
    """Entry point of `bin/train` and `deconv-train`."""
    sys.argv[1:] = configs.with_config(sys.argv[1:])
    return launch(_train, __name__, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
