"""Arrays → pictures. Every function returns the bytes of a PNG; saving is the caller's."""

import io

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from deconv_jax.sound.levels import RANGE_DB, decibels

BLANK = "inactive: no part of this clip activates it"
"""Written across the picture of an image that is zero everywhere."""


class SpectrogramSheet:
    """Axes for spectrograms of one shape, drawn once; each picture only redraws the image and its title.

    Args:
      frequencies: Hz, shape (freq,), rising; mel bands and constant-Q bins get rows of equal height and ticks in Hz.
      seconds: length of the clip in seconds.
      scale: what 0 dB stands for, written beside the scale bar.
    """

    def __init__(self, frequencies: np.ndarray, seconds: float, scale: str):
        self._figure = Figure(figsize=(7.2, 3.6), dpi=100, layout="constrained")
        self._canvas = FigureCanvasAgg(self._figure)
        axes = self._figure.add_subplot()
        bottom, top, ticks = frequency_axis(frequencies)
        self._image = axes.imshow(
            np.zeros((len(frequencies), 2)),
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            cmap="magma",
            vmin=-RANGE_DB,
            vmax=0,
            extent=(0, seconds, bottom, top),
        )
        if ticks:
            axes.set_yticks(*ticks)
        axes.set_xlabel("time (s)")
        axes.set_ylabel("frequency (Hz)")
        self._title = axes.set_title(" ", fontsize=10, parse_math=False)
        self._figure.colorbar(self._image, ax=axes).set_label(f"level (dB, 0 = {scale})", fontsize=8)
        self._note = axes.text(
            0.5, 0.5, BLANK, color="white", ha="center", va="center", fontsize=14, transform=axes.transAxes
        )
        self._changing = (self._image, self._title, self._note)
        for artist in self._changing:
            artist.set_animated(True)
        self._canvas.draw()
        self._background = self._canvas.copy_from_bbox(self._figure.bbox)

    def draw(self, image: np.ndarray, reference: float, title: str) -> bytes:
        """A spectrogram as PNG.

        Args:
          image: shape (freq, time); its absolute value is shown.
          reference: the value at 0 dB; share it among pictures that are to be compared.
          title: shown as it is (no mathematics in dollar signs).
        """
        self._image.set_data(decibels(image, reference))
        self._title.set_text(title)
        self._note.set_visible(not np.any(image))
        self._canvas.restore_region(self._background)
        for artist in self._changing:
            self._figure.draw_artist(artist)
        return png(self._canvas)


def frequency_axis(frequencies: np.ndarray) -> tuple[float, float, tuple[np.ndarray, list[str]] | None]:
    """Bottom and top of an axis whose rows are equally high, and its ticks in Hz if the rows are not evenly spaced."""
    step = frequencies[1] - frequencies[0] if len(frequencies) > 1 else 1.0
    if np.allclose(np.diff(frequencies), step, rtol=1e-3):
        return frequencies[0] - step / 2, frequencies[-1] + step / 2, None
    round_numbers = np.array([m * 10**k for k in (1, 2, 3, 4) for m in (1, 2, 5)])
    shown = round_numbers[(round_numbers >= frequencies[0]) & (round_numbers <= frequencies[-1])]
    places = np.interp(shown, frequencies, np.arange(len(frequencies)))
    keep = [i for i in range(len(shown)) if i == 0 or places[i] - places[i - 1] > 0.03 * len(frequencies)]
    return -0.5, len(frequencies) - 0.5, (places[keep], [f"{hz:g}" for hz in shown[keep]])


