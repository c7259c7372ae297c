"""Each change of a training clip against its closed form or its statistics; all follow from the key alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconv_jax.sound.front_end import FrontEnd, analyse
from deconv_jax.training import augmentation
from deconv_jax.training.augmentation import Augment

FRONT = FrontEnd(sample_rate=8000, n_fft=128, hop=64, clip_seconds=0.5, level="clip")
KEY = jax.random.key(7)
ALL = Augment(speed=0.15, mix=0.5, gain_db=6, eq_db=12, time_mask=0.2, frequency_mask=0.2)


def test_a_crop_is_the_clip_between_its_samples():
    """A parabola is met exactly at every speed; without a change of speed a crop is a piece of the clip."""
    n = np.arange(4000)
    clips = np.stack([1e-7 * (n - 1500.0) ** 2, 3e-4 * n]).astype(np.float32)
    crops = np.asarray(augmentation.crop(jnp.asarray(clips), 1000, 0.3, KEY, 2))
    place = crops[1] / 3e-4
    speed = (place[-1] - place[0]) / 999
    assert 0.7 <= speed <= 1.3
    np.testing.assert_allclose(place, place[0] + speed * np.arange(1000), atol=0.01)  # float32 of places up to 4000
    assert np.polyfit(np.arange(1000), crops[0], 2, full=True)[1][0] < 1e-8
    same = np.asarray(augmentation.crop(jnp.asarray(clips), 1000, 0.0, KEY, 2))
    for crop, clip in zip(same, clips, strict=True):
        assert np.any(np.all(np.lib.stride_tricks.sliding_window_view(clip, 1000) == crop, axis=1))


def test_crops_begin_anywhere_and_play_at_any_speed_but_never_beyond_the_clip():
    ramp = jnp.tile(jnp.arange(1, 2001, dtype=jnp.float32)[None], (4000, 1))
    crops = np.asarray(augmentation.crop(ramp, 500, 0.15, KEY, 4000))
    crops = crops[:, 2:-2]  # at the ends of the clip the cubic takes the silence beyond for a sample
    speed = (crops[:, -1] - crops[:, 0]) / 495
    assert crops.min() >= 1
    assert speed.min() >= 0.85 - 1e-4
    assert speed.max() <= 1.15 + 1e-4
    assert np.quantile(speed, [0.25, 0.5, 0.75]) == pytest.approx([0.925, 1, 1.075], abs=0.01)
    room = 2000 - np.ceil(499 * speed)
    assert np.quantile((crops[:, 0] - 1) / room, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    assert crops.max() > 1990
    longer = np.asarray(augmentation.crop(ramp[:4], 2000, 0.15, KEY, 4))  # the whole clip, faster: silence follows
    assert {0.0} >= set(longer[:, -1][(longer[:, 500] - longer[:, 0]) / 500 > 1.01])


def test_a_tone_played_faster_sounds_higher():
    t = np.arange(8000) / 8000
    tone = jnp.asarray(np.sin(2 * np.pi * 500 * t), jnp.float32)[None]
    ramp = jnp.asarray(8000 * t, jnp.float32)[None]
    sound, place = (np.asarray(augmentation.crop(x, 4000, 0.15, KEY, 1))[0] for x in (tone, ramp))
    speed = (place[-1] - place[0]) / 3999
    np.testing.assert_allclose(sound, np.sin(2 * np.pi * 500 * place / 8000), atol=2e-3)  # the cubic's own error
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(4000)))
    assert spectrum.argmax() * 2 == pytest.approx(500 * speed, abs=2)


def test_mixing_adds_a_clip_of_the_same_class_no_louder_than_the_clip():
    """Clips lie in dimensions of their own, so that what was added can be read off."""
    count = 600
    labels = np.arange(count) % 3
    labels[-1] = 3  # the only one of its class
    loud = np.linspace(0.01, 1, count)
    clips = np.diag(loud).astype(np.float32)
    mixed = np.asarray(augmentation.mix_same_class(jnp.asarray(clips), jnp.asarray(labels), 0.5, KEY, count))
    added = mixed - clips
    partner = added.argmax(axis=1)
    changed = added.max(axis=1) > 0
    assert np.count_nonzero(added, axis=1).max() == 1
    assert np.all(labels[partner[changed]] == labels[changed])
    assert not changed[-1]
    assert changed.mean() == pytest.approx(0.5, abs=0.06)
    amount = added.max(axis=1)[changed] / loud[changed]
    assert amount.max() <= 1 + 1e-5
    assert np.quantile(amount, [0.25, 0.75]) == pytest.approx([0.25, 0.75], abs=0.07)
    assert len(np.unique(partner[changed])) > 0.5 * changed.sum()


def test_gains_are_uniform_in_decibels():
    loud = np.asarray(augmentation.change_gain(jnp.ones((4000, 2)), 6, KEY, 4000))
    decibels = 20 * np.log10(loud[:, 0])
    assert np.abs(decibels).max() <= 6 + 1e-4
    assert np.quantile(decibels, [0.25, 0.5, 0.75]) == pytest.approx([-3, 0, 3], abs=0.25)
    np.testing.assert_array_equal(loud[:, 0], loud[:, 1])


@pytest.mark.parametrize("power", [1, 2])
def test_the_equaliser_is_smooth_and_within_its_range(power):
    front = FrontEnd(8000, 128, 64, 0.5, power=power)
    weights = augmentation.equaliser_weights(front)
    np.testing.assert_allclose(weights.sum(axis=0), 1, atol=1e-6)
    assert weights.min() >= 0
    rows = np.asarray(augmentation.equalise(jnp.ones((4000, front.bins, 2)), front, 12, KEY, 4000))
    decibels = 20 / power * np.log10(rows[..., 0])
    assert np.abs(decibels).max() <= 12 + 1e-3
    assert np.abs(decibels).max() > 11.9
    assert np.abs(decibels.mean(axis=0)).max() < 0.5
    # Uniform knots have a variance of 12² / 3 dB², and a row's is that times the sum of its squared shares.
    np.testing.assert_allclose(decibels.var(axis=0), 48 * (weights**2).sum(axis=0), rtol=0.07)
    np.testing.assert_array_equal(rows[..., 0], rows[..., 1])


@pytest.mark.parametrize("axis", [1, 2])
def test_masks_are_one_stretch_of_up_to_their_share_anywhere(axis):
    rows = np.asarray(augmentation.mask(jnp.ones((4000, 20, 20)), 0.25, axis, KEY, 4000))
    line = rows[:, 0] if axis == 2 else rows[:, :, 0]
    np.testing.assert_array_equal(rows, np.broadcast_to(line[:, None] if axis == 2 else line[..., None], rows.shape))
    width = (line == 0).sum(axis=1)
    assert np.bincount(width) / 4000 == pytest.approx(np.full(6, 1 / 6), abs=0.03)  # 0 to 5 of 20
    edges = np.abs(np.diff(np.pad(line, [(0, 0), (1, 1)], constant_values=1), axis=1)).sum(axis=1)
    assert set(edges) == {0, 2}
    hidden = [
        np.mean([(b <= np.arange(20)) & (np.arange(20) < b + w) for b in range(21 - w)], axis=0) for w in range(6)
    ]
    assert (line == 0).mean(axis=0) == pytest.approx(np.mean(hidden, axis=0), abs=0.03)


def test_all_changes_follow_from_the_key_and_what_fills_up_the_devices_changes_nothing(rng):
    waveforms = jnp.asarray(rng.uniform(-0.5, 0.5, (6, FRONT.clip_samples)), jnp.float32)
    labels = jnp.asarray([0, 0, 1, 1, 0, 1])

    def changed(key, rows=6):
        sound, names = (jnp.pad(x, [(0, rows - 6)] + [(0, 0)] * (x.ndim - 1)) for x in (waveforms, labels))
        keys = jax.random.split(key)
        sound = augmentation.change_waveforms(sound, names, 2000, ALL, keys[0], 6)
        return augmentation.change_rows(FRONT, augmentation.magnitudes_of(FRONT, sound), ALL, keys[1], 6)

    seen = np.asarray(jax.jit(changed)(KEY))
    assert seen.shape == (6, FRONT.bins, FRONT.frames(2000))
    np.testing.assert_array_equal(jax.jit(changed)(KEY), seen)
    np.testing.assert_allclose(jax.jit(changed, static_argnums=1)(KEY, 8)[:6], seen, atol=1e-5)
    assert np.all(np.any(np.asarray(jax.jit(changed)(jax.random.key(8))) != seen, axis=(1, 2)))


def test_without_changes_the_network_sees_what_it_always_does(rng):
    waveforms = jnp.asarray(rng.uniform(-0.5, 0.5, (2, FRONT.clip_samples)), jnp.float32)
    same = augmentation.change_waveforms(waveforms, jnp.zeros(2, int), FRONT.clip_samples, Augment(), KEY, 2)
    seen = augmentation.change_rows(FRONT, augmentation.magnitudes_of(FRONT, same), Augment(), KEY, 2)
    np.testing.assert_allclose(seen, analyse(FRONT, waveforms)[1], atol=1e-6)
    # Neither a gain nor its lack is heard where the level is taken out.
    loud = augmentation.change_waveforms(waveforms, jnp.zeros(2, int), 4000, Augment(gain_db=20), KEY, 2)
    assert not np.allclose(loud, waveforms)
    np.testing.assert_allclose(analyse(FRONT, loud)[1], seen, atol=1e-4)


@pytest.mark.parametrize(("field", "value"), [("speed", 0.6), ("mix", -0.1), ("eq_db", 61), ("time_mask", "much")])
def test_impossible_changes_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"config\.augment\.{field} must be 0 to"):
        Augment(**{field: value})
