import io

import numpy as np
import pytest
from PIL import Image

from deconv_jax.measures import features
from deconv_jax.pictures import spectrograms
from deconv_jax.sound import levels

FREQUENCIES = np.array([0.0, 100.0, 1000.0, 3000.0])


def planted():
    images = np.zeros((3, 4, 5), np.float32)
    images[0, 1] = 2.0  # bass only
    images[1, 2], images[1, 3] = 1.0, -1.0  # half mid, half treble and negative
    maps = np.zeros((3, 2, 2), np.float32)
    maps[0], maps[1, 0, 0] = 3.0, 4.0
    return images, maps


def test_measures_of_planted_features():
    m = features.measure(*planted(), FREQUENCIES)
    np.testing.assert_allclose(m.active, [1, 0.25, 0])
    np.testing.assert_allclose(m.maximum, [3, 4, 0])
    np.testing.assert_allclose(m.mean, [3, 1, 0])
    np.testing.assert_allclose(m.energy, [20, 10, 0])
    np.testing.assert_allclose(m.negative, [0, 0.5, 0])
    np.testing.assert_allclose(m.centroid, [100, 2000, np.nan])
    np.testing.assert_allclose(m.bands, [[1, 0, 0], [0, 0.5, 0.5], [0, 0, 0]])
    np.testing.assert_array_equal(m.inactive, [False, False, True])
    np.testing.assert_array_equal(features.strongest(m, 2), [0, 1])
    np.testing.assert_array_equal(features.strongest(m, 99), [0, 1, 2])


def test_levels_share_one_reference():
    np.testing.assert_allclose(levels.decibels(np.array([1.0, -0.1, 0.0]), 1.0), [0, -20, -levels.RANGE_DB])
    np.testing.assert_allclose(levels.decibels(np.zeros(2), 0.0), -levels.RANGE_DB)


@pytest.mark.parametrize("features", [1, 7, 9])
def test_a_sheet_has_room_for_every_feature_of_a_long_clip(rng, features):
    images = rng.uniform(size=(features, 4, 900))
    images[0] = 0
    sheet = spectrograms.layer_sheet(images, range(features), FREQUENCIES, 20.0, "a $x$ <b>")
    width, height = Image.open(io.BytesIO(sheet)).size
    assert (width, height) == (160 * min(8, features) + 100, 175 * -(-features // 8) + 60)


def test_pictures_show_the_image_its_scale_and_blanks(rng):
    sheet = spectrograms.SpectrogramSheet(FREQUENCIES, 2.0, "loudest")
    image = rng.uniform(size=(4, 6))
    first = sheet.draw(image, 1.0, "a $x$ <b>")
    loud, quiet, blank = (
        np.asarray(Image.open(io.BytesIO(p)))
        for p in (first, sheet.draw(image / 100, 1.0, "a $x$ <b>"), sheet.draw(image * 0, 1.0, "a $x$ <b>"))
    )
    assert loud.shape == (360, 720, 3)
    assert loud.mean() > quiet.mean()
    assert np.any(blank == 255)
    np.testing.assert_array_equal(
        sheet.draw(image, 1.0, "a $x$ <b>"), first
    )  # nothing is left of what was drawn before
