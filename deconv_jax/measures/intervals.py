"""Intervals from resamples."""

import numpy as np

LEVEL = 0.95
"""Share of the resampled values that an interval holds."""


def interval(draws: np.ndarray, level: float = LEVEL) -> list[float]:
    """Percentile interval of bootstrap draws, NaN left out; [NaN, NaN] if nothing is left."""
    there = draws[np.isfinite(draws)]
    if not there.size:
        return [np.nan, np.nan]
    low, high = np.quantile(there, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]
