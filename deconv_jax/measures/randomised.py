"""What the method shows without learning: the same network with random weights, beside which a feature stands.

Random-weight networks give plausible images too (Adebayo et al. 2018; Nie et al. 2018). So every number here is read
against that of a twin that never was trained, and a second twin shows how often chance alone would pass.
The features of two networks do not correspond: feature 3 of the twin is no earlier state of feature 3.
"""

import dataclasses
from typing import Any

import numpy as np

from deconv_jax.measures.features import envelopes
from deconv_jax.measures.likeness import correlations, standardised
from deconv_jax.network.model import Network, initial_variables

SEEDS = (1607_02444, 1607_02445)
"""Seeds of the twin and of the second twin; a training run that uses one of them would begin as its own twin."""


def twin(network: Network, variables: Any, size: tuple[int, int], seed: int) -> dict[str, Any]:
    """The variables of the same network before any training.

    Args:
      network: the architecture.
      variables: of the trained network; the scale of its input (`variables["input"]`) is kept.
      size: (freq, time) of the clips that it classifies.
      seed: of the random weights, drawn by the initialiser that training begins with.

    Batch norm stands as it does before any training: scale 1, bias 0, and a stored mean of 0 and variance of 1. The
    trained network's statistics are of its own activations and would mean nothing for other weights.
    """
    return {**variables, **initial_variables(network, size, seed)}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One layer's features beside those of an untrained twin; arrays have shape (features,).

    Attributes:
      difference: 1 - the highest |r| of the feature's picture (levels in dB) with any picture of the twin's layer;
        0: the twin shows the same. NaN for an inactive feature.
      difference_signed: the same of the images themselves, sign and linear amplitude included.
      descriptor: index of the descriptor that the feature's envelope follows most: the strongest |r| among those
        that stand out, or of all if none does.
      r: that correlation, with its sign; 0 for an inactive feature.
      r_untrained: the highest |r| of any feature of the twin's layer with the same descriptor.
      stands_out: |r| is above `r_untrained`.
      chance: the same numbers of the second twin beside the first: active (features), named (how many of them stand
        out), difference, difference_signed (their medians).
    """

    difference: np.ndarray
    difference_signed: np.ndarray
    descriptor: np.ndarray
    r: np.ndarray
    r_untrained: np.ndarray
    stands_out: np.ndarray
    chance: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Look:
    """What a comparison needs of one network's images of a layer; the images themselves can then be let go.

    Attributes:
      levels, signed: `standardised` images, shape (features, cells).
      r: correlation of the envelopes with the descriptors, shape (features, descriptors).
    """

    levels: np.ndarray
    signed: np.ndarray
    r: np.ndarray


def look(images: np.ndarray, series: np.ndarray) -> Look:
    """What is compared of images (features, freq, time), with descriptors of the clip (descriptors, time)."""
    return Look(
        standardised(images, levels=True),
        standardised(images, levels=False),
        correlations(envelopes(images), series),
    )


def compare(own: Look, first: Look, second: Look) -> Comparison:
    """Compares features with the whole layer of an untrained twin, and a second twin's with it in the same way."""
    limits = np.abs(first.r).max(axis=0, initial=0)
    found, chance = (_beside(some, first, limits) for some in (own, second))
    active = ~np.isnan(chance["difference"])
    return Comparison(
        **found,
        chance={
            "active": int(active.sum()),
            "named": int(chance["stands_out"].sum()),
            **{name: _median(chance[name][active]) for name in ("difference", "difference_signed")},
        },
    )


def _beside(own: Look, first: Look, limits: np.ndarray) -> dict[str, np.ndarray]:
    active = own.levels.any(axis=1)
    differences = []
    for mine, others in ((own.levels, first.levels), (own.signed, first.signed)):
        highest = np.abs(mine @ others.T).max(axis=1, initial=0)
        differences.append(np.where(active, np.maximum(1 - highest, 0), np.nan))
    above = np.abs(own.r) > limits
    best = np.argmax(np.abs(own.r) + 2 * above, axis=1)  # 2: any that stands out comes before all that do not
    rows = np.arange(len(best))
    return {
        "difference": differences[0],
        "difference_signed": differences[1],
        "descriptor": best,
        "r": own.r[rows, best],
        "r_untrained": limits[best],
        "stands_out": above[rows, best],
    }


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")
