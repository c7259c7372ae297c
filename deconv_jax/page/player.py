"""A spectrogram that plays, of any sound and any array: a widget where anywidget is installed, and HTML where not."""

from numbers import Real
from typing import Any

import jax.numpy as jnp
import numpy as np

from deconv_jax.errors import SettingError
from deconv_jax.page import notebook
from deconv_jax.pictures import spectrograms
from deconv_jax.sound.spectrogram import stft


def listen(
    waveform: Any, sample_rate: int, image: Any = None, *, frequencies: Any = None, title: str = "A sound"
) -> Any:
    """A spectrogram that plays, of any sound and any array over frequency and time.

    With the extra `notebook` (`pip install 'deconv_jax[notebook]'`) it is a widget: a part is chosen by dragging over
    it, which is then played over and over; `selection` says what was chosen, in seconds and Hz, and `selected` is its
    waveform (see `deconv_jax.page.widget`). Without, it is HTML with a picture and a player.

    Args:
      waveform: shape (samples,), full scale 1.
      sample_rate: Hz, a whole number.
      image: shape (freq, time), low frequencies first, its columns spread over the whole sound; shown are absolute
        values, 70 dB down from the loudest. The sound's own spectrogram if left out.
      frequencies: Hz of the image's rows, rising, shape (freq,); from 0 to half of the rate if left out.
      title: any text.

    Raises:
      ValueError: an array has another shape, is empty, or holds values that are no numbers.

    Example:

        >>> import numpy as np
        >>> from deconv_jax import listen
        >>> tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
        >>> player = listen(tone, 8000, title="440 Hz")
    """
    wave = _numbers("waveform", waveform, "(samples,)", "; of several channels, take the mean").astype(np.float32)
    if not isinstance(sample_rate, Real) or not 1 <= sample_rate == np.floor(sample_rate) < np.inf:
        raise SettingError(f"sample_rate must be a whole number of Hz, not {sample_rate!r}")
    rate = int(sample_rate)
    image = _spectrogram(wave, rate) if image is None else np.abs(_numbers("image", image, "(freq, time)"))
    rows = np.linspace(0, rate / 2, len(image))
    if frequencies is not None:
        rows = _numbers("frequencies", frequencies, "(freq,)").astype(np.float64)
        if rows.shape != image.shape[:1] or np.any(np.diff(rows) <= 0):
            raise SettingError(f"frequencies must rise, one for each of {len(image)} rows, not of shape {rows.shape}")
    heard = notebook.Heard(wave, rate, image, rows, title)
    try:
        from deconv_jax.page.widget import Spectrogram
    except ImportError:
        return _plainly(heard)
    return Spectrogram(heard)


def _numbers(name: str, given: Any, shape: str, hint: str = "") -> np.ndarray:
    """What was given as an array of numbers, of as many axes as `shape` tells: (samples,) or (freq, time)."""
    found = np.asarray(given)
    if found.dtype.kind not in ("biufc" if name == "image" else "biuf"):
        try:
            found = found.astype(np.float32, casting="same_kind")  # bfloat16 can; text and complex numbers cannot
        except TypeError:
            kind = f"{type(given).__name__} of {found.dtype}"
            raise SettingError(f"{name} must be numbers of shape {shape}, not {kind}{hint}") from None
    if found.ndim != len(shape.strip("(),").split(",")) or not found.size:
        raise SettingError(f"{name} must be numbers of shape {shape}, not of shape {found.shape}{hint}")
    if not np.isfinite(found).all():
        raise SettingError(f"{name} must be numbers: {np.sum(~np.isfinite(found)):,} of {found.size:,} values are none")
    return found


def _plainly(heard: notebook.Heard) -> notebook.Html:
    """Without a script."""
    sheet = spectrograms.SpectrogramSheet(heard.frequencies, heard.seconds, "loudest of the picture")
    drawn = sheet.draw(heard.image, float(np.abs(heard.image).max()) or 1.0, heard.title)
    card = notebook.Card(
        "",
        f"{heard.seconds:.2f} s at {heard.sample_rate:,} Hz",
        drawn,
        notebook.sound(heard.waveform, heard.sample_rate),
    )
    return notebook.shown(heard.title, [], [card], wide=True)


def _spectrogram(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Magnitudes of windows of about 46 ms, a quarter apart, (freq, time)."""
    n_fft = 2 ** round(np.log2(max(16, 0.046 * sample_rate)))
    wave = np.pad(waveform, (0, max(0, n_fft - len(waveform))))
    return np.abs(np.asarray(stft(jnp.asarray(wave), n_fft, n_fft // 4)))
