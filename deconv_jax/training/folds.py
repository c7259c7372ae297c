"""Several trainings as one result: folds that are pooled, and a learning curve over artists."""

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deconv_jax.errors import InputError, SettingError
from deconv_jax.system import files, hosts, locks
from deconv_jax.training import loop
from deconv_jax.training.evaluation import Tested

log = logging.getLogger(__name__)


def train_folds(config: dict, workdir, folds: int, cache_dir=None) -> dict:
    """Trains on every fold in turn, in WORKDIR/fold1, fold2 …, and pools what they said of their test parts.

    Every song is tested once, by a network (and by baselines) that has heard neither it nor its artist. An interrupted
    run goes on, as `loop.train` does.

    Args:
      config: settings, without `data.fold`.
      workdir: folder of the folds and of the pooled `report.json`.
      folds: how many, at least 3.
      cache_dir: as in `loop.train`.

    Returns:
      The pooled report: "labels", "folds" (of each, what was reached), "clips", "songs", "artists" (how many), and
      "test", "baselines" and "difference" as in a run's report; empty in all processes but the first.

    Raises:
      As `loop.train`.
    """
    workdir = Path(workdir).absolute()
    if folds < 3:
        raise SettingError(f"{folds}: must be at least 3: one fold to test, one to validate, one to train", "folds")
    if config["data"].get("fold"):
        raise SettingError(f"{folds}: trains every fold: leave out config.data.fold={config['data']['fold']}", "folds")
    if (workdir / "config.json").is_file():
        raise InputError(f"{files.shown(workdir)}: holds a single run; name another for its folds", "workdir")
    with locks.writing(workdir, "workdir") if hosts.first() else contextlib.nullcontext():
        reports = [_fold(config, workdir, number, folds, cache_dir) for number in range(1, folds + 1)]
        return _pooled(workdir, reports, config["seed"]) if hosts.first() else {}


def _fold(config: dict, workdir: Path, number: int, folds: int, cache_dir) -> dict:
    folder = workdir / f"fold{number}"
    if hosts.first() and not (folder / Tested.FILE).is_file():
        (folder / "report.json").unlink(missing_ok=True)  # of a version that kept no predictions: tested anew
    log.info("Fold %d of %d", number, folds)
    return loop.train(config | {"data": config["data"] | {"fold": f"{number}/{folds}"}}, folder, cache_dir)


def _pooled(workdir: Path, reports: list[dict], seed: int) -> dict:
    """Writes and returns the report over all folds."""
    tested = Tested.pooled([Tested.read(workdir / f"fold{n}") for n in range(1, len(reports) + 1)])
    report = {
        "labels": reports[0]["labels"],
        "folds": [
            {"fold": f"{n}/{len(reports)}", "best_step": r["best_step"], "test": r["test"], "baselines": r["baselines"]}
            for n, r in enumerate(reports, 1)
        ],
        "clips": len(tested.labels),
        "songs": len(np.unique(tested.songs)),
        "artists": len({tested.artists[song] for song in tested.songs} - {""}),
        **tested.results(seed),
    }
    files.write_json(workdir / "report.json", report)
    return report


def learning_curve(config: dict, workdir, counts: Sequence[int], folds: int = 0, cache_dir=None) -> list[dict]:
    """Trains with so many artists of each genre, one count after the other, in WORKDIR/artists2, artists4 …

    Args:
      config, workdir, cache_dir: as in `loop.train`.
      counts: artists of each genre in the training part; 0 for all.
      folds: pool so many folds for every count; 0 for the one split of the config.

    Returns:
      Rows of `WORKDIR/curve.csv`: artists (of each genre), system, and balanced accuracy by clip and by song, each
      with the ends of its interval; none in all processes but the first.
    """
    rows = []
    workdir = Path(workdir).absolute()
    for count in counts:
        folder = workdir / (f"artists{count}" if count else "artists_all")
        one = config | {"data": config["data"] | {"artists": count}}
        report = train_folds(one, folder, folds, cache_dir) if folds else loop.train(one, folder, cache_dir)
        if not report:
            continue
        for system, result in ({"network": report["test"]} | report["baselines"]).items():
            row: dict = {"artists": count or "all", "system": system}
            for kind in ("by_clip", "by_song"):
                low, high = result[kind]["interval"]["balanced_accuracy"]
                row |= {kind: result[kind]["balanced_accuracy"], f"{kind}_low": low, f"{kind}_high": high}
            rows.append(row)
    if rows:
        files.write_csv(workdir / "curve.csv", rows)
    return rows
