"""How alike images are, what is measured of a clip, and the untrained twin beside which a feature stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconv_jax.measures import descriptors, features, likeness, randomised
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block
from deconv_jax.sound.front_end import FrontEnd
from deconv_jax.sound.spectrogram import stft

FRONT = FrontEnd(clip_seconds=1.0)


def test_pictures_correlate_as_numpy_says_and_constant_ones_with_nothing(rng):
    images = rng.normal(size=(4, 6, 30)).astype(np.float32)
    images[3] = 0
    images[2] = -3 * images[0]
    levels, signed = (likeness.standardised(images, levels=flag) for flag in (True, False))
    r = signed @ signed.T
    np.testing.assert_allclose(r[:3, :3], np.corrcoef(images[:3].reshape(3, -1)), atol=1e-5)
    np.testing.assert_allclose(r[0, 2], -1, atol=1e-5)
    np.testing.assert_allclose((levels @ levels.T)[0, 2], 1, atol=1e-5)  # a picture leaves sign and gain out
    assert not signed[3].any()
    assert not levels[3].any()
    assert likeness.standardised(rng.normal(size=(1, 2, 5000)), levels=True).shape == (1, 2 * 1000)


def test_look_alikes_become_one_kind_and_inactive_ones_none(rng):
    bases = rng.uniform(size=(3, 20, 30)) ** 4
    planted = [0, 0, 1, 2, 0, 1]
    images = np.stack([bases[b] * rng.uniform(0.8, 1.25, (20, 30)) * 10.0**k for k, b in enumerate(planted)])
    images[1] *= -1
    images = np.concatenate([images, np.zeros((1, 20, 30))])
    number, alike = likeness.kinds(likeness.standardised(images, levels=True))
    np.testing.assert_array_equal(number[[0, 1, 4]], 1)  # the largest kind is the first
    np.testing.assert_array_equal(number[[2, 5]], 2)
    assert (number[3], number[6]) == (3, -1)
    assert np.all(alike[[0, 1, 2, 4, 5]] > likeness.ALIKE)
    assert np.all(np.isnan(alike[[3, 6]]))


def test_there_are_a_dozen_kinds_at_most(rng):
    number, alike = likeness.kinds(likeness.standardised(rng.normal(size=(40, 10, 10)), levels=True))
    assert set(number) == set(range(1, likeness.KINDS + 1))
    assert np.nanmax(alike) < likeness.ALIKE  # joined because there were too many, and they say so
    one, _ = likeness.kinds(likeness.standardised(rng.normal(size=(1, 10, 10)), levels=True))
    none, _ = likeness.kinds(np.zeros((2, 10), np.float32))
    np.testing.assert_array_equal(one, [1])
    np.testing.assert_array_equal(none, [-1, -1])


def test_strongest_moments_are_peaks_kept_apart():
    envelope = np.zeros(50)
    envelope[[0, 10, 12, 30, 49]] = [3, 5, 4, 1, 2]
    np.testing.assert_array_equal(features.envelope_peaks(envelope, 9, 5), [10, 0, 49, 30])
    np.testing.assert_array_equal(features.envelope_peaks(envelope, 2, 5), [10, 0])
    assert features.envelope_peaks(np.zeros(50), 3, 5).size == 0


def test_descriptors_follow_what_they_are_named_after(rng):
    front = FrontEnd()
    t = np.arange(4 * 11025) / 11025
    wave = 0.5 * np.sin(2 * np.pi * 110 * t) * (t < 2) + 0.5 * np.sin(2 * np.pi * 3000 * t) * (t >= 2)
    wave[np.arange(3000, 44000, 4000)] += 3.0
    found = descriptors.describe(np.abs(np.asarray(stft(jnp.asarray(wave, jnp.float32)))), front)
    frames = front.frames(len(wave))
    assert all(series.shape == (frames,) and np.isfinite(series).all() for series in found.values())
    first, second = slice(5, frames // 2 - 5), slice(frames // 2 + 5, -5)
    for name, louder in (("bass (below 250 Hz)", first), ("treble (above 2000 Hz)", second)):
        quieter = second if louder is first else first
        assert np.median(found[name][louder]) > 10 * np.median(found[name][quieter])
    assert np.median(found["spectral centroid"][first]) < 1000 < np.median(found["spectral centroid"][second])
    clicks = np.round(np.arange(3000, 44000, 4000) / front.hop).astype(int)
    for name in ("onset strength", "the percussive part"):
        near = np.zeros(frames, bool)
        near[np.clip(clicks[:, None] + np.arange(-2, 3), 0, frames - 1)] = True
        assert found[name][near].mean() > 3 * found[name][~near].mean()
    assert np.median(found["chroma stability"][first]) > 0.9


@pytest.mark.parametrize("frames", [3, 200])
def test_descriptors_of_silence_are_numbers(frames):
    front = FrontEnd()
    series = np.stack(list(descriptors.describe(np.zeros((front.bins, frames)), front).values()))
    assert np.isfinite(series).all()


def test_a_layer_is_compared_with_the_whole_layer_of_the_untrained_twin(rng):
    own = rng.uniform(size=(3, 8, 60)) ** 4
    own[2] = 0
    twin = rng.uniform(size=(3, 8, 60)) ** 4
    twin[2] = -2 * own[0]
    looks = [randomised.look(images) for images in (own, twin, own[:1])]
    found = randomised.compare(*looks)
    np.testing.assert_allclose(found.difference[0], 0, atol=1e-5)  # the twin shows the same, in another number
    np.testing.assert_allclose(found.difference_signed[0], 0, atol=1e-5)
    assert found.difference[1] > 0.5
    assert np.isnan(found.difference[2])
    assert found.chance == {
        "active": 1,
        "difference": pytest.approx(0, abs=1e-5),
        "difference_signed": pytest.approx(0, abs=1e-5),
    }


def test_the_twin_has_other_weights_of_the_same_kind_and_the_same_input():
    network = Network(blocks=(Block(maps=4),), dense=(3,), classes=2)
    size = (FRONT.bins, FRONT.clip_frames)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros(size))["params"]
    variables = {"params": params, "input": {"mean": jnp.zeros((1, 1)), "scale": jnp.full((1, 1), 2.0)}}
    one, again, two = (randomised.twin(network, variables, size, seed) for seed in (5, 5, 6))
    assert one["input"] is variables["input"]
    shapes = [jax.tree.map(jnp.shape, v["params"]) for v in (variables, one)]
    assert shapes[0] == shapes[1]
    kernels = [np.asarray(v["params"]["conv1"]["kernel"]) for v in (variables, one, again, two)]
    np.testing.assert_array_equal(kernels[1], kernels[2])
    assert not np.allclose(kernels[0], kernels[1])
    assert not np.allclose(kernels[1], kernels[3])
