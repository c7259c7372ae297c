"""Measures of masks, on networks whose answer is known, by hand, and as Quantus has them where it is installed."""

import jax.numpy as jnp
import numpy as np
import pytest
from test_decision_effects import PLAIN, SIZE, made, run

import deconv_jax
from deconv_jax.decision import faithfulness as module
from deconv_jax.decision.faithfulness import MEASURES, Masking, complexity, faithfulness, mask_of, sparseness


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(1).uniform(size=(3, *SIZE)).astype(np.float32)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).normal(size=(3, *SIZE)).astype(np.float32)


def probabilities(variables, x):
    logits = np.asarray(run(PLAIN, variables, np.asarray(x, np.float32))[0], np.float64)
    power = np.exp(20 * logits)
    return power / power.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def variables():
    """Made so that the answer moves: logits are twenty times as large."""
    found = made(PLAIN, seed=3)
    params = found["params"]
    return {**found, "params": {**params, "output": {k: 20 * v for k, v in params["output"].items()}}}


@pytest.mark.parametrize("masking", [Masking("maximum"), Masking("quantile", 0.3, positive=False)])
@pytest.mark.parametrize("target", [None, [2, 0, 1]])
def test_measures_are_their_formulas_clip_by_clip(masking, target, variables, clips, images):
    plain = made(PLAIN, seed=3)
    got = faithfulness(PLAIN, variables, clips, images, target, masking=masking, steps=4, fill=0.2)
    masks = mask_of(images, masking)
    before, inside = probabilities(plain, clips), probabilities(plain, 0.2 + masks * (clips - 0.2))
    outside = probabilities(plain, 0.2 + (1 - masks) * (clips - 0.2))
    classes = before.argmax(axis=1) if target is None else np.array(target)
    assert np.array_equal(got.target, classes)
    for n, c in enumerate(classes):
        p, p_in, p_out = before[n, c], inside[n, c], outside[n, c]
        want = {
            "ai": 100.0 * (p_in > p),
            "ad": 100 * max(p - p_in, 0) / p,
            "ag": 100 * max(p_in - p, 0) / (1 - p),
            "ff": p - p_out,
            "fid_in": before[n].argmax() == inside[n].argmax(),
            "covered": masks[n].mean(),
        }
        order = np.argsort(-images[n].ravel(), kind="stable")
        curves = {"deletion": [], "insertion": []}
        for count in np.linspace(0, images[n].size, 5).round().astype(int):
            first = np.zeros(images[n].size, bool)
            first[order[:count]] = True
            for name, out in (("deletion", first), ("insertion", ~first)):
                x = np.where(out.reshape(SIZE), 0.2, clips[n])
                curves[name].append(probabilities(plain, x[None])[0, c])
        want |= {name: np.trapezoid(values, dx=0.25) for name, values in curves.items()}
        for name, value in want.items():
            np.testing.assert_allclose(getattr(got, name)[n], value, rtol=2e-3, atol=1e-5, err_msg=name)
    assert np.ptp(got.deletion) > 1e-3
    assert (got.masking, got.steps, got.fill) == (masking, 4, 0.2)


def test_masks_of_ones_and_of_zeros_are_the_clip_and_nothing(variables, clips):
    ones = faithfulness(PLAIN, variables, clips, np.ones_like(clips), masking=Masking("given"), steps=1)
    for name, want in {"ai": 0, "ad": 0, "ag": 0, "fid_in": 1, "covered": 1, "sparseness": 0}.items():
        np.testing.assert_allclose(getattr(ones, name), want, atol=1e-3)
    np.testing.assert_allclose(ones.complexity, np.log(SIZE[0] * SIZE[1]), rtol=1e-5)
    zeros = faithfulness(PLAIN, variables, clips, np.zeros_like(clips), steps=1)
    for name in ("ff", "covered", "sparseness", "complexity"):
        np.testing.assert_allclose(getattr(zeros, name), 0, atol=1e-5)
    np.testing.assert_allclose(ones.deletion, ones.insertion, atol=1e-6)  # of one step: the mean of both ends


