"""Arrays → pictures. Every function returns the bytes of a PNG; saving is the caller's.

Spectrograms are drawn as arrays, with Pillow for letters and lines: Matplotlib takes a second to import, and twenty
times as long for each. The letters are those that come with it.
"""

import base64
import functools
import importlib.util
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from deconv_jax.sound.levels import RANGE_DB, decibels

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

BLANK = "inactive: no part of this clip activates it"
"""Written across the picture of an image that is zero everywhere."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels; the last two are outside."""

MAGMA = np.frombuffer(
    base64.b64decode(
        b"AAADAAAEAAAGAQAHAQEJAQELAgINAgIPAwMRBAMTBAQVBQQXBgUZBwUbCAYdCQcfCgciCwgkDAkmDQooDgoqDwssEAwvEQwxEg0zFA01FQ44Fg46"
        b"Fw88GA8/GhBBGxBEHBBGHhBJHxFLIBFNIhFQIxFSJRFVJhFXKBFZKhFcKxFeLRBgLxBiMBBlMhBnNBBoNQ9qNw9sOQ9uOw9vPA9xPg9yQA9zQg90"
        b"Qw91RQ92Rw93SBB4ShB5SxB5TRF6TxF7UBJ7UhJ8UxN8VRN9VxR9WBV+WhV+WxZ+XRd+Xhd/YBh/YRh/Yxl/ZRqAZhqAaBuAaRyAaxyAbB2Abh6B"
        b"bx6BcR+Bcx+BdCCBdiGBdyGBeSKBeiKBfCOBfiSBfySBgSWBgiWBhCaBhSaBhyeBiSiBiiiBjCmAjSmAjyqAkSqAkiuAlCuAlSyAlyx/mS1/mi1/"
        b"nC5/ni5+ny9+oS9+ozB+pDB9pjF9pzF9qTJ8qzN8rDN7rjR7sDR7sTV6szV6tTZ5tjZ5uDd4uTd4uzh3vTl3vjl2wDp1wjp1wzt0xTx0xjxzyD1y"
        b"yj5yyz5xzT9wzkBw0EFv0UJu00Jt1ENt1kRs10Vr2UZq2kdp3Ehp3Ulo3kpn4Etm4Uxm4k1l5E5k5VBj5lFi51Ji6FRh6lVg61Zg7Fhf7Vlf7lte"
        b"7l1d715d8GBd8WFc8mNc82Vc82db9Ghb9Wpb9Wxb9m5b9nBb93Fb93Nc+HVc+Hdc+Xlc+Xtd+X1d+n9e+oBe+oJf+4Rg+4Zg+4hh+4pi/Ixj/I5j"
        b"/JBk/JJl/JNm/ZVn/Zdo/Zlp/Ztq/Z1r/Z9s/aFu/aJv/aRw/qZx/qhz/qp0/qx1/q52/q94/rF5/rN7/rV8/rd9/rl//ruA/ryC/r6D/sCF/sKG"
        b"/sSI/saJ/seL/smN/suO/c2Q/c+S/dGT/dKV/dSX/daY/dia/dqc/dyd/d2f/d+h/eGj/OOl/OWm/Oao/Oiq/Oqs/Oyu/O6w/PCx/PGz/PO1/PW3"
        b"+/e5+/m7+/q9+/y/"
    ),
    np.uint8,
).reshape(256, 3)
"""Matplotlib's colour map of that name (CC0), from low to high, shape (256, 3)."""

_LEVELS = 216
"""Of the 256 colours of a sheet those of levels; the others are greys, from black to white."""


class SpectrogramSheet:
    """Axes for spectrograms of one shape, drawn once; each picture only redraws the image and its title.

    Args:
      frequencies: Hz, shape (freq,), rising; mel bands and constant-Q bins get rows of equal height and ticks in Hz.
      seconds: length of the clip in seconds.
      scale: what 0 dB stands for, written beside the scale bar.
    """

    def __init__(self, frequencies: np.ndarray, seconds: float, scale: str):
        across, upwards = marks(frequencies, seconds)
        widest = max((_font(10).getlength(name) for _, name in upwards), default=0)
        self._box = (34 + round(widest), 23, 605, 312)
        self._paper = Image.new("L", (720, 360), 255)
        left, high, right, low = self._box
        bar = (643, high, 657, low)
        _axis(self._paper, self._box, upwards)
        _axis(self._paper, self._box, across, "below")
        _scale_axis(self._paper, bar)
        _write(self._paper, ((left + right) / 2, 347), "time (s)", anchor="mm")
        _write(self._paper, (10, (high + low) / 2), "frequency (Hz)", anchor="mm", upwards=True)
        _write(self._paper, (707, (high + low) / 2), f"level (dB, 0 = {scale})", 8, anchor="mm", upwards=True)
        self._background = _greys(self._paper)
        _place(self._background, bar, np.arange(_LEVELS, dtype=np.uint8)[::-1, None])

    def draw(self, image: np.ndarray, reference: float, title: str) -> bytes:
        """A spectrogram as PNG.

        Args:
          image: shape (freq, time); its absolute value is shown.
          reference: the value at 0 dB; share it among pictures that are to be compared.
          title: shown as it is (no mathematics in dollar signs).
        """
        left, high, right, low = self._box
        pixels = self._background.copy()
        strip = Image.new("L", (right + 20, high - 1), 255)
        _write(strip, ((left + right) / 2, high - 8), title, anchor="ms")
        pixels[: strip.height, : strip.width] = _greys(strip)
        if np.any(image):
            _place(pixels, self._box, np.rint((_LEVELS - 1) * _shares(image, reference)).astype(np.uint8)[::-1])
        else:
            blank = Image.new("L", (right - left, low - high), 0)
            _write(blank, (blank.width / 2, blank.height / 2), BLANK, 14, "white", "mm")
            _place(pixels, self._box, _greys(blank))
        picture = Image.fromarray(pixels)
        picture.putpalette(_palette())
        return _png(picture)


