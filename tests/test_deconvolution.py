from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from networks import initial

from deconv_jax.deconvolution import deconvolve as deconvolution
from deconv_jax.deconvolution import plain, windows, winograd
from deconv_jax.deconvolution.deconvolve import deconvolve, images_and_maps
from deconv_jax.deconvolution.plain import backproject
from deconv_jax.deconvolution.rule import Rule
from deconv_jax.errors import SettingError
from deconv_jax.network.layers import convolve, max_pool
from deconv_jax.network.model import LayerTrace, Network
from deconv_jax.network.receptive_field import reach
from deconv_jax.network.spec import Block

GOLDEN = Path(__file__).parent / "golden" / "small.npz"

SPECS = {
    "paper": (Block(maps=4), Block(maps=3), Block(maps=5)),
    "even and flat kernels": (Block(maps=3, kernel=(4, 2)), Block(maps=4, kernel=(1, 5))),
    "valid": (Block(maps=4, padding="VALID"), Block(maps=3, padding="VALID")),
    "overlapping pools": (Block(maps=3, pool=(3, 3), stride=(2, 2)), Block(maps=4, pool=(2, 4), stride=(2, 2))),
    "skipping pools": (Block(maps=3, pool=(2, 1), stride=(3, 2)), Block(maps=4)),
    "no pooling": (Block(maps=3, pool=(1, 1)), Block(maps=4, pool=(4, 4))),
}


def golden_network(arrays, maps):
    network = Network(blocks=(Block(maps=maps, use_bias=False),) * 5)
    return network, {"params": {f"conv{l}": {"kernel": jnp.asarray(arrays[f"kernel{l}"])} for l in range(1, 6)}}


def random_network(blocks, size, seed=0):
    network = Network(blocks=tuple(blocks), dense=())
    variables = initial(network, size, seed)
    keys = iter(jax.random.split(jax.random.key(seed + 1), len(blocks)))
    for number, block in enumerate(blocks, 1):
        variables["params"][f"conv{number}"]["bias"] = 0.1 * jax.random.normal(next(keys), (block.maps,))
    return network, variables


@pytest.mark.parametrize("path", ["plain", "winograd"])
@pytest.mark.parametrize("layer", range(1, 6))
def test_equals_the_golden_images(layer, path):
    with np.load(GOLDEN) as golden:
        network, variables = golden_network(golden, 16)
        want = golden[f"layer{layer}"]
        got = deconvolve(network, variables, golden["magnitude"], layer, rule=Rule(path=path))
    assert got.shape == want.shape == (16, 65, 49)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    np.testing.assert_array_equal(np.any(got, axis=(1, 2)), np.any(want, axis=(1, 2)))


def float64_trace(kernels, biases, magnitude):
    """Switches from a float64 forward pass, so that no near tie falls the other way, as in the golden images."""
    trace = []
    with jax.enable_x64(True):
        x = jnp.asarray(magnitude, jnp.float64)[None, ..., None]
        for kernel, bias in zip(kernels, biases, strict=True):
            y = convolve(x, jnp.asarray(kernel, jnp.float64)) + jnp.asarray(bias, jnp.float64).reshape(1, 1, 1, -1)
            x, switches = max_pool(jnp.maximum(y, 0), (2, 2), (2, 2))
            trace.append((np.asarray(x, np.float32), np.asarray(switches)))
    return tuple(LayerTrace(jnp.asarray(x), jnp.asarray(s)) for x, s in trace)