def test_one_clip_is_as_of_many_however_many_run_at_once(variables, clips, images, monkeypatch):
    every = faithfulness(PLAIN, variables, clips, images, steps=2)
    monkeypatch.setattr(module, "clips_together", lambda *_: 2)
    again = faithfulness(PLAIN, variables, clips, images, steps=2)
    one = faithfulness(PLAIN, variables, clips[1], jnp.asarray(images[1]), steps=2)
    for name in MEASURES:
        found = getattr(every, name)
        assert (found.shape, found.dtype) == ((3,), np.float32)
        np.testing.assert_allclose(getattr(again, name), found, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(getattr(one, name), found[1:2], rtol=1e-4, atol=1e-4)
    assert deconv_jax.faithfulness is faithfulness


def test_a_mask_is_the_part_of_an_image_that_was_asked_for():
    image = np.array([[4.0, -8.0], [1.0, 0.0]], np.float32)
    np.testing.assert_array_equal(mask_of(image, Masking("maximum")), [[1, 0], [0.25, 0]])
    np.testing.assert_array_equal(mask_of(image, Masking("maximum", positive=False)), [[0.5, 1], [0.125, 0]])
    np.testing.assert_array_equal(mask_of(image, Masking("quantile", 0.25)), [[1, 0], [0, 0]])
    np.testing.assert_array_equal(mask_of(image, Masking("quantile", 1.0)), [[1, 0], [1, 0]])
    np.testing.assert_array_equal(mask_of(image, Masking("quantile", 0.5, positive=False)), [[1, 1], [0, 0]])
    assert not mask_of(np.zeros((2, 2)), Masking("maximum")).any()


def test_sparseness_and_complexity_by_hand():
    one = np.zeros((4, 5))
    one[1, 2] = 3
    np.testing.assert_allclose(sparseness(one), 1 - 1 / 20, atol=1e-5)
    np.testing.assert_allclose(complexity(one), 0, atol=1e-6)
    np.testing.assert_allclose(sparseness(np.array([[1.0, 3.0]])), 0.25, atol=1e-6)
    np.testing.assert_allclose(complexity(np.array([[1.0, 3.0]])), np.log(4) - 0.75 * np.log(3), atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_sparseness_and_complexity_are_quantus_own(images, without_torchvision):
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed: pip install 'deconv_jax[peers]'")
    settings = {"abs": False, "normalise": False, "disable_warnings": True}
    masks = mask_of(images, Masking("maximum"))
    for ours, metric in ((sparseness, quantus.Sparseness(**settings)), (complexity, quantus.Complexity(**settings))):
        want = metric.evaluate_batch(x_batch=masks[:, None], a_batch=masks[:, None].astype(np.float64))
        np.testing.assert_allclose(ours(masks), want, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda v, x: faithfulness(PLAIN, v, x, x[0]), r"the clips' shape \(3, 24, 19\), not \(24, 19\)"),
        (lambda v, x: faithfulness(PLAIN, v, x, x * np.inf), "image must be finite"),
        (lambda v, x: faithfulness(PLAIN, v, x, 2 * x, masking=Masking("given")), "a mask must be of 0 to 1, not of"),
        (lambda v, x: faithfulness(PLAIN, v, x, x, 3), "class 3 does not exist"),
        (lambda v, x: faithfulness(PLAIN, v, x, x, steps=0), "at least 1, not 0"),
        (lambda v, x: Masking("median"), "one of quantile, maximum, given, not 'median'"),
        (lambda v, x: Masking(share=0), "above 0 and at most 1, not 0"),
    ],
)
def test_what_cannot_be_asked_is_named(call, says, clips):
    with pytest.raises(ValueError, match=says):
        call(made(PLAIN), clips + np.float32(0.1))
