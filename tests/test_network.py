import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from networks import initial

from deconv_jax.network import layers
from deconv_jax.network.layers import max_pool
from deconv_jax.network.model import Network, paper_network
from deconv_jax.network.spec import NO_WINNER, Block, layer_sizes


def test_the_papers_network_has_its_names_shapes_and_sizes():
    network = paper_network()
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((257, 173)))["params"]
    shapes = jax.tree.map(jnp.shape, params)
    assert list(shapes) == ["conv1", "conv2", "conv3", "conv4", "conv5", "dense1", "dense2", "output"]
    assert shapes["conv1"] == {"kernel": (3, 3, 1, 64), "bias": (64,)}
    assert shapes["conv5"] == {"kernel": (3, 3, 64, 64), "bias": (64,)}
    assert shapes["dense1"]["kernel"] == (2560, 512)
    assert sum(x.size for x in jax.tree.leaves(params)) == 1_591_683
    sizes = layer_sizes(network.blocks, (257, 173))
    assert sizes == [(257, 173), (128, 86), (64, 43), (32, 21), (16, 10), (8, 5)]
    assert all(b.dropout == 0.5 for b in network.blocks)
    assert network.dropout == 0.5


def exact(params):
    """Weights of few bits: float32 then holds every sum of theirs exactly, in whatever order it is added up."""
    return jax.tree.map(lambda x: jnp.round(16 * x) / 16, params)


run = jax.jit(
    lambda network, *given, **how: network.apply(*given, **how),
    static_argnums=0,
    static_argnames=("head", "train"),
)


def test_trace_holds_pooled_maps_and_switches(rng):
    network = Network(blocks=(Block(maps=3), Block(maps=2)), dense=(4,))
    magnitude = rng.integers(0, 16, (2, 13, 11)).astype(np.float32) / 16
    variables = exact(jax.jit(network.init)(jax.random.key(0), magnitude))
    logits, trace = run(network, variables, magnitude)
    assert logits.shape == (2, 3)
    for clip in range(2):
        one_logits, one = run(network, variables, magnitude[clip])
        np.testing.assert_allclose(one_logits, logits[clip], atol=1e-6)
        x = magnitude[clip, ..., None].astype(np.float64)
        for number, (layer, single) in enumerate(zip(trace, one, strict=True), 1):
            params = variables["params"][f"conv{number}"]
            full = np.maximum(
                reference.convolve(x, np.asarray(params["kernel"]), np.asarray(params["bias"]), "SAME"), 0
            )
            x, where = reference.pool(full, (2, 2), (2, 2))
            np.testing.assert_array_equal(layer.pooled[clip], x)
            np.testing.assert_array_equal(layer.switches[clip], where[..., 0] % 2 * 2 + where[..., 1] % 2)
            np.testing.assert_array_equal(layer.switches[clip], single.switches)
            assert layer.switches.dtype == np.uint8


@pytest.mark.parametrize(("window", "stride"), [((2, 2), (2, 2)), ((3, 2), (2, 3)), ((1, 1), (1, 1)), ((4, 1), (2, 2))])
def test_pooling_and_its_gradient_equal_the_reference(rng, window, stride):
    x = rng.integers(0, 3, (2, 9, 11, 4)).astype(np.float32)  # few values, so that ties are common
    pooled, switches = max_pool(jnp.asarray(x), window, stride)
    seed = rng.standard_normal(pooled.shape).astype(np.float32)
    (gradient,) = jax.vjp(lambda x: max_pool(x, window, stride)[0], jnp.asarray(x))[1](jnp.asarray(seed))
    for clip in range(2):
        best, where = reference.pool(x[clip], window, stride)
        np.testing.assert_array_equal(pooled[clip], best)
        corner = np.stack(
            np.meshgrid(*(s * np.arange(n) for s, n in zip(stride, best.shape, strict=False)), indexing="ij"), -1
        )
        offset = where - corner[:, :, None]
        np.testing.assert_array_equal(switches[clip], offset[..., 0] * window[1] + offset[..., 1])
        np.testing.assert_allclose(gradient[clip], reference.unpool(seed[clip], where, x.shape[1:3]), atol=1e-6)


