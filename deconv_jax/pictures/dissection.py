"""How many names a dissection leaves in each layer, beside how many of a control's: as a picture."""

from collections.abc import Mapping
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deconv_jax.pictures.paper import DPI
from deconv_jax.pictures.spectrograms import png

_TITLES = {
    "controls": "above every control\non both halves of the songs",
    "described": "and above the best\nsimple descriptor",
    "named": "and fall without the stem:\nnames",
}


def names_figure(about: Mapping[str, Any]) -> bytes:
    """PNG of the counts (`deconv_jax.results.dissected`): the network's and each left-out control's, by layer."""
    figure = Figure(figsize=(10, 4), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(_TITLES))
    layers = list(about["layers"])
    kinds = sorted({name.rstrip("0123456789 ") for name in about["controls"]})
    for panel, (step, title) in zip(panels, _TITLES.items(), strict=True):
        for place, layer in enumerate(layers):
            found = about["layers"][layer]
            panel.bar(
                place,
                found["counts"][step],
                0.7,
                color="#0072B2",
                alpha=0.85,
                label="the network" if not place else None,
            )
            for name, counts in found["controls"].items():
                kind = kinds.index(name.rstrip("0123456789 "))
                x = place + 0.6 * ((kind + 0.5) / len(kinds) - 0.5)
                panel.plot(x, counts[step], "o", ms=4, mfc=_COLOURS[kind % len(_COLOURS)], mec="white", mew=0.5)
        panel.set_xticks(range(len(layers)), layers)
        panel.set_xlabel("layer")
        panel.set_title(title, fontsize=10)
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    for kind, colour in zip(kinds, _COLOURS * len(kinds), strict=False):
        panels[0].plot([], [], "o", ms=4, color=colour, label=f"left out: {kind}")
    panels[0].set_ylabel("features with a name")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)
    canvas.draw()
    return png(canvas)


_COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
