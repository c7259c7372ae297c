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
An interrupted run goes on from its last checkpoint when the same command is given again. All devices of this machine
take part. With --distributed, so do other processes and hosts that give the same command; they must see the same
files at the same places (a shared file system). Slurm, Open MPI, Kubernetes and Cloud TPU say who is there;
elsewhere add --coordinator=HOST:PORT --processes=N --process=I.
"""

import json
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from deconv_jax.cli.launch import define_distributed, launch


def _find_config(path: str) -> str:
    """The config file meant: as named, or else below the checkout, or among those installed with the package."""
    name, _, variant = path.partition(":")
    package = Path(__file__).resolve().parents[1]
    places = [Path(name), package.parent / name, package / name]
    found = next((p for p in places if p.is_file()), Path(name))
    return f"{found}:{variant}" if variant else str(found)


_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Settings of the run (default: configs/genre3.py, or configs/music.py for your own music); change one by "
    "--config.FIELD=VALUE.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints and the report (default: runs/NAME OF CONFIG).")
_CACHE_DIR = flags.DEFINE_string("cache_dir", None, "Where the built-in music is kept (default: the platform's cache).")
_FOLDS = flags.DEFINE_integer(
    "folds", 0, "Train so many folds, in WORKDIR/fold1 and so on, and pool their tests into one report.", lower_bound=0
)
_CURVE = flags.DEFINE_list(
    "curve", [], "Train with so many artists of each genre, such as 2,4,8,all, in WORKDIR/artists2 and so on."
)
_join = define_distributed()


def _train(arguments: list[str]) -> int:
    if arguments:
        raise flags.Error(
            f"bin/train takes flags only, not {arguments[0]!r}; name music by --config.data.root=DIR "
            "or --config.data.index=FILE"
        )
    _join()
    from deconv_jax.system import hosts, runtime
    from deconv_jax.training import folds, loop, workdir

    runtime.keep_compiled()

    try:
        config = json.loads(_CONFIG.value.to_json())
    except OSError:
        named = next(a for a in sys.argv if a.startswith("--config="))
        raise flags.Error(f"{named}: there is no such file; wanted is one like configs/genre3.py") from None
    folder = Path(_WORKDIR.value or workdir.default_workdir(config["name"])).absolute()
    if counts := _counts(_CURVE.value):
        rows = folds.learning_curve(config, folder, counts, _FOLDS.value, _CACHE_DIR.value)
        if hosts.first():
            print(_curve(rows))
            print(f"table: {folder / 'curve.csv'}")
        return 0
    if _FOLDS.value:
        report = folds.train_folds(config, folder, _FOLDS.value, _CACHE_DIR.value)
    else:
        report = loop.train(config, folder, _CACHE_DIR.value)
    if hosts.first():
        print(_summary(report))
        print(f"report: {folder / 'report.json'}" + ("" if _FOLDS.value else f", {folder / 'report.png'}"))
    return 0


def _counts(given: list[str]) -> list[int]:
    counts = [0 if text == "all" else int(text) if text.isdecimal() else -1 for text in given]
    if -1 in counts or "0" in given:
        raise flags.Error(f"--curve={','.join(given)}: wanted are numbers of artists of each genre, such as 2,4,8,all")
    return counts


def _curve(rows: list[dict]) -> str:
    """The learning curve as text."""
    lines = ["artists".ljust(9) + "system".ljust(30) + "balanced accuracy by clip   by song"]
    for row in rows:
        cells = [f"{row[k]:.3f} [{row[f'{k}_low']:.3f} {row[f'{k}_high']:.3f}]" for k in ("by_clip", "by_song")]
        lines.append(f"{row['artists']!s:9}{row['system']:30}{cells[0]:28}{cells[1]}")
    return "\n".join(lines)


def _summary(report: dict) -> str:
    """The report's main numbers as text; reports from before there were intervals have none."""
    results = {"network": report["test"]} | report["baselines"]
    difference = report.get("difference", {})
    lines = []
    for kind, what in (("by_clip", "clips"), ("by_song", "songs")):
        lines.append(f"{report['test'][kind]['n']} test {what}".ljust(30) + "accuracy             balanced accuracy")
        for name, result in results.items():
            cells = []
            for measure in ("accuracy", "balanced_accuracy"):
                cell = f"{result[kind][measure]:.3f}"
                if "interval" in result[kind]:
                    cell += " [{:.3f} {:.3f}]".format(*result[kind]["interval"][measure])
                cells.append(cell)
            lines.append(f"  {name:28}{cells[0]:21}{cells[1]}")
        found = difference.get(kind, {})
        # Reports from before every baseline was compared have the best one only.
        each = found.get("each", {found["baseline"]: found} if found else {})
        for name, one in each.items():
            ahead, (low, high) = one["balanced_accuracy"], one["interval"]
            lines.append(f"  network - {name:38} {ahead:+.3f} [{low:+.3f} {high:+.3f}]")
    if difference:
        lines.append(f"[ ]: 95 % intervals over {difference['units']} {difference['resampled']}; too narrow if few")
    return "\n".join(lines)


def main() -> int:
    """Entry point of `bin/train` and `deconv-train`."""
    arguments = sys.argv[1:]
    names = {a.partition("=")[0].replace("--", "-", 1) for a in arguments}
    if "-config" not in names:
        own = names & {"-config.data.root", "-config.data.index"}
        arguments = [f"--config=configs/{'music' if own else 'genre3'}.py", *arguments]
    sys.argv[1:] = [f"--config={_find_config(a[9:])}" if a.startswith("--config=") else a for a in arguments]
    return launch(_train, __name__, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
