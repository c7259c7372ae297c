"""Deconvolved image → sound (paper, section 3, Listing 1), in the two readings that exist.

- `phase`, the paper's Listing 1: y = istft(image · e^{i·φ}), with φ the phase of the original's STFT. The image is
  the magnitude. The original's magnitude is dropped; its phase is kept.
- `mask`, the authors' released code: y = istft(STFT · image). The image scales the complex STFT, so for an image
  that resembles the magnitude the result resembles its square: loud parts dominate and features sound more alike.

Both keep the sign of the image: a negative value turns the phase by π. `rectify` sets negative values to zero
before either reading. An image in mel bands or constant-Q bins is taken to the STFT's bins first, by
`deconv_jax.sound.front_end.lift`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deconv_jax.sound.spectrogram import istft

READINGS = ("phase", "mask")
GAINS = ("match", "peak", "none")


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
      length: samples to return; (time - 1) · hop when left out.
      window: that of the transform.

    Returns:
      Waveforms, shape (..., length), with no gain applied. An all-zero image gives silence.

    Raises:
      ValueError: unknown reading.
    """
    if reading not in READINGS:
        raise ValueError(f"reading must be one of {', '.join(READINGS)}, not {reading!r}")
    image = jnp.maximum(image, 0) if rectify else image
    stft = stft.reshape((1,) * (image.ndim - stft.ndim) + stft.shape)
    carrier = stft if reading == "mask" else jnp.exp(1j * jnp.angle(stft)).astype(stft.dtype)
    return istft(image * carrier, hop=hop, length=length, window=window)


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
        raise ValueError(f"gain must be one of {', '.join(GAINS)}, not {gain!r}")
    wave = np.asarray(waveform, np.float64)
    peak = float(np.abs(wave).max(initial=0))
    if gain == "none" or peak == 0:
        return Gained(wave.astype(np.float32), 1.0)
    factor = float(np.abs(original).max(initial=0)) / peak
    if gain == "match":
        factor = min(factor, rms(original) / rms(wave))
    return Gained((wave * factor).astype(np.float32), factor)
