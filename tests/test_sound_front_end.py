"""Mel, constant-Q, logarithmic and decibel front ends: forward as librosa, and back to the STFT's bins."""

import dataclasses

import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from deconv_jax.sound.auralisation import auralise
from deconv_jax.sound.front_end import FrontEnd, analyse, lift, spread, undo_level

RATE = 8000
FRONTS = {
    "magnitude": FrontEnd(RATE, 512, 256, 1.0),
    "energy, hamming": FrontEnd(RATE, 512, 256, 1.0, power=2, window="hamming"),
    "mel": FrontEnd(RATE, 512, 256, 1.0, kind="mel", bands=40),
    "mel energy, reflected": FrontEnd(RATE, 512, 256, 1.0, kind="mel", bands=64, power=2, pad="reflect"),
    "mel, htk, part of the range": FrontEnd(
        RATE, 512, 128, 1.0, kind="mel", bands=20, fmin=300, fmax=3000, htk=True, slaney_norm=False
    ),
    "cqt": FrontEnd(RATE, 512, 256, 1.0, kind="cqt", bands=48, fmin=55.0),
}


@pytest.fixture(scope="module")
def wave():
    t = np.arange(RATE) / RATE
    noise = np.random.default_rng(0).standard_normal(RATE)
    return (0.3 * np.sin(2 * np.pi * 440 * t) + 0.2 * np.sin(2 * np.pi * 1300 * t) + 0.05 * noise).astype(np.float32)


def librosas(front, wave):
    if front.kind == "cqt":
        return (
            np.abs(librosa.cqt(wave, sr=RATE, hop_length=front.hop, fmin=front.fmin, n_bins=front.bands)) ** front.power
        )
    magnitude = np.abs(
        librosa.stft(wave, n_fft=front.n_fft, hop_length=front.hop, window=front.window, pad_mode=front.pad)
    )
    if front.kind == "stft":
        return magnitude**front.power
    return librosa.feature.melspectrogram(
        S=magnitude**front.power, sr=RATE, n_mels=front.bands, fmin=front.fmin, fmax=front.fmax or RATE / 2,
        htk=front.htk, norm="slaney" if front.slaney_norm else None,
    )  # fmt: skip


