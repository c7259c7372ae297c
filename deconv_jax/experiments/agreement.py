"""Do measures that know no truth follow it? Rank correlations over methods and planted cues, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from deconv_jax.measures.intervals import interval

FAITHFUL = {"ai": 1, "ad": -1, "ag": 1, "ff": 1, "fid_in": 1, "deletion": -1, "insertion": 1}
"""Measures that know no truth, and whether more of them is said to be better."""

TRUE = ("ap", "f1", "energy", "auroc")
"""Measures of truth that these are held against; the first is the one that figures and sentences are about."""


def follows(rows: Sequence[Mapping[str, Any]], draws: int) -> list[dict[str, Any]]:
    """Whether methods that score higher by a measure that knows no truth find more of the cue.

    Spearman's correlation between means over songs: among the methods of each cue, averaged over cues, and over all
    pairs of method and cue at once, where a cue that is easy for all methods counts too. Intervals resample cues, and
    the songs of each: of few cues they are wide, and that is what can be said.

    Args:
      rows: of each cue's network: cue, method and song of a clip, with what is in `FAITHFUL` and `TRUE`; every cue has
        the same methods, and they the same clips.
      draws: of the bootstrap.

    Returns:
      A row for every pair of measures: "within_cues" and "over_all", each with its "_low" and "_high"; how many "cues"
      and "cells" (methods of cues); and each cue's own, "in_CUE". NaN where a side is the same for all methods.
    """
    cues = list(dict.fromkeys(row["cue"] for row in rows))
    tables = [_table([row for row in rows if row["cue"] == cue]) for cue in cues]
    if not tables:
        return []
    rng = np.random.default_rng(0)
    means = [_means(table, np.arange(table.shape[1])[None]) for table in tables]
    drawn = [_means(t, rng.integers(t.shape[1], size=(draws, t.shape[1]))) for t in tables]
    chosen = rng.integers(len(cues), size=(draws, len(cues)))
    own = np.stack([_correlations(mean)[0] for mean in means])
    within = np.stack([_correlations(mean) for mean in drawn], axis=1)[np.arange(draws)[:, None], chosen]
    every = np.stack(drawn)[chosen, np.arange(draws)[:, None]].reshape(draws, -1, len(FAITHFUL) + len(TRUE))
    found = {
        "within_cues": (mean_of(own, 0), mean_of(within, 1)),
        "over_all": (_correlations(np.concatenate(means, axis=1))[0], _correlations(every)),
    }
    out = []
    for i, measure in enumerate(FAITHFUL):
        for j, true in enumerate(TRUE):
            entry: dict[str, Any] = {"measure": measure, "truth": true}
            for name, (value, draw) in found.items():
                low, high = interval(draw[:, i, j]) if len(cues) > 1 else (np.nan, np.nan)
                entry |= {name: float(value[i, j]), f"{name}_low": low, f"{name}_high": high}
            entry |= {"cues": len(cues), "cells": sum(len(table) for table in tables)}
            out.append(entry | {f"in_{cue}": float(r) for cue, r in zip(cues, own[:, i, j], strict=True)})
    return out


def mean_of(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """The mean of what is a number; NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(axis=axis)
    return np.where(count, np.where(there, values, 0).sum(axis=axis) / np.maximum(count, 1), np.nan)


def _table(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(methods, songs, measures), more of each being better."""
    signs = FAITHFUL | dict.fromkeys(TRUE, 1)
    methods, songs = (list(dict.fromkeys(row[name] for row in rows)) for name in ("method", "song"))
    found: list[list[list]] = [[[] for _ in songs] for _ in methods]
    for row in rows:
        values = [sign * row[name] for name, sign in signs.items()]
        found[methods.index(row["method"])][songs.index(row["song"])].append(values)
    return np.stack([[mean_of(np.array(clips, float), 0) for clips in own] for own in found])


def _means(table: np.ndarray, songs: np.ndarray) -> np.ndarray:
    """(methods, songs, measures) at so many draws of songs (draws, songs) → means (draws, methods, measures)."""
    weights = np.stack([np.bincount(row, minlength=table.shape[1]) for row in songs]).astype(float)
    there = np.isfinite(table)
    total, count = (np.einsum("ds,msk->dmk", weights, x) for x in (np.where(there, table, 0), there.astype(float)))
    return total / np.where(count, count, np.nan)


def _correlations(means: np.ndarray) -> np.ndarray:
    """(draws, methods, measures) → Spearman's, (draws, faithful, true); NaN where one side is constant."""
    ranks = stats.rankdata(means.round(9), axis=1)  # sums in another order are no difference
    ranks -= ranks.mean(axis=1, keepdims=True)
    size = np.sqrt((ranks**2).sum(axis=1))
    one, other = np.split(np.arange(ranks.shape[2]), [len(FAITHFUL)])
    product = np.einsum("dmi,dmj->dij", ranks[:, :, one], ranks[:, :, other])
    scale = size[:, one, None] * size[:, None, other]
    return np.where(scale > 0, product / np.where(scale > 0, scale, 1), np.nan)
