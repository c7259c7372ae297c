"""Networks beyond the paper's, held against the slow reference and against the VJP with the changed ReLU rule."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from flax import linen as nn
from flax import nnx
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from deconv_jax.deconvolution import any_model, windows
from deconv_jax.deconvolution.any_model import deconvolve_function
from deconv_jax.deconvolution.deconvolve import deconvolve, images_and_maps
from deconv_jax.deconvolution.rule import NORM_BACKS, Rule
from deconv_jax.network.activations import METHODS
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block, Dense, layer_sizes, resolved

SIZE = (11, 13)


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


def paddings(window):
    """Words, and numbers smaller than the window, for each axis."""
    sides = [st.sampled_from(("SAME", "VALID")) | st.tuples(*[st.integers(0, n - 1)] * 2) for n in window]
    return st.sampled_from(("SAME", "VALID")) | st.tuples(*sides)


@st.composite
def blocks(draw, maps):
    kernel, pool = draw(pairs(1, 4)), draw(pairs(1, 3))
    return Block(
        maps=maps,
        kernel=kernel,
        padding=draw(paddings(kernel)),
        conv_stride=draw(pairs(1, 2)),
        use_bias=draw(st.booleans()),
        activation=draw(st.sampled_from(("relu", "relu", "relu6", "leaky_relu", "linear"))),
        slope=0.25,
        norm=draw(st.sampled_from(("none", "before", "after", "pooled"))),
        pool=pool,
        stride=draw(pairs(1, 3)),
        pooling=draw(st.sampled_from(("max", "max", "average"))),
        pool_padding=draw(paddings(pool)),
        count_padding=draw(st.booleans()),
    )


def random_variables(network, size, seed=0):
    """Weights, biases and batch norms with scales of both signs, none near zero."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct(size, jnp.float32))
    rng = np.random.default_rng(seed)

    def value(path, like):
        name = path[-1].key
        if name == "kernel":
            return rng.standard_normal(like.shape) / np.sqrt(np.prod(like.shape[:-1]))
        if name in ("var", "scale"):
            sign = rng.choice([-1, 1, 1], like.shape) if name == "scale" else 1
            return sign * rng.uniform(0.5, 2, like.shape)
        return 0.3 * rng.standard_normal(like.shape)

    return jax.tree.map(jnp.asarray, jax.tree_util.tree_map_with_path(lambda p, x: value(p, x).astype("f"), shapes))


def close(got, want, tolerance=2e-5):
    np.testing.assert_allclose(got, want, atol=tolerance * max(1e-3, float(np.abs(want).max())))


SPECS = {
    "a published tagger": (
        Block(maps=3, norm="after", pool=(1, 4), stride=(2, 2)),
        Block(maps=4, norm="after", pool=(4, 4)),
    ),
    "strides, SAME": (
        Block(maps=3, conv_stride=(2, 2), pool=(3, 2), stride=(2, 2), pool_padding="SAME", norm="before"),
        Block(maps=4, kernel=(4, 3), conv_stride=(1, 2), pool=(1, 1), activation="leaky_relu", slope=0.2),
    ),
    "PyTorch's padding": (
        Block(maps=3, kernel=(5, 5), padding=((2, 2), (2, 2)), conv_stride=(2, 1), pool=(3, 3), stride=(2, 2),
              pool_padding=((1, 1), (1, 1))),
        Block(maps=4, padding=((1, 1), (0, 0)), pooling="average", pool=(3, 2), pool_padding=((1, 1), (1, 1)),
              stride=(2, 2), count_padding=True, activation="relu6", norm="pooled"),
    ),
    "along time": (
        Block(maps=3, kernel=(11, 4), padding=("VALID", "SAME"), pool=(1, 2), norm="before"),
        Block(maps=4, kernel=(1, 3), padding=((0, 0), (2, 0)), pool=(1, 3), stride=(1, 2), pooling="average",
              pool_padding=("VALID", "SAME")),
    ),
}  # fmt: skip