def layer_sheet(images: np.ndarray, numbers, frequencies: np.ndarray, seconds: float, title: str) -> bytes:
    """All features of a layer on one sheet, eight in a row, with one scale.

    Args:
      images: shape (features, freq, time); absolute values are shown.
      numbers: of the features, shape (features,).
      frequencies: Hz, shape (freq,).
      seconds: length of the clip.
      title: shown as it is.
    """
    columns, gap = min(8, len(images)), 6
    step = -(-images.shape[2] // 200)  # long clips: the strongest of so many frames
    short = np.stack([_strongest_of(np.abs(i), step) for i in images])
    count, height, width = short.shape
    rows = -(-count // columns)
    reference = float(short.max())
    mosaic = np.full((rows, columns, height + gap, width + gap), np.nan)
    for index, image in enumerate(short):
        mosaic[index // columns, index % columns, :height, :width] = decibels(image, reference)[::-1]
    mosaic = mosaic.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap))
    figure = Figure(figsize=(1.6 * columns + 1, 1.75 * rows + 0.6), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = axes.imshow(mosaic, aspect="auto", cmap="magma", vmin=-RANGE_DB, vmax=0)
    for index, number in enumerate(numbers):
        note = str(number) if np.any(images[index]) else f"{number} inactive"
        place = (index % columns * (width + gap) + 4, index // columns * (height + gap) + 4)
        axes.text(*place, note, color="white", fontsize=9, va="top")
    axes.set_axis_off()
    low = 0 if frequency_axis(frequencies)[2] is None else frequencies[0]
    about = f"each {low:.0f} to {frequencies[-1]:.0f} Hz, {seconds:g} s"
    axes.set_title(f"{title} ({about})", fontsize=11, parse_math=False)
    figure.colorbar(shown, ax=axes, fraction=0.02, pad=0.01).set_label(
        "level (dB, 0 = loudest of the layer)", fontsize=9
    )
    canvas.draw()
    return png(canvas)


def _strongest_of(image: np.ndarray, step: int) -> np.ndarray:
    """(freq, time) → (freq, time / step): the largest of every `step` frames."""
    padded = np.pad(image, ((0, 0), (0, -image.shape[1] % step)))
    return padded.reshape(len(image), -1, step).max(axis=2)


LEVEL_STEP = 3
"""Grey values between two levels of `level_picture`."""


def level_picture(image: np.ndarray, columns: int = 2048) -> bytes:
    """A spectrogram as a grey PNG without axes, one pixel for each bin and frame, low frequencies at the bottom.

    Small and quick to write: the listening page colours it and draws its axes. Grey value `LEVEL_STEP` · (70 + level),
    where the level is in whole dB below the loudest value of |image|; 0 for an image that is zero everywhere.

    Args:
      image: shape (freq, time).
      columns: pixels that it is wide at most; a longer clip shows the strongest of so many frames.
    """
    strength = _strongest_of(np.abs(image), -(-image.shape[1] // columns))
    levels = decibels(strength, float(strength.max(initial=0))) + RANGE_DB
    grey = (LEVEL_STEP * np.rint(levels)).astype(np.uint8) if np.any(image) else np.zeros(strength.shape, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey[::-1])).save(buffer, "png", compress_level=6)
    return buffer.getvalue()


def coloured_picture(image: np.ndarray, columns: int = 512) -> bytes:
    """`level_picture` with its colours in it, for pages that do without a script to draw it."""
    picture = Image.open(io.BytesIO(level_picture(image, columns)))
    table = matplotlib.colormaps["magma"](np.arange(256) / (LEVEL_STEP * RANGE_DB), bytes=True)
    picture.putpalette(table[:, :3].tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "png", compress_level=6)
    return buffer.getvalue()


def colours() -> list[str]:
    """The colour of every whole level from -70 to 0 dB, "#rrggbb"."""
    table = matplotlib.colormaps["magma"](np.linspace(0, 1, int(RANGE_DB) + 1), bytes=True)
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b, _ in table]


def training_sheet(
    history: list[dict], confusion: np.ndarray, labels: list[str], accuracies: dict[str, float]
) -> bytes:
    """Loss and accuracy by epoch, the confusion matrix of the test songs, and the test beside its baselines.

    Args:
      history: per epoch: epoch, train_loss, train_accuracy, validation_loss, validation_accuracy.
      confusion: counts, shape (true, predicted).
      labels: names of the classes.
      accuracies: name → accuracy by clip, 0 to 1.
    """
    figure = Figure(figsize=(13, 4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    curve, matrix, bars = figure.subplots(1, 3)
    epochs = [h["epoch"] for h in history]
    for part in ("train", "validation"):
        curve.plot(epochs, [h[f"{part}_accuracy"] for h in history], marker=".", label=f"{part} accuracy")
        curve.plot(epochs, [h[f"{part}_loss"] for h in history], marker=".", ls=":", label=f"{part} loss")
    curve.set(xlabel="epoch", ylim=(0, None), title="training")
    curve.legend(fontsize=8)
    matrix.imshow(confusion, cmap="Blues")
    for (i, j), n in np.ndenumerate(confusion):
        matrix.text(j, i, str(n), ha="center", va="center", color="white" if n > confusion.max() / 2 else "black")
    ticks = range(len(labels))
    matrix.set_xticks(ticks, labels, parse_math=False)
    matrix.set_yticks(ticks, labels, parse_math=False)
    matrix.set(xlabel="predicted", ylabel="true", title="test songs")
    names = list(accuracies)
    bars.barh(names[::-1], [accuracies[n] for n in names[::-1]], color="tab:purple")
    for y, name in enumerate(names[::-1]):
        bars.text(accuracies[name], y, f" {accuracies[name]:.3f}", va="center")
    bars.set(xlim=(0, 1.15), xlabel="accuracy by clip", title="test clips")
    canvas.draw()
    return png(canvas)


def png(canvas: FigureCanvasAgg) -> bytes:
    """What the canvas shows; the fastest compression, since encoding would else cost more than drawing."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
