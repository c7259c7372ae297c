"""The smallest sound that keeps an answer, and the least that has to go for the answer to change.

Cells of a clip's spectrogram are taken in the order of an image, such as an attribution: the highest first. A set of
them is a mask on the STFT, the mask is made a sound, and the sound goes through the front end and the network again:
what is asked is what the network says of something that can be heard. (A masked spectrogram need not be one of any
sound: analysed again, it is another.)

"Smallest" is a claim about this order only, and not quite that. The probability of a class does not rise steadily with
the number of cells: a few more can cost the answer again. So the counts of a grid are tried, each 2.7 times the one
before, and the first that does is followed down: the counts between it and the one before, then those between the
first of these that does and its neighbour. A smaller set may lie between two counts of the grid; what is returned does
what it says, on the sound itself. Masked sound is nothing that networks are trained on either: that little is enough
shows what suffices for this network, not what it heard (of planted cues, whose place is known, it held too few cells to
show it, and as few random ones often did as well). An order by loudness, a random one, and the attribution of
a network that never learnt belong beside it.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deconv_jax.decision.faithfulness import answers_of
from deconv_jax.deconvolution.plain import clips_together
from deconv_jax.errors import SettingError
from deconv_jax.network.trained import Trained
from deconv_jax.sound import front_end
from deconv_jax.sound.auralisation import auralise
from deconv_jax.sound.front_end import FrontEnd

TRIED, FOLLOWED = 8, 4
"""Counts that are tried together: of the grid, and twice between two of those before."""


@dataclasses.dataclass(frozen=True)
class Cells:
    """Some cells of a clip, the first of an order.

    Attributes:
      mask: shape (freq, time), in the rows that the network sees: True for the cells.
      sound, rest: waveforms, shape (samples,), of the cells alone and of all others. No gain is applied: they add up to
        the clip.
      says, rest_says: probabilities that the network gives for these, shape (classes,).
      seconds: length of the frames that hold at least one of the cells.
      energy: of the sound beside the clip's, 1 for all of it.
      reached: whether they do what was asked; False where no count that was tried does, and the mask is then full.
    """

    mask: np.ndarray
    sound: np.ndarray
    rest: np.ndarray
    says: np.ndarray
    rest_says: np.ndarray
    seconds: float
    energy: float
    reached: bool

    @property
    def share(self) -> float:
        """Of all cells."""
        return float(self.mask.mean())


def sufficient(trained: Trained, waveform: Any, image: Any, target: int, *, share: float = 0.9) -> Cells:
    """The first cells whose sound alone brings a class's probability back.

    Where the class is the likeliest of the whole clip, it has to be that of the sound as well: a narrow answer may be
    lost although most of its probability is kept.

    Args:
      trained: the network.
      waveform: a clip of the length that it classifies, shape (samples,).
      image: gives the order, the highest first; shape (freq, time), in the rows that the network sees.
      target: 0-based class.
      share: of the probability that the whole clip has, above 0 and at most 1.

    Raises:
      ValueError: no such class, a share outside this range, or clip or image have another length.
    """
    if not 0 < share <= 1:
        raise SettingError(f"share must be above 0 and at most 1, not {share}")
    clip = _clip(trained, waveform, image, target)
    # All cells are the clip itself, but for rounding.
    whole = clip.says([clip.cells])[0]
    wanted, first = share * whole[target] * (1 - 1e-5), np.argmax(whole) == target
    return _found(
        clip,
        lambda says: (says[:, target] >= wanted) & (~first | (np.argmax(says, axis=1) == target)),
        alone=True,
    )


def necessary(trained: Trained, waveform: Any, image: Any, target: int) -> Cells:
    """The first cells without which another class is likelier.

    Args:
      trained, waveform, image, target: as in `sufficient`; the class is that of the whole clip.

    Raises:
      ValueError: as `sufficient`.
    """
    clip = _clip(trained, waveform, image, target)
    return _found(clip, lambda says: np.argmax(says, axis=1) != target, alone=False)


def says_of(trained: Trained, waveforms: Any) -> np.ndarray:
    """Probabilities that the network gives for clips of its length, (clips, samples) → (clips, classes)."""
    _, seen = front_end.analyse(trained.front_end, waveforms)
    return answers_of(trained.network, trained.variables, seen).astype(np.float64)


@dataclasses.dataclass(frozen=True)
class _Clip:
    """A clip, its spectrum, what the network sees of it, and the rank of every cell, (freq, time)."""

    trained: Trained
    waveform: np.ndarray
    spectrum: jax.Array
    seen: jax.Array
    ranks: jax.Array

    @property
    def cells(self) -> int:
        return int(self.ranks.size)

    def sounds(self, counts: Any, alone: bool = True) -> jax.Array:
        """The first cells alone, or all others, for several counts: (counts, samples)."""
        length = len(self.waveform)
        first = jnp.asarray(counts, jnp.int32)
        return _masked(self.trained.front_end, length, alone, self.ranks, first, self.seen, self.spectrum)

    def says(self, counts: Any, alone: bool = True) -> np.ndarray:
        """Probabilities that the network gives for these sounds, (counts, classes)."""
        front = self.trained.front_end
        group = clips_together(self.trained.network.blocks, (front.bins, front.clip_frames))
        parts = np.array_split(np.asarray(counts), -(-len(counts) // group))
        return np.concatenate([says_of(self.trained, self.sounds(part, alone)) for part in parts])


def _clip(trained: Trained, waveform: Any, image: Any, target: int) -> _Clip:
    front, waveform, image = trained.front_end, np.asarray(waveform, np.float32), np.asarray(image)
    size = (front.bins, front.clip_frames)
    if waveform.shape != (front.clip_samples,) or image.shape != size:
        raise SettingError(
            f"wanted are a clip of {front.clip_samples} samples and an image of {size[0]} × {size[1]} cells, "
            f"not of shape {waveform.shape} and {image.shape}"
        )
    classes = trained.network.classes
    if not 0 <= target < classes:
        raise SettingError(f"class {target} does not exist: there are classes 0 to {classes - 1}")
    spectrum, seen = front_end.analyse(front, waveform)
    ranks = np.empty(image.size, np.int32)
    ranks[np.argsort(-image, axis=None, kind="stable")] = np.arange(image.size, dtype=np.int32)
    return _Clip(trained, waveform, spectrum, seen, jnp.asarray(ranks.reshape(size)))


def _found(clip: _Clip, holds: Any, alone: bool) -> Cells:
    """Searches the first count of which something holds; see the head of this module."""
    below, count, reached = 0, clip.cells, True
    said: dict[int, np.ndarray] = {}
    tried = np.unique(np.round(np.geomspace(max(1, clip.cells / 1024), clip.cells, TRIED)).astype(int))
    for step in range(3):
        says = clip.says(_filled(tried), alone)[: len(tried)]
        said |= zip(tried.tolist(), says, strict=True)
        good = np.flatnonzero(holds(says))
        if not len(good):
            # Of counts within an interval none may hold: its upper end does, and was tried before.
            reached = step > 0
            break
        below, count = (int(tried[good[0] - 1]) if good[0] else below), int(tried[good[0]])
        tried = np.unique(np.round(np.linspace(below, count, FOLLOWED + 2)[1:-1]).astype(int))
        tried = tried[(tried > below) & (tried < count)]
        if not len(tried):
            break
    own, others = said[count], clip.says([count], not alone)[0]
    sound, rest = (np.asarray(clip.sounds([count], way)[0]) for way in (True, False))
    mask, front = np.asarray(clip.ranks) < count, clip.trained.front_end
    power = float(np.sum(np.square(clip.waveform, dtype=np.float64)))
    return Cells(
        mask=mask,
        sound=sound,
        rest=rest,
        says=own if alone else others,
        rest_says=others if alone else own,
        seconds=min(float(mask.any(axis=0).sum()) * front.hop, len(clip.waveform)) / front.sample_rate,
        energy=float(np.sum(np.square(sound, dtype=np.float64))) / power if power else 0.0,
        reached=reached,
    )


def _filled(counts: np.ndarray) -> np.ndarray:
    """As many counts as are always tried, so that fewer compile nothing."""
    return np.pad(counts, (0, (FOLLOWED if len(counts) <= FOLLOWED else TRIED) - len(counts)), mode="edge")


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _masked(
    front: FrontEnd, length: int, alone: bool, ranks: jax.Array, counts: jax.Array, seen: jax.Array, spectrum: jax.Array
) -> jax.Array:
    first = ranks[None] < counts[:, None, None]
    mask = (first if alone else ~first).astype(jnp.float32)
    image = front_end.lift(front, mask, seen, spectrum, "mask")
    return auralise(image, spectrum, "mask", hop=front.hop, length=length, window=front.window)