@functools.cache
def _palette() -> bytes:
    greys = np.linspace(0, 255, 256 - _LEVELS).round().astype(np.uint8)
    return _coloured(np.linspace(0, 1, _LEVELS)).tobytes() + np.repeat(greys, 3).tobytes()


def _greys(picture: Image.Image) -> np.ndarray:
    """A grey picture in a sheet's colours, shape (height, width)."""
    return (_LEVELS + (255 - _LEVELS) / 255 * np.asarray(picture) + 0.5).astype(np.uint8)


def _shares(image: np.ndarray, reference: float) -> np.ndarray:
    """Levels of |image| from the bottom of the scale, 0, to its top, 1 and above."""
    return np.minimum(decibels(image, reference) / RANGE_DB + 1, 1)


def _coloured(shares: np.ndarray) -> np.ndarray:
    """Shares of the scale → colours, shape (..., 3), uint8."""
    return MAGMA[np.minimum(256 * shares, 255).astype(int)]


def _place(pixels: np.ndarray, box: Box, image: np.ndarray) -> None:
    """Puts an image (height, width, ...) into a box of pixels, enlarged or reduced: every pixel has the nearest's."""
    left, top, right, bottom = box
    height, width = bottom - top, right - left
    rows, columns = ((2 * np.arange(n) + 1) * m // (2 * n) for n, m in zip((height, width), image.shape, strict=False))
    pixels[top:bottom, left:right] = image[rows[:, None], columns]


@functools.cache
def _font(points: float) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, for 100 dots to an inch."""
    places = importlib.util.find_spec("matplotlib").submodule_search_locations  # type: ignore[union-attr]
    path = Path(next(iter(places or []))) / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(str(path), points * 100 / 72, layout_engine=ImageFont.Layout.BASIC)


def _write(
    picture: Image.Image,
    place: tuple[float, float],
    text: str,
    points: float = 10,
    colour: str = "black",
    anchor: str = "lm",
    upwards: bool = False,
) -> None:
    """Writes a line of text at a place; `anchor` is Pillow's. Upwards: turned, black on white, centred."""
    if not upwards:
        ImageDraw.Draw(picture).text(place, text, colour, _font(points), anchor)
        return
    length = math.ceil(_font(points).getlength(text)) + 2
    line = Image.new(picture.mode, (length, round(2 * points)), "white")
    _write(line, (length / 2, line.height / 2), text, points, colour, "mm")
    line = line.transpose(Image.Transpose.ROTATE_90)
    picture.paste(line, (round(place[0] - line.width / 2), round(place[1] - line.height / 2)))


def _axis(picture: Image.Image, box: Box, ticks: Sequence[tuple[float, str]], side: str = "left") -> None:
    """A frame round a box, and ticks (share of its length, text) on one side of it: left, below or right."""
    left, top, right, bottom = box
    pen = ImageDraw.Draw(picture)
    pen.rectangle((left - 1, top - 1, right, bottom), outline="black")
    for share, name in ticks:
        if side == "below":
            x = left - 0.5 + share * (right - left)
            pen.line((round(x), bottom, round(x), bottom + 5), "black")
            _write(picture, (x, bottom + 17), name, anchor="mm")
            continue
        y, x, out, anchor = bottom - share * (bottom - top), *((left, -1, "rm") if side == "left" else (right, 1, "lm"))
        pen.line((x, round(y), x + 5 * out, round(y)), "black")
        _write(picture, (x + 10 * out, y), name, anchor=anchor)


def _scale_axis(picture: Image.Image, box: Box) -> None:
    """The frame and the ticks of a scale bar."""
    places, names = _even_ticks(-RANGE_DB, 0, min(9, max(1, (box[3] - box[1]) // 28)))
    _axis(picture, box, list(zip(1 + places / RANGE_DB, names, strict=True)), "right")


def _even_ticks(low: float, high: float, most: int = 9) -> tuple[np.ndarray, list[str]]:
    """Round numbers between two others, at most so many steps, and their text."""
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(m for m in (1, 2, 2.5, 5, 10) if m * unit >= rough * (1 - 1e-9))
    places = step * np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    digits = next(n for n in range(20) if abs(step - round(step, n)) < 1e-6 * step)
    return places, [f"{place:.{digits}f}".replace("-", "−") for place in places]


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


def marks(frequencies: np.ndarray, seconds: float) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
    """Ticks of a spectrogram's axes, time in s and frequency in Hz, each as (share of the length, text)."""
    bottom, top, known = frequency_axis(frequencies)
    places, names = known or _even_ticks(bottom, top)
    upwards = [(float((p - bottom) / (top - bottom)), n) for p, n in zip(places, names, strict=True)]
    return [(float(p / seconds), name) for p, name in zip(*_even_ticks(0, seconds), strict=True)], upwards


def layer_sheet(images: np.ndarray, numbers, frequencies: np.ndarray, seconds: float, title: str) -> bytes:
    """All features of a layer on one sheet, eight in a row, with one scale.

    Args:
      images: shape (features, freq, time); absolute values are shown.
      numbers: of the features, shape (features,).
      frequencies: Hz, shape (freq,).
      seconds: length of the clip.
      title: shown as it is.
    """
    columns = min(8, len(images))
    rows = -(-len(images) // columns)
    width, height = 160 * columns + 100, 175 * rows + 60
    reference = float(np.abs(images).max())
    pixels = np.full((height, width, 3), 255, np.uint8)
    left, high, right, low = 4, 24, width - 94, height - 4
    corners = []
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        x, y = left + (right - left) * column // columns, high + (low - high) * row // rows
        box = (x, y, left + (right - left) * (column + 1) // columns - 4, high + (low - high) * (row + 1) // rows - 4)
        short = _strongest_of(np.abs(image), -(-image.shape[1] // 200))  # long clips: the strongest of so many frames
        _place(pixels, box, _coloured(_shares(short, reference)[::-1]))
        corners.append((x + 4, y + 3))
    reach = max(min(200, low - high), (low - high) * 7 // 20) // 2
    bar = (width - 84, (high + low) // 2 - reach, width - 66, (high + low) // 2 + reach)
    _place(pixels, bar, _coloured(np.linspace(1, 0, 256))[:, None])
    picture = Image.fromarray(pixels)
    for corner, number, image in zip(corners, numbers, images, strict=True):
        _write(picture, corner, str(number) if np.any(image) else f"{number} inactive", 9, "white", "la")
    _scale_axis(picture, bar)
    _write(picture, (width - 12, height / 2), "level (dB, 0 = loudest of the layer)", 9, upwards=True)
    lowest = 0 if frequency_axis(frequencies)[2] is None else frequencies[0]
    about = f"each {lowest:.0f} to {frequencies[-1]:.0f} Hz, {seconds:g} s"
    _write(picture, ((left + right) / 2, high - 8), f"{title} ({about})", 11, anchor="ms")
    return _png(picture)


def _strongest_of(image: np.ndarray, step: int) -> np.ndarray:
    """(freq, time) → (freq, time / step): the largest of every `step` frames."""
    padded = np.pad(image, ((0, 0), (0, -image.shape[1] % step)))
    return padded.reshape(len(image), -1, step).max(axis=2)


LEVEL_STEP = 3
"""Grey values between two levels of `level_picture`."""


def level_picture(image: np.ndarray, columns: int = 2048, reference: float | None = None) -> bytes:
    """A spectrogram as a grey PNG without axes, one pixel for each bin and frame, low frequencies at the bottom.

    Small and quick to write: the listening page colours it and draws its axes. Grey value `LEVEL_STEP` · (70 + level),
    where the level is in whole dB below a reference; 0 for an image that is zero everywhere.

    Args:
      image: shape (freq, time).
      columns: pixels that it is wide at most; a longer clip shows the strongest of so many frames.
      reference: no less than the loudest value of |image|, which it is if left out.
    """
    strength = _strongest_of(np.abs(image), -(-image.shape[1] // columns))
    levels = decibels(strength, float(strength.max(initial=0)) if reference is None else reference) + RANGE_DB
    grey = (LEVEL_STEP * np.rint(levels)).astype(np.uint8) if np.any(image) else np.zeros(strength.shape, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(grey[::-1])).save(buffer, "png", compress_level=6)
    return buffer.getvalue()


def coloured_picture(image: np.ndarray, columns: int = 512, reference: float | None = None) -> bytes:
    """`level_picture` with its colours in it, for pages that do without a script to draw it."""
    picture = Image.open(io.BytesIO(level_picture(image, columns, reference)))
    picture.putpalette(_coloured(np.arange(256) / (LEVEL_STEP * RANGE_DB)).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "png", compress_level=6)
    return buffer.getvalue()


def colours() -> list[str]:
    """The colour of every whole level from -70 to 0 dB, "#rrggbb"."""
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in _coloured(np.linspace(0, 1, int(RANGE_DB) + 1))]


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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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


def png(canvas: "FigureCanvasAgg") -> bytes:
    """What a canvas of Matplotlib shows."""
    return _png(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]))


def _png(picture: Image.Image) -> bytes:
    """The fastest compression, since encoding would else cost more than drawing."""
    buffer = io.BytesIO()
    picture.save(buffer, "png", compress_level=1)
    return buffer.getvalue()
