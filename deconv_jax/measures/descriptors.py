"""What can be measured in a clip without any network, over time: the names that a feature is compared with.

Every descriptor is a series on the frames of the clip's spectrogram, so that it can be correlated with a feature's
envelope. A correlation says that two series move together in this clip, not that the feature detects anything.
"""

import librosa
import numpy as np

from deconv_jax.measures.features import BANDS
from deconv_jax.sound.front_end import FrontEnd


def describe(magnitude: np.ndarray, front: FrontEnd) -> dict[str, np.ndarray]:
    """Measures a clip.

    Args:
      magnitude: |STFT| of the clip, shape (freq, time).
      front: how it was made.

    Returns:
      Name → series, shape (time,), finite for any input. Strengths are root mean squares over frequency; the
      harmonic and percussive parts are librosa's median filtering (Fitzgerald 2010); the onset strength is librosa's
      spectral flux; centroid in Hz; flatness 0 to 1; chroma stability is the cosine between the pitch classes of a
      frame and those of the frame before it, 0 in silence.
    """
    magnitude = np.asarray(magnitude, np.float32)
    frequencies = front.stft_frequencies()
    harmonic, percussive = librosa.decompose.hpss(magnitude)
    series = {
        "loudness": _strength(magnitude),
        "onset strength": librosa.onset.onset_strength(
            S=librosa.amplitude_to_db(magnitude, ref=max(float(magnitude.max(initial=0)), 1e-5)),
            sr=front.sample_rate,
            n_fft=front.n_fft,
            hop_length=front.hop,
        ),
        "the harmonic part": _strength(harmonic),
        "the percussive part": _strength(percussive),
    }
    for name, low, high in BANDS:
        rows = (frequencies >= low) & (frequencies < high)
        series[f"{name} ({_range(low, high)})"] = _strength(magnitude[rows])
    chroma = librosa.feature.chroma_stft(
        S=magnitude**2, sr=front.sample_rate, n_fft=front.n_fft, hop_length=front.hop, tuning=0.0, norm=2
    )
    series |= {
        "spectral centroid": librosa.feature.spectral_centroid(S=magnitude, freq=frequencies)[0],
        "spectral flatness": librosa.feature.spectral_flatness(S=magnitude)[0],
        "chroma stability": np.concatenate([[0.0], np.sum(chroma[:, 1:] * chroma[:, :-1], axis=0)]),
    }
    return {name: np.asarray(values, np.float64) for name, values in series.items()}


def _strength(part: np.ndarray) -> np.ndarray:
    """Root mean square over frequency, shape (time,); zeros where there is no row."""
    return np.sqrt(np.sum(np.square(part, dtype=np.float64), axis=0) / max(1, len(part)))


def _range(low: float, high: float) -> str:
    if low <= 0:
        return f"below {high:g} Hz"
    return f"above {low:g} Hz" if np.isinf(high) else f"{low:g} to {high:g} Hz"