@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.tuples(blocks(2), blocks(3)), st.sampled_from(METHODS), st.sampled_from(NORM_BACKS))
def test_random_specs_equal_the_reference_and_the_vjp(specs, method, norm_back):
    check(specs, method, norm_back)


@pytest.mark.parametrize(("name", "method"), list(zip(SPECS, (*METHODS, "deconvnet"), strict=True)))
def test_specs_that_people_have_equal_the_reference_and_the_vjp(name, method):
    check(SPECS[name], method, "transpose")


def check(specs, method, norm_back):
    try:
        layer_sizes(specs, SIZE)
    except ValueError:
        assume(False)
    network = Network(blocks=specs, dense=())
    variables = random_variables(network, SIZE)
    variables["params"].pop("output")
    stats = variables.get("batch_stats")
    magnitude = np.random.default_rng(1).standard_normal(SIZE).astype(np.float32)
    images = deconvolve(network, variables, magnitude, 2, rule=Rule(method, norm_back))
    want = reference.deconvolve(specs, variables["params"], magnitude, 2, stats, method, norm_back)
    close(images, want)
    if norm_back == "transpose":

        def layer_map(x):
            return network.apply(variables, x, head=False)[1][1].pooled

        close(images, deconvolve_function(layer_map, magnitude, method=method))


@pytest.mark.parametrize("name", ["strides, SAME", "along time"])
def test_windows_and_padding_frames_change_nothing(rng, monkeypatch, name):
    """A long clip cut into windows gives what it gives in one piece, with strides, paddings and averages too."""
    specs = SPECS[name]
    network = Network(blocks=specs, dense=())
    variables = random_variables(network, (11, 133))
    magnitude = rng.standard_normal((11, 133)).astype(np.float32)
    monkeypatch.setattr(windows, "_rounded", lambda frames: frames)
    images, maps = images_and_maps(network, variables, magnitude, 2)
    monkeypatch.undo()
    monkeypatch.setattr(windows, "WINDOW_FRAMES", 24)
    several = len(windows.windows_of(resolved(specs, (11, 133)), 133).starts) > 1
    assert several == (name != "along time")  # whose average is over padding: one window
    cut_images, cut_maps = images_and_maps(network, variables, magnitude, 2)
    close(cut_maps, maps)
    close(cut_images, images)


def test_folding_a_batch_norm_into_the_kernels_changes_no_image():
    """Why the transpose is the default: the inverse gives another image for the same function."""
    spec = Block(maps=3, norm="before")
    network, folded = (Network(blocks=(s,), dense=()) for s in (spec, Block(maps=3)))
    variables = random_variables(network, SIZE)
    norm, stats = variables["params"]["norm1"], variables["batch_stats"]["norm1"]
    factor = norm["scale"] / jnp.sqrt(stats["var"] + spec.epsilon)
    conv = variables["params"]["conv1"]
    inside = {
        "kernel": conv["kernel"] * factor.reshape(1, 1, 1, -1),
        "bias": (conv["bias"] - stats["mean"]) * factor + norm["bias"],
    }
    magnitude = np.random.default_rng(1).standard_normal(SIZE).astype(np.float32)
    want = deconvolve(folded, {"params": {"conv1": inside}}, magnitude, 1)
    close(deconvolve(network, variables, magnitude, 1), want)
    inverse = deconvolve(network, variables, magnitude, 1, rule=Rule(norm_back="inverse"))
    assert np.abs(inverse - want).max() > 0.1 * np.abs(want).max()


def test_smooth_activations_have_a_gradient_and_no_deconvnet(rng):
    network = Network(blocks=(Block(maps=2, activation="elu", slope=1.0),), dense=())
    variables = random_variables(network, SIZE)
    magnitude = rng.standard_normal(SIZE).astype(np.float32)

    def layer_map(x):
        return network.apply(variables, x, head=False)[1][0].pooled

    close(
        deconvolve(network, variables, magnitude, 1, rule=Rule("gradient")),
        deconvolve_function(layer_map, magnitude, method="gradient"),
    )
    for method in ("deconvnet", "guided"):
        with pytest.raises(ValueError, match=r"elu.*no rectifier.*gradient"):
            deconvolve(network, variables, magnitude, 1, rule=Rule(method))
        with pytest.raises(ValueError, match="no rule for the step"):
            deconvolve_function(layer_map, magnitude, method=method)


