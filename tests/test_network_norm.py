"""Batch norm in training against its formula and PyTorch's, and folded away."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_deconvolution_any_network import random_variables

from deconv_jax.deconvolution.deconvolve import deconvolve
from deconv_jax.deconvolution.rule import Rule
from deconv_jax.network import first_layer
from deconv_jax.network.folding import fold
from deconv_jax.network.model import NORM_MOMENTUM, Network, initial_variables
from deconv_jax.network.spec import Block, Dense

SIZE = (13, 17)
BLOCK = Block(maps=4, norm="before", dropout=0.0)


def in_training(network, variables, seen, **how):
    (logits, trace), changed = network.apply(variables, seen, train=True, mutable=["batch_stats"], **how)
    return logits, trace, changed["batch_stats"]


def test_a_training_step_normalises_by_the_batch_and_moves_the_statistics(rng):
    """Ioffe and Szegedy's algorithm 1 by hand, in float64."""
    network = Network(blocks=(BLOCK,), dense=(), dropout=0.0, head="average")
    variables = random_variables(network, SIZE, rng)
    seen = rng.random((5, *SIZE)).astype(np.float32)
    _, trace, stats = in_training(network, variables, seen)
    conv = variables["params"]["conv1"] | {"bias": variables["params"]["conv1"]["bias"]}
    padded = np.pad(np.asarray(seen, np.float64), [(0, 0), (1, 1), (1, 1)])
    x = sum(
        padded[:, a : a + SIZE[0], b : b + SIZE[1], None] * np.asarray(conv["kernel"], np.float64)[a, b, 0]
        for a in range(3)
        for b in range(3)
    ) + np.asarray(conv["bias"], np.float64)
    mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    norm = variables["params"]["norm1"]
    y = np.maximum(np.asarray(norm["scale"]) * (x - mean) / np.sqrt(var + BLOCK.epsilon) + np.asarray(norm["bias"]), 0)
    pooled = y[:, :12, :16].reshape(5, 6, 2, 8, 2, 4).max(axis=(2, 4))
    np.testing.assert_allclose(trace[0].pooled, pooled, atol=1e-5)
    before = variables["batch_stats"]["norm1"]
    for name, value in (("mean", mean), ("var", var)):
        want = NORM_MOMENTUM * np.asarray(before[name]) + (1 - NORM_MOMENTUM) * value
        np.testing.assert_allclose(stats["norm1"][name], want, atol=1e-6)


def test_it_normalises_as_pytorch_does(rng):
    torch = pytest.importorskip("torch")
    network = Network(blocks=(Block(maps=4, norm="before", dropout=0.0, epsilon=1e-5),), dense=(), head="average")
    variables = random_variables(network, SIZE, rng)
    seen = rng.random((5, *SIZE)).astype(np.float32)
    _, trace, stats = in_training(network, variables, seen)
    kernel, bias = (torch.tensor(np.array(variables["params"]["conv1"][k])) for k in ("kernel", "bias"))
    x = torch.nn.functional.conv2d(torch.tensor(seen)[:, None], kernel.permute(3, 2, 0, 1), bias, padding=1)
    layer = torch.nn.BatchNorm2d(4, momentum=1 - NORM_MOMENTUM)
    with torch.no_grad():
        layer.weight[:] = torch.tensor(np.array(variables["params"]["norm1"]["scale"]))
        layer.bias[:] = torch.tensor(np.array(variables["params"]["norm1"]["bias"]))
        layer.running_mean[:] = torch.tensor(np.array(variables["batch_stats"]["norm1"]["mean"]))
        pooled = torch.nn.functional.max_pool2d(torch.relu(layer.train()(x)), 2)
    np.testing.assert_allclose(trace[0].pooled, pooled.permute(0, 2, 3, 1).numpy(), atol=2e-5)
    np.testing.assert_allclose(stats["norm1"]["mean"], layer.running_mean, atol=1e-6)