def test_ties_go_to_the_first_in_row_major_order():
    x = jnp.asarray([[0.0, 1.0], [1.0, 1.0]]).reshape(1, 2, 2, 1)
    assert max_pool(x, (2, 2), (2, 2))[1].item() == 1
    assert max_pool(0 * x, (2, 2), (2, 2))[1].item() == 0


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("frames", [25, 26, 27, 31])
def test_padding_frames_change_nothing(rng, padding, frames):
    network = Network(blocks=(Block(maps=3, padding=padding), Block(maps=4, padding=padding)), dense=(), head="average")
    magnitude = rng.integers(0, 16, (20, frames)).astype(np.float32) / 16
    variables = exact(initial(network, (20, 31), 1))
    variables["params"]["conv1"]["bias"] += 0.25  # so that padding would show
    variables["input"] = {"mean": rng.integers(-16, 16, (20, 1)) / 16, "scale": rng.choice([0.5, 1, 2], (20, 1))}
    _, plain = run(network, variables, magnitude, head=False)
    padded = np.pad(magnitude, [(0, 0), (0, 40 - frames)], constant_values=7.0)
    _, trace = run(network, variables, padded, head=False, frames=frames)
    for want, got in zip(plain, trace, strict=True):
        columns = want.pooled.shape[1]
        np.testing.assert_array_equal(got.pooled[:, :columns], want.pooled)
        np.testing.assert_array_equal(got.switches[:, :columns], want.switches)
        assert not np.any(got.pooled[:, columns:])
        assert np.all(got.switches[:, columns:] == NO_WINNER)


def test_dropout_acts_in_training_only():
    network = Network(blocks=(Block(maps=8),), dense=(16,))
    x = jnp.ones((8, 8))
    variables = jax.jit(network.init)(jax.random.key(0), x)
    a, b = (run(network, variables, x, train=True, rngs={"dropout": jax.random.key(k)})[0] for k in (1, 2))
    assert np.any(a != b)
    np.testing.assert_array_equal(run(network, variables, x)[0], run(network, variables, x)[0])


@pytest.mark.parametrize("share", [0.5, 0.25, 0.1, 1 / 3])
def test_dropout_drops_its_share_each_value_by_itself_and_keeps_the_mean(share):
    x, keys = np.full((6, 31, 7, 5), 2.0, np.float32), jax.random.split(jax.random.key(0), 8)
    found = np.stack([jax.jit(layers.dropout, static_argnums=2)(x, key, share) for key in keys])
    gone = found == 0
    np.testing.assert_allclose(found[~gone], 2 / (1 - share), rtol=1e-6)
    deviation = np.sqrt(share * (1 - share) / gone.size)
    assert abs(gone.mean() - share) < 4 * deviation
    flat = gone.reshape(8 * 6, -1)
    for lag in (1, 2, 4, 8, 16, 32):  # neighbours
        r = np.corrcoef(flat[:, :-lag].ravel(), flat[:, lag:].ravel())[0, 1]
        assert abs(r) < 4 / np.sqrt(gone.size)
    np.testing.assert_array_equal(layers.dropout(x, keys[0], 0), x)
    between = np.corrcoef(flat) - np.eye(len(flat))  # the same places of clips, which share a draw
    assert np.abs(between).max() < 5 / np.sqrt(flat.shape[1])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("padding", "same"),
        ("maps", 0),
        ("kernel", (3,)),
        ("pool", (0, 2)),
        ("stride", (2, 1.5)),
        ("pool", (16, 16)),
        ("dropout", 1.0),
    ],
)
def test_impossible_blocks_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        Block(**{field: value})


def test_inputs_too_small_for_a_layer_are_refused():
    with pytest.raises(ValueError, match=r"16 bins × 40 frames leaves nothing for layer 5"):
        layer_sizes(paper_network().blocks, (16, 40))


@pytest.mark.parametrize("size", [(9, 13), (16, 10), (3, 3)])
@pytest.mark.parametrize("shape", [(3, 3, 16, 16), (3, 3, 1, 8), (2, 4, 1, 3)])
def test_the_own_rules_of_convolutions_equal_xlas(rng, size, shape):
    x = rng.standard_normal((2, *size, shape[2])).astype(np.float32)
    seed = rng.standard_normal((2, *size, shape[3])).astype(np.float32)
    kernel = rng.standard_normal(shape).astype(np.float32)
    y, back = jax.vjp(layers.convolve, x, kernel)
    want_y, want_back = jax.vjp(lambda x, k: layers._convolve(x, k, "SAME"), x, kernel)
    np.testing.assert_allclose(y, want_y, atol=1e-6 * np.abs(want_y).max())
    for got, want in zip(back(seed), want_back(seed), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
