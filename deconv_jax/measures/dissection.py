"""What a feature is, over many songs: which of some known sounds it responds to, beyond what anything else explains.

After Bau et al. (2017), but strict: a feature of random weights, too, is larger where the drums are, for they are loud
and low. So cells of a map are compared only with cells of the same frequency row and of the same loudness
(`level_auroc`), a name has to be above every control (the same network without what it learnt) and above simple
descriptors, on songs by which it was not chosen, and the feature has to fall when the sound is taken out of the music
(`names`). The same rule, applied to each control among the others, says how many names are false ones.

Pure functions on arrays; which songs, networks and controls: `deconv_jax.results.dissection`.
"""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from deconv_jax.network.receptive_field import middles
from deconv_jax.network.spec import Block, layer_sizes, resolved
from deconv_jax.system.runtime import cores

LOUDNESS_BIN = 3.0
"""dB; cells are compared with cells of the same bin."""

FLOOR = 70.0
"""dB below the loudest cell of all; what is quieter counts as silent and is left out."""

MOST_CONCEPTS = 255


def level_auroc(values: np.ndarray, strata: np.ndarray, labels: np.ndarray, concepts: int) -> np.ndarray:
    """How well features tell the cells of each concept from all others of the same stratum, as an AUROC.

    The share of pairs (a cell of the concept, a cell of the same stratum that is not of it) in which the feature is
    larger in the first; equal values count half (Mann and Whitney 1947, summed over strata). Exact: by ranks.

    Args:
      values: shape (features, cells), finite; compared as float32.
      strata: number of each cell's stratum, shape (cells,); only cells of one stratum are compared.
      labels: number of each cell's concept, -1 for none, shape (cells,).
      concepts: how many there are, at most 255.

    Returns:
      shape (features, concepts), NaN for a concept without any pair.
    """
    assert concepts <= MOST_CONCEPTS, concepts
    strata = np.unique(strata, return_inverse=True)[1].astype(np.uint64)
    of = np.asarray(labels, np.int64) + 1
    count = int(strata.max(initial=np.uint64(0))) + 1
    both = np.bincount(strata.astype(np.int64) * (concepts + 1) + of, minlength=count * (concepts + 1))
    inside = both.reshape(count, concepts + 1)[:, 1:].astype(np.float64)  # cells of each stratum and concept
    whole = np.bincount(strata.astype(np.int64), minlength=count).astype(np.float64)[:, None]
    pairs = (inside * (whole - inside)).sum(axis=0)
    # What ranks hold that is no comparison with other cells: those in earlier strata, and the concept's own.
    own = (inside * (2 * (np.cumsum(whole, axis=0) - whole) + inside + 1)).sum(axis=0)
    key = (strata << np.uint64(40)) | of.astype(np.uint64)

    def one(row: np.ndarray) -> np.ndarray:
        # A whole number that sorts by stratum, then value, then concept: one sort of plain numbers does it all.
        ordered = np.sort(key | (_ordered(row) << np.uint64(8)))
        tied = ordered >> np.uint64(8)
        first = np.flatnonzero(np.concatenate([[True], tied[1:] != tied[:-1]]))
        size = np.diff(np.append(first, len(ordered)))
        ranks = np.repeat(2 * first + size + 1, size)  # twice the middle rank, from 1
        sums = np.bincount((ordered & np.uint64(255)).astype(np.intp), weights=ranks, minlength=concepts + 1)[1:]
        return (sums - own) / np.where(pairs > 0, 2 * pairs, np.nan)

    with ThreadPoolExecutor(cores()) as pool:  # NumPy sorts without the interpreter's lock
        return np.stack(list(pool.map(one, values)))


def _ordered(values: np.ndarray) -> np.ndarray:
    """Whole numbers in the order of float32 values, as uint64; -0 and 0 are one."""
    bits = (np.asarray(values, np.float32) + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31)).astype(np.uint64)


# --- the grid of a layer --------------------------------------------------------------------


def footprints(blocks: Sequence[Block], size: tuple[int, int], layer: int) -> tuple[np.ndarray, np.ndarray]:
    """What brings an image of the input's rows and frames to the grid of a layer's pooled map: F @ image @ T.T.

    A cell gets the mean over the middle of its receptive field, as many rows and frames as lie between two cells.

    Args:
      blocks: of the network.
      size: (freq, time) of its input.
      layer: 1-based.

    Returns:
      F, shape (layer freq, freq), and T, shape (layer time, time); rows sum to 1.
    """
    some = resolved(blocks, size)[:layer]
    found = []
    for axis, (length, cells) in enumerate(zip(size, layer_sizes(some, size)[-1], strict=True)):
        middle, step = middles(some, axis)
        begin = np.floor(middle + (1 - step) / 2) + step * np.arange(cells)
        begin = np.clip(begin, 0, length - 1)[:, None]
        end = np.clip(begin + step, 1, length)
        inside = (np.arange(length) >= begin) & (np.arange(length) < end)
        found.append(inside / inside.sum(axis=1, keepdims=True))
    return found[0], found[1]


def dominant(powers: np.ndarray, share: float = 0.5) -> np.ndarray:
    """Which of some sounds has more than `share` of the power of all, -1 for none: (sounds, ...) → (...), int8."""
    total = powers.sum(axis=0)
    best = powers.argmax(axis=0)
    most = np.take_along_axis(powers, best[None], axis=0)[0]
    return np.where((total > 0) & (most > share * total), best, -1).astype(np.int8)


def loudness_bins(power: np.ndarray) -> np.ndarray:
    """Numbers of the loudness bins of cells by their power; -1 for those that are silent beside the loudest."""
    level = 10 * np.log10(np.maximum(power, np.finfo(np.float32).tiny))
    return np.where(level > level.max() - FLOOR, np.floor((level.max() - level) / LOUDNESS_BIN), -1).astype(np.int16)