@pytest.mark.parametrize("name", FRONTS)
def test_what_the_network_sees_is_librosas(wave, name):
    front = FRONTS[name]
    spectrum, seen = analyse(front, wave)
    want = librosas(front, wave)
    assert seen.shape == want.shape == (front.bins, front.frames(RATE))
    assert spectrum.shape == (1 + front.n_fft // 2, front.frames(RATE))
    np.testing.assert_allclose(seen, want, atol=2e-6 * want.max())
    centres = front.frequencies()
    assert len(centres) == front.bins
    loudest = centres[want.mean(axis=1).argmax()]
    assert abs(loudest - 440) < 60  # the stronger of the two tones


def test_scales_follow_their_formulas(wave):
    front = FRONTS["mel energy, reflected"]
    x = np.asarray(analyse(front, wave)[1], np.float64)

    def seen(**changes):
        return np.asarray(analyse(dataclasses.replace(front, **changes), wave)[1])

    np.testing.assert_allclose(seen(scale="log1p", factor=1e4), np.log1p(1e4 * x), atol=1e-4)
    np.testing.assert_allclose(seen(scale="log10", factor=1e4), np.log10(1 + 1e4 * x), atol=1e-4)
    np.testing.assert_allclose(seen(scale="log", floor=1e-6), np.log(x + 1e-6), atol=2e-3)
    decibel = seen(scale="decibel", reference=0.0, range=80.0)
    np.testing.assert_allclose(decibel, librosa.power_to_db(x, ref=np.max, top_db=80), atol=1e-3)
    amplitude = dataclasses.replace(FRONTS["mel"], scale="decibel", reference=2.0, floor=1e-5)
    want = librosa.amplitude_to_db(np.asarray(analyse(FRONTS["mel"], wave)[1]), ref=2.0, amin=1e-5, top_db=None)
    np.testing.assert_allclose(analyse(amplitude, wave)[1], want, atol=1e-3)


@pytest.mark.parametrize("name", FRONTS)
def test_a_mask_of_ones_and_the_networks_own_input_give_the_original_back(wave, name):
    front = FRONTS[name]
    spectrum, seen = analyse(front, wave)
    images = {"mask": jnp.ones_like(seen), "phase": seen}
    for reading, image in images.items():
        if name == "cqt" and reading == "phase":
            assert np.all(seen > 0)
        lifted = lift(front, image, seen, spectrum, reading)
        sound = auralise(lifted, spectrum, reading, hop=front.hop, length=len(wave), window=front.window)
        np.testing.assert_allclose(sound, wave, atol=1e-4)


@pytest.mark.parametrize("name", ["mel", "mel, htk, part of the range", "cqt"])
def test_the_filterbanks_transpose_is_a_mean_over_bands_that_keeps_frequency(name):
    front = FRONTS[name]
    weights = spread(front)
    assert weights.shape == (257, front.bins)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert weights.min() >= 0
    centres, bins = front.frequencies(), front.stft_frequencies()
    inside = (bins >= centres[0]) & (bins <= centres[-1])
    np.testing.assert_allclose((weights @ centres)[inside], bins[inside], rtol=0.1, atol=20)
    if name != "cqt":
        basis = librosa.filters.mel(
            sr=RATE, n_fft=512, n_mels=front.bands, fmin=front.fmin, fmax=front.fmax or RATE / 2, htk=front.htk,
            norm="slaney" if front.slaney_norm else None,
        ).T  # fmt: skip
        covered = basis.sum(axis=1) > 1e-6
        basis, weights = basis[covered], weights[covered]
        np.testing.assert_allclose(weights, basis / basis.sum(axis=1, keepdims=True), atol=1e-5)


def test_one_band_is_heard_where_it_lies(wave):
    front = FRONTS["mel energy, reflected"]
    spectrum, seen = analyse(front, wave)
    band = int(np.abs(front.frequencies() - 1300).argmin())
    for reading in ("mask", "phase"):
        image = np.zeros(seen.shape, np.float32)
        image[band] = 1.0 if reading == "mask" else -seen[band]
        lifted = lift(front, jnp.asarray(image), seen, spectrum, reading)
        sound = np.asarray(auralise(lifted, spectrum, reading, length=len(wave)))
        power = np.abs(np.fft.rfft(sound)) ** 2
        assert abs(np.fft.rfftfreq(len(sound), 1 / RATE) @ power / power.sum() - 1300) < 30
    assert np.sum(sound * wave) < 0  # a negative image turns the phase


LEVELLED = {name: dataclasses.replace(FRONTS[name], level="clip") for name in ("magnitude", "mel energy, reflected")}


@pytest.mark.parametrize("name", LEVELLED)
def test_a_level_is_the_mean_over_the_clip_and_no_gain_changes_what_is_seen(wave, name):
    front = LEVELLED[name]
    spectrum, seen = analyse(front, wave)
    want = librosas(front, wave)
    np.testing.assert_allclose(seen, want / want.mean(), atol=1e-5 * (want / want.mean()).max())
    for gain in (1e-3, 30.0):
        np.testing.assert_allclose(analyse(front, gain * wave)[1], seen, atol=1e-4)
    silent = analyse(front, 0 * wave)[1]
    assert not np.any(silent)
    # A clip that is half silence is heard like the half that sounds.
    half = np.concatenate([wave[: RATE // 2], np.zeros(RATE // 2, np.float32)])
    own = analyse(dataclasses.replace(front, clip_seconds=0.5), half[: RATE // 2])[1]
    heard = float(analyse(front, half)[1][:, 2:12].mean())
    assert heard == pytest.approx(float(own[:, 2:12].mean()), rel=0.15)
    again = undo_level(front, seen[None], spectrum)[0]
    np.testing.assert_allclose(again, want, atol=1e-5 * want.max())
    both = undo_level(front, jnp.stack([seen, seen])[:, None], jnp.stack([spectrum, spectrum]))
    np.testing.assert_allclose(both[1, 0], again, atol=1e-6 * want.max())


def test_a_long_sound_is_heard_everywhere_as_a_clip_cut_out_there():
    """The middle frame of every second of it is divided by that second's own mean, and the ends by the nearest."""
    front = LEVELLED["magnitude"]
    rng = np.random.default_rng(1)
    loud = np.repeat([1.0, 0.01, 0.3, 0.0, 0.1], RATE) * rng.standard_normal(5 * RATE) / 10
    spectrum, seen = (np.asarray(a) for a in analyse(front, loud))
    magnitude, frames = np.abs(spectrum).astype(float), front.clip_frames
    sounding = magnitude.any(axis=0)
    for t in range(seen.shape[1]):
        first = min(max(0, t - frames // 2), seen.shape[1] - frames)
        some = sounding[first : first + frames]
        level = magnitude[:, first : first + frames][:, some].mean() if some.any() else 1
        np.testing.assert_allclose(seen[:, t], magnitude[:, t] / level, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(undo_level(front, seen[None], spectrum)[0], magnitude, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LEVELLED)
def test_without_its_level_a_mask_of_ones_and_the_input_still_give_the_original_back(wave, name):
    front = LEVELLED[name]
    spectrum, seen = analyse(front, wave)
    images = {"mask": jnp.ones_like(seen), "phase": undo_level(front, seen[None], spectrum)[0]}
    for reading, image in images.items():
        lifted = lift(front, image, seen, spectrum, reading)
        sound = auralise(lifted, spectrum, reading, hop=front.hop, length=len(wave), window=front.window)
        whole = RATE // front.hop * front.hop
        np.testing.assert_allclose(sound[:whole], wave[:whole], atol=1e-4)
    logs = dataclasses.replace(front, scale="log1p")
    np.testing.assert_array_equal(undo_level(logs, seen[None], spectrum)[0], seen)


def test_logarithms_have_no_phase_reading(wave):
    front = dataclasses.replace(FRONTS["mel"], scale="log10")
    spectrum, seen = analyse(front, wave)
    with pytest.raises(ValueError, match="use the mask reading"):
        lift(front, seen, seen, spectrum, "phase")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"window": "kaiser"}, "window must be one of hann"),
        ({"pad": "none"}, "pad must be one of constant"),
        ({"kind": "mfcc"}, "kind must be one of stft"),
        ({"kind": "mel"}, "bands must be at least 1"),
        ({"kind": "mel", "bands": 4, "fmax": 9000}, "beyond half of the sample rate"),
        ({"kind": "mel", "bands": 4, "fmin": 900, "fmax": 300}, "not rising"),
        ({"kind": "cqt", "bands": 84}, "fmin above 0"),
        ({"kind": "cqt", "bands": 184, "fmin": 32.7}, "beyond half of the sample rate"),
        ({"level": "song"}, "level must be one of none, clip"),
        ({"kind": "cqt", "bands": 24, "fmin": 55.0, "level": "clip"}, 'level must be "none"'),
        ({"power": 3}, "power must be one of 1, 2"),
        ({"scale": "log", "floor": 0.0}, "floor must be above 0"),
    ],
)
def test_impossible_front_ends_are_refused_by_field(changes, word):
    with pytest.raises(ValueError, match=word):
        FrontEnd(**changes)
