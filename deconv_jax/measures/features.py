"""Numbers for every feature: how active it is, what its image is made of, and an order to listen in."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

BANDS = (("bass", 0.0, 250.0), ("mid", 250.0, 2000.0), ("treble", 2000.0, np.inf))
"""Frequency bands of the table: name, from, up to (Hz)."""

COLUMNS = (
    *("active_fraction", "activation_maximum", "activation_mean", "energy", "negative_share", "centroid_hz"),
    *(f"{name}_share" for name, _, _ in BANDS),
)
"""Names of the numbers of a feature in every table."""

APART = 0.25
"""Seconds that lie between two moments at which a feature is strongest, at least."""


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
    # One feature at a time: a whole song's images are not to be copied.
    # In NumPy: every song has another length, and none is to be compiled for.
    pairs = zip(images, maps, strict=True)
    found = [reduce(np.asarray(i)[None], np.asarray(m)[None], frequencies, np) for i, m in pairs]
    return finished({name: np.concatenate([f[name] for f in found]) for name in found[0]})


def reduce(images: Any, maps: Any, frequencies: np.ndarray, np_or_jnp: Any = jnp) -> dict[str, Any]:
    """What `finished` makes `Measures` of, without NaN; in JAX to stand within a compiled function.

    Energies are sums over images whose largest value is brought to 1, so that float32 neither overflows nor loses
    what is small; `finished` brings the scale back.

    Args:
      images: shape (..., features, freq, time).
      maps: shape (..., features, layer freq, layer time).
      frequencies: of the image's rows, Hz, shape (freq,).

    Returns:
      Arrays of shape (..., features), and `bands` with an axis more.
    """
    xp, axes, frequencies = np_or_jnp, (-2, -1), np.asarray(frequencies)
    top = xp.abs(images).max(axis=axes)
    unit = images / xp.where(top > 0, top, 1)[..., None, None]
    rows = xp.square(unit).sum(axis=-1)
    total = rows.sum(axis=-1)
    some = xp.where(total > 0, total, 1)
    bands = [rows[..., (frequencies >= low) & (frequencies < high)].sum(axis=-1) for _, low, high in BANDS]
    weights = frequencies.astype(np.float32).reshape((1,) * (rows.ndim - 1) + (-1,))
    return {
        "active": (maps > 0).mean(axis=axes),
        "maximum": maps.max(axis=axes),
        "mean": maps.mean(axis=axes),
        "top": top,
        "total": total,
        "negative": xp.square(xp.minimum(unit, 0)).sum(axis=axes) / some,
        "centroid": (rows * weights).sum(axis=-1) / some,
        "bands": xp.stack(bands, axis=-1) / some[..., None],
    }


def finished(found: dict[str, np.ndarray]) -> Measures:
    """The measures, on the host, from what `reduce` gave."""
    energy = np.square(found["top"], dtype=np.float64) * found["total"]
    return Measures(
        **{name: found[name] for name in ("active", "maximum", "mean", "negative", "bands")},
        energy=energy,
        centroid=np.where(energy > 0, found["centroid"], np.nan),
        inactive=(found["maximum"] <= 0) & (energy == 0),
    )


def columns(measures: Measures) -> dict[str, np.ndarray]:
    """The measures by the names that they have in every table, each of shape (..., features)."""
    values = (measures.active, measures.maximum, measures.mean, measures.energy, measures.negative, measures.centroid)
    return dict(zip(COLUMNS, (*values, *np.moveaxis(measures.bands, -1, 0)), strict=True))


def strongest(measures: Measures, count: int) -> np.ndarray:
    """Indices of the `count` features of most energy, strongest first; inactive ones come last."""
    return np.argsort(-measures.energy, kind="stable")[:count]


def envelopes(images: np.ndarray) -> np.ndarray:
    """Strength of every frame, the root mean square of an image's column: (features, freq, time) → (features, time)."""
    return np.stack([np.sqrt(np.mean(np.square(image, dtype=np.float64), axis=0)) for image in images])


def envelope_peaks(envelope: np.ndarray, count: int, apart: int) -> np.ndarray:
    """Frames at which a feature's image is strongest: its envelope's highest peaks, strongest first, shape (≤ count,).

    Args:
      envelope: shape (time,).
      count: how many at most.
      apart: frames that lie between two of them at least.
    """
    padded = np.pad(envelope, 1)
    turns = np.flatnonzero(np.diff(padded))  # the last frames of stretches of one value
    rises = padded[turns + 1] > padded[turns]
    top = np.flatnonzero(rises[:-1] & ~rises[1:])
    middles = (turns[top] + turns[top + 1] - 1) // 2
    kept: list[int] = []
    for frame in middles[np.argsort(-envelope[middles], kind="stable")]:
        if len(kept) < count and all(abs(frame - other) >= apart for other in kept):
            kept.append(frame)
    return np.array(kept, int)
