import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from deconv_jax.sound.auralisation import GROWTH, auralise, match_gain, rms
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


# Every remainder of the hop for the paper's ratio, and the edges and the middle of the others.
CUTS = [(16, 8, "hann", rest) for rest in range(8)] + [
    (n_fft, hop, window, rest)
    for n_fft, hop, window in [(40, 15, "hann"), (32, 8, "hamming"), (32, 16, "blackman"), (24, 5, "blackman")]
    for rest in (1, hop // 2, hop - 1)
]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def both_readings(n_fft, hop, window, length, images, wave):
    """Sounds of images with one column to spare, in both readings, and of the clip's own magnitude."""
    spectrum = stft(wave[:length], n_fft, hop, window)
    images = images[..., : spectrum.shape[-1]]
    how = {"hop": hop, "length": length, "window": window}
    own = auralise(jnp.abs(spectrum), spectrum, **how)
    return auralise(images, spectrum, **how), auralise(images, spectrum, "mask", **how), own


@pytest.mark.parametrize(("n_fft", "hop", "window", "rest"), CUTS)
def test_a_clip_of_any_length_ends_as_loud_as_it_goes_on(rng, n_fft, hop, window, rest):
    length = 12 * hop + rest
    wave = rng.standard_normal(length)
    images = rng.standard_normal((60, n_fft // 2 + 1, 13))
    sounds = both_readings(n_fft, hop, window, length, images.astype("f"), wave.astype("f"))
    phase, mask, own = map(np.asarray, sounds)
    for reading, sounds in (("phase", phase), ("mask", mask)):
        slow = [reference.auralise(image, wave, n_fft, hop, window, reading) for image in images[:2]]
        np.testing.assert_allclose(sounds[:2], slow, atol=1e-3 * np.abs(slow).max())
        level = np.sqrt(np.mean(np.square(sounds), axis=0))
        assert level[-hop // 2 :].max() < 2.5 * level[2 * hop : -2 * hop].max()  # no click; it was 4,000 times as loud
        assert rms(level[-hop // 2 :]) > 0.4 * rms(level[2 * hop : -2 * hop])
        limits = [match_gain(sound, np.ones(length), "peak").gain for sound in sounds]
        inside = [match_gain(sound[:-hop], np.ones(length), "peak").gain for sound in sounds]
        assert np.median(limits) > 0.7 * np.median(inside)
    np.testing.assert_allclose(own, wave, atol=2e-3 if rest == hop - 1 else 1e-4)  # a window of 1e-2 divides rounding


def test_a_sound_that_begins_with_the_last_sample_makes_no_louder_click_than_one_before(rng):
    length = 512 + 255
    images = rng.uniform(size=(8, 257, 3)).astype(np.float32)  # features answer to silence, by their biases
    peaks = []
    for place in (512, length - 1):
        wave = np.zeros(length, np.float32)
        wave[place] = 1
        peaks.append(np.abs(both_readings(512, 256, "hann", length, images, wave)[0]).max())
    assert peaks[1] < GROWTH * peaks[0]


def test_a_length_that_has_more_frames_is_refused(spectrum):
    with pytest.raises(ValueError, match="below 5376 samples"):
        auralise(jnp.abs(spectrum), spectrum, length=5376)


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
    with pytest.raises(ValueError, match="rows and frames of the spectrum"):
        auralise(jnp.abs(spectrum)[1:], spectrum)
    with pytest.raises(ValueError, match=r"phase, mask.*'magic'"):
        auralise(jnp.abs(spectrum), spectrum, "magic")
    with pytest.raises(ValueError, match=r"match, peak, none.*'loud'"):
        match_gain(np.ones(3), np.ones(3), "loud")