@pytest.mark.parametrize("clip", ["bach", "dream"])
@pytest.mark.parametrize("biased", [False, True])
def test_equals_the_golden_images_of_real_excerpts_given_the_switches(shared, clip, biased):
    with np.load(shared / "golden" / "kernels64.npz") as kernels, np.load(shared / "golden" / f"{clip}.npz") as golden:
        network, variables = golden_network(kernels, 64)
        biases = golden["biases"] if biased else np.zeros((5, 64))
        trace = float64_trace([kernels[f"kernel{l}"] for l in range(1, 6)], biases, golden["magnitude"])
        for layer in (5,) if biased else range(1, 6):
            name = "layer5_biased" if biased else f"layer{layer}"
            want, features = golden[name], golden[f"{name}_features"]
            got = backproject(network, variables, trace, layer, features.astype(np.int32), (257, 173))[0]
            for one, other in zip(got, want, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("name", SPECS)
def test_equals_the_slow_reference_for_any_block_spec(rng, name):
    size = (17, 21)
    network, variables = random_network(SPECS[name], size)
    magnitude = rng.uniform(size=size).astype(np.float32)
    images = deconvolve(network, variables, magnitude, len(SPECS[name]))
    want = reference.deconvolve(SPECS[name], variables["params"], magnitude, len(SPECS[name]))
    np.testing.assert_allclose(images, want, atol=1e-5 * np.abs(want).max())


@jax.custom_vjp
def zeiler_relu(x):
    return jnp.maximum(x, 0)


zeiler_relu.defvjp(lambda x: (zeiler_relu(x), None), lambda _, signal: (jnp.maximum(signal, 0),))


@pytest.mark.parametrize("name", SPECS)
def test_equals_the_vjp_with_a_relu_that_rectifies_the_incoming_signal(rng, name):
    blocks, size = SPECS[name], (18, 20)
    network, variables = random_network(blocks, size, seed=3)
    magnitude = jnp.asarray(rng.uniform(size=size).astype(np.float32))

    def pooled(magnitude):
        x = magnitude[None, ..., None]
        for number, block in enumerate(blocks, 1):
            p = variables["params"][f"conv{number}"]
            x = zeiler_relu(convolve(x, p["kernel"], padding=block.padding) + p["bias"].reshape(1, 1, 1, -1))
            x = max_pool(x, block.pool, block.stride)[0]
        return x

    @jax.jit
    def sent_back(magnitude):
        out, back = jax.vjp(pooled, magnitude)
        return jnp.stack([back(out * one.reshape(1, 1, 1, -1))[0] for one in jnp.eye(out.shape[-1])])

    images = deconvolve(network, variables, magnitude, len(blocks))
    for image, want in zip(images, np.asarray(sent_back(magnitude)), strict=True):
        np.testing.assert_allclose(image, want, atol=1e-5 * max(1e-3, float(np.abs(want).max())))


def test_a_case_worked_by_hand():
    """4×4 input, one 2×2 difference kernel, one 2×2 pool: every number can be followed on paper.

    The kernel x[i, j] - x[i + 1, j + 1] (SAME padding adds a zero row and column at the end) gives, after ReLU,
    [[0, 0, 5, 4], [0, 0, 2, 2], [0, 3, 1, 0], [7, 2, 3, 1]]; pooling keeps 0 (all equal: first), 5, 7 and 3, at
    (0, 0), (0, 2), (3, 0) and (3, 2). Unpooled and sent back, each adds +value there and -value one cell down and
    to the right, where that lies within the picture.
    """
    magnitude = np.array([[0, 1, 7, 4], [1, 2, 2, 2], [2, 6, 2, 0], [7, 2, 3, 1]], np.float32)
    forward = np.maximum(magnitude - np.pad(magnitude, ((0, 1), (0, 1)))[1:, 1:], 0)
    np.testing.assert_array_equal(forward, [[0, 0, 5, 4], [0, 0, 2, 2], [0, 3, 1, 0], [7, 2, 3, 1]])
    kernel = jnp.asarray([[1.0, 0.0], [0.0, -1.0]]).reshape(2, 2, 1, 1)
    network = Network(blocks=(Block(maps=1, kernel=(2, 2), use_bias=False),))
    image = deconvolve(network, {"params": {"conv1": {"kernel": kernel}}}, magnitude, 1)
    want = [[0, 0, 5, 0], [0, 0, 0, -5], [0, 0, 0, 0], [7, 0, 3, 0]]
    np.testing.assert_array_equal(image[0], want)


def test_biases_act_forward_only(rng):
    network, variables = random_network((Block(maps=2),), (8, 8))
    variables["params"]["conv1"]["bias"] = jnp.asarray([50.0, -50.0])
    magnitude = rng.uniform(size=(8, 8)).astype(np.float32)
    images, maps = images_and_maps(network, variables, magnitude, 1)
    assert np.all(maps[0] > 40)
    assert not np.any(maps[1])
    assert not np.any(images[1])  # inactive: exact zeros, no NaN
    want = reference.deconvolve(network.blocks, variables["params"], magnitude, 1)
    np.testing.assert_allclose(images, want, rtol=1e-5)


def test_chosen_features_come_in_the_order_asked_for(rng):
    network, variables = random_network(SPECS["paper"], (24, 24))
    magnitude = rng.uniform(size=(24, 24)).astype(np.float32)
    everything = deconvolve(network, variables, magnitude, 3)
    some = deconvolve(network, variables, magnitude, 3, [4, 0, 4])
    np.testing.assert_allclose(some, everything[np.array([4, 0, 4])], atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 3])