def test_clips_that_fill_up_the_devices_count_for_nothing(rng):
    network = Network(blocks=(BLOCK,), dense=(Dense(5, norm="before"),), dropout=0.0)
    variables = random_variables(network, SIZE, rng)
    seen = rng.random((5, *SIZE)).astype(np.float32)
    filled = np.concatenate([seen, np.full((3, *SIZE), 9, np.float32)])
    logits, _, stats = in_training(network, variables, seen)
    other, _, same = in_training(network, variables, filled, counted=5)
    np.testing.assert_allclose(other[:5], logits, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), stats, same)


@pytest.mark.parametrize(
    "block", [BLOCK, Block(maps=3, kernel=(2, 5), pool=(3, 2), use_bias=False, dropout=0.0)], ids=["norm", "none"]
)
def test_the_first_layer_of_a_step_without_its_map_is_the_same(rng, monkeypatch, block):
    network = Network(blocks=(block,), dense=(), dropout=0.0, head="average")
    variables = random_variables(network, SIZE, rng)
    seen = rng.random((5, *SIZE)).astype(np.float32)

    def result():
        def loss(params, seen):
            given = variables | {"params": params}
            (logits, trace), changed = network.apply(given, seen, train=True, counted=4, mutable=["batch_stats"])
            return jnp.sum(logits[:4] ** 2), (trace, changed)

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(variables["params"], seen)

    ours = result()
    assert first_layer.fits(block, 1)
    monkeypatch.setattr(first_layer, "fits", lambda block, maps: False)
    with jax.enable_x64(True):  # a bias before batch norm has no gradient, but rounding, which in float32 may be 1e-5
        variables, seen = jax.tree.map(lambda a: np.asarray(a, np.float64), (variables, seen))
        wanted = result()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), ours, wanted)


def test_folded_networks_are_the_same_to_the_last_image(rng):
    """With and without biases, any padding, and in dense layers; a norm after the activation stays."""
    blocks = (
        BLOCK,
        Block(maps=3, kernel=(3, 2), padding=("VALID", (1, 0)), use_bias=False, norm="before", activation="leaky_relu"),
        Block(maps=3, norm="after"),
    )
    dense = (Dense(6, norm="before", use_bias=False), 5)
    network = Network(blocks=blocks, dense=dense, head="average")
    size = (33, 29)
    variables = random_variables(network, size, rng)
    folded, plain = fold(network, variables)
    assert [b.norm for b in folded.blocks] == ["none", "none", "after"]
    assert folded.dense == (6, 5)
    assert list(plain["batch_stats"]) == ["norm3"]
    wanted = jax.eval_shape(folded.init, jax.random.key(0), jax.ShapeDtypeStruct(size, np.float32))
    assert jax.tree.map(np.shape, {k: plain[k] for k in wanted}) == jax.tree.map(lambda x: x.shape, dict(wanted))
    seen = rng.random((2, *size)).astype(np.float32)
    logits, trace = jax.jit(network.apply)(variables, seen)
    again, same = jax.jit(folded.apply)(plain, seen)
    np.testing.assert_allclose(again, logits, atol=1e-5)
    for one, other in zip(trace, same, strict=True):
        np.testing.assert_allclose(other.pooled, one.pooled, atol=1e-5 * float(jnp.abs(one.pooled).max()))
    images = np.asarray(deconvolve(network, variables, seen[0], 3, rule=Rule(path="plain")))
    other = np.asarray(deconvolve(folded, plain, seen[0], 3, rule=Rule(path="plain")))
    assert np.abs(images).max() > 0
    np.testing.assert_allclose(other, images, atol=1e-5 * np.abs(images).max())


def test_a_network_without_norms_is_its_own_fold(rng):
    network = Network(blocks=(Block(maps=2),), dense=(3, Dense(4, activation="elu")))
    variables = initial_variables(network, SIZE, 0)
    folded, plain = fold(network, variables)
    assert folded == network
    jax.tree.map(np.testing.assert_array_equal, plain, dict(variables))
