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
from collections.abc import Callable, Generator, Iterator, Sequence
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
"""Counts that are tried together: of the grid, and twice between two of those before; and sounds asked of at once."""


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
    return least(trained, waveform, target, [image], [], share=share)[0]


def necessary(trained: Trained, waveform: Any, image: Any, target: int) -> Cells:
    """The first cells without which another class is likelier.

    Args:
      trained, waveform, image, target: as in `sufficient`; the class is that of the whole clip.

    Raises:
      ValueError: as `sufficient`.
    """
    return least(trained, waveform, target, [], [image])[0]


def least(
    trained: Trained, waveform: Any, target: int, alone: Sequence[Any], without: Sequence[Any], *, share: float = 0.9
) -> list[Cells]:
    """What `sufficient` finds in some orders and `necessary` in others, asked together, in whole batches.

    Args:
      trained, waveform, target, share: as in `sufficient`.
      alone, without: images that give the orders, of the former and of the latter.

    Returns:
      A `Cells` for each image, those of `alone` first.

    Raises:
      ValueError: as `sufficient`.
    """
    if not 0 < share <= 1:
        raise SettingError(f"share must be above 0 and at most 1, not {share}")
    clip = _clip(trained, waveform, [*alone, *without], target)
    ways = [True] * len(alone) + [False] * len(without)
    if not ways:
        return []

    def keeps(says: np.ndarray, whole: np.ndarray) -> np.ndarray:  # all cells are the clip itself, but for rounding
        first = np.argmax(whole) == target
        enough = says[:, target] >= share * whole[target] * (1 - 1e-5)
        return enough & (~first | (np.argmax(says, axis=1) == target))

    def changes(says: np.ndarray, _: np.ndarray) -> np.ndarray:
        return np.argmax(says, axis=1) != target

    searches = [_search(clip.cells, keeps) for _ in alone] + [_search(clip.cells, changes) for _ in without]
    return _made(clip, ways, _together(clip, ways, searches))


def says_of(trained: Trained, waveforms: Any) -> np.ndarray:
    """Probabilities that the network gives for clips of its length, (clips, samples) → (clips, classes)."""
    _, seen = front_end.analyse(trained.front_end, waveforms)
    return answers_of(trained.network, trained.variables, seen).astype(np.float64)


_Row = tuple[int, int, bool]
"""An order, how many of its first cells, and whether these are alone: else it is all others."""


@dataclasses.dataclass(frozen=True)
class _Clip:
    """A clip, its spectrum, what the network sees of it, and the ranks of its cells by each order, (freq, time)."""

    trained: Trained
    waveform: np.ndarray
    spectrum: jax.Array
    seen: jax.Array
    ranks: list[np.ndarray]

    @property
    def cells(self) -> int:
        return int(self.seen.size)

    def sounds(self, rows: Sequence[_Row]) -> Iterator[jax.Array]:
        """Sounds of rows, so many (rows, samples) at a time as bound the memory, filled up: two shapes in all."""
        front, blocks = self.trained.front_end, self.trained.network.blocks
        size = FOLLOWED if len(rows) <= FOLLOWED else TRIED
        size = min(size, clips_together(blocks, (front.bins, front.clip_frames)))
        for some in (rows[first : first + size] for first in range(0, len(rows), size)):
            orders, counts, alone = zip(*some, *[some[-1]] * (size - len(some)), strict=True)
            ranks = np.stack([self.ranks[order] for order in orders])
            given = ranks, np.array(counts, np.int32), np.array(alone)
            yield _masked(front, len(self.waveform), *given, self.seen, self.spectrum)

    def says(self, rows: Sequence[_Row]) -> np.ndarray:
        """Probabilities that the network gives for these sounds, (rows, classes)."""
        return np.concatenate([says_of(self.trained, some) for some in self.sounds(rows)])[: len(rows)]


def _clip(trained: Trained, waveform: Any, images: Sequence[Any], target: int) -> _Clip:
    front, waveform, images = trained.front_end, np.asarray(waveform, np.float32), [np.asarray(i) for i in images]
    size = (front.bins, front.clip_frames)
    if waveform.shape != (front.clip_samples,) or any(image.shape != size for image in images):
        shapes = " and ".join(str(array.shape) for array in (waveform, *images))
        raise SettingError(
            f"wanted are a clip of {front.clip_samples} samples and an image of {size[0]} × {size[1]} cells, "
            f"not of shape {shapes}"
        )
    classes = trained.network.classes
    if not 0 <= target < classes:
        raise SettingError(f"class {target} does not exist: there are classes 0 to {classes - 1}")
    spectrum, seen = front_end.analyse(front, waveform)
    ranks = []
    for image in images:
        place = np.empty(image.size, np.int32)
        place[np.argsort(-image, axis=None, kind="stable")] = np.arange(image.size, dtype=np.int32)
        ranks.append(place.reshape(size))
    return _Clip(trained, waveform, spectrum, seen, ranks)