def test_chunks_change_nothing(rng, monkeypatch, chunk):
    network, variables = random_network(SPECS["paper"], (24, 24))
    magnitude = rng.uniform(size=(3, 24, 24)).astype(np.float32)
    want = deconvolve(network, variables, magnitude, 3, rule=Rule(path="plain"))
    assert want.shape == (3, 5, 24, 24)
    monkeypatch.setattr(deconvolution, "chunk_of", lambda blocks, size: chunk)
    got = deconvolve(network, variables, magnitude, 3, rule=Rule(path="plain"))
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("name", ["paper", "overlapping pools", "valid"])
def test_windows_of_a_long_clip_fit_together(rng, monkeypatch, name):
    """Cut into many short windows, a clip gives what it gives in one piece."""
    blocks = SPECS[name]
    network, variables = random_network(blocks, (16, 131))
    magnitude = rng.uniform(size=(2, 16, 131)).astype(np.float32)
    images, maps = images_and_maps(network, variables, magnitude, len(blocks))
    monkeypatch.setattr(windows, "WINDOW_FRAMES", 24)
    monkeypatch.setattr(plain, "CHUNK_BYTES", 2**14)
    assert len(windows.windows_of(blocks, 131).starts) >= 3
    monkeypatch.setattr(deconvolution, "chunk_of", lambda blocks, size: 2)
    cut_images, cut_maps = images_and_maps(network, variables, magnitude, len(blocks))
    np.testing.assert_allclose(cut_maps, maps, atol=1e-5)
    np.testing.assert_allclose(cut_images, images, atol=1e-5 * float(jnp.abs(images).max()))


def test_a_length_already_seen_compiles_nothing(rng):
    network, variables = random_network(SPECS["paper"], (24, 24))
    stages = (deconvolution._trace_window._cache_size, lambda: winograd._compiled.cache_info().misses)
    before = [stage() for stage in stages]
    for frames in (353, 360, 384, 353):
        deconvolve(network, variables, rng.uniform(size=(24, frames)), 2)
    assert [stage() for stage in stages] == [n + 1 for n in before]


def test_long_clips_of_any_length_compile_as_often_as_one(rng, monkeypatch, compiled_by):
    monkeypatch.setattr(windows, "WINDOW_FRAMES", 24)
    network, variables = random_network(SPECS["paper"], (16, 24))
    deconvolve(network, variables, rng.uniform(size=(16, 131)), 3)
    for frames in (101, 118, 163):
        magnitude = rng.uniform(size=(16, frames))
        assert compiled_by(lambda m=magnitude: deconvolve(network, variables, m, 3)) == []


def test_reach_is_the_receptive_field_through_the_pooling():
    """FACTS: 3, 8, 18, 38 and 78 frames before a layer's own pooling."""
    for layer, width in zip(range(1, 6), (3, 8, 18, 38, 78), strict=True):
        first, last = reach((*(Block(),) * (layer - 1), Block(pool=(1, 1))), axis=1)
        assert last - first + 1 == width


