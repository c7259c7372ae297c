"""What spoke for a class, by hand where a network is small or linear, and against other libraries where they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_decision_effects import NETWORKS, ODD, PLAIN, SIZE, made, run

import deconv_jax
from deconv_jax.decision import attribution as module
from deconv_jax.decision.attribution import METHODS, attribute
from deconv_jax.decision.effects import effects
from deconv_jax.deconvolution.deconvolve import deconvolve
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block, Dense

LINEAR = Network(
    blocks=(
        Block(maps=3, activation="linear", pooling="average", use_bias=False),
        Block(maps=4, activation="linear", norm="before", pooling="average"),
    ),
    dense=(),
    classes=3,
)
"""A logit of it is a constant and a weight for every cell."""

LEAKY = Network(
    blocks=(Block(maps=3, activation="leaky_relu", slope=0.2, norm="after"), Block(maps=4, conv_stride=(2, 1))),
    dense=(Dense(12, norm="before"), 12),
    head="average",
)


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(1).uniform(size=(3, *SIZE)).astype(np.float32)


def scaled(variables):
    """The same with an input that is shifted and scaled, row by row."""
    rng = np.random.default_rng(7)
    rows = {"mean": rng.uniform(0, 0.5, (SIZE[0], 1)), "scale": rng.uniform(0.5, 2, (SIZE[0], 1))}
    return {**variables, "input": {name: row.astype(np.float32) for name, row in rows.items()}}


def weights_of(network, variables, target):
    """What a linear network multiplies every cell by, cell by cell, and its constant."""
    cells = np.eye(SIZE[0] * SIZE[1], dtype=np.float32).reshape(-1, *SIZE)
    constant = float(run(network, variables, np.zeros(SIZE, np.float32))[0][target])
    return (np.asarray(run(network, variables, cells)[0])[:, target] - constant).reshape(SIZE), constant


def test_of_a_linear_network_everything_is_known(clips):
    variables = scaled(made(LINEAR))
    weights, constant = weights_of(LINEAR, variables, 2)
    near = {"atol": 1e-5 * np.abs(weights).max(), "rtol": 0}
    found = {m: attribute(LINEAR, variables, clips, 2, method=m) for m in METHODS}
    for method in ("gradient", "guided"):
        if method == "gradient":
            np.testing.assert_allclose(found[method].image, np.broadcast_to(weights, clips.shape), **near)
    for method in ("gradient_x_input", "integrated_gradients"):
        np.testing.assert_allclose(found[method].image, weights * clips, **near)
    logits = run(LINEAR, variables, clips)[0][:, 2]
    for one in found.values():
        np.testing.assert_allclose(one.logit, logits, atol=1e-6)
        assert (one.image.shape, one.image.dtype) == (clips.shape, jnp.float32)
    np.testing.assert_allclose(found["integrated_gradients"].owed, logits - constant, atol=1e-6)
    np.testing.assert_allclose(found["integrated_gradients"].gap, 0, atol=1e-5)
    base = attribute(LINEAR, variables, clips[0], 2, method="integrated_gradients", baseline=0.5, steps=1)
    np.testing.assert_allclose(base.image, weights * (clips[0] - 0.5), **near)


@pytest.mark.parametrize("name", ["odd", "plain"])
def test_a_gradient_is_the_logits_slope(name, clips):
    network, variables = NETWORKS[name], scaled(made(NETWORKS[name]))
    image = np.asarray(attribute(network, variables, clips, [1, 0, 2], method="gradient").image, np.float64)
    rng = np.random.default_rng(3)
    for clip, target in enumerate([1, 0, 2]):
        way = rng.normal(size=(8, *SIZE)).astype(np.float32)
        step = 1e-4  # kinks are passed by few of the steps; the median is of those that pass none
        up, down = (np.asarray(run(network, variables, clips[clip] + s * way)[0])[:, target] for s in (step, -step))
        found, want = (image[clip] * way).sum(axis=(1, 2)), (up - down) / (2 * step)
        assert np.median(np.abs(found - want)) < 0.01 * np.abs(want).max()


def test_integrated_gradients_add_up_to_the_change_of_the_logit(clips):
    variables = scaled(made(PLAIN))
    targets, base = [2, 0, 1], 0.3 * clips[::-1]
    found = attribute(PLAIN, variables, clips, targets, baseline=base, steps=300)
    logits, before = (np.asarray(run(PLAIN, variables, x)[0])[range(3), targets] for x in (clips, base))
    np.testing.assert_allclose(found.owed, logits - before, atol=1e-6)
    np.testing.assert_allclose(found.gap, found.image.sum(axis=(1, 2)) - found.owed, atol=1e-6)
    assert np.abs(found.gap).max() < 0.003 * np.abs(found.image).sum(axis=(1, 2)).max()  # kinks on the way
    few = attribute(PLAIN, variables, clips, targets, baseline=base, steps=2)
    assert np.abs(few.gap).max() > 10 * np.abs(found.gap).max()
    assert found.method == "integrated_gradients"
    assert found.options["steps"] == 300
    assert attribute(PLAIN, variables, clips, 0, method="gradient").gap is None


def test_guided_stops_at_every_rectifier_as_the_deconvolution_does(clips):
    """One block and a head of one weight for each map: what comes down is known."""
    network = Network(blocks=(Block(maps=3), Block(maps=4, activation="leaky_relu", slope=0.1)), dense=(), head="max")
    variables = made(network)
    image = attribute(network, variables, clips[0], 1, method="guided").image
    # By hand, step by step, with plain gradients between the rectifiers.
    params = variables["params"]

    def low(x):
        return jax.lax.conv_general_dilated(
            x[None, ..., None], params["conv1"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ) + params["conv1"]["bias"].reshape(1, 1, 1, -1)

    def pool(x):
        return jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def middle(x):
        return jax.lax.conv_general_dilated(
            pool(x), params["conv2"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ) + params["conv2"]["bias"].reshape(1, 1, 1, -1)

    def top(x):
        return (pool(x).max(axis=(1, 2)) @ params["output"]["kernel"])[0, 1]

    a = low(clips[0])
    b = middle(jax.nn.relu(a))
    signal = jax.grad(top)(jax.nn.leaky_relu(b, 0.1))
    signal = jax.nn.leaky_relu(signal, 0.1) * jnp.where(b >= 0, 1, 0.1)
    signal = jax.vjp(middle, jax.nn.relu(a))[1](signal)[0]
    signal = jax.nn.relu(signal) * (a > 0)
    want = jax.vjp(low, jnp.asarray(clips[0]))[1](signal)[0]
    np.testing.assert_allclose(image, want, atol=1e-6 * np.abs(want).max() + 1e-7, rtol=1e-5)
    assert np.abs(want).max() > 1e-3


@pytest.mark.parametrize("layer", [1, 3])
def test_the_deconvnets_image_is_of_maps_by_their_effect(layer, clips):
    variables = made(PLAIN)
    change, images = effects(PLAIN, variables, clips, layer), deconvolve(PLAIN, variables, clips, layer)
    found = attribute(PLAIN, variables, clips, [2, 1, 0], method="deconvnet", layer=layer)
    for clip, target in enumerate([2, 1, 0]):
        want = sum(-change[clip, f, target] * images[clip, f] for f in range(PLAIN.blocks[layer - 1].maps))
        np.testing.assert_allclose(found.image[clip], want, atol=1e-5 * np.abs(want).max())
    last = attribute(PLAIN, variables, clips, [2, 1, 0], method="deconvnet")
    assert np.array_equal(last.image, found.image) == (layer == 3)


def test_grad_cam_is_the_maps_by_their_mean_gradient(clips):
    variables, targets = made(PLAIN, seed=3), [0, 1, 2]
    maps = run(PLAIN, variables, clips)[1][-1].pooled

    def logit(x):
        return run(PLAIN, variables, x, start=4)[0][jnp.arange(3), jnp.arange(3)].sum()

    cam = (maps * jax.grad(logit)(maps).mean(axis=(1, 2), keepdims=True)).sum(axis=-1)
    for relu, want in ((True, np.maximum(cam, 0)), (False, cam)):
        found = np.asarray(attribute(PLAIN, variables, clips, targets, method="grad_cam", relu=relu).image)
        assert found.shape == clips.shape
        rows, columns = (np.array([0, -1]) for _ in range(2))  # corners keep their own values at another size
        np.testing.assert_allclose(found[:, rows][..., columns], np.asarray(want)[:, rows][..., columns], atol=1e-6)
    assert (cam < 0).any()
    assert (cam > 0).any()


@pytest.mark.parametrize("method", METHODS)
def test_clips_stand_alone_however_many_run_at_once(method, clips, monkeypatch):
    network = LEAKY
    variables = scaled(made(network))
    targets = [2, 0, 1]
    every = attribute(network, variables, clips, targets, method=method)
    near = 1e-5 * np.abs(every.image).max()
    assert near
    monkeypatch.setattr(module, "clips_together", lambda *_: 2)  # two, and one with a filler
    again = attribute(network, variables, clips, targets, method=method)
    np.testing.assert_allclose(again.image, every.image, atol=near)
    np.testing.assert_allclose(again.logit, every.logit, atol=1e-6)
    if method != "smoothgrad":
        one = attribute(network, variables, clips[1], 0, method=method)
        assert (one.image.shape, one.logit.shape) == (SIZE, ())
        np.testing.assert_allclose(one.image, every.image[1], atol=near)
    assert deconv_jax.attribute is attribute


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda v, x: attribute(PLAIN, v, x, 0, method="shap"), "method must be one of gradient, .* not 'shap'"),
        (lambda v, x: attribute(PLAIN, v, x, 0, steps=0), "steps must be a whole number of at least 1, not 0"),
        (lambda v, x: attribute(PLAIN, v, x, 0, step=3), "has the options baseline, steps, not 'step'"),
        (lambda v, x: attribute(PLAIN, v, x, 0, method="gradient", steps=3), "has no options, not 'steps'"),
        (lambda v, x: attribute(PLAIN, v, x, 3), "class 3 does not exist: there are classes 0 to 2"),
        (lambda v, x: attribute(PLAIN, v, x, [0, -1, 1]), "class -1 does not exist"),
        (lambda v, x: attribute(PLAIN, v, x, [0, 1]), r"one for each of 3 clips, as whole numbers, not \[0, 1\]"),
        (lambda v, x: attribute(PLAIN, v, x, 1.0), "as whole numbers, not 1.0"),
        (lambda v, x: attribute(PLAIN, v, x, 0, baseline=np.ones(4)), r"broadcast to \(3, 24, 19\), not of shape \(4,"),
        (lambda v, x: attribute(PLAIN, v, x[..., :9], 0), "they fit clips of one length"),
        (lambda v, x: attribute(PLAIN, v, x, 0, method="grad_cam", layer=4), "layer 4 does not exist"),
        (lambda v, x: attribute(ODD, made(ODD), x, 0, method="guided"), "no rule for the activation elu"),
    ],
)
def test_what_cannot_be_asked_is_named(call, says, clips):
    with pytest.raises(ValueError, match=says):
        call(made(PLAIN), clips)
