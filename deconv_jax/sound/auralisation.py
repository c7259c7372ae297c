"""Deconvolved image → sound (paper, section 3, Listing 1), in the two readings that exist.

- `phase`, the paper's Listing 1: y = istft(image · e^{i·φ}), with φ the phase of the original's STFT. The image is
  the magnitude. The original's magnitude is dropped; its phase is kept.
- `mask`, the authors' released code: y = istft(STFT · image). The image scales the complex STFT, so for an image
  that resembles the magnitude the result resembles its square: loud parts dominate and features sound more alike.

Both keep the sign of the image: a negative value turns the phase by π. `rectify` sets negative values to zero
before either reading. An image in mel bands or constant-Q bins is taken to the STFT's bins first, by
`deconv_jax.sound.front_end.lift`.

A clip seldom ends at a frame's centre. The samples after the last centre lie under one fading window alone, and
dividing by it would make a click of whatever the image changed. So they get the frame that would follow
(`deconv_jax.sound.spectrogram.next_frame`), with the last column's gain over the original, D / |STFT| in the phase
reading, D in the mask reading: the sound ends as loud as it goes on, and an unchanged magnitude, or a mask of ones,
still gives the original back to its last sample.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deconv_jax.errors import SettingError
from deconv_jax.sound.spectrogram import istft, next_frame

READINGS = ("phase", "mask")
GAINS = ("match", "peak", "none")

GROWTH = 4.0
"""How much louder than the last frame the one after it may be, where the original grows within the last hop."""


def auralise(
    image: jax.Array,
    stft: jax.Array,
    reading: str = "phase",
    *,
    rectify: bool = False,
    hop: int = 256,
    length: int | None = None,
    window: str = "hann",
) -> jax.Array:
    """Turns deconvolved images into waveforms.

    Args:
      image: shape (..., freq, time), real.
      stft: complex spectrum of the original, shape (freq, time) or broadcast against the image.
      reading: "phase" or "mask"; see the module's text for the formulas.
      rectify: drop negative values.
      hop: samples between frames.
      length: samples of the clip; (time - 1) · hop when left out.
      window: that of the transform.

    Returns:
      Waveforms, shape (..., length), with no gain applied. An all-zero image gives silence.

    Raises:
      ValueError: unknown reading, image and spectrum do not fit, or a clip so long has more frames.

    Example:

        The magnitude itself as the image gives the sound back:

        >>> import numpy as np
        >>> from deconv_jax import auralise, stft
        >>> sound = np.sin(np.arange(2000) / 5).astype(np.float32)
        >>> spectrum = stft(sound)
        >>> again = auralise(abs(spectrum), spectrum, length=len(sound))
        >>> bool(abs(again - sound).max() < 1e-5)
        True
    """
    if reading not in READINGS:
        raise SettingError(f"reading must be one of {', '.join(READINGS)}, not {reading!r}")
    try:
        np.broadcast_shapes(np.shape(image), np.shape(stft))
    except ValueError:
        raise SettingError(
            f"image must have the rows and frames of the spectrum {np.shape(stft)}, not {np.shape(image)}"
        ) from None
    frames = stft.shape[-1]
    if length is not None and length >= hop * frames:
        raise SettingError(
            f"length must be below {hop * frames} samples: a clip of {length} has more than {frames} frames"
        )
    image = jnp.maximum(image, 0) if rectify else image
    stft = stft.reshape((1,) * (image.ndim - stft.ndim) + stft.shape)
    changed = carried(image, stft, reading)
    if length is not None and length > hop * (frames - 1):
        after = following(image[..., -1:], stft, reading, hop=hop, length=length, window=window)
        changed = jnp.concatenate([changed, after], axis=-1)
    return istft(changed, hop=hop, length=length, window=window)


def carried(image: jax.Array, stft: jax.Array, reading: str) -> jax.Array:
    """The complex spectrum of an image's sound, both (..., freq, time)."""
    return image * (stft if reading == "mask" else jnp.exp(1j * jnp.angle(stft)).astype(stft.dtype))


def following(
    column: jax.Array, stft: jax.Array, reading: str, *, hop: int, length: int, window: str = "hann"
) -> jax.Array:
    """The frame of an image's sound that follows its last one, for a clip that goes on after that.

    Args:
      column: the image's last, shape (..., freq, 1).
      stft: of the original, shape (..., freq, time); the last frames suffice (`spectrogram.frames_mirrored`).
      length: samples from the centre of the first of these frames to the clip's end.
      reading, hop, window: as in `auralise`.

    Returns:
      Complex, shape (..., freq, 1).
    """
    after = next_frame(stft, hop, length, window)
    return column * after if reading == "mask" else _as_the_last(column, stft[..., -1:], after)


def _as_the_last(image: jax.Array, last: jax.Array, after: jax.Array) -> jax.Array:
    """The frame `after` with the gain that a column of an image has over its frame, all (..., freq, 1).

    Bins that hold next to nothing have huge gains, and the frame after may hold more: it is made no louder than the
    column, but for what the original grows, up to `GROWTH`.
    """
    tiny, eps = np.finfo(np.float32).tiny, np.finfo(np.float32).eps
    new, old, column = (jnp.linalg.norm(x, axis=-2, keepdims=True) for x in (after, last, image))
    changed = image * (after / (jnp.maximum(jnp.abs(last), eps * old) + tiny))
    most = column * jnp.clip(new / (old + tiny), 1, GROWTH)
    return changed * jnp.minimum(1, most / (jnp.linalg.norm(changed, axis=-2, keepdims=True) + tiny))


class Gained(NamedTuple):
    """A waveform after its gain, and the factor that was applied (1 for silence)."""

    waveform: np.ndarray
    gain: float


def rms(waveform: np.ndarray) -> float:
    """Root mean square over all samples, full scale = 1."""
    waveform = np.asarray(waveform, np.float64)
    return float(np.sqrt(np.mean(waveform**2))) if waveform.size else 0.0


def match_gain(waveform: np.ndarray, original: np.ndarray, gain: str = "match") -> Gained:
    """Scales a feature's sound, whose level is arbitrary, for listening.

    Args:
      waveform: feature's sound, shape (samples,).
      original: the clip that it came from, shape (samples,).
      gain: "match": the original's RMS level, but no peak above the original's own, so a feature is never louder
        than what it explains; "peak": the original's peak; "none": as it is (it may exceed full scale).

    Returns:
      The scaled waveform, float32, and its gain factor. Silence stays silence, with gain 1.

    Raises:
      ValueError: unknown gain.
    """
    if gain not in GAINS:
        raise SettingError(f"gain must be one of {', '.join(GAINS)}, not {gain!r}")
    wave = np.asarray(waveform, np.float64)
    peak = float(np.abs(wave).max(initial=0))
    if gain == "none" or peak == 0:
        return Gained(wave.astype(np.float32), 1.0)
    factor = float(np.abs(original).max(initial=0)) / peak
    if gain == "match":
        factor = min(factor, rms(original) / rms(wave))
    return Gained((wave * factor).astype(np.float32), factor)
