"""Pictures of arrays: levels and colours."""

import io
import re

import numpy as np
from PIL import Image

from deconv_jax.pictures import spectrograms


def test_a_level_picture_holds_levels_below_its_own_maximum(rng):
    image = rng.normal(size=(9, 40))
    image[0] = 0
    grey = np.asarray(Image.open(io.BytesIO(spectrograms.level_picture(image))))
    want = np.maximum(20 * np.log10(np.maximum(np.abs(image), 1e-9) / np.abs(image).max()), -70)
    assert grey.dtype == np.uint8
    np.testing.assert_allclose(grey[::-1] / spectrograms.LEVEL_STEP - 70, want, atol=0.51)  # whole decibels
    assert not np.asarray(Image.open(io.BytesIO(spectrograms.level_picture(np.zeros((9, 40)))))).any()
    long = np.asarray(Image.open(io.BytesIO(spectrograms.level_picture(rng.normal(size=(3, 5000))))))
    assert long.shape == (3, 1667)


def test_colours_are_one_for_each_level():
    found = spectrograms.colours()
    assert len(found) == 71
    assert all(re.fullmatch("#[0-9a-f]{6}", c) for c in found)
