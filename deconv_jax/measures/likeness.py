"""How alike images and series are: Pearson correlations, and the kinds that look-alikes are joined into."""

import numpy as np

from deconv_jax.sound.levels import decibels

ALIKE = 0.75
"""Correlation from which pictures count as near-duplicates."""

KINDS = 12
"""Kinds that the active features of a layer are joined into at most."""


def units(rows: np.ndarray) -> np.ndarray:
    """Rows (n, cells) with a mean of zero and a length of one, so that a product of two is their Pearson correlation.

    A row whose deviation is below a millionth of its largest value (float64: a billionth) is constant but for rounding:
    it becomes zeros, and correlates with nothing. What is not float64 is reckoned in float32, with means in float64.
    """
    rows = np.asarray(rows)
    rows = rows if rows.dtype == np.float64 else rows.astype(np.float32)
    largest = np.abs(rows).max(axis=1, initial=0, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1)  # squares of very weak rows would vanish
    rows -= rows.mean(axis=1, keepdims=True, dtype=np.float64).astype(rows.dtype)
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))[:, None]
    varies = length > (1e-9 if rows.dtype == np.float64 else 1e-6) * np.sqrt(rows.shape[1])
    return np.where(varies, rows / np.where(varies, length, 1), 0).astype(rows.dtype)


def correlation_matrix(rows: np.ndarray) -> np.ndarray:
    """Pearson correlation, over all cells, of `rows` (n, ...) with each other, (n, n); NaN where one is constant."""
    found = units(np.reshape(rows, (len(rows), -1)))
    matrix = found @ found.T
    nothing = ~found.any(axis=1)
    length = np.sqrt(np.where(nothing, 1, np.diag(matrix)))  # by the same rounding: equal rows correlate with exactly 1
    matrix = np.clip(matrix / np.outer(length, length), -1, 1)
    matrix[nothing] = np.nan
    matrix[:, nothing] = np.nan
    return matrix


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
        rows.append(np.ravel(decibels(image, top) if levels else image))
    return units(np.stack(rows))


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
    found = _joined(1 - (r + r.T) / 2)
    names, sizes = np.unique(found, return_counts=True)
    rank = np.empty(len(found), int)
    rank[names[np.argsort(-sizes, kind="stable")]] = np.arange(1, len(names) + 1)
    number[active] = rank[found]
    same = found[:, None] == found[None]
    np.fill_diagonal(same, False)
    count = same.sum(axis=1)
    alike[active] = np.where(count > 0, (r * same).sum(axis=1) / np.maximum(count, 1), np.nan)
    return number, alike


def _joined(apart: np.ndarray) -> np.ndarray:
    """Complete linkage of `kinds` by distances (n, n): of each, the first of its kind (SciPy: 0.4 s to import)."""
    apart, found = apart + np.diag([np.inf] * len(apart)), np.arange(len(apart))
    for kinds_left in range(len(apart), 1, -1):
        i, j = sorted(np.unravel_index(np.argmin(apart), apart.shape))
        if apart[i, j] > 1 - ALIKE and kinds_left <= KINDS:
            break
        apart[i] = apart[:, i] = np.maximum(apart[i], apart[j])
        apart[j] = apart[:, j] = np.inf
        found[found == j] = i
    return found


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
