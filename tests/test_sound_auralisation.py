import jax.numpy as jnp
import numpy as np
import pytest

from deconv_jax.sound.auralisation import auralise, match_gain, rms
from deconv_jax.sound.spectrogram import istft, stft


@pytest.fixture
def spectrum(rng):
    return stft(jnp.asarray(rng.standard_normal(5120).astype(np.float32)))


def test_the_phase_reading_gives_the_original_back_for_its_own_magnitude(spectrum):
    np.testing.assert_allclose(auralise(jnp.abs(spectrum), spectrum), istft(spectrum), atol=1e-5)


def test_the_mask_reading_gives_the_original_back_for_ones(spectrum):
    np.testing.assert_allclose(auralise(jnp.ones(spectrum.shape), spectrum, "mask"), istft(spectrum), atol=1e-5)


@pytest.mark.parametrize("reading", ["phase", "mask"])
def test_both_follow_their_formulas(rng, spectrum, reading):
    image = rng.standard_normal(spectrum.shape).astype(np.float32)
    s = np.asarray(spectrum)
    want = image * (np.exp(1j * np.angle(s)) if reading == "phase" else s)
    np.testing.assert_allclose(auralise(image, spectrum, reading), istft(want.astype(np.complex64)), atol=1e-4)
    rectified = auralise(image, spectrum, reading, rectify=True)
    np.testing.assert_allclose(rectified, auralise(np.maximum(image, 0), spectrum, reading), atol=1e-6)
    np.testing.assert_allclose(auralise(-image, spectrum, reading), -auralise(image, spectrum, reading), atol=1e-4)


def test_many_images_share_one_spectrum(rng, spectrum):
    images = rng.standard_normal((3, *spectrum.shape)).astype(np.float32)
    together = auralise(images, spectrum, length=5000)
    assert together.shape == (3, 5000)
    np.testing.assert_allclose(together[1], auralise(images[1], spectrum, length=5000), atol=1e-4)


def test_an_empty_image_is_silence_and_stays_so(spectrum):
    sound = np.asarray(auralise(jnp.zeros(spectrum.shape), spectrum))
    assert not sound.any()
    for gain in ("match", "peak", "none"):
        gained = match_gain(sound, np.ones(100), gain)
        assert gained.gain == 1
        assert not gained.waveform.any()


def test_gain_matches_loudness_below_the_originals_peak(rng):
    original = rng.uniform(-0.5, 0.5, 4000)
    dense = 1e-4 * rng.uniform(-1, 1, 4000)
    matched = match_gain(dense, original)
    assert rms(matched.waveform) == pytest.approx(rms(original), rel=0.05)
    assert np.abs(matched.waveform).max() <= np.abs(original).max() + 1e-7
    np.testing.assert_allclose(matched.waveform, dense * matched.gain, rtol=1e-6)
    click = np.zeros(4000)
    click[7] = 3.0
    assert np.abs(match_gain(click, original).waveform).max() == pytest.approx(np.abs(original).max())
    assert np.abs(match_gain(dense, original, "peak").waveform).max() == pytest.approx(np.abs(original).max())
    np.testing.assert_array_equal(match_gain(click, original, "none").waveform, click)


def test_unknown_readings_and_gains_are_refused(spectrum):
    with pytest.raises(ValueError, match=r"phase, mask.*'magic'"):
        auralise(jnp.abs(spectrum), spectrum, "magic")
    with pytest.raises(ValueError, match=r"match, peak, none.*'loud'"):
        match_gain(np.ones(3), np.ones(3), "loud")
