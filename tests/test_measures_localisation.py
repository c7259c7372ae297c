"""Scores of images against a place that is known: by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from deconv_jax.errors import SettingError
from deconv_jax.measures.localisation import MEASURES, localised

MASK = np.array([[True, False, False], [True, False, False]])


def test_scores_by_hand():
    found = localised(np.array([[3.0, 1, 0], [-1, 2, 0]]), MASK)
    # The order is 3 (in), 2, 1, 0, 0, -1 (in): the first of two cells at the mask's size is in it.
    assert found == {
        "auroc": pytest.approx(4 / 8),
        "ap": pytest.approx((1 + 2 / 6) / 2),
        "pointing": 1,
        "iou": pytest.approx(1 / 3),
        "f1": 0.5,
        "energy": pytest.approx(9 / 14),
        "size": pytest.approx(1 / 3),
    }


@pytest.mark.parametrize("levels", [1000, 5])
def test_areas_are_scikit_learns_with_ties_and_without(levels, rng):
    image, mask = np.floor(levels * rng.random((20, 30))) - levels // 2, rng.random((20, 30)) < 0.1
    image[mask] += rng.integers(0, 2, mask.sum()) * levels // 4
    found = localised(image, mask)
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(mask.ravel(), image.ravel()), abs=1e-12)
    assert found["ap"] == pytest.approx(metrics.average_precision_score(mask.ravel(), image.ravel()), abs=1e-12)


def test_ties_count_as_the_mean_over_their_orders(rng):
    found = localised(np.zeros((4, 5)), rng.random((4, 5)) < 0.5)
    assert found["pointing"] == pytest.approx(found["size"])
    assert found["f1"] == pytest.approx(found["size"])
    assert (found["auroc"], found["energy"]) == (0.5, 0)


def test_the_mask_itself_is_right_and_its_opposite_wrong():
    right, wrong = localised(MASK.astype(float), MASK), localised(-MASK.astype(float), MASK)
    assert [right[name] for name in MEASURES] == [1] * 6
    assert [wrong[name] for name in ("auroc", "pointing", "iou", "f1", "energy")] == [0] * 5


def test_what_cannot_be_scored_is_nan_or_refused():
    assert np.isnan(localised(np.ones((2, 2)), np.zeros((2, 2), bool))["auroc"])
    with pytest.raises(SettingError, match="finite"):
        localised(np.full((2, 3), np.nan), MASK)
    with pytest.raises(SettingError, match=r"\(2, 3\)"):
        localised(np.ones((3, 2)), MASK)