def test_an_input_scale_is_undone(rng):
    network, variables = random_network(SPECS["paper"], (24, 24))
    magnitude = rng.uniform(size=(24, 24)).astype(np.float32)
    plain = deconvolve(network, variables, magnitude, 2)
    scaled = dict(variables, input={"mean": jnp.zeros((1, 1)), "scale": jnp.full((1, 1), 8.0)})
    np.testing.assert_allclose(deconvolve(network, scaled, 8 * magnitude, 2), 8 * plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "features", "message"),
    [
        (0, None, "layers 1 to 3"),
        (4, None, "layers 1 to 3"),
        (3, [5], "features 0 to 4"),
        (3, [-1], "features 0 to 4"),
        (3, [], "at least one"),
        (3, [1.5], "whole number"),
    ],
)
def test_what_does_not_exist_is_refused(layer, features, message):
    network, variables = random_network(SPECS["paper"], (24, 24))
    with pytest.raises(ValueError, match=message):
        deconvolve(network, variables, jnp.zeros((24, 24)), layer, features)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": "5"}, "layer must be a whole number, not '5'"),
        ({"layer": 1.0}, "layer must be a whole number"),
        ({"magnitude": np.ones((24, 24), complex)}, "magnitude must be real"),
        ({"magnitude": np.ones((0, 24, 24))}, "at least one of each"),
        ({"magnitude": np.ones((24, 0))}, "at least one of each"),
        ({"magnitude": np.ones(24)}, "at least one of each"),
        ({"magnitude": np.full((24, 24), np.nan)}, "magnitude must be finite"),
        ({"rule": "guided"}, "rule must be a Rule"),
        ({"devices": []}, "at least one device"),
        ({"variables": {}}, "params/conv1/bias is missing"),
        ({"variables": random_network(SPECS["valid"], (24, 24))[1]}, "conv3/bias is missing"),
        (
            {"variables": random_network((Block(maps=6),) * 3, (24, 24))[1]},
            r"conv1/bias is \(6,\) where",
        ),
    ],
)
def test_arguments_that_fit_nothing_are_refused(changes, message):
    network, variables = random_network(SPECS["paper"], (24, 24))
    given = {"variables": variables, "magnitude": np.ones((24, 24)), "layer": 3, **changes}
    with pytest.raises(SettingError, match=message):
        deconvolve(network, **given)


def test_an_input_of_other_bins_is_refused():
    network, variables = random_network(SPECS["paper"], (24, 24))
    variables["input"] = {"scale": jnp.ones((17, 1))}
    with pytest.raises(SettingError, match=r"input/scale is \(17, 1\), .*24 bins"):
        deconvolve(network, variables, np.ones((24, 24)), 1)


def test_more_images_than_memory_holds_are_refused_before_work_begins(rng, monkeypatch):
    network, variables = random_network(SPECS["paper"], (24, 24))
    monkeypatch.setattr(deconvolution.runtime, "memory", lambda: 10**6)
    monkeypatch.setattr(deconvolution, "_explain_window", None)
    with pytest.raises(SettingError, match=r"images of 5 features × 9999 frames take 0\.0 GB.*shorter part"):
        deconvolve(network, variables, np.ones((24, 9999)), 3)


def test_works_within_the_users_own_compiled_function(rng, monkeypatch):
    network, variables = random_network(SPECS["paper"], (24, 24))
    for frames in (24, 131):  # one window, and several
        monkeypatch.setattr(windows, "WINDOW_FRAMES", 24)
        magnitude = jnp.asarray(rng.uniform(size=(2, 24, frames)), jnp.float32)
        images, maps = images_and_maps(network, variables, magnitude, 3, [2, 0])
        inner = jax.jit(lambda magnitude: images_and_maps(network, variables, magnitude, 3, [2, 0]))
        np.testing.assert_allclose(inner(magnitude)[0], images, atol=1e-6)
        np.testing.assert_allclose(inner(magnitude)[1], maps, atol=1e-6)
        of_weights = jax.jit(lambda variables, one: deconvolve(network, variables, one, 3, [2, 0]))
        np.testing.assert_allclose(of_weights(variables, magnitude[1]), images[1], atol=1e-6)


@pytest.mark.parametrize("path", ["plain", "winograd"])
@pytest.mark.parametrize("clips", [1, 5])
def test_devices_change_nothing(rng, monkeypatch, path, clips):
    """One device, two or four, for a batch and for a long clip in windows, to rounding.

    Batches are of other sizes then, and a processor may add up the products of another size in another order.
    """
    monkeypatch.setattr(windows, "WINDOW_FRAMES", 24)
    network, variables = random_network(SPECS["paper"], (16, 131))
    magnitude = rng.uniform(size=(clips, 16, 131)).astype(np.float32)
    devices = jax.local_devices()
    assert len(devices) >= 4
    one, *more = (
        images_and_maps(network, variables, magnitude, 3, rule=Rule(path=path), devices=devices[:n]) for n in (1, 2, 4)
    )
    for other in more:
        for a, b in zip(other, one, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * np.abs(b).max())
