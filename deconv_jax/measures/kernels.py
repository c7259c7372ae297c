"""What first-layer kernels are: onset detectors, harmonic detectors, low-pass filters, or neither (paper, Figure 4).

First-layer kernels see the spectrogram itself, so their numbers can be read without any sound. The paper reads two
of them by eye; here every one is split into four parts that are orthogonal, so that its energy divides among them.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike

LABELS = ("onset", "harmonic", "low-pass", "mixed")

DEAD = "dead"
"""Label of a kernel that training has all but emptied: its shape says nothing."""

DEAD_BELOW = 0.01
"""Norm below which a kernel is dead, as a share of the layer's largest."""


@dataclasses.dataclass(frozen=True)
class Kernels:
    """Measures of the kernels of a first layer; the first axis of every array is the feature.

    A kernel is its mean, plus what varies along time alone, plus what varies along frequency alone, plus the rest
    (the two-way decomposition of the analysis of variance). The four are orthogonal: their energies add up.

    Attributes:
      weights: shape (features, freq, time).
      along_time: column profile, the sum over frequency, shape (features, time).
      along_frequency: row profile, the sum over time, shape (features, freq).
      shares: of the kernel's energy in the order of `LABELS`, shape (features, 4), adding up to 1 (all 0 for a kernel
        of zeros). onset: varies along time alone, a high-pass along time that vertical lines excite. harmonic: varies
        along frequency alone, a high-pass along frequency that horizontal lines excite. low-pass: the mean.
        mixed: corners, diagonals and everything else.
      labels: name of the largest share, or `DEAD`, shape (features,).
    """

    weights: np.ndarray
    along_time: np.ndarray
    along_frequency: np.ndarray
    shares: np.ndarray
    labels: np.ndarray


def measure(kernel: np.ndarray) -> Kernels:
    """Measures first-layer kernels.

    Args:
      kernel: as in `variables["params"]["conv1"]["kernel"]`, shape (freq, time, 1, features).
    """
    weights = np.moveaxis(np.asarray(kernel, np.float64)[:, :, 0], -1, 0)
    cells = weights[0].size
    mean = weights.mean(axis=(1, 2), keepdims=True)
    time = weights.mean(axis=1, keepdims=True) - mean
    frequency = weights.mean(axis=2, keepdims=True) - mean
    rest = weights - mean - time - frequency
    parts = [np.sum(np.broadcast_to(p, weights.shape) ** 2, axis=(1, 2)) for p in (time, frequency, mean, rest)]
    energy = np.sum(weights**2, axis=(1, 2))
    shares = np.stack(parts, axis=1) / np.where(energy > 0, energy, 1)[:, None]
    # Rounding leaves the mean of a kernel without one at 1e-17; it is no share of anything.
    shares[shares < cells * np.finfo(np.float64).eps] = 0
    labels = np.where(energy <= DEAD_BELOW**2 * energy.max(initial=0), DEAD, np.asarray(LABELS)[shares.argmax(axis=1)])
    return Kernels(weights, weights.sum(axis=1), weights.sum(axis=2), shares, labels)


@dataclasses.dataclass(frozen=True)
class Chance:
    """How many kernels of a random layer get each label; arrays in the order of `LABELS`, shape (4,).

    Attributes:
      mean: expected counts.
      low, high: of 100 random layers at most 5 have any count outside of these. A layer has four chances to look
        unlike random ones, so each bound leaves out an eighth of those 5 (Bonferroni's correction).
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def unlike(self, counts: ArrayLike) -> np.ndarray:
        """Which labels, bool (..., 4), do not have as many kernels as a random layer would: counts (..., 4)."""
        return (np.asarray(counts) < self.low) | (np.asarray(counts) > self.high)


def chance(size: tuple[int, int], features: int, seed: int = 0) -> Chance:
    """What a count of labels is to be compared with.

    Kernels of a random layer are independent, so each count is binomial; the probability of a label is measured on
    random kernels with weights drawn uniformly about zero, as `Network` draws its first weights (Glorot & Bengio
    2010). Labels do not depend on the scale.

    Args:
      size: (freq, time) of the kernels.
      features: kernels in the layer.
      seed: of the random numbers.
    """
    from scipy.stats import binom  # takes a second to import

    rng = np.random.default_rng(seed)
    once = max(1, 2**22 // (size[0] * size[1]))  # kernels whose weights fit into 32 MiB
    seen = np.zeros(len(LABELS))
    for first in range(0, _RANDOM_KERNELS, once):
        some = rng.uniform(-1, 1, (*size, 1, min(once, _RANDOM_KERNELS - first)))
        seen += [np.sum(measure(some).labels == label) for label in LABELS]
    likely = binom(features, seen / seen.sum())
    return Chance(likely.mean(), likely.ppf(0.05 / 8), likely.ppf(1 - 0.05 / 8))


_RANDOM_KERNELS = 300_000
"""Enough to know a label's probability to 0.001."""
