"""Waveform ↔ complex short-time Fourier transform, in JAX.

The first station on the signal's way: everything after it sees the magnitude of this transform, and auralisation
comes back through its inverse with the phase that was kept (paper, section 3 and Listing 1).
"""

import jax
import jax.numpy as jnp
import numpy as np

from deconv_jax.errors import SettingError


def taper(window: str, n_fft: int) -> np.ndarray:
    """A periodic window, shape (n_fft,), as librosa and scipy.signal use them for spectra."""
    if window == "hann":
        return hann(n_fft)
    import scipy.signal

    return scipy.signal.get_window(window, n_fft, fftbins=True)


def hann(n_fft: int) -> np.ndarray:
    """Periodic Hann window, shape (n_fft,); importing scipy.signal for it would take as long as JAX."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)


def stft(
    waveform: jax.Array, n_fft: int = 512, hop: int = 256, window: str = "hann", pad: str = "constant"
) -> jax.Array:
    """Centred short-time Fourier transform.

    Args:
      waveform: floats, full scale 1, shape (..., samples).
      n_fft: window length in samples.
      hop: samples between frames.
      window, pad: as in `FrontEnd`.

    Returns:
      Complex spectrum, shape (..., freq, time) = (..., 1 + n_fft // 2, 1 + samples // hop), equal to
      `librosa.stft(waveform, n_fft=n_fft, hop_length=hop, window=window, pad_mode=pad)`: frame t is centred on
      sample t · hop, with zeros (or the clip's mirror image) beyond both ends.

    Raises:
      ValueError: the samples are no floats: among whole numbers the window itself would be rounded to zeros.
    """
    waveform = jnp.asarray(waveform)
    if not jnp.issubdtype(waveform.dtype, jnp.floating):
        raise SettingError(f"waveform must be floats, not {waveform.dtype}: divide int16 by 32768")
    padding = [(0, 0)] * (waveform.ndim - 1) + [(n_fft // 2, n_fft // 2)]
    return transform(jnp.pad(waveform, padding, mode=pad), n_fft, hop, window)


def transform(padded: jax.Array, n_fft: int, hop: int, window: str = "hann") -> jax.Array:
    """As `stft`, of samples that hold all that lies beyond both ends: frame t begins with sample t · hop."""
    index = hop * np.arange(1 + (padded.shape[-1] - n_fft) // hop)[:, None] + np.arange(n_fft)
    weights = jnp.asarray(taper(window, n_fft), padded.dtype).reshape((1,) * padded.ndim + (n_fft,))
    return jnp.swapaxes(jnp.fft.rfft(padded[..., index] * weights, axis=-1), -1, -2)


def istft(spectrum: jax.Array, hop: int = 256, length: int | None = None, window: str = "hann") -> jax.Array:
    """Inverse of `stft`: least-squares overlap-add (Griffin & Lim 1984), as `librosa.istft`.

    Args:
      spectrum: complex, shape (..., freq, time).
      hop: samples between frames.
      length: samples to return; (time - 1) · hop when left out.
      window: that of the `stft`.

    Returns:
      Real waveform, shape (..., length). Where the windows' squares sum to nothing it is left as it is.

    The transform of a clip comes back exactly, to its last sample. After the last frame's centre that means a
    division by a window that goes to 0, where a *changed* spectrum comes out thousands of times too loud: give it the
    frame that follows as well (`next_frame`), as `deconv_jax.sound.auralisation.auralise` does.
    """
    bins, frames = spectrum.shape[-2:]
    n_fft = 2 * (bins - 1)
    length = hop * (frames - 1) if length is None else length
    summed = overlap_add(spectrum, hop, window)
    norm = jnp.asarray(window_sum(frames, n_fft, hop, window), summed.dtype)
    waveform = summed / norm.reshape((1,) * (summed.ndim - 1) + norm.shape)
    start = n_fft // 2
    missing = max(0, start + length - waveform.shape[-1])
    waveform = jnp.pad(waveform, [(0, 0)] * (waveform.ndim - 1) + [(0, missing)])
    return waveform[..., start : start + length]


def next_frame(spectrum: jax.Array, hop: int, length: int, window: str = "hann") -> jax.Array:
    """The frame that would follow a clip's last one, as if the clip went on as its mirror image.

    With it every sample of the clip lies between the centres of two frames, where the windows' squares sum to what
    they sum to anywhere else. A mirror image goes on without a jump, so the frame has the spectrum of the clip's end.

    Args:
      spectrum: of the clip, as `stft` gives it, complex, shape (..., freq, time).
      hop, window: that of the `stft`.
      length: samples of the clip, more than (time - 1) · hop; may be traced.

    Returns:
      Complex, shape (..., freq, 1), centred on sample time · hop.
    """
    bins, frames = spectrum.shape[-2:]
    n_fft = 2 * (bins - 1)
    few = min(frames, frames_mirrored(n_fft, hop))
    end, samples = istft(spectrum[..., -few:], hop, hop * few, window), length - hop * (frames - few)
    place = np.arange(hop * few + n_fft // 2) % (2 * samples)
    mirrored = jnp.take(end, jnp.where(place < samples, place, 2 * samples - 1 - place), axis=-1)
    return stft(mirrored, n_fft, hop, window)[..., few : few + 1]


def frames_mirrored(n_fft: int, hop: int) -> int:
    """How many of the last frames `next_frame` looks at: they give the clip's end as exactly as all do."""
    return 2 + -(-n_fft // (2 * hop))


def overlap_add(spectrum: jax.Array, hop: int, window: str = "hann") -> jax.Array:
    """The sum of the frames' waveforms, each times the window: `istft` before it is divided by `window_sum`.

    Args:
      spectrum: complex, shape (..., freq, time).
      hop, window: as in `istft`.

    Returns:
      Real, shape (..., (time - 1) · hop + n_fft), rounded up to whole hops; frame t begins at sample t · hop.
    """
    n_fft = 2 * (spectrum.shape[-2] - 1)
    pieces = jnp.fft.irfft(jnp.swapaxes(spectrum, -1, -2), n=n_fft, axis=-1)
    weights = jnp.asarray(taper(window, n_fft), pieces.dtype).reshape((1,) * (pieces.ndim - 1) + (n_fft,))
    return _overlap_add(pieces * weights, hop)


def window_sum(frames: int, n_fft: int, hop: int, window: str = "hann") -> np.ndarray:
    """The sum of so many frames' squared windows, 1 where it is nothing, in float64; as long as `overlap_add`'s."""
    steps = -(-n_fft // hop)
    parts = np.pad(taper(window, n_fft) ** 2, (0, steps * hop - n_fft)).reshape(steps, hop)
    total = np.zeros((frames + steps - 1, hop))
    for k, part in enumerate(parts):
        total[k : k + frames] += part
    return np.where(total > np.finfo(np.float32).tiny, total, 1).reshape(-1)


def _overlap_add(pieces: jax.Array, hop: int) -> jax.Array:
    """(..., time, n_fft) → (..., (time - 1) · hop + n_fft), rounded up to whole hops.

    Each piece is cut into `steps` parts of one hop; part k of all pieces is added k hops later, so a handful of
    dense additions take the place of a scatter.
    """
    frames, n_fft = pieces.shape[-2:]
    steps = -(-n_fft // hop)
    lead = [(0, 0)] * (pieces.ndim - 2)
    parts = jnp.pad(pieces, [*lead, (0, 0), (0, steps * hop - n_fft)])
    parts = parts.reshape(*pieces.shape[:-1], steps, hop)
    total = jnp.zeros((*pieces.shape[:-2], frames + steps - 1, hop), pieces.dtype)
    for k in range(steps):
        total = total.at[..., k : k + frames, :].add(parts[..., k, :])
    return total.reshape(*pieces.shape[:-2], -1)
