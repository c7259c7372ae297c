"""The paper's table and figures as pictures. Every function returns the bytes of a PNG; saving is the caller's."""

import dataclasses
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deconv_jax.measures import kernels
from deconv_jax.measures.invariance import Average
from deconv_jax.network import receptive_field
from deconv_jax.pictures.spectrograms import frequency_axis, png
from deconv_jax.sound.levels import RANGE_DB, decibels

DPI = 150

COLOURS = {"key": "#0072B2", "chord": "#D55E00", "instrument": "#009E73"}
"""Of the paper's attributes; others take what is left of Okabe and Ito's palette for all eyes."""

_SPARE = ("#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#666666", "#6A3D9A")

LABEL_COLOURS = dict(
    zip((*kernels.LABELS, kernels.DEAD), ("#D55E00", "#0072B2", "#009E73", "#555555", "#999999"), strict=True)
)


def table(extents: Sequence[receptive_field.Extent], papers: bool) -> bytes:
    """Table 1 with the true receptive fields beside it.

    Args:
      extents: of every layer.
      papers: add what the paper prints.
    """
    head = ["layer", "kernel", "rule (ms)", "rule (Hz)", "true (frames)", "true (ms)", "true (bins)", "true (Hz)"]
    rows: list[list[str]] = []
    for e in extents:
        size = f"{e.kernel[0]}×{e.kernel[1]}"
        numbers = (e.rule_ms, e.rule_hz, e.true_frames, e.true_ms, e.true_bins, e.true_hz)
        rows.append([str(e.layer), size, *("–" if np.isnan(n) else f"{n:.0f}" for n in numbers)])
    if papers:
        head[2:2] = ["paper (ms)", "paper (Hz)"]
        for row, printed in zip(rows, receptive_field.PRINTED, strict=True):
            row[2:2] = [str(n) for n in printed]
    figure = Figure(figsize=(1.15 * len(head), 0.9 + 0.34 * len(rows)), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axis_off()
    shown = axes.table(cellText=rows, colLabels=head, loc="center", cellLoc="center", edges="horizontal")
    shown.auto_set_font_size(False)
    shown.set_fontsize(10)
    shown.scale(1, 1.5)
    for (line, column), cell in shown.get_celld().items():
        cell.set_linewidth(0.6)
        if line == 0:
            cell.set_text_props(weight="bold")
        elif papers and column in (2, 3):
            here = rows[line - 1]
            if abs(float(here[column]) - float(here[column + 2])) > 2:
                cell.set_text_props(color="#D55E00", weight="bold")
    note = " Marked: what the paper's own rule does not give." if papers else ""
    axes.set_title(f"Effective sizes by the paper's rule, and true receptive fields.{note}", fontsize=10)
    canvas.draw()
    return png(canvas)


def kernel_sheet(found: kernels.Kernels, title: str) -> bytes:
    """First-layer kernels, eight in a row, each with its profiles (below: along time; right: along frequency)."""
    count, height, width = found.weights.shape
    columns = min(8, count)
    rows = -(-count // columns)
    across, down = width + 2.8, height + 3.0
    deepest = max(np.abs(found.along_time).max(), np.abs(found.along_frequency).max()) or 1.0
    figure = Figure(figsize=(1.25 * columns + 0.9, 1.33 * rows + 0.8), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    largest = np.abs(found.weights).max() or 1.0
    for index, weights in enumerate(found.weights):
        x, y = index % columns * across, index // columns * down
        # Row 0 is the lowest frequency: drawn at the bottom, as in a spectrogram.
        extent = (x, x + width, y + height, y)
        shown = axes.imshow(weights, extent=extent, origin="lower", cmap="RdBu_r", vmin=-largest, vmax=largest)
        label = found.labels[index]
        text = f"{index}  {label}" if label == kernels.DEAD else f"{index}  {label} {found.shares[index].max():.2f}"
        axes.text(x, y - 0.25, text, fontsize=6.5, color=LABEL_COLOURS[label], va="bottom")
        middle, tall = y + height + 0.9, 0.8 / deepest
        steps = x + np.arange(width) + 0.5
        axes.plot([x, x + width], [middle, middle], color="0.75", lw=0.5)
        axes.plot(steps, middle - tall * found.along_time[index], color="0.15", lw=1, marker=".", ms=2.5)
        middle = x + width + 0.9
        steps = y + height - np.arange(height) - 0.5
        axes.plot([middle, middle], [y, y + height], color="0.75", lw=0.5)
        axes.plot(middle + tall * found.along_frequency[index], steps, color="0.15", lw=1, marker=".", ms=2.5)
    axes.set_xlim(-0.3, columns * across - 0.8)
    axes.set_ylim(rows * down - 0.9, -1.3)
    axes.set_aspect("equal")
    axes.set_axis_off()
    about = "Below each: its sum over frequency, along time. Beside each: its sum over time, along frequency."
    lines = textwrap.wrap(title, 17 * columns) + textwrap.wrap(about, 17 * columns)
    axes.set_title("\n".join(lines), fontsize=9, loc="left", parse_math=False)
    figure.colorbar(shown, ax=axes, fraction=0.02, pad=0.01, shrink=0.4).set_label("weight", fontsize=8)
    canvas.draw()
    return png(canvas)


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """A column of `feature_sheet`.

    Attributes:
      name: of the excerpt.
      original: its magnitude in the images' rows, shape (freq, time).
      images, untrained: of the features, shape (features, freq, time).
    """

    name: str
    original: np.ndarray
    images: np.ndarray
    untrained: np.ndarray


def feature_sheet(
    excerpts: Sequence[Excerpt],
    numbers: Sequence[int],
    frequencies: np.ndarray,
    seconds: float,
    title: str,
    before: str = "before training",
) -> bytes:
    """Features of one layer in rows, excerpts in columns, each excerpt beside those of the untrained network.

    Args:
      excerpts: at least one.
      numbers: of the features.
      frequencies: Hz, shape (freq,).
      seconds: length of the excerpts.
      title: shown as it is.
      before: what the untrained network is called.
    """
    rows, wide = 1 + len(numbers), 2 * len(excerpts)
    figure = Figure(figsize=(1.75 * wide + 1.4, 1.45 * rows + 1.0), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(rows, wide)
    bottom, top, ticks = frequency_axis(frequencies)
    style: dict[str, Any] = {"origin": "lower", "aspect": "auto", "cmap": "magma", "vmin": -RANGE_DB, "vmax": 0}
    style["extent"] = (0, seconds, bottom, top)

    def draw(place, image: np.ndarray, reference: float, left: str, title: str, low: bool):
        axes = figure.add_subplot(place)
        shown = axes.imshow(decibels(image, reference), **style)
        if not np.any(image):
            axes.text(0.5, 0.5, "inactive", color="white", ha="center", va="center", transform=axes.transAxes)
        if ticks:
            axes.set_yticks(ticks[0][::2], [f"{name} Hz" for name in ticks[1][::2]])
        else:
            axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1000:g} kHz")
        axes.tick_params(labelsize=7, labelleft=bool(left), labelbottom=low)
        axes.set_ylabel(left, fontsize=9)
        axes.set_title(textwrap.shorten(title, 40, placeholder="…"), fontsize=9, parse_math=False)
        if low:
            axes.set_xlabel("time (s)", fontsize=8)
        return shown

    for column, excerpt in enumerate(excerpts):
        place = grid[0, 2 * column : 2 * column + 2]
        original = excerpt.original
        draw(place, original, float(original.max()), "" if column else "input", excerpt.name, low=False)
        for offset, what, stack in ((0, "trained", excerpt.images), (1, before, excerpt.untrained)):
            reference = float(np.abs(stack).max())
            for row, image in enumerate(stack, 1):
                left = "" if column or offset else f"feature {numbers[row - 1]}"
                place = grid[row, 2 * column + offset]
                above = what if row == 1 else ""
                shown = draw(place, image, reference, left, above, low=row == rows - 1)
    bar = figure.colorbar(shown, ax=figure.axes, fraction=0.015, pad=0.01)
    bar.set_label("level (dB, 0 = loudest of the column's features, or of the input)", fontsize=8)
    figure.suptitle(title, fontsize=11, parse_math=False)
    canvas.draw()
    return png(canvas)


def signal_sheet(magnitude: np.ndarray, frequencies: np.ndarray, seconds: float, title: str, top: float) -> bytes:
    """A model signal's spectrogram up to `top` Hz (Figure 9)."""
    figure = Figure(figsize=(7.2, 3.4), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    step = frequencies[1] - frequencies[0]
    extent = (0, seconds, frequencies[0] - step / 2, frequencies[-1] + step / 2)
    level = decibels(magnitude, float(magnitude.max()))
    shown = axes.imshow(level, origin="lower", aspect="auto", cmap="magma", vmin=-RANGE_DB, vmax=0, extent=extent)
    axes.set(xlabel="time (s)", ylabel="frequency (Hz)", ylim=(0, top))
    axes.set_title(title, fontsize=10, parse_math=False)
    figure.colorbar(shown, ax=axes).set_label("level (dB, 0 = loudest)", fontsize=8)
    canvas.draw()
    return png(canvas)


@dataclasses.dataclass(frozen=True)
class Series:
    """One network, or the raw input, in Figure 10.

    Attributes:
      name: for the legend.
      kind: "trained", "random", "null" or "input".
      averages: (layer, attribute) → mean and standard deviation over features and pairs.
      intervals: (layer, attribute) → confidence interval of the mean.
      spread: (layer, attribute) → lowest and highest mean among several networks; None for one.
      differences: (layer, attribute) → mean of the network in question minus this, and the interval's ends; None for
        the network in question itself, and for the input, which is no network.
    """

    name: str
    kind: str
    averages: Mapping[tuple[int, str], Average]
    intervals: Mapping[tuple[int, str], tuple[float, float]]
    spread: Mapping[tuple[int, str], tuple[float, float]] | None = None
    differences: Mapping[tuple[int, str], tuple[float, float, float]] | None = None


_STYLE: dict[str, dict[str, Any]] = {
    "trained": {"marker": "o", "ls": "-", "lw": 1.8, "ms": 6, "zorder": 4},
    "random": {"marker": "s", "ls": "--", "lw": 1.1, "ms": 4.5, "zorder": 3, "color": "0.45", "mfc": "white"},
    "null": {"marker": "^", "ls": ":", "lw": 1.3, "ms": 5, "zorder": 3, "color": "#8A4FBF", "mfc": "white"},
}


def invariance_sheet(
    series: Sequence[Series], attributes: Sequence[str], layers: Sequence[int], title: str, caption: str
) -> bytes:
    """Figure 10 with its controls.

    Above as the paper plots it; then one panel per attribute with the controls; below how far the network differs
    from each control, whose interval is the narrower one, since both hear the same signals.

    Args:
      series: the network in question first.
      attributes: one colour, and one panel below, each.
      layers: ascending.
      title, caption: shown as they are, the caption below in lines as given.
    """
    spare = iter(_SPARE * len(attributes))
    colours = {name: COLOURS[name] if name in COLOURS else next(spare) for name in attributes}
    wide = max(2, len(attributes))
    lines = [line for part in caption.splitlines() for line in textwrap.wrap(part, 58 * wide) or [""]]
    compared = [s for s in series if s.differences]
    size = (4.1 * wide, 7.6 + (2.4 if compared else 0) + 0.17 * len(lines))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    heights = (1, 1.15, 0.75) if compared else (1, 1.15)
    grid = figure.add_gridspec(len(heights), len(attributes), height_ratios=heights)
    top = figure.add_subplot(grid[0, :])
    _as_in_the_paper(top, series[0], colours, layers)
    panels = [figure.add_subplot(grid[1, index]) for index in range(len(attributes))]
    _beside_controls(panels, series, colours, layers)
    below: list[Any] = []
    for index in range(len(attributes) if compared else 0):
        below.append(figure.add_subplot(grid[2, index], sharey=below[0] if below else None))
    _minus_controls(below, series[0].name, compared, attributes, layers)
    for panel in (top, *panels, *below):
        panel.set_xticks(np.arange(len(layers)), [f"layer {layer}" for layer in layers], fontsize=8)
        panel.set_xlim(-0.5, len(layers) - 0.5)
        panel.grid(axis="y", color="0.9", lw=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=12, parse_math=False)
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, parse_math=False)
    canvas.draw()
    return png(canvas)


def mask_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], kind: Callable[[str], str], caption: str) -> bytes:
    """How probable an answer is with so many cells put in, and with so many taken out, in the order of each method.

    Args:
      curves: name → insertion and deletion, each of shape (steps + 1,), over equal shares of cells from none to all.
      kind: of a name: "method", drawn in a colour of its own; "untrained", the same dotted; "control", in black.
      caption: below, in lines as given.
    """
    names = [name for name in curves if kind(name) == "method"]
    palette = (*COLOURS.values(), *_SPARE)
    colours = {name: palette[index % len(palette)] for index, name in enumerate(names)}
    lines = [line for part in caption.splitlines() for line in textwrap.wrap(part, 118)]
    figure = Figure(figsize=(9, 4.4 + 0.17 * len(lines)), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    grey = iter(("--", "-."))
    for name, both in curves.items():
        style: dict[str, Any] = {"color": "black", "ls": next(grey)} if kind(name) == "control" else {}
        if kind(name) != "control":
            colour = next(colours[method] for method in names if name.split(",")[0] == method)
            style = {"color": colour, "ls": "-" if kind(name) == "method" else ":", "lw": 1.6}
        for panel, curve in zip(panels, both, strict=True):
            panel.plot(np.linspace(0, 100, len(curve)), curve, label=name, **style)
    for panel, title in zip(panels, ("put into silence: higher is better", "taken out: lower is better"), strict=True):
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("% of cells, in the method's order")
        panel.set_ylim(0, 1)
        panel.grid(color="0.9", lw=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("probability of the first answer")
    panels[0].legend(*_shown(panels[0], kind), fontsize=7, loc="lower right")
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8, parse_math=False)
    canvas.draw()
    return png(canvas)


def _shown(panel: Any, kind: Callable[[str], str]) -> tuple[list[Any], list[str]]:
    """Entries of the legend: one for all that are untrained."""
    handles, names = panel.get_legend_handles_labels()
    kept = [(h, n) for h, n in zip(handles, names, strict=True) if kind(n) != "untrained"]
    kept += [
        (h, "dotted: the same with random weights") for h, n in zip(handles, names, strict=True) if (h, n) not in kept
    ][:1]
    return [h for h, _ in kept], [n for _, n in kept]


def _beside_each_other(count: int, index: int, layers: Sequence[int], apart: float) -> np.ndarray:
    """Places on the axis of layers for the one of `count` series that stands at `index`."""
    return np.arange(len(layers)) + (index - (count - 1) / 2) * apart


def _as_in_the_paper(panel, main: Series, colours: Mapping[str, str], layers: Sequence[int]) -> None:
    for index, (name, colour) in enumerate(colours.items()):
        there = [main.averages[layer, name] for layer in layers]
        x = _beside_each_other(len(colours), index, layers, 0.16)
        style: dict[str, Any] = {"marker": "o", "ms": 6, "lw": 1.5, "elinewidth": 1, "capsize": 3}
        panel.errorbar(x, [a.mean for a in there], [a.deviation for a in there], color=colour, label=name, **style)
    panel.set_title(
        f"As the paper plots it: {main.name}, mean ± standard deviation over features and pairs", fontsize=10
    )
    panel.set_ylabel("mean correlation of images")
    panel.legend(title="pairs that differ in", fontsize=9, title_fontsize=9, ncols=min(4, len(colours)), loc="best")


def _beside_controls(panels, series: Sequence[Series], colours: Mapping[str, str], layers: Sequence[int]) -> None:
    edges = []
    drawn = [s for s in series if s.kind != "input"]
    for panel, (name, colour) in zip(panels, colours.items(), strict=True):
        for order, one in enumerate(drawn):
            x = _beside_each_other(len(drawn), order, layers, 0.12)
            mean = np.array([one.averages[layer, name].mean for layer in layers])
            bounds = np.array([one.intervals[layer, name] for layer in layers]).T
            style: dict[str, Any] = {"color": colour} | _STYLE[one.kind]
            # A percentile interval need not hold the mean.
            bars = np.clip([mean - bounds[0], bounds[1] - mean], 0, None)
            panel.errorbar(x, mean, bars, elinewidth=1.1, capsize=2.5, label=one.name, **style)
            if one.spread:
                low, high = np.array([one.spread[layer, name] for layer in layers]).T
                panel.fill_between(x, low, high, color=style["color"], alpha=0.18, lw=0, zorder=1)
            edges += [*bounds[0], *bounds[1]]
        for one in (s for s in series if s.kind == "input"):  # has no layers
            cell = (layers[0], name)
            low, high = one.intervals[cell]
            panel.axhline(one.averages[cell].mean, color="black", lw=1, ls=(0, (1, 1.5)), label=one.name, zorder=2)
            panel.axhspan(low, high, color="black", alpha=0.07, lw=0, zorder=0)
            edges += [low, high]
        panel.set_title(f"pairs that differ in {name}", fontsize=10, color=colour, parse_math=False)
    known = [e for e in edges if np.isfinite(e)] or [0.0, 1.0]
    margin = 0.05 * (max(known) - min(known)) + 1e-3
    for panel in panels:
        panel.set_ylim(min(known) - margin, max(known) + margin)
    panels[0].legend(fontsize=8, loc="best")
    panels[0].set_ylabel("mean correlation of images")


def _minus_controls(panels, main: str, compared: Sequence[Series], attributes, layers: Sequence[int]) -> None:
    for panel, name in zip(panels, attributes if panels else (), strict=True):
        panel.axhline(0, color="0.4", lw=0.8)
        for order, one in enumerate(compared):
            mean, low, high = np.array([one.differences[layer, name] for layer in layers if one.differences]).T
            x = _beside_each_other(len(compared), order, layers, 0.12)
            bars = np.clip([mean - low, high - mean], 0, None)
            style = _STYLE[one.kind] | {"ls": "none"}
            panel.errorbar(x, mean, bars, elinewidth=1.1, capsize=2.5, label=f"minus {one.name}", **style)
        panel.set_title(f"{main} minus control: {name}", fontsize=9, parse_math=False)
    if panels:
        panels[0].set_ylabel("difference")
        panels[0].legend(fontsize=7, loc="best")