def row_strata(bins: np.ndarray) -> np.ndarray:
    """Numbers of strata, one for each frequency row and loudness bin: bins (clips, freq, time) → the same shape."""
    return np.arange(bins.shape[1])[:, None] * (int(bins.max(initial=0)) + 1) + bins


def clip_auroc(values: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """How well features tell tagged clips from others: (features, clips), (tags, clips) → (features, tags)."""
    found = [level_auroc(values, np.zeros(tags.shape[1], int), np.where(tag, 0, -1), 1) for tag in tags]
    return np.concatenate(found, axis=1) if found else np.zeros((len(values), 0))


# --- the rule -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Scores:
    """What was measured of the features of one layer of one network, each of shape (features, concepts).

    Attributes:
      chosen_on: AUROC on the songs by which names are chosen.
      scored_on: the same on the others.
      fall: by how much the feature falls on those others, where the concept's sound dominated, without that sound, in
        deviations of the feature, minus the mean of what it falls without the others where these did: `falls`. None
        where nothing was taken out.
    """

    chosen_on: np.ndarray
    scored_on: np.ndarray
    fall: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Names:
    """Names of the features of a layer, by steps of the rule; arrays of concepts' numbers, shape (features,), -1: none.

    Attributes:
      best: the concept in which the feature is most above its limits on the songs by which names are chosen, or if it
        is above none, least below.
      controls: of features that are above every control on both halves.
      described: of those that are above every simple descriptor too.
      named: of those that fall by more than any control's when the sound is taken out: the names.
      limits: of each concept the best of the controls, as `Scores` of shape (concepts,); `simple` of the descriptors.
    """

    best: np.ndarray
    controls: np.ndarray
    described: np.ndarray
    named: np.ndarray
    limits: Scores
    simple: Scores

    def counts(self) -> dict[str, int]:
        """How many features pass each step."""
        return {step: int((getattr(self, step) >= 0).sum()) for step in STEPS}


STEPS = ("controls", "described", "named")


def names(own: Scores, controls: Sequence[Scores], simple: Scores) -> Names:
    """Gives features their names.

    Args:
      own: of the network.
      controls: of the same layer of each control; at least one.
      simple: of simple descriptors in the place of features, whose AUROC counts in either direction.
    """
    limits = Scores(
        np.stack([_best(c.chosen_on) for c in controls]).max(axis=0),
        np.stack([_best(c.scored_on) for c in controls]).max(axis=0),
        None if own.fall is None else np.stack([_best(c.fall) for c in controls if c.fall is not None]).max(axis=0),
    )
    plain = Scores(*(_best(np.abs(a - 0.5)) + 0.5 for a in (simple.chosen_on, simple.scored_on)))
    rows = np.arange(len(own.chosen_on))

    def chosen(limit: np.ndarray) -> np.ndarray:
        margin = own.chosen_on - limit
        return np.where(np.isfinite(margin), margin, -np.inf).argmax(axis=1)

    def above(best: np.ndarray, *pairs: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            held = [values[rows, best] > limit[best] for values, limit in pairs]
        return np.all(held, axis=0)

    alone = chosen(limits.chosen_on)
    first = above(alone, (own.chosen_on, limits.chosen_on), (own.scored_on, limits.scored_on))
    both = np.maximum(limits.chosen_on, plain.chosen_on), np.maximum(limits.scored_on, plain.scored_on)
    best = chosen(both[0])
    second = above(best, (own.chosen_on, both[0]), (own.scored_on, both[1]))
    third = second
    if own.fall is not None and limits.fall is not None:
        third = second & above(best, (own.fall, np.maximum(limits.fall, 0)))
    kept = [np.where(held, concept, -1) for held, concept in ((first, alone), (second, best), (third, best))]
    return Names(best, kept[0], kept[1], kept[2], limits, plain)


def _best(scores: np.ndarray) -> np.ndarray:
    """The highest of each concept, (features, concepts) → (concepts,); -inf where there is none."""
    return np.where(np.isfinite(scores), scores, -np.inf).max(axis=0, initial=-np.inf)


def false_names(controls: Sequence[Scores], simple: Scores) -> list[dict[str, int]]:
    """How many features of each control pass each step, by the same rule among the other controls."""
    others = [[c for other, c in enumerate(controls) if other != left] for left in range(len(controls))]
    return [
        names(control, rest, simple).counts() if rest else dict.fromkeys(STEPS, 0)
        for control, rest in zip(controls, others, strict=True)
    ]


def falls(lost: np.ndarray, cells: np.ndarray, concept: np.ndarray, concepts: int) -> np.ndarray:
    """By how much features fall without a sound where it dominated, beyond what they fall without the others.

    Args:
      lost: mean of (map - map without the sound) over the cells in which it dominated, in deviations of the feature,
        shape (trials, features).
      cells: number of these cells, shape (trials,).
      concept: number of the sound taken out in each trial, shape (trials,).
      concepts: how many there are.

    Returns:
      shape (features, concepts); NaN where a sound was never taken out.
    """
    total = np.zeros((concepts, lost.shape[1]))
    np.add.at(total, concept, lost * cells[:, None])
    weight = np.bincount(concept, weights=cells, minlength=concepts)[:, None]
    mean = np.where(weight > 0, total / np.where(weight > 0, weight, 1), 0)
    there = int((weight > 0).sum())
    others = (mean.sum(axis=0) - mean) / max(there - 1, 1)
    return np.where(weight > 0, mean - others, np.nan).T
