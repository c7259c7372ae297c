"""Changes of a training clip that leave its genre as it is, on the device and within the compiled step.

What is drawn follows from a key that the step folds its number into, and each clip's draws from its place in the
batch: the same clips are changed in the same way whichever devices they lie on and however often a run was interrupted.
Three changes are made to the waveform (`change_waveforms`), two to what the front end makes of it (`change_rows`).
Each is off at 0 and has a field of its own in `config.augment`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deconv_jax.errors import SettingError
from deconv_jax.sound.front_end import FrontEnd, in_rows, levelled, scaled
from deconv_jax.sound.spectrogram import stft

EQ_KNOTS = 6
"""Frequencies between which the random equaliser's gain is interpolated."""

EQ_LOWEST = 60.0
"""Hz, the lowest of them; the highest is half of the sample rate."""


@dataclasses.dataclass(frozen=True)
class Augment:
    """How much training clips are changed: `config.augment`.

    Attributes:
      speed: largest change of tempo and pitch at once, as a share: .15 plays a crop at .85 to 1.15 of its speed.
      mix: share of the clips that get another clip of the same class added to them, at their own level and up to as
        loud as they are.
      gain_db: largest change of a clip's level, dB either way. A front end with a level takes it out again.
      eq_db: largest gain of a smooth random equaliser, dB either way.
      time_mask: largest share of the frames that one stretch of silence takes.
      frequency_mask: largest share of the rows that one silent band takes.
    """

    speed: float = 0.0
    mix: float = 0.0
    gain_db: float = 0.0
    eq_db: float = 0.0
    time_mask: float = 0.0
    frequency_mask: float = 0.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, most = getattr(self, field.name), {"eq_db": 60, "gain_db": 60, "speed": 0.5}.get(field.name, 1)
            if not isinstance(value, int | float) or not 0 <= value <= most:
                raise SettingError(f"config.augment.{field.name} must be 0 to {most}, not {value!r}")

    @property
    def any(self) -> bool:
        return self != Augment()


def crop(waveforms: jax.Array, samples: int, speed: float, key: jax.Array, count: int) -> jax.Array:
    """A random stretch of every clip, at a random speed.

    Args:
      waveforms: float, shape (clips, samples of a clip).
      samples: of the crops.
      speed: as in `Augment`; the factor is uniform in 1 ± speed.
      key: of the draws.
      count: clips that are drawn for; those after them are silent and stay as they are.

    Returns:
      shape (clips, samples): between samples by Catmull and Rom's cubic (1974), which reproduces parabolas; zeros
      where a clip is over. Starts are uniform among whole samples that leave room for the crop, speed included.
    """
    clips, length = waveforms.shape
    begin, factor = (_each(jax.random.uniform(k, (count,)), clips) for k in jax.random.split(key))
    factor = 1 + speed * (2 * factor - 1)
    room = jnp.maximum(length - jnp.ceil((samples - 1) * factor) - 1, 0)
    begin = jnp.floor(begin * (room + 1))
    place = jnp.arange(samples, dtype=jnp.float32)[None] * factor[:, None]
    whole = jnp.floor(place)
    t = place - whole
    index = (begin[:, None] + whole).astype(jnp.int32)
    weights = (
        t * (-0.5 + t * (1 - 0.5 * t)),
        1 + t * t * (-2.5 + 1.5 * t),
        t * (0.5 + t * (2 - 1.5 * t)),
        t * t * (-0.5 + 0.5 * t),
    )
    padded = jnp.pad(waveforms, [(0, 0), (1, 2)])
    return sum(
        jnp.take_along_axis(padded, jnp.minimum(index + tap, length + 2), axis=1) * weight
        for tap, weight in enumerate(weights)
    )


def mix_same_class(waveforms: jax.Array, labels: jax.Array, share: float, key: jax.Array, count: int) -> jax.Array:
    """Adds to some clips another of their class, brought to their root mean square, times 0 to 1 uniformly.

    Args:
      waveforms: float, shape (clips, samples); labels: shape (clips,).
      share: of the clips that are changed, each drawn by itself.
      key, count: as in `crop`. A clip that is the only one of its class stays as it is.
    """
    clips = len(waveforms)
    keys = jax.random.split(key, 3)
    some = labels[:count]
    partners = (some[:, None] == some[None]) & ~np.eye(count, dtype=bool)
    chance = jnp.where(partners, jax.random.uniform(keys[0], (count, count)), -1.0)
    partner = _each(chance.argmax(axis=1), clips)
    mixed = (jax.random.uniform(keys[1], (count,)) < share) & partners.any(axis=1)
    amount = _each(jnp.where(mixed, jax.random.uniform(keys[2], (count,)), 0.0), clips)
    power = jnp.mean(waveforms**2, axis=1)
    ratio = jnp.sqrt(power / jnp.where(power[partner] > 0, power[partner], 1))
    return waveforms + (amount * ratio)[:, None] * waveforms[partner]