def test_heads_pool_maps_and_give_tags(rng):
    dense = (Dense(5, activation="leaky_relu", slope=0.1, norm="before"),)
    network = Network(blocks=(Block(maps=4),), dense=dense, classes=3, head="average", final="sigmoid")
    variables = random_variables(network, SIZE)
    magnitude = rng.standard_normal(SIZE).astype(np.float32)
    logits, trace = jax.jit(network.apply)(variables, magnitude)
    p, stats = jax.tree.map(lambda x: np.asarray(x, np.float64), (variables["params"], variables["batch_stats"]))
    x = np.asarray(trace[0].pooled, np.float64).mean(axis=(0, 1)) @ p["dense1"]["kernel"] + p["dense1"]["bias"]
    norm, stat = p["dense_norm1"], stats["dense_norm1"]
    x = (x - stat["mean"]) / np.sqrt(stat["var"] + 1e-3) * norm["scale"] + norm["bias"]
    want = np.where(x > 0, x, 0.1 * x) @ p["output"]["kernel"] + p["output"]["bias"]
    close(logits, want)
    close(network.probabilities(logits), 1 / (1 + np.exp(-want)))
    bare = Network(blocks=(Block(maps=4),), dense=(), classes=4, head="max", output=False)
    logits, trace = jax.jit(bare.apply)({"params": {"conv1": variables["params"]["conv1"]}}, magnitude)
    close(logits, trace[0].pooled.max(axis=(0, 1)))
    close(bare.probabilities(logits).sum(), 1)


def test_a_pooling_that_pads_does_not_make_a_layer_of_nothing():
    block = Block(kernel=(1, 5), padding="VALID", pool=(1, 3), stride=(1, 1), pool_padding=("VALID", (1, 2)))
    assert block.pooled(4, 1) == 1
    with pytest.raises(ValueError, match="leaves nothing for layer 1"):
        layer_sizes((block,), (4, 4))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("padding", ((1, 1),)),
        ("padding", ((1, -1), "SAME")),
        ("pool_padding", ((2, 0), (0, 0))),
        ("conv_stride", (0, 1)),
        ("activation", "swish"),
        ("slope", -1.0),
        ("norm", "batch"),
        ("pooling", "sum"),
        ("use_bias", 1),
    ],
)
def test_impossible_fields_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        Block(**{field: value})


