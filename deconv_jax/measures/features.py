"""Numbers for every feature: how active it is, what its image is made of, and an order to listen in."""

import dataclasses

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.signal import find_peaks
from scipy.spatial.distance import squareform

BANDS = (("bass", 0.0, 250.0), ("mid", 250.0, 2000.0), ("treble", 2000.0, np.inf))
"""Frequency bands of the table: name, from, up to (Hz)."""

COLUMNS = (
    *("active_fraction", "activation_maximum", "activation_mean", "energy", "negative_share", "centroid_hz"),
    *(f"{name}_share" for name, _, _ in BANDS),
)
"""Names of the numbers of a feature in every table."""

RANGE_DB = 70.0
"""Decibels between the top and the bottom of a picture's scale."""

ALIKE = 0.75
"""Correlation from which pictures count as near-duplicates."""

KINDS = 12
"""Kinds that the active features of a layer are joined into at most."""


@dataclasses.dataclass(frozen=True)
class Measures:
    """Numbers of the features of one layer; every array has shape (features,) for one clip, (clips, features) for more.

    Attributes:
      active: share of the pooled map above zero.
      maximum, mean: of the pooled map (the activation).
      energy: sum of the image's squares, before any gain.
      negative: share of that energy in negative values, 0 to 1; 0 for an inactive feature.
      centroid: mean frequency in Hz, weighted by the image's energy; NaN for an inactive feature.
      bands: share of the energy in each of `BANDS`, shape (..., features, bands); 0 for an inactive feature.
      inactive: the pooled map is nowhere above zero, and the image is zero everywhere.
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
        inactive=(maps.max(axis=(1, 2)) <= 0) & (energy == 0),
    )


def columns(measures: Measures) -> dict[str, np.ndarray]:
    """The measures by the names that they have in every table, each of shape (..., features)."""
    values = (measures.active, measures.maximum, measures.mean, measures.energy, measures.negative, measures.centroid)
    return dict(zip(COLUMNS, (*values, *np.moveaxis(measures.bands, -1, 0)), strict=True))


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


def decibels(image: np.ndarray, reference: float) -> np.ndarray:
    """Level of |image| below a reference in dB, no lower than -`RANGE_DB`; same shape."""
    level = np.abs(image) / (reference if reference > 0 else 1.0)
    return np.maximum(20 * np.log10(np.maximum(level, 1e-12)), -RANGE_DB)


def standardised(images: np.ndarray, *, levels: bool, frames: int = 1024) -> np.ndarray:
    """Images as rows of zero mean and unit length, so that `a @ b.T` is the Pearson correlation of each with each.

    Args:
      images: shape (features, freq, time).
      levels: of what a picture shows, the level of |image| in dB down to 70 dB below the image's own maximum;
        otherwise of the image itself, with its sign.
      frames: of a clip of more frames only every second, third … is taken.

    Returns:
      Shape (features, cells), float32; zeros for an image that is constant, so that it correlates with nothing.
    """
    rows = []
    for image in images[:, :, :: -(-images.shape[2] // frames)]:
        top = float(np.abs(image).max(initial=0))
        row = np.ravel(decibels(image, top) if levels else image / (top or 1.0)).astype(np.float32)
        row -= row.mean(dtype=np.float64)
        length = float(np.sqrt(np.einsum("i,i", row, row, dtype=np.float64)))
        rows.append(row / length if length > 1e-3 else np.zeros_like(row))
    return np.stack(rows)


def row_correlations(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Pearson correlation of every row (n, time) with every other (m, time), shape (n, m); 0 where one is constant."""
    rows, others = (np.asarray(a, np.float64) for a in (rows, others))
    scales = [np.where(s > 0, s, 1) for s in (np.abs(a).max(axis=1, initial=0)[:, None] for a in (rows, others))]
    units = []
    for values, scale in zip((rows, others), scales, strict=True):
        centred = values / scale - (values / scale).mean(axis=1, keepdims=True)
        length = np.sqrt(np.sum(centred**2, axis=1, keepdims=True))
        units.append(np.where(length > 1e-9, centred / np.where(length > 1e-9, length, 1), 0))
    return np.clip(units[0] @ units[1].T, -1, 1)


def kinds(looks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joins the features of a layer whose pictures look alike.

    Hierarchical clustering with complete linkage on 1 - r, r the correlation of the pictures' levels: joined are
    features of which every pair correlates by `ALIKE` or more, and then the closest until no more than `KINDS` kinds
    are left. Each feature says how alike it is to the rest of its kind, since the last ones joined may not be.

    Args:
      looks: pictures of the features, standardised, shape (features, cells).

    Returns:
      Kind of every feature, shape (features,), int: 1 for the largest, -1 for features whose image is zero; and
      the mean r of the feature with the others of its kind, NaN where there are none.
    """
    active = np.flatnonzero(looks.any(axis=1))
    number, alike = np.full(len(looks), -1), np.full(len(looks), np.nan)
    if len(active) < 2:
        number[active] = 1
        return number, alike
    r = (looks[active] @ looks[active].T).astype(np.float64)
    apart = np.maximum(1 - (r + r.T) / 2, 0)
    np.fill_diagonal(apart, 0)
    tree = linkage(squareform(apart, checks=False), "complete")
    found = fcluster(tree, 1 - ALIKE, "distance")
    if found.max() > KINDS:
        found = fcluster(tree, KINDS, "maxclust")
    sizes = np.bincount(found)
    order = np.argsort(-sizes[1:], kind="stable") + 1
    rank = np.empty(len(sizes), int)
    rank[order] = np.arange(1, len(sizes))
    number[active] = rank[found]
    same = found[:, None] == found[None]
    np.fill_diagonal(same, False)
    count = same.sum(axis=1)
    alike[active] = np.where(count > 0, (r * same).sum(axis=1) / np.maximum(count, 1), np.nan)
    return number, alike


def envelopes(images: np.ndarray) -> np.ndarray:
    """Strength of every frame, the root mean square of an image's column: (features, freq, time) → (features, time)."""
    return np.stack([np.sqrt(np.mean(np.square(image, dtype=np.float64), axis=0)) for image in images])


def moments(envelope: np.ndarray, count: int, apart: int) -> np.ndarray:
    """Frames at which a feature is strongest: the highest peaks of its envelope, strongest first, shape (≤ count,).

    Args:
      envelope: shape (time,).
      count: how many at most.
      apart: frames that lie between two of them at least.
    """
    peaks, found = find_peaks(np.pad(envelope, 1), height=np.finfo(float).tiny, distance=max(1, apart))
    return (peaks - 1)[np.argsort(-found["peak_heights"], kind="stable")][:count]
