"""Numbers for every feature: how active it is, what its image is made of, and an order to listen in."""

import dataclasses

import numpy as np

BANDS = (("bass", 0.0, 250.0), ("mid", 250.0, 2000.0), ("treble", 2000.0, np.inf))
"""Frequency bands of the table: name, from, up to (Hz)."""


@dataclasses.dataclass(frozen=True)
class Measures:
    """Numbers of the features of one layer for one clip; every array has shape (features,).

    Attributes:
      active: share of the pooled map above zero.
      maximum, mean: of the pooled map (the activation).
      energy: sum of the image's squares, before any gain.
      negative: share of that energy in negative values, 0 to 1; 0 for an inactive feature.
      centroid: mean frequency in Hz, weighted by the image's energy; NaN for an inactive feature.
      bands: share of the energy in each of `BANDS`, shape (features, bands); 0 for an inactive feature.
      inactive: the pooled map is zero everywhere, and so is the image.
    """

    active: np.ndarray
    maximum: np.ndarray
    mean: np.ndarray
    energy: np.ndarray
    negative: np.ndarray
    centroid: np.ndarray
    bands: np.ndarray
    inactive: np.ndarray


def measure(images: np.ndarray, maps: np.ndarray, frequencies: np.ndarray) -> Measures:
    """Measures the features of one layer.

    Args:
      images: deconvolved, shape (features, freq, time).
      maps: pooled maps that they came from, shape (features, layer freq, layer time).
      frequencies: of the image's rows, Hz, shape (freq,).
    """
    images, maps = np.asarray(images), np.asarray(maps)
    # Row sums in float64, one feature at a time: a whole song's images are not to be copied.
    rows = np.stack([np.sum(np.square(i, dtype=np.float64), axis=1) for i in images])
    below = np.array([np.sum(np.square(np.minimum(i, 0), dtype=np.float64)) for i in images])
    energy = rows.sum(axis=1)
    some = np.where(energy > 0, energy, 1)
    bands = [rows[:, (frequencies >= low) & (frequencies < high)].sum(axis=1) for _, low, high in BANDS]
    return Measures(
        active=np.mean(maps > 0, axis=(1, 2)),
        maximum=maps.max(axis=(1, 2)),
        mean=maps.mean(axis=(1, 2)),
        energy=energy,
        negative=below / some,
        centroid=np.where(energy > 0, rows @ frequencies / some, np.nan),
        bands=np.stack(bands, axis=1) / some[:, None],
        inactive=maps.max(axis=(1, 2)) <= 0,
    )


def strongest(measures: Measures, count: int) -> np.ndarray:
    """Indices of the `count` features of most energy, strongest first; inactive ones come last."""
    return np.argsort(-measures.energy, kind="stable")[:count]


def distinct(activity: np.ndarray, correlation: np.ndarray, count: int) -> np.ndarray:
    """Picks features that are strong and unlike each other.

    The candidates are the strongest quarter of the features. The strongest comes first; then, one by one, the
    candidate whose images resemble those already picked least.

    Args:
      activity: strength of each feature, such as its share of the energy, shape (features,).
      correlation: between the features' images, shape (features, features); NaN for an inactive one.
      count: how many to pick at most; inactive features are never picked.

    Returns:
      Indices of the features in the order picked, shape (n,), n ≤ count.
    """
    order = [i for i in np.argsort(-activity, kind="stable") if activity[i] > 0]
    candidates = order[: max(count, len(activity) // 4)]
    picked = candidates[:1]
    while len(picked) < min(count, len(candidates)):
        left = [i for i in candidates if i not in picked]
        alike = [np.nan_to_num(np.abs(correlation[i, picked])).max() for i in left]
        picked.append(left[int(np.argmin(alike))])
    return np.array(picked, int)
