"""Waveform ↔ complex short-time Fourier transform, in JAX.

The first station on the signal's way: everything after it sees the magnitude of this transform, and auralisation
comes back through its inverse with the phase that was kept (paper, section 3 and Listing 1).
"""

import jax
import jax.numpy as jnp
import numpy as np


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
      waveform: samples, shape (..., samples).
      n_fft: window length in samples.
      hop: samples between frames.
      window, pad: as in `FrontEnd`.

    Returns:
      Complex spectrum, shape (..., freq, time) = (..., 1 + n_fft // 2, 1 + samples // hop), equal to
      `librosa.stft(waveform, n_fft=n_fft, hop_length=hop, window=window, pad_mode=pad)`: frame t is centred on
      sample t · hop, with zeros (or the clip's mirror image) beyond both ends.
    """
    samples = waveform.shape[-1]
    frames = 1 + samples // hop
    padding = [(0, 0)] * (waveform.ndim - 1) + [(n_fft // 2, n_fft // 2)]
    padded = jnp.pad(waveform, padding, mode=pad)
    index = hop * np.arange(frames)[:, None] + np.arange(n_fft)
    weights = jnp.asarray(taper(window, n_fft), waveform.dtype)
    weights = weights.reshape((1,) * waveform.ndim + (n_fft,))
    spectrum = jnp.fft.rfft(padded[..., index] * weights, axis=-1)
    return jnp.swapaxes(spectrum, -1, -2)


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
    weights = taper(window, n_fft)
    pieces = jnp.fft.irfft(jnp.swapaxes(spectrum, -1, -2), n=n_fft, axis=-1)
    weights_j = jnp.asarray(weights, pieces.dtype).reshape((1,) * (pieces.ndim - 1) + (n_fft,))
    summed = _overlap_add(pieces * weights_j, hop)
    norm = _overlap_add(jnp.asarray(np.broadcast_to(weights**2, (frames, n_fft)), pieces.dtype), hop)
    norm = jnp.where(norm > np.finfo(pieces.dtype).tiny, norm, 1)
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
      length: samples of the clip, more than (time - 1) · hop.

    Returns:
      Complex, shape (..., freq, 1), centred on sample time · hop.
    """
    bins, frames = spectrum.shape[-2:]
    n_fft = 2 * (bins - 1)
    few = min(frames, 2 + -(-n_fft // (2 * hop)))  # they hold the end as exactly as all do, and all that it mirrors
    end = istft(spectrum[..., -few:], hop, length - hop * (frames - few), window)
    beyond = [(0, 0)] * (end.ndim - 1) + [(0, hop * few + n_fft // 2 - end.shape[-1])]
    return stft(jnp.pad(end, beyond, mode="symmetric"), n_fft, hop, window)[..., few : few + 1]


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
