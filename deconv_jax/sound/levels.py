"""Levels in decibels."""

import numpy as np

RANGE_DB = 70.0
"""Decibels between the top and the bottom of a picture's scale."""


def decibels(image: np.ndarray, reference: float) -> np.ndarray:
    """Level of |image| below a reference in dB, no lower than -`RANGE_DB`; same shape."""
    level = np.abs(image) / (reference if reference > 0 else 1.0)
    return np.maximum(20 * np.log10(np.maximum(level, 1e-12)), -RANGE_DB)