@dataclasses.dataclass(frozen=True)
class _Reached:
    """Where a search ended: how many cells, what the network says of them, and whether that is what was asked."""

    count: int
    says: np.ndarray
    reached: bool


_Search = Generator[np.ndarray, np.ndarray, _Reached]


def _search(cells: int, holds: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> _Search:
    """Searches the first count of which something holds; see the head of this module.

    Args:
      cells: of the clip.
      holds: of what is said of some counts, (counts, classes), and of all cells, (classes,).

    Yields:
      Counts, and is sent what the network says of them.
    """
    below, count, reached = 0, cells, True
    said: dict[int, np.ndarray] = {}
    tried = np.unique(np.round(np.geomspace(max(1, cells / 1024), cells, TRIED)).astype(int))
    for step in range(3):
        says = yield tried
        said |= zip(tried.tolist(), says, strict=True)
        good = np.flatnonzero(holds(says, said[cells]))
        if not len(good):
            # Of counts within an interval none may hold: its upper end does, and was tried before.
            reached = step > 0
            break
        below, count = (int(tried[good[0] - 1]) if good[0] else below), int(tried[good[0]])
        tried = np.unique(np.round(np.linspace(below, count, FOLLOWED + 2)[1:-1]).astype(int))
        tried = tried[(tried > below) & (tried < count)]
        if not len(tried):
            break
    return _Reached(count, said[count], reached)


def _together(clip: _Clip, ways: Sequence[bool], searches: Sequence[_Search]) -> list[_Reached]:
    """Runs a search in every order step by step, so that the network answers to all in whole batches."""
    wanted = {order: next(search) for order, search in enumerate(searches)}
    found: dict[int, _Reached] = {}
    while wanted:
        says = clip.says([(order, int(n), ways[order]) for order, counts in wanted.items() for n in counts])
        parts = np.split(says, np.cumsum([len(counts) for counts in wanted.values()])[:-1])
        for order, part in zip(list(wanted), parts, strict=True):
            try:
                wanted[order] = searches[order].send(part)
            except StopIteration as end:
                found[order] = end.value
                del wanted[order]
    return [found[order] for order in range(len(searches))]


def _made(clip: _Clip, ways: Sequence[bool], found: Sequence[_Reached]) -> list[Cells]:
    """The cells that were found, with their sounds and what is said of these."""
    rows = [(order, one.count, alone) for alone in (True, False) for order, one in enumerate(found)]
    sounds = np.concatenate([np.asarray(some) for some in clip.sounds(rows)])[: len(rows)]
    others = clip.says([(order, one.count, not ways[order]) for order, one in enumerate(found)])
    power = float(np.sum(np.square(clip.waveform, dtype=np.float64)))
    front, made = clip.trained.front_end, []
    for order, (one, alone) in enumerate(zip(found, ways, strict=True)):
        mask, sound = clip.ranks[order] < one.count, sounds[order]
        cells = Cells(
            mask=mask,
            sound=sound,
            rest=sounds[len(found) + order],
            says=one.says if alone else others[order],
            rest_says=others[order] if alone else one.says,
            seconds=min(float(mask.any(axis=0).sum()) * front.hop, len(clip.waveform)) / front.sample_rate,
            energy=float(np.sum(np.square(sound, dtype=np.float64))) / power if power else 0.0,
            reached=one.reached,
        )
        made.append(cells)
    return made


@functools.partial(jax.jit, static_argnums=(0, 1))
def _masked(
    front: FrontEnd, length: int, ranks: Any, counts: Any, alone: Any, seen: jax.Array, spectrum: jax.Array
) -> jax.Array:
    first = ranks < counts[:, None, None]
    mask = (first == alone[:, None, None]).astype(jnp.float32)
    image = front_end.lift(front, mask, seen, spectrum, "mask")
    return auralise(image, spectrum, "mask", hop=front.hop, length=length, window=front.window)
