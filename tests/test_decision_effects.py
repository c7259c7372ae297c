"""What features do for the answer, against networks whose weights from a feature on are set to zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from networks import initial

import deconv_jax
from deconv_jax.decision import effects as module
from deconv_jax.decision.effects import (
    curve,
    effects,
    interactions,
    logits_from,
    mean_maps,
    pooled_maps,
    scaled_logits,
)
from deconv_jax.network.model import Network, convolution
from deconv_jax.network.spec import Block, Dense

SIZE = (24, 19)
PLAIN = Network(blocks=(Block(maps=4), Block(maps=5), Block(maps=3)), dense=(6,), classes=3)
ODD = Network(
    blocks=(
        Block(maps=3, kernel=(5, 3), norm="before", activation="elu", slope=1.0, conv_stride=(2, 1), pooling="average"),
        Block(maps=4, kernel=(1, 4), padding="VALID", norm="after", pool=(3, 2), stride=(2, 1), pool_padding="SAME"),
        Block(maps=5, kernel=(2, 2), padding=((1, 0), "SAME"), norm="pooled", use_bias=False, conv_stride=(1, 2)),
    ),
    dense=(Dense(6, activation="tanh", norm="after"),),
    classes=4,
    head="max",
)
NETWORKS = {
    "plain": PLAIN,
    "odd": ODD,
    "average head": Network(blocks=(Block(maps=4), Block(maps=3)), dense=(5,), head="average"),
    "many maps": Network(blocks=(Block(maps=18), Block(maps=20)), dense=(), classes=2),  # a convolution of its own
}


run = jax.jit(
    lambda network, *given, start=0: network.apply(*given, start=start), static_argnums=0, static_argnames="start"
)


def made(network, seed=0):
    """Variables in which everything matters: biases, and statistics of batch norm, are not what they begin as."""
    variables = initial(network, SIZE, seed)
    rng = np.random.default_rng(seed)

    def moved(path, x):
        factor = rng.uniform(0.5, 1.5, x.shape) if path[-1].key == "var" else 1
        return jnp.asarray(
            x * factor + (rng.normal(0, 0.2, x.shape) if x.ndim == 1 and isinstance(factor, int) else 0), jnp.float32
        )

    return dict(jax.tree_util.tree_map_with_path(moved, variables))


def without(network, variables, layer, features):
    """Variables in which nothing comes from these features of a layer: their maps are multiplied by zeros."""
    params = dict(variables["params"])
    if layer < len(network.blocks):
        name = f"conv{layer + 1}"
        kernel = params[name]["kernel"].at[:, :, features].set(0)
    else:
        name = "dense1" if network.dense else "output"
        kernel = params[name]["kernel"]
        apart = kernel.reshape(-1, network.blocks[-1].maps, kernel.shape[1]).at[:, features].set(0)
        kernel = apart.reshape(kernel.shape)
    return {**variables, "params": {**params, name: {**params[name], "kernel": kernel}}}


@pytest.fixture(scope="module")
def clips():
    return np.random.default_rng(1).uniform(size=(3, *SIZE)).astype(np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_goes_on_from_any_block(name, clips):
    network = NETWORKS[name]
    variables = made(network)
    logits, trace = run(network, variables, clips)
    for start in range(2, len(network.blocks) + 2):
        x = trace[start - 2].pooled
        if start <= len(network.blocks):
            x = convolution(network.blocks[start - 1], variables["params"][f"conv{start}"], x)
        found, rest = run(network, variables, x, start=start)
        np.testing.assert_allclose(found, logits, atol=1e-5, rtol=0)
        assert len(rest) == len(network.blocks) + 1 - start
        for one, whole in zip(rest, trace[start - 1 :], strict=True):
            np.testing.assert_allclose(one.pooled, whole.pooled, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_an_effect_is_that_of_weights_of_zero(name, clips):
    network = NETWORKS[name]
    variables = made(network)
    before = run(network, variables, clips)[0]
    for layer, block in enumerate(network.blocks, 1):
        found = effects(network, variables, clips, layer)
        assert found.shape == (3, block.maps, before.shape[-1])
        want = [run(network, without(network, variables, layer, f), clips)[0] - before for f in range(block.maps)]
        np.testing.assert_allclose(found, np.stack(want, axis=1), atol=1e-5, rtol=0)
        assert np.abs(found).max() > 1e-3


def test_one_clip_and_some_features_are_those_of_all(clips):
    variables = made(PLAIN)
    every = effects(PLAIN, variables, clips, 2)
    np.testing.assert_allclose(effects(PLAIN, variables, clips[1], 2, [4, 0]), every[1, [4, 0]], atol=1e-6)
    assert deconv_jax.effects is effects


def test_how_much_is_run_at_once_changes_nothing(clips, monkeypatch):
    variables = made(PLAIN)
    every = effects(PLAIN, variables, clips, 1)
    for chunk in (1, 3, 99):
        np.testing.assert_allclose(effects(PLAIN, variables, clips, 1, chunk=chunk), every, atol=1e-6)
    means = mean_maps(PLAIN, variables, clips, 2)
    monkeypatch.setattr(module, "clips_together", lambda *_: 2)  # two, and one with a filler
    np.testing.assert_allclose(effects(PLAIN, variables, clips, 1), every, atol=1e-6)
    np.testing.assert_allclose(mean_maps(PLAIN, variables, clips, 2), means, atol=1e-6)
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    np.testing.assert_allclose(effects(PLAIN, variables, clips, 1), every, atol=1e-6)


def test_a_map_that_is_what_would_replace_it_has_no_effect_at_all(clips):
    variables = made(PLAIN)
    params = variables["params"]
    dead = {**params["conv1"], "bias": params["conv1"]["bias"].at[2].set(-1e6)}
    found = effects(PLAIN, {**variables, "params": {**params, "conv1": dead}}, clips, 1)
    assert not np.any(found[:, 2])
    assert np.any(found)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_mean_in_the_maps_place_equals_the_slow_loop(layer, clips):
    network = ODD
    variables = made(network)
    before, trace = run(network, variables, clips)
    pooled = np.asarray(trace[layer - 1].pooled)
    means = mean_maps(network, variables, clips, layer)
    np.testing.assert_allclose(means, pooled.mean(axis=(0, 2))[:, None], atol=1e-6)
    found = effects(network, variables, clips, layer, replacement=means)
    for feature in range(network.blocks[layer - 1].maps):
        maps = pooled.copy()
        maps[..., feature] = means[..., feature]
        if layer < len(network.blocks):
            block, params = network.blocks[layer], variables["params"][f"conv{layer + 1}"]
            kernel, bias = (
                np.asarray(params["kernel"], np.float64),
                np.asarray(params.get("bias", np.zeros(block.maps))),
            )
            maps = np.stack([reference.convolve(x, kernel, bias, block.padding, block.conv_stride) for x in maps])
        after = run(network, variables, jnp.asarray(maps, jnp.float32), start=layer + 1)[0]
        np.testing.assert_allclose(found[:, feature], after - before, atol=1e-5, rtol=0)


def test_scales_take_out_leave_and_fade(clips):
    variables = made(PLAIN)
    before = run(PLAIN, variables, clips)[0]
    scales = np.ones((4, 5))
    scales[1, 3] = scales[2, [0, 3]] = 0
    scales[3] = 0.5
    found = scaled_logits(PLAIN, variables, clips, 2, scales)
    np.testing.assert_allclose(found[:, 0], before, atol=1e-5)
    np.testing.assert_allclose(found[:, 1] - before, effects(PLAIN, variables, clips, 2, [3])[:, 0], atol=1e-5)
    both = run(PLAIN, without(PLAIN, variables, 2, np.array([0, 3])), clips)[0]
    np.testing.assert_allclose(found[:, 2], both, atol=1e-5)
    kernel = variables["params"]["conv3"]["kernel"] / 2
    half = {**variables, "params": {**variables["params"], "conv3": {**variables["params"]["conv3"], "kernel": kernel}}}
    np.testing.assert_allclose(found[:, 3], run(PLAIN, half, clips)[0], atol=1e-5)
    np.testing.assert_allclose(scaled_logits(PLAIN, variables, clips[2], 2, scales), found[2], atol=1e-5)


def test_many_settings_are_those_one_by_one_and_other_numbers_of_them_compile_nothing(clips, compiled_by):
    variables = made(PLAIN)
    scales = np.random.default_rng(2).uniform(size=(70, 5)).astype(np.float32)
    found = scaled_logits(PLAIN, variables, clips[0], 2, scales)
    single = [scaled_logits(PLAIN, variables, clips[0], 2, scale[None])[0] for scale in scales[[0, 63, 64, 69]]]
    np.testing.assert_allclose(found[np.array([0, 63, 64, 69])], np.stack(single), atol=1e-5)
    assert "Compiling jit(_scaled)" not in compiled_by(
        lambda: scaled_logits(PLAIN, variables, clips[0], 2, scales[:40])
    )
    assert "Compiling jit(_scaled)" in compiled_by(lambda: scaled_logits(PLAIN, variables, clips[0], 2, scales[:9]))


@pytest.mark.parametrize("layer", [1, 3])
def test_scaled_logits_go_on_from_maps_that_are_held(layer, clips):
    variables = made(ODD)
    scales = np.linspace(0, 1, ODD.blocks[layer - 1].maps)
    held = pooled_maps(ODD, variables, clips, layer)
    found = logits_from(ODD, variables, held, layer, scales)
    np.testing.assert_allclose(found, scaled_logits(ODD, variables, clips, layer, scales[None])[:, 0], atol=1e-6)
    np.testing.assert_array_equal(pooled_maps(ODD, variables, clips[0], layer).shape, (1, *held.shape[1:]))


def test_a_curve_takes_out_and_puts_back_in_the_order_given(clips):
    variables = made(PLAIN)
    order = [3, 0, 4, 1, 2]
    found = curve(PLAIN, variables, clips, 2, order, orders=4)
    np.testing.assert_array_equal(found.counts, [0, 1, 2, 4, 5])
    assert found.deletion.shape == found.insertion.shape == (3, 5, 3)
    assert found.random_deletion.shape == found.random_insertion.shape == (3, 4, 5, 3)
    for place, count in enumerate(found.counts):
        gone, kept = np.array(order[:count], int), np.array(order[count:], int)
        for got, out in ((found.deletion, gone), (found.insertion, kept)):
            want = run(PLAIN, without(PLAIN, variables, 2, out), clips)[0]
            np.testing.assert_allclose(got[:, place], want, atol=1e-5)
    for random in (found.random_deletion, found.random_insertion[:, :, ::-1]):
        np.testing.assert_allclose(random[:, :, 0], np.repeat(found.deletion[:, :1], 4, axis=1), atol=1e-5)
        np.testing.assert_allclose(random[:, :, -1], np.repeat(found.insertion[:, :1], 4, axis=1), atol=1e-5)
        assert np.ptp(random[:, :, 2], axis=1).max() > 1e-3
    again, other = (curve(PLAIN, variables, clips, 2, order, orders=4, seed=seed) for seed in (0, 1))
    np.testing.assert_allclose(again.random_deletion, found.random_deletion, atol=1e-6)
    assert np.abs(other.random_deletion - found.random_deletion).max() > 1e-3


def test_a_curve_of_some_features_leaves_the_others_as_they_are(clips):
    variables = made(PLAIN)
    found = curve(PLAIN, variables, clips[0], 2, [1, 2], counts=[2, 0], orders=0)
    assert (found.deletion.shape, found.random_deletion.shape) == ((2, 3), (0, 2, 3))
    np.testing.assert_allclose(found.deletion[1], run(PLAIN, variables, clips[0])[0], atol=1e-5)
    others = without(PLAIN, variables, 2, np.array([0, 3, 4]))
    np.testing.assert_allclose(found.insertion[0], run(PLAIN, others, clips[0])[0], atol=1e-5)


def test_an_interaction_is_what_two_do_beyond_their_sum(clips):
    variables = made(PLAIN)
    before, chosen = run(PLAIN, variables, clips)[0], [4, 0, 2]
    found = np.asarray(interactions(PLAIN, variables, clips, 2, chosen))
    single = effects(PLAIN, variables, clips, 2, chosen)
    assert found.shape == (3, 3, 3, 3)
    assert not np.any(found[:, range(3), range(3)])
    np.testing.assert_array_equal(found, found.swapaxes(1, 2))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        both = run(PLAIN, without(PLAIN, variables, 2, np.array([chosen[i], chosen[j]])), clips)[0] - before
        np.testing.assert_allclose(found[:, i, j], both - single[:, i] - single[:, j], atol=1e-5)
    assert np.abs(found).max() > 1e-4
    # Where nothing above is bent, the parts add up.
    linear = Network(blocks=(Block(maps=3), Block(maps=4, activation="linear", pooling="average")), dense=())
    np.testing.assert_allclose(interactions(linear, made(linear), clips[0], 1, [0, 1, 2]), 0, atol=1e-5)
    assert interactions(PLAIN, variables, clips[0], 2, [1]).shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda v, x: effects(PLAIN, v, x, 4), "layer 4 does not exist: this network has layers 1 to 3"),
        (lambda v, x: effects(PLAIN, v, x, 2, [5]), "feature 5 does not exist: layer 2 has features 0 to 4"),
        (lambda v, x: effects(PLAIN, v, x[0, 0], 1), r"magnitude must be .* not of shape \(19,\)"),
        (
            lambda v, x: effects(PLAIN, v, np.ones((24, 40), np.float32), 1),
            r"take 18 numbers, and 24 bins × 40 frames give 45: .* cut",
        ),
        (lambda v, x: effects(PLAIN, v, x, 1, replacement="mean"), "\"zero\" or an array, not 'mean'"),
        (lambda v, x: effects(PLAIN, v, x, 1, replacement=np.ones(5)), r"the maps' \(12, 9, 4\), not of shape \(5,\)"),
        (lambda v, x: effects(PLAIN, v, x, 1, replacement=np.ones((2, 1, 1, 1))), r"not of shape \(2, 1, 1, 1\)"),
        (lambda v, x: scaled_logits(PLAIN, v, x, 2, np.ones((2, 4))), r"\(settings, 5\) for layer 2"),
        (lambda v, x: curve(PLAIN, v, x, 2, [1, 1]), "a feature once"),
        (lambda v, x: curve(PLAIN, v, x, 2, [1, 2], counts=[0, 3]), "from 0 to 2"),
        (lambda v, x: interactions(PLAIN, v, x, 2, []), "at least one whole number"),
    ],
)
def test_what_cannot_be_asked_is_named(call, says, clips):
    with pytest.raises(ValueError, match=says):
        call(made(PLAIN), clips)
