"""What a network sees of a sound, and the way back from its rows to the bins of the STFT.

The paper's network sees the STFT's magnitude. Published ones often see something else: mel bands, a constant-Q
transform, a logarithm. `analyse` makes that, and `lift` takes a deconvolved image of it back to the STFT's bins, so
that it can be heard. With S the complex STFT, X what the network saw, D the image, and P the filterbank's transpose
with rows that sum to one, so that bin k takes the mean of the bands that cover it, weighted by how much of it they
take:

- phase reading, where X is linear: the image is a magnitude, so each band keeps its share of the original,
  |S| · P(sign(D) · (|D| / X)^(1/power)). For D = X this is |S|.
- mask reading: the image scales the complex STFT, P(D). For D = 1 this is 1, and the original comes back.

For a plain magnitude P is the identity, and both are what `deconv_jax.sound.auralisation` says. An image of logarithms
is no magnitude, so there is no phase reading of one. Bins that no band covers take the band that is nearest in
frequency; a constant-Q transform has no filterbank over STFT bins, and P interpolates between its bins by log
frequency.

A front end with a level hears every sound equally loud: each frame is divided by the mean magnitude of the clip around
it. `undo_level` gives images of linear front ends the magnitude's own unit back.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from deconv_jax.errors import SettingError
from deconv_jax.sound.spectrogram import stft

KINDS = ("stft", "mel", "cqt")
SCALES = ("linear", "log1p", "log10", "log", "decibel")
WINDOWS = ("hann", "hamming", "blackman")
PADS = ("constant", "reflect")
LEVELS = ("none", "clip")

LIMITS = {"sample_rate": 10**6, "n_fft": 2**20, "clip_seconds": 3600, "bands": 2**14, "bins_per_octave": 1200}
"""Hz, samples, seconds, numbers: nothing in use is near them, and filters of sizes below them fit into memory."""


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """How sound becomes the network's input; the defaults are the paper's (section 4).

    Attributes:
      sample_rate: Hz.
      n_fft: window length of the transform, in samples.
      hop: samples between two frames.
      clip_seconds: length of the clips that the network classifies.
      window: "hann", "hamming" or "blackman", all periodic.
      pad: what stands beyond both ends of the clip: "constant" (zeros) or "reflect". Frames are always centred.
      kind: rows of the input: "stft" bins, "mel" bands or "cqt" bins.
      bands: number of mel bands or constant-Q bins.
      fmin, fmax: Hz, the mel bands' range (fmax 0: half the sample rate), or the lowest constant-Q bin.
      htk: mel scale by HTK's formula; else Slaney's. slaney_norm: bands of equal area; else of equal height.
      power: exponent of the magnitude, before any bands are summed: 1 or 2 (2: energy).
      bins_per_octave: of the constant-Q transform.
      scale: "linear"; "log1p": ln(1 + factor · x); "log10": log10(1 + factor · x); "log": ln(x + floor); "decibel":
        10 · log10(max(x, floor) / reference), twice that if power is 1, no lower than `range` below the clip's maximum.
      factor, floor: of the scale. reference: 0 for the clip's maximum. range: dB, 0 for no limit. In a sound longer
        than a clip, each frame's clip is the one around it, as for `level`.
      level: "none", or "clip": before the scale, every frame is divided by the mean over all rows and over the
        `clip_seconds` around it (those nearest to it, at the ends of the sound), silent frames left out. Of a sound
        that lasts a clip or less that is one number; a longer one is heard everywhere as loud as a clip cut out there.
    """

    sample_rate: int = 11025
    n_fft: int = 512
    hop: int = 256
    clip_seconds: float = 4.0
    window: str = "hann"
    pad: str = "constant"
    kind: str = "stft"
    bands: int = 0
    fmin: float = 0.0
    fmax: float = 0.0
    htk: bool = False
    slaney_norm: bool = True
    power: int = 1
    bins_per_octave: int = 12
    scale: str = "linear"
    factor: float = 1e4
    floor: float = 1e-10
    reference: float = 1.0
    range: float = 0.0
    level: str = "none"

    def __post_init__(self) -> None:
        for name, most in LIMITS.items():
            if getattr(self, name) > most:
                raise SettingError(f"{name} must be at most {most:,}, not {getattr(self, name):g}")
        if self.n_fft < 4 or self.n_fft % 2:
            raise SettingError(f"n_fft must be an even number of at least 4 samples, not {self.n_fft}")
        if not 0 < self.hop <= self.n_fft // 2:
            raise SettingError(f"hop must be 1 to n_fft // 2 = {self.n_fft // 2} samples, not {self.hop}")
        if self.sample_rate < 1 or self.clip_seconds <= 0:
            raise SettingError(
                f"sample_rate and clip_seconds must be positive, not {self.sample_rate}, {self.clip_seconds}"
            )
        choices = {"window": WINDOWS, "pad": PADS, "kind": KINDS, "scale": SCALES, "power": (1, 2), "level": LEVELS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise SettingError(f"{name} must be one of {', '.join(map(str, known))}, not {getattr(self, name)!r}")
        if self.level != "none" and self.kind == "cqt":
            raise SettingError('level must be "none" for a front end of kind "cqt"')
        if self.kind != "stft" and self.bands < 1:
            raise SettingError(f"bands must be at least 1 for a front end of kind {self.kind!r}, not {self.bands}")
        top = self.fmax or self.sample_rate / 2
        if self.kind == "cqt":
            if self.bins_per_octave < 1 or not self.fmin > 0:
                raise SettingError(
                    f"a cqt needs fmin above 0 and bins_per_octave, not {self.fmin}, {self.bins_per_octave}"
                )
            top = self.fmin * 2.0 ** min((self.bands - 1) / self.bins_per_octave, 1000)
            longest = self.sample_rate / self.fmin / (2 ** (1 / self.bins_per_octave) - 1)
            if longest > LIMITS["n_fft"]:
                raise SettingError(
                    f"a cqt from {self.fmin:g} Hz with {self.bins_per_octave} bins an octave needs filters of "
                    f"{longest:.3g} samples; at most {LIMITS['n_fft']:,} are known: raise fmin"
                )
        elif self.kind == "mel" and self.bands * self.n_fft > 2**28:
            raise SettingError(f"{self.bands} bands of {self.n_fft} samples are too many for a filterbank in memory")
        if not 0 <= self.fmin <= top <= self.sample_rate / 2:
            raise SettingError(
                f"the {self.kind} covers {self.fmin:g} to {top:g} Hz: not rising, or beyond half of the sample rate"
            )
        for name in ("factor", "floor"):
            if getattr(self, name) <= 0 and self.scale != "linear":
                raise SettingError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.reference < 0 or self.range < 0:
            raise SettingError(f"reference and range must be at least 0, not {self.reference}, {self.range}")

    @property
    def clip_samples(self) -> int:
        return round(self.clip_seconds * self.sample_rate)

    @property
    def bins(self) -> int:
        """Rows of the network's input."""
        return 1 + self.n_fft // 2 if self.kind == "stft" else self.bands

    @property
    def linear(self) -> bool:
        """Whether the input is a magnitude (or energy), so that the phase reading means something."""
        return self.scale == "linear"

    def frames(self, samples: int) -> int:
        """Number of frames that `stft` makes of so many samples."""
        return 1 + samples // self.hop

    @property
    def clip_frames(self) -> int:
        return self.frames(self.clip_samples)

    def frequencies(self) -> np.ndarray:
        """Centre of every row of the network's input in Hz, shape (freq,)."""
        if self.kind == "mel":
            import librosa

            edges = librosa.mel_frequencies(
                self.bands + 2, fmin=self.fmin, fmax=self.fmax or self.sample_rate / 2, htk=self.htk
            )
            return edges[1:-1]
        if self.kind == "cqt":
            return self.fmin * 2.0 ** (np.arange(self.bands) / self.bins_per_octave)
        return self.stft_frequencies()

    def stft_frequencies(self) -> np.ndarray:
        """Centre of every bin of the STFT in Hz, shape (1 + n_fft // 2,)."""
        return np.arange(1 + self.n_fft // 2) * self.sample_rate / self.n_fft


def analyse(front: FrontEnd, waveform: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The complex STFT, and what the network sees: the one way to see a clip, compiled for each shape.

    Args:
      front: the front end.
      waveform: float, full scale = 1, or int16, shape (..., samples). In JAX throughout, and so within anything that is
        compiled, but for the constant-Q transform, which librosa computes on the host.

    Returns:
      spectrum, complex, shape (..., 1 + n_fft // 2, time), and image, float32, shape (..., freq, time).
    """
    if front.kind != "cqt":
        return _analysed(front, waveform)
    waveform = _floats(waveform)
    spectrum = stft(waveform, front.n_fft, front.hop, front.window, front.pad)
    return spectrum, scaled(front, constant_q(front, waveform)[..., : spectrum.shape[-1]])


def constant_q(front: FrontEnd, waveform: ArrayLike) -> jax.Array:
    """Magnitude or energy of the constant-Q transform, shape (..., freq, time), by librosa on the host."""
    import librosa

    transform = librosa.cqt(
        np.asarray(waveform, np.float32),
        sr=front.sample_rate,
        hop_length=front.hop,
        fmin=front.fmin,
        n_bins=front.bands,
        bins_per_octave=front.bins_per_octave,
    )
    return jnp.asarray(np.abs(transform) ** front.power, jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def _analysed(front: FrontEnd, waveform: ArrayLike) -> tuple[jax.Array, jax.Array]:
    spectrum = stft(_floats(waveform), front.n_fft, front.hop, front.window, front.pad)
    return spectrum, scaled(front, levelled(front, in_rows(front, spectrum)))


def _floats(waveform: ArrayLike) -> jax.Array:
    waveform = jnp.asarray(waveform)
    return waveform.astype(jnp.float32) * (1 / 32768 if waveform.dtype == jnp.int16 else 1.0)


def in_rows(front: FrontEnd, spectrum: jax.Array) -> jax.Array:
    """Magnitude or energy in the network's rows, before level and scale, of a complex STFT; not for "cqt"."""
    x = jnp.abs(spectrum)
    x = x**2 if front.power == 2 else x
    if front.kind == "mel":
        x = jnp.einsum("bk,...kt->...bt", jnp.asarray(_mel(front)), x, precision="highest")
    return x


def levelled(front: FrontEnd, x: jax.Array) -> jax.Array:
    """Rows (..., freq, time) without their level, where the front end has one."""
    return x if front.level == "none" else x / _level(front, x)


def undo_level(front: FrontEnd, images: jax.Array, spectrum: jax.Array | np.ndarray) -> jax.Array:
    """Images of a clip, as they come out of the network, in the unit of the rows before their level was taken out.

    Args:
      images: shape (..., features, freq, time).
      spectrum: the clip's complex STFT, shape (..., 1 + n_fft // 2, time).
    """
    if front.level == "none" or not front.linear:
        return images
    return images * _level(front, in_rows(front, jnp.asarray(spectrum)))[..., None, :, :]


def _level(front: FrontEnd, x: jax.Array) -> jax.Array:
    """What each frame of rows (..., freq, time) is divided by, (..., 1, time)."""
    return level_of(front, x.mean(axis=-2))


def level_of(front: FrontEnd, loudness: jax.Array, frames: Any = None) -> jax.Array:
    """The mean, over the clip around every frame, of those frames' means that sound; 1 where nothing does.

    Args:
      loudness: mean over all rows, shape (..., time).
      frames: how many of these hold the sound, at least a clip's; may be traced. All if left out.

    Returns:
      shape (..., 1, time).
    """
    total = _around(front, loudness, lax.add, 0, frames)
    sounding = _around(front, (loudness > 0).astype(loudness.dtype), lax.add, 0, frames)
    return jnp.where(total > 0, total / jnp.maximum(sounding, 1), 1)[..., None, :]


def peak_of(front: FrontEnd, largest: jax.Array, frames: Any = None) -> jax.Array:
    """The largest value of the clip around every frame, (..., time) → (..., 1, time); `frames` as in `level_of`."""
    return _around(front, largest, lax.max, -np.inf, frames)[..., None, :]


def _around(front: FrontEnd, values: jax.Array, combine: Any, start: float, frames: Any) -> jax.Array:
    """What is combined over the clip around every frame: as long as a clip, and wholly within the sound."""
    there = values.shape[-1]
    frames = there if frames is None else frames
    length = min(there, front.clip_frames)
    window = (1,) * (values.ndim - 1) + (length,)
    found = lax.reduce_window(values, np.asarray(start, values.dtype), combine, window, (1,) * values.ndim, "VALID")
    return found[..., jnp.clip(np.arange(there) - length // 2, 0, frames - length)]


def scaled(front: FrontEnd, x: jax.Array, peak: jax.Array | None = None) -> jax.Array:
    """Rows (..., freq, time) as the network sees them; `peak` is `peak_of` these rows, made here if left out."""
    if front.scale == "log1p":
        return jnp.log1p(front.factor * x)
    if front.scale == "log10":
        return jnp.log1p(front.factor * x) / np.log(10)
    if front.scale == "log":
        return jnp.log(x + front.floor)
    if front.scale == "decibel":
        peak = jnp.maximum(peak_of(front, x.max(axis=-2)) if peak is None else peak, front.floor)
        reference = jnp.maximum(front.reference, front.floor) if front.reference else peak
        unit = 10 if front.power == 2 else 20
        level = unit * jnp.log10(jnp.maximum(x, front.floor) / reference)
        return jnp.maximum(level, unit * jnp.log10(peak / reference) - front.range) if front.range else level
    return x


def lift(front: FrontEnd, image: jax.Array, seen: jax.Array, spectrum: jax.Array, reading: str) -> jax.Array:
    """A deconvolved image → an image over STFT bins, for `deconv_jax.sound.auralisation.auralise` in the same reading.

    Args:
      image: shape (..., freq, time), in the network's rows; after `undo_level`.
      seen: what the network saw, shape (freq, time).
      spectrum: the clip's complex STFT, shape (1 + n_fft // 2, time).
      reading: "phase" or "mask"; the formulas stand at the head of this module.

    Returns:
      shape (..., 1 + n_fft // 2, time).

    Raises:
      ValueError: phase reading of an image that is no magnitude.
    """
    if reading == "phase" and not front.linear:
        raise SettingError("an image of logarithms is no magnitude: use the mask reading")
    if front.kind == "stft" and (reading == "mask" or front.power == 1):
        return image
    if reading == "phase":
        seen = undo_level(front, seen[None], spectrum).reshape((1,) * (image.ndim - 2) + seen.shape)
        ratio = jnp.abs(image) / jnp.where(seen > 0, seen, 1)
        image = jnp.where(seen > 0, jnp.sign(image) * (jnp.sqrt(ratio) if front.power == 2 else ratio), 0)
    if front.kind != "stft":
        image = jnp.einsum("kb,...bt->...kt", jnp.asarray(spread(front)), image, precision="highest")
    if reading == "phase":
        magnitude = jnp.abs(spectrum)
        image = image * magnitude.reshape((1,) * (image.ndim - 2) + magnitude.shape)
    return image


@functools.lru_cache(maxsize=8)
def _mel(front: FrontEnd) -> np.ndarray:
    """Mel filterbank, shape (bands, 1 + n_fft // 2), as librosa makes it."""
    import warnings

    import librosa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # low bands may hold no bin; the network was trained with those
        return librosa.filters.mel(
            sr=front.sample_rate,
            n_fft=front.n_fft,
            n_mels=front.bands,
            fmin=front.fmin,
            fmax=front.fmax or front.sample_rate / 2,
            htk=front.htk,
            norm="slaney" if front.slaney_norm else None,
        ).astype(np.float32)


@functools.lru_cache(maxsize=8)
def spread(front: FrontEnd) -> np.ndarray:
    """P of the formulas above, shape (1 + n_fft // 2, bands), rows summing to one."""
    bins, rows = front.stft_frequencies(), front.frequencies()
    if front.kind == "mel":
        weights = _mel(front).T.astype(np.float64)
        nearest = np.abs(bins[:, None] - rows[None]).argmin(axis=1)
        bare = weights.sum(axis=1) < 1e-9 * weights.max()
        weights[bare, nearest[bare]] = 1.0
    else:
        place = np.interp(np.log(np.maximum(bins, 1e-6)), np.log(rows), np.arange(len(rows)))
        weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(len(rows))[None]))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
