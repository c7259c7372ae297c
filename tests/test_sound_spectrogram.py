import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from deconv_jax.sound.front_end import FrontEnd
from deconv_jax.sound.spectrogram import istft, stft


@pytest.mark.parametrize(
    ("samples", "n_fft", "hop"), [(44100, 512, 256), (5001, 512, 256), (4096, 256, 64), (3000, 400, 150)]
)
def test_transform_and_inverse_equal_librosa(rng, samples, n_fft, hop):
    wave = rng.uniform(-1, 1, samples).astype(np.float32) * 0.1
    ours = np.asarray(stft(jnp.asarray(wave), n_fft, hop))
    theirs = librosa.stft(wave.astype(np.float64), n_fft=n_fft, hop_length=hop)
    assert ours.shape == theirs.shape == (n_fft // 2 + 1, 1 + samples // hop)
    # float32 rounding is relative to the largest bin
    np.testing.assert_allclose(ours, theirs, atol=1e-6 * np.abs(theirs).max())
    back = np.asarray(istft(jnp.asarray(ours), hop, samples))
    np.testing.assert_allclose(back, librosa.istft(theirs, n_fft=n_fft, hop_length=hop, length=samples), atol=1e-6)
    np.testing.assert_allclose(back, wave, atol=1e-5)


def test_leading_axes_are_a_batch(rng):
    waves = rng.standard_normal((2, 3, 2000)).astype(np.float32)
    batch = np.asarray(stft(jnp.asarray(waves)))
    np.testing.assert_allclose(batch[1, 2], stft(jnp.asarray(waves[1, 2])), atol=1e-5)
    np.testing.assert_allclose(istft(jnp.asarray(batch), length=2000)[1, 2], waves[1, 2], atol=1e-5)


def test_whole_numbers_are_refused():
    with pytest.raises(ValueError, match="must be floats, not int16"):
        stft(np.full(2000, 1000, np.int16))


def test_the_papers_front_end():
    front = FrontEnd()
    assert (front.clip_samples, front.bins, front.clip_frames) == (44100, 257, 173)
    assert front.frequencies()[-1] == 11025 / 2


@pytest.mark.parametrize(
    "wrong", [{"n_fft": 511}, {"hop": 0}, {"hop": 300}, {"sample_rate": 0}, {"clip_seconds": -1.0}]
)
def test_impossible_front_ends_are_refused(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        FrontEnd(**wrong)
