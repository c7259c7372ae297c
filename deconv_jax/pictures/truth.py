"""The sheet of planted cues: how well every method's image finds each, beside its controls."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deconv_jax.pictures.paper import DPI
from deconv_jax.pictures.spectrograms import png

_MARKS: dict[str, dict[str, Any]] = {
    "trained": {"marker": "o", "color": "#a0246c", "ms": 5},
    "random weights": {"marker": "o", "mfc": "white", "color": "0.55", "ms": 4},
    "shuffled labels": {"marker": "x", "color": "0.35", "ms": 4},
}
"""Of networks, by name; the first has intervals."""


def cue_sheet(
    table: Sequence[Mapping[str, Any]],
    follows: Sequence[Mapping[str, Any]],
    cues: Mapping[str, str],
    caption: str,
    measure: str = "ap",
) -> bytes:
    """A panel for every cue, and one for measures that know no truth.

    Args:
      table: rows with cue, present, network ("" for controls that know none), method, and `measure` with its `_low` and
        `_high`; those of clips in which the cue sounds are shown.
      follows: rows with measure, truth, within_cues with its `_low` and `_high`, and in_CUE for every cue.
      cues: names, in order, and what they are.
      caption: below, in lines as given.
    """
    count = len(cues) + 1
    columns = count if count < 5 else min(4, -(-count // 2))
    lines = [line for part in caption.splitlines() for line in textwrap.wrap(part, 56 * columns)]
    rows = -(-count // columns)
    figure = Figure(figsize=(3.1 * columns + 1, 2.9 * rows + 0.16 * len(lines) + 0.6), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    highest = [row[f"{measure}_high"] for row in table if row["present"] and np.isfinite(row[f"{measure}_high"])]
    most = min(1.0, np.ceil(10 * max(highest, default=1)) / 10)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (cue, about) in zip(panels, cues.items(), strict=False):
        some = [row for row in table if row["cue"] == cue and row["present"]]
        _cue(panel, some, measure, "\n".join([cue, *textwrap.wrap(about, 44)]))
        panel.set_xlim(-0.02, 1.02 * most)
    _following(panels[len(cues)], follows, measure)
    for panel in panels[len(cues) + 1 :]:
        panel.set_axis_off()
    for number, panel in enumerate(panels[: len(cues)]):
        if number % columns:
            panel.set_yticklabels([])
    if cues:
        figure.legend(*panels[0].get_legend_handles_labels(), fontsize=7, loc="outside upper center", ncols=5)
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=7, parse_math=False)
    canvas.draw()
    return png(canvas)


def _cue(panel: Any, rows: Sequence[Mapping[str, Any]], measure: str, title: str) -> None:
    methods = list(dict.fromkeys(row["method"] for row in rows if row["network"]))
    for name, style in _MARKS.items():
        some = {row["method"]: row for row in rows if row["network"] == name}
        for place, method in enumerate(methods):
            row = some[method]
            label = name if not place else None
            panel.plot(row[measure], place, ls="", label=label, zorder=3, **style)
            if name == "trained":
                panel.plot([row[f"{measure}_low"], row[f"{measure}_high"]], [place] * 2, color=style["color"], lw=1.2)
    for row, dashes in zip([row for row in rows if not row["network"]], ("--", ":"), strict=False):
        panel.axvline(row[measure], color="black", ls=dashes, lw=0.9, label=row["method"])
    panel.set_yticks(np.arange(len(methods)), [method.replace("_", " ") for method in methods], fontsize=7)
    panel.set_ylim(len(methods) - 0.5, -0.5)
    panel.tick_params(axis="x", labelsize=7)
    panel.set_xlabel("average precision" if measure == "ap" else measure, fontsize=7)
    panel.set_title(title, fontsize=8, parse_math=False)
    panel.grid(axis="y", color="0.92", lw=0.6)
    panel.spines[["top", "right"]].set_visible(False)


def _following(panel: Any, rows: Sequence[Mapping[str, Any]], truth: str) -> None:
    """Rank correlations with the truth among the methods of a cue, averaged over cues, and the cues' own."""
    some = [row for row in rows if row["truth"] == truth]
    for place, row in enumerate(some):
        own = [value for name, value in row.items() if name.startswith("in_")]
        panel.plot(own, [place] * len(own), "|", color="0.6", ms=7, zorder=2)
        panel.plot([row["within_cues_low"], row["within_cues_high"]], [place] * 2, color="0.2", lw=1.2, zorder=3)
        panel.plot(row["within_cues"], place, "o", color="0.2", ms=5, zorder=3)
    panel.axvline(0, color="black", lw=0.8)
    panel.set_yticks(np.arange(len(some)), [row["measure"].replace("_", "-") for row in some], fontsize=7)
    panel.yaxis.tick_right()
    panel.set_ylim(len(some) - 0.5, -0.5)
    panel.set_xlim(-1.02, 1.02)
    panel.set_xticks([-1, -0.5, 0, 0.5, 1])
    panel.tick_params(axis="x", labelsize=7)
    panel.set_xlabel("rank correlation with the truth", fontsize=7)
    panel.set_title("Do measures that know no truth follow it?\n(dot: mean of cues; ticks: the cues)", fontsize=8)
    panel.spines[["top", "left"]].set_visible(False)
