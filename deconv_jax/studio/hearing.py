"""What the studio computes: a stretch of a song, a layer's features in it, and what is said and heard with maps scaled.

The answer with faders set is the network's own, run on from the scaled maps of the layer: no approximation. What is
below that layer is computed once for a stretch, so deep layers answer in a few milliseconds.
"""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

from deconv_jax.decision.effects import effects, logits_from, pooled_maps
from deconv_jax.deconvolution.deconvolve import images_and_maps
from deconv_jax.measures import features
from deconv_jax.measures.features import Measures
from deconv_jax.network.trained import Trained
from deconv_jax.results.explain import Answer, Clip, answer_of
from deconv_jax.sound import audio, auralisation, blocks

MOST = 4
"""Clip lengths of a stretch, at most."""


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Whole clip lengths of a song, and what the network says of them.

    Attributes:
      start: its first sample.
      clip: the stretch.
      answer: the mean over its clip lengths.
    """

    start: int
    clip: Clip
    answer: Answer


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer's features in a stretch.

    Attributes:
      number: of the layer, from 1.
      images: shape (features, freq, time), in the unit of the rows.
      measures: of the features.
      maps: the layer's pooled maps of the whole stretch, shape (features, layer freq, layer time).
      pooled: the layer's maps of each clip length, (1, freq, time, maps): what comes above it starts from them.
    """

    number: int
    images: np.ndarray
    measures: Measures
    maps: np.ndarray
    pooled: list[jax.Array]

    @property
    def levels(self) -> np.ndarray:
        """Of each image's loudest value below the loudest of all, dB; 0 where there is nothing."""
        tops = np.abs(self.images).max(axis=(1, 2))
        return np.array([20 * np.log10(top / tops.max()) if top > 0 else 0.0 for top in tops])


def length_of(trained: Trained, seconds: float) -> int:
    """Samples of the whole clip lengths that cover so many seconds, `MOST` at most."""
    front = trained.front_end
    count = int(np.ceil(round(seconds * front.sample_rate) / front.clip_samples))
    return max(1, min(MOST, count)) * front.clip_samples


def stretch_of(trained: Trained, song: np.ndarray, start: float, seconds: float) -> Stretch:
    """Hears a stretch of a song (samples,) that begins at a second and covers so many; silence after the song's end."""
    front = trained.front_end
    first = max(0, min(round(start * front.sample_rate), len(song) - 1))
    wave = audio.cut(song, first, length_of(trained, seconds)).astype(np.float32)
    clip = Clip(wave, blocks.analyse(front, wave))
    return Stretch(first, clip, answer_of(trained, clip))


def is_of(stretch: Stretch, song: np.ndarray, first: int, length: int) -> bool:
    """Whether that many samples of a song from `first` on are this stretch, which may be of its beginning alone.

    What reached beyond the beginning was filled up with silence, and is to be heard again once the rest is there.
    """
    wave = stretch.clip.waveform
    same = (stretch.start, len(wave)) == (first, length)
    return same and np.array_equal(wave, audio.cut(song, first, length).astype(np.float32))


def layer_of(trained: Trained, stretch: Stretch, number: int) -> Layer:
    """Explains a stretch by all features of a layer."""
    found = images_and_maps(trained.network, trained.variables, stretch.clip.seen, number)
    images, maps = stretch.clip.heard.in_unit(trained.front_end, found[0]), np.asarray(found[1])
    pooled = [pooled_maps(trained.network, trained.variables, part, number) for part in stretch.answer.parts]
    return Layer(number, images, features.measure(images, maps, trained.front_end.frequencies()), maps, pooled)


def effects_of(trained: Trained, stretch: Stretch, number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What features do for every class, some at a time: (numbers, changes of the logits (features, classes))."""
    maps, depth = trained.network.blocks[number - 1].maps, len(trained.network.blocks)
    together = min(maps, 4 if 2 * number <= depth else 16)
    for first in range(0, maps, together):
        some = [min(n, maps - 1) for n in range(first, first + together)]  # always as many: compiled once
        parts = [effects(trained.network, trained.variables, part, number, some) for part in stretch.answer.parts]
        count = min(together, maps - first)
        yield np.array(some[:count]), np.mean([np.asarray(part, np.float64) for part in parts], axis=0)[:count]


def says(trained: Trained, layer: Layer, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and probabilities (classes,) of the network with a layer's maps scaled: means over the clip lengths."""
    logits = [logits_from(trained.network, trained.variables, maps, layer.number, scales)[0] for maps in layer.pooled]
    said = [trained.network.probabilities(one) for one in logits]
    return (np.mean([np.asarray(some, np.float64) for some in group], axis=0) for group in (logits, said))  # type: ignore[return-value]


def left_of(trained: Trained, stretch: Stretch, layer: Layer, scales: np.ndarray) -> np.ndarray:
    """The sound (samples,) of the scaled sum of a layer's images, as loud as the original."""
    front, wave = trained.front_end, stretch.clip.waveform
    image = np.tensordot(scales.astype(np.float32), layer.images, 1)
    reading = "phase" if front.linear else "mask"
    sound = blocks.auralise(front, [image], stretch.clip.heard, len(wave), reading)[0]
    return auralisation.match_gain(sound, wave).waveform


def over_time(trained: Trained, song: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """What the network says along a song: (second in the middle of a clip, probabilities), every half clip length.

    Every other one comes first, so that the whole song is there soon, and then those between.
    """
    front = trained.front_end
    count = 1 + max(0, int(2 * (len(song) - front.clip_samples) / front.clip_samples))
    starts = [round(n * front.clip_samples / 2) for n in range(count)]
    for start in [*starts[::2], *starts[1::2]]:
        stretch = stretch_of(trained, song, start / front.sample_rate, front.clip_seconds)
        yield (start + front.clip_samples / 2) / front.sample_rate, stretch.answer.mean