class Linen(nn.Module):
    """A user's own model: strided, with an average pool, batch norm and two rectifiers."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 3), strides=(2, 1), name="low")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True, name="norm")(x))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        x = nn.leaky_relu(nn.Conv(4, (2, 3), padding="VALID", name="high")(x), 0.1)
        x = nn.max_pool(x, (2, 2), (1, 1))
        self.sow("intermediates", "map", x)
        return nn.Dense(2)(x.reshape(x.shape[0], -1))


@pytest.mark.parametrize("method", METHODS)
def test_a_linen_model_equals_the_same_blocks(rng, method):
    model = Linen()
    magnitude = rng.standard_normal(SIZE).astype(np.float32)
    theirs = random_variables(model, (1, *SIZE, 1))

    def layer_map(magnitude):
        _, state = model.apply(theirs, magnitude[None, ..., None], mutable="intermediates")
        return state["intermediates"]["map"][0][0]

    images = deconvolve_function(layer_map, magnitude, [3, 0], method=method)
    specs = (
        Block(maps=3, conv_stride=(2, 1), norm="before", epsilon=1e-5, pooling="average"),
        Block(maps=4, kernel=(2, 3), padding="VALID", activation="leaky_relu", slope=0.1, stride=(1, 1)),
    )
    names = {"low": "conv1", "high": "conv2", "norm": "norm1"}
    ours = {kind: {names[k]: v for k, v in theirs[kind].items() if k in names} for kind in ("params", "batch_stats")}
    close(images, deconvolve(Network(blocks=specs, dense=()), ours, magnitude, 2, [3, 0], rule=Rule(method)))


@pytest.mark.parametrize("method", METHODS)
def test_an_nnx_model_equals_the_same_blocks(rng, method):
    conv = nnx.Conv(1, 3, (3, 3), padding="SAME", rngs=nnx.Rngs(0))
    norm = nnx.BatchNorm(3, use_running_average=True, epsilon=1e-3, rngs=nnx.Rngs(0))
    norm.scale[...] = jnp.asarray([0.5, -2.0, 1.0])
    magnitude = rng.standard_normal(SIZE).astype(np.float32)

    def layer_map(x):
        return nnx.max_pool(norm(nnx.relu(conv(x[None, ..., None]))), (2, 2), (2, 2))[0]

    images = deconvolve_function(layer_map, magnitude, method=method)
    variables = {
        "params": {
            "conv1": {"kernel": conv.kernel[...], "bias": conv.bias[...]},
            "norm1": {"scale": norm.scale[...], "bias": norm.bias[...]},
        },
        "batch_stats": {"norm1": {"mean": norm.mean[...], "var": norm.var[...]}},
    }
    network = Network(blocks=(Block(maps=3, norm="after"),), dense=())
    close(images, deconvolve(network, variables, magnitude, 1, rule=Rule(method)))


def quarter(x):
    return nn.leaky_relu(x, 0.25)


A = jnp.full((1, 1, 3), 0.25)
SPELLINGS = {
    "maximum": (nn.relu, lambda x: jnp.maximum(x, 0)),
    "where": (nn.relu, lambda x: jnp.where(x > 0, x, 0)),
    "minimum": (nn.relu, lambda x: -jnp.minimum(-x, 0)),
    "absolute": (nn.relu, lambda x: (x + jnp.abs(x)) / 2),
    "mask": (nn.relu, lambda x: x * (x > 0)),
    "rest": (nn.relu, lambda x: x - jnp.minimum(x, 0)),
    "scaled": (lambda x: 3 * nn.relu(x), lambda x: jnp.maximum(3 * x, 0)),
    "turned": (lambda x: -nn.relu(-x), lambda x: jnp.minimum(x, 0)),
    "leaky maximum": (quarter, lambda x: jnp.maximum(x, 0.25 * x)),
    "leaky where": (quarter, lambda x: jnp.where(x >= 0, x, 0.25 * x)),
    "prelu": (quarter, lambda x: jnp.maximum(x, 0) + A * jnp.minimum(x, 0)),
    "mixed": (quarter, lambda x: 0.25 * x + 0.75 * nn.relu(x)),
    "clip": (nn.relu6, lambda x: jnp.clip(x, 0, 6)),
    "clamp": (nn.relu6, lambda x: 6 * jax.lax.clamp(0.0, x / 6, 1.0)),
    "cap first": (nn.relu6, lambda x: jnp.maximum(jnp.minimum(x, 6), 0)),
}


def two_layers(activation):
    def layer_map(x):
        for kernel in KERNELS:
            x = activation(nn.Conv(3, (2, 3)).apply({"params": kernel}, x))
        return x

    return layer_map


KERNELS = [
    {
        "kernel": np.random.default_rng(n).standard_normal((2, 3, maps, 3)).astype("f"),
        "bias": np.float32([0.3, -0.2, 4]),
    }
    for n, maps in enumerate((1, 3))
]


@pytest.mark.parametrize("name", SPELLINGS)
def test_rectifiers_in_any_spelling_are_known_by_what_they_compute(rng, name):
    known, spelled = map(two_layers, SPELLINGS[name])
    magnitude = 3 * rng.standard_normal((5, 6, 1)).astype(np.float32)
    for method in METHODS:
        close(
            deconvolve_function(spelled, magnitude, method=method), deconvolve_function(known, magnitude, method=method)
        )


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (nn.tanh, "tanh"),
        (lambda x: x * x, "mul"),
        (lambda x: x / x.sum(), "div"),
        (jnp.abs, "abs"),
        (lambda x: jnp.maximum(x, -x), "max"),
        (lambda x: nn.relu(x) + nn.relu(-x), "max"),
        (lambda x: jnp.maximum(x, 0) - 0.2 * jnp.minimum(x, 0), "min"),
        (lambda x: jnp.minimum(x, 6), "min"),
        (lambda x: jnp.clip(x, -1, 1), "min"),
        (lambda x: jnp.where(x > 0.5, x, 0), "select_n"),
        (nn.hard_swish, "mul"),
        (lambda x: jnp.stack([x, 0.1 * x]).max(axis=0), "reduce_max"),
        (lambda x: jnp.maximum(x, (0.1 * x.reshape(-1)).reshape(x.shape)), "max"),
    ],
)
def test_steps_without_a_rule_are_refused_and_named(function, word):
    with pytest.raises(ValueError, match=f'no rule for the step "{word}"'):
        deconvolve_function(lambda x: function(x)[..., None], jnp.ones((3, 4)))


def test_a_maximum_over_places_or_maps_is_a_pooling(rng):
    magnitude = rng.standard_normal((4, 6)).astype(np.float32)
    pooled = deconvolve_function(lambda x: nn.max_pool(x[..., None], (1, 2), (1, 2)), magnitude)
    for pool in (
        lambda x: jnp.maximum(x[:, ::2], x[:, 1::2]),
        lambda x: jnp.stack([x[:, ::2], x[:, 1::2]]).max(axis=0),
        lambda x: x.reshape(4, 3, 2).max(axis=2),
    ):
        close(deconvolve_function(lambda x, pool=pool: pool(x)[..., None], magnitude), pooled)


def test_functions_of_the_same_steps_are_compiled_once_and_keep_their_own_weights():
    magnitude = jnp.ones((3, 4))
    before = any_model._program.cache_info().misses
    slopes = []
    for weight in (2.0, 3.0):
        weights = jnp.full((1, 1), weight)
        slopes += [deconvolve_function(lambda x, w=weights: nn.relu(w * x)[..., None], magnitude) for _ in range(2)]
    assert any_model._program.cache_info().misses == before + 1
    np.testing.assert_allclose([s.max() for s in slopes], [4, 4, 9, 9])


def test_what_hangs_on_traced_values_is_said(rng):
    magnitude = rng.standard_normal((3, 4)).astype(np.float32)

    def images(magnitude, slope, leaky):
        function = (lambda x: jnp.maximum(x, slope * x)) if leaky else (lambda x: slope * nn.relu(x))
        return deconvolve_function(lambda x: function(x)[..., None], magnitude)

    close(jax.jit(images, static_argnums=2)(magnitude, 0.5, False), images(magnitude, 0.5, False))
    with pytest.raises(ValueError, match="outside of jit"):
        jax.jit(images, static_argnums=2)(magnitude, 0.5, True)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"layer_map": lambda x: (x, x)}, "one array"),
        ({"layer_map": jnp.sum}, "one array"),
        ({"magnitude": np.ones((3, 4), complex)}, "real"),
        ({"chunk": -1}, "chunk"),
    ],
)
def test_arguments_that_fit_nothing_are_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        deconvolve_function(**{"layer_map": lambda x: x, "magnitude": np.ones((3, 4)), **changes})


def test_methods_and_features_that_do_not_exist_are_refused():
    network = Network(blocks=(Block(maps=2),), dense=())
    for explain in (
        lambda **k: deconvolve(network, {}, jnp.ones((4, 4)), 1, **k),
        lambda **k: deconvolve_function(lambda x: jnp.stack([x, x], -1), jnp.ones((4, 4)), **k),
    ):
        with pytest.raises(ValueError, match="feature 2 does not exist"):
            explain(features=[2])
    with pytest.raises(ValueError, match="transpose, inverse"):
        Rule(norm_back="both")
    for wrong in (Rule, functools.partial(deconvolve_function, lambda x: jnp.stack([x, x], -1), jnp.ones((4, 4)))):
        with pytest.raises(ValueError, match="deconvnet, guided, gradient"):
            wrong(method="magic")