def change_gain(waveforms: jax.Array, decibels: float, key: jax.Array, count: int) -> jax.Array:
    """Waveforms (clips, samples), each times a gain uniform in ± so many dB."""
    level = decibels * _each(jax.random.uniform(key, (count,), minval=-1, maxval=1), len(waveforms))
    return waveforms * (10 ** (level / 20))[:, None]


def equaliser_weights(front: FrontEnd) -> np.ndarray:
    """Share of every knot in every row's gain, shape (knots, freq); the shares of a row add up to 1.

    Knots stand evenly on a logarithmic scale from `EQ_LOWEST` to half of the sample rate, and between two of them the
    gain goes along half a cosine.
    """
    octaves = np.log2(front.sample_rate / 2 / EQ_LOWEST)
    place = np.log2(np.maximum(front.frequencies(), EQ_LOWEST) / EQ_LOWEST) / octaves * (EQ_KNOTS - 1)
    away = np.clip(np.abs(place[None] - np.arange(EQ_KNOTS)[:, None]), 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * away)).astype(np.float32)


def equalise(rows: jax.Array, front: FrontEnd, decibels: float, key: jax.Array, count: int) -> jax.Array:
    """Magnitudes or energies (clips, freq, time) through a random equaliser each, its knots uniform in ± so many dB."""
    knots = _each(jax.random.uniform(key, (count, EQ_KNOTS), minval=-1, maxval=1), len(rows))
    gain = decibels * jnp.einsum("ck,kf->cf", knots, equaliser_weights(front), precision="highest")
    return rows * (10 ** (gain * front.power / 20))[:, :, None]


def mask(rows: jax.Array, most: float, axis: int, key: jax.Array, count: int) -> jax.Array:
    """Silences one stretch of every clip along axis 1 (rows) or 2 (frames) of (clips, freq, time).

    Its width is uniform from nothing to so great a share of the axis, and its place uniform (Park et al. 2019).
    """
    length = rows.shape[axis]
    width, place = _each(jax.random.uniform(key, (count, 2)), len(rows)).T
    width = jnp.floor(width * (most * length + 1))
    begin = jnp.floor(place * (length - width + 1))
    position = jnp.arange(length, dtype=jnp.float32)[None]
    keep = (position < begin[:, None]) | (position >= (begin + width)[:, None])
    return jnp.where(jnp.expand_dims(keep, 3 - axis), rows, 0)


def change_waveforms(
    waveforms: jax.Array, labels: jax.Array, samples: int, augment: Augment, key: jax.Array, count: int
) -> jax.Array:
    """Float waveforms (clips, samples) → crops (clips, samples), at another speed, mixed, and at another level."""
    keys = jax.random.split(key, 3)
    if samples != waveforms.shape[1] or augment.speed:
        waveforms = crop(waveforms, samples, augment.speed, keys[0], count)
    if augment.mix:
        waveforms = mix_same_class(waveforms, labels, augment.mix, keys[1], count)
    if augment.gain_db:
        waveforms = change_gain(waveforms, augment.gain_db, keys[2], count)
    return waveforms


def change_rows(front: FrontEnd, rows: jax.Array, augment: Augment, key: jax.Array, count: int) -> jax.Array:
    """Magnitudes in the network's rows → what it sees of them: equalised, without level if so, masked, scaled.

    Masks come after the level, which an equaliser changes and a mask must not.
    """
    keys = jax.random.split(key, 3)
    if augment.eq_db:
        rows = equalise(rows, front, augment.eq_db, keys[0], count)
    rows = levelled(front, rows)
    if augment.time_mask:
        rows = mask(rows, augment.time_mask, 2, keys[1], count)
    if augment.frequency_mask:
        rows = mask(rows, augment.frequency_mask, 1, keys[2], count)
    return scaled(front, rows)


def magnitudes_of(front: FrontEnd, waveforms: jax.Array) -> jax.Array:
    """Float waveforms (clips, samples) → rows (clips, freq, time) before level and scale."""
    return in_rows(front, stft(waveforms, front.n_fft, front.hop, front.window, front.pad))


def _each(draws: jax.Array, clips: int) -> Any:
    """Draws of the first clips, with zeros for the silent ones that only fill up the devices."""
    return jnp.pad(draws, [(0, clips - len(draws)), *[(0, 0)] * (draws.ndim - 1)])
