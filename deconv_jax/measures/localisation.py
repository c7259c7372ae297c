"""How well images point at a place that is known: a mask of cells.

An image's values are taken as an order of the cells, the highest first. All measures but the share of energy ask for
that order alone; cells of equal value share a place (AUROC, average precision) or come by chance (the others, which are
then the mean over all orders).

- average precision: of the cells so high that one of the mask is among them, the share that is in the mask, averaged
  over the mask's cells; by chance the mask's share of all cells.
- pointing game (Zhang et al. 2018): whether the highest cell lies in the mask, without any tolerance.
- IoU and F1 of the mask and as many of the highest cells; by chance about the mask's share / 2, and the mask's share.
- energy: the mask's share of Σ max(image, 0)²; by chance the mask's share, for an image that is alike everywhere.
- AUROC: a cell of the mask has a higher value than one outside, with this probability; .5 by chance. What is coarse is
  good in it: of a thin tone Grad-CAM has .88, with an average precision of .05.
"""

import numpy as np

from deconv_jax.errors import SettingError

MEASURES = ("ap", "f1", "iou", "pointing", "energy", "auroc")


def localised(image: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Every measure of an image, and "size", the mask's share of all cells.

    Args:
      image: shape (freq, time); above zero speaks for what the mask shows.
      mask: bool, the same shape, with cells inside and outside.

    Returns:
      Measure → value, NaN for all if the mask is empty or full; energy is 0 for an image without anything above zero.

    Raises:
      ValueError: the shapes differ, or the image is not finite.
    """
    values, inside = np.asarray(image, np.float64).ravel(), np.asarray(mask, bool).ravel()
    if np.shape(image) != np.shape(mask) or not np.isfinite(values).all():
        raise SettingError(f"an image must be finite and of the mask's shape {np.shape(mask)}, not {np.shape(image)}")
    size = int(inside.sum())
    if size in (0, inside.size):
        return dict.fromkeys(MEASURES, np.nan) | {"size": size / inside.size}
    # Cells of equal values are one group: how many of each are in the mask, and how many there are, the highest first.
    _, group, counts = np.unique(-values, return_inverse=True, return_counts=True)
    hits = np.bincount(group, weights=inside)
    total, found = np.cumsum(counts), np.cumsum(hits)
    outside = counts - hits
    before = np.concatenate([[0.0], found[:-1]])
    auroc = float((outside * (before + hits / 2)).sum() / (size * (inside.size - size)))
    last = int(np.searchsorted(total, size))  # the group in which the mask's size is reached
    room = size - (total[last] - counts[last])
    hit = float(found[last] - hits[last] + hits[last] * room / counts[last])
    power = np.maximum(values, 0) ** 2
    return {
        "auroc": auroc,
        "ap": float((hits * found / total).sum() / size),
        "pointing": float(hits[0] / counts[0]),
        "iou": hit / (2 * size - hit),
        "f1": hit / size,
        "energy": float(power @ inside / power.sum()) if power.any() else 0.0,
        "size": size / inside.size,
    }
