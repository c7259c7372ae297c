"""A spectrogram that plays, of any sound and any array: a widget where anywidget is installed, and HTML where not."""

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
    wave = np.asarray(waveform, np.float32)
    if wave.ndim != 1 or not wave.size or not np.isfinite(wave).all():
        raise SettingError(
            f"waveform must be numbers of shape (samples,), not of shape {wave.shape}: "
            "of several channels, take the mean"
        )
    rate = int(sample_rate)
    if rate != sample_rate or rate < 1:
        raise SettingError(f"sample_rate must be a whole number of Hz, not {sample_rate!r}")
    image = _spectrogram(wave, rate) if image is None else np.asarray(image)
    if image.ndim != 2 or not image.size or not np.isfinite(image).all():
        raise SettingError(f"image must be numbers of shape (freq, time), not of shape {image.shape}")
    rows = np.linspace(0, rate / 2, len(image)) if frequencies is None else np.asarray(frequencies, np.float64)
    if rows.shape != image.shape[:1] or np.any(np.diff(rows) <= 0):
        raise SettingError(f"frequencies must rise, one for each of {len(image)} rows, not of shape {rows.shape}")
    heard = notebook.Heard(wave, rate, image, rows, title)
    try:
        from deconv_jax.page.widget import Spectrogram
    except ImportError:
        return _plainly(heard)
    return Spectrogram(heard)


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
