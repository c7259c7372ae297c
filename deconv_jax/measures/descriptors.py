"""What can be measured in a clip without any network: what a feature has to be better than before it gets a name.

`describe` gives series on the frames of the clip's spectrogram, `cells` numbers of each cell of a layer's grid.
"""

import numpy as np

from deconv_jax.measures.features import BANDS
from deconv_jax.sound.front_end import FrontEnd


def describe(
    magnitude: np.ndarray, front: FrontEnd, parts: tuple[np.ndarray, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """Measures a clip.

    Args:
      magnitude: |STFT| of the clip, shape (freq, time).
      front: how it was made.
      parts: its `harmonic_percussive`, if they are known.

    Returns:
      Name → series, shape (time,), finite for any input. Strengths are root mean squares over frequency; the
      harmonic and percussive parts are median filtering (Fitzgerald 2010); the onset strength is the spectral flux;
      centroid in Hz; flatness 0 to 1; chroma stability is the cosine between the pitch classes of a frame and those
      of the frame before it, 0 in silence. All are librosa's, to rounding, which would take 3 s to import.
    """
    magnitude = np.asarray(magnitude, np.float32)
    frequencies = front.stft_frequencies()
    power = np.square(magnitude)
    harmonic, percussive = parts or harmonic_percussive(magnitude)
    series = {
        "loudness": _strength(magnitude),
        "onset strength": _onset_strength(power, front),
        "the harmonic part": _strength(harmonic),
        "the percussive part": _strength(percussive),
    }
    for name, low, high in BANDS:
        rows = (frequencies >= low) & (frequencies < high)
        series[f"{name} ({_range(low, high)})"] = _strength(magnitude[rows])
    chroma = _unit(_pitch_classes(front) @ power)
    total = np.sum(magnitude, axis=0, dtype=np.float64)
    some = np.maximum(power, 1e-10, dtype=np.float64)
    series |= {
        "spectral centroid": frequencies @ magnitude / np.where(total > 0, total, 1),
        "spectral flatness": np.exp(np.mean(np.log(some), axis=0)) / np.mean(some, axis=0),
        "chroma stability": np.concatenate([[0.0], np.sum(chroma[:, 1:] * chroma[:, :-1], axis=0)]),
    }
    return {name: np.asarray(values, np.float64) for name, values in series.items()}


CELLS = (
    *("level", "level before", "level after", "level above", "level below"),
    *("peak in time", "peak in frequency", "harmonic share"),
)
"""What `cells` gives."""


def cells(power: np.ndarray, harmonic: np.ndarray) -> np.ndarray:
    """Measures each cell of a layer's grid: its level, its neighbours', how it stands out, how harmonic it is.

    Args:
      power: mean power of each cell, shape (freq, time).
      harmonic: of that, what `harmonic_percussive` calls harmonic.

    Returns:
      shape (CELLS, freq, time), finite. Levels in dB; at the ends a neighbour is the cell itself.
    """
    level = 10 * np.log10(np.maximum(power, 1e-10))
    around = np.pad(level, 1, mode="edge")
    before, after, below, above = around[1:-1, :-2], around[1:-1, 2:], around[:-2, 1:-1], around[2:, 1:-1]
    peaks = level - (before + after) / 2, level - (below + above) / 2
    return np.stack([level, before, after, above, below, *peaks, harmonic / np.maximum(power, 1e-10)])


def harmonic_percussive(magnitude: np.ndarray, width: int = 31) -> tuple[np.ndarray, np.ndarray]:
    """A magnitude (freq, time) in two parts, by the squares of its medians along time and along frequency."""
    magnitude = np.asarray(magnitude, np.float32)
    along_time, along_frequency = _medians(magnitude, width), _medians(magnitude.T, width).T
    largest = np.maximum(along_time, along_frequency)
    largest[largest < np.finfo(np.float32).tiny] = 1
    a, b = np.square(along_time / largest), np.square(along_frequency / largest)
    share = np.where(a + b > 0, a / np.where(a + b > 0, a + b, 1), np.float32(0.5))
    return magnitude * share, magnitude * (1 - share)


def _medians(rows: np.ndarray, width: int) -> np.ndarray:
    """Median of every `width` neighbours within a row; beyond its ends the row is mirrored."""
    padded = np.pad(rows, ((0, 0), (width // 2, width // 2)), "symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=1)
    # Row by row: the windows of a whole song are not to be copied.
    return np.stack([np.partition(row, width // 2, axis=-1)[:, width // 2] for row in windows])


def _onset_strength(power: np.ndarray, front: FrontEnd) -> np.ndarray:
    """Mean rise of the level from frame to frame, 80 dB deep, later by half a window as librosa's."""
    level = 10 * np.log10(np.maximum(power, 1e-10))
    level = np.maximum(level, level.max(initial=-np.inf) - 80)
    rise = np.maximum(np.diff(level, axis=1), 0).mean(axis=0)
    return np.pad(rise, (1 + front.n_fft // (2 * front.hop), 0))[: power.shape[1]]


def _pitch_classes(front: FrontEnd) -> np.ndarray:
    """How much every bin belongs to each pitch class, C first, shape (12, freq) (Ellis 2007, as librosa has it)."""
    # Semitones above C0 of the bins; the mean of a spectrum stands an octave and a half below the first of them.
    semitones = 12 * np.log2(np.arange(1, front.n_fft) * front.sample_rate / front.n_fft / (440 / 16))
    semitones = np.concatenate([semitones[:1] - 18, semitones])
    width = np.append(np.maximum(np.diff(semitones), 1), 1)
    apart = np.remainder(semitones - np.arange(12)[:, None] + 126, 12) - 6
    octave = np.exp(-0.5 * ((semitones / 12 - 5) / 2) ** 2)  # middle octaves count most
    classes = _unit(np.exp(-0.5 * (2 * apart / width) ** 2)) * octave
    return np.roll(classes, -3, axis=0)[:, : front.n_fft // 2 + 1].astype(np.float32)


def _unit(columns: np.ndarray) -> np.ndarray:
    """Columns of length one; zeros stay."""
    length = np.sqrt(np.sum(np.square(columns, dtype=np.float64), axis=0))
    return columns / np.where(length < np.finfo(np.float32).tiny, 1, length)


def _strength(part: np.ndarray) -> np.ndarray:
    """Root mean square over frequency, shape (time,); zeros where there is no row."""
    return np.sqrt(np.sum(np.square(part, dtype=np.float64), axis=0) / max(1, len(part)))


def _range(low: float, high: float) -> str:
    if low <= 0:
        return f"below {high:g} Hz"
    return f"above {low:g} Hz" if np.isinf(high) else f"{low:g} to {high:g} Hz"
