"""The fast path against the plain one, which is held against the slow reference elsewhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_deconvolution import SPECS, float64_trace, random_network

from deconv_jax.deconvolution import winograd
from deconv_jax.deconvolution.deconvolve import deconvolve
from deconv_jax.deconvolution.plain import backproject
from deconv_jax.deconvolution.rule import Rule
from deconv_jax.network.model import LayerTrace, Network
from deconv_jax.network.spec import NO_WINNER, Block


@pytest.mark.parametrize("clip", ["bach", "dream"])
def test_equals_the_golden_images_of_real_excerpts_given_the_switches(shared, clip):
    with np.load(shared / "golden" / "kernels64.npz") as kernels, np.load(shared / "golden" / f"{clip}.npz") as golden:
        weights = [kernels[f"kernel{l}"] for l in range(1, 6)]
        trace = float64_trace(weights, np.zeros((5, 64)), golden["magnitude"])
        for layer in range(1, 6):
            want, features = golden[f"layer{layer}"], golden[f"layer{layer}_features"].astype(np.int32)
            switches = tuple(t.switches for t in trace[:layer])
            got = winograd.backproject(trace[layer - 1].pooled, switches, tuple(weights[:layer]), features, (257, 173))[
                0
            ]
            for one, other in zip(got, want, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize(
    ("size", "maps"),
    [((37, 22), (3, 5, 4)), ((16, 16), (2, 3)), ((33, 47), (5, 4, 3, 2)), ((41, 62), (3,)), ((27, 63), (2, 3, 4))],
)
def test_equals_the_plain_path_for_any_maps_sizes_clips_and_masked_windows(rng, size, maps):
    network = Network(blocks=tuple(Block(maps=m) for m in maps), dense=())
    params, trace, shape, below = {}, [], size, 1
    for number, count in enumerate(maps, 1):
        params[f"conv{number}"] = {"kernel": rng.standard_normal((3, 3, below, count)).astype(np.float32)}
        shape, below = (shape[0] // 2, shape[1] // 2), count
        switches = rng.integers(0, 5, (2, *shape, count)).astype(np.uint8)
        switches[switches == 4] = NO_WINNER
        pooled = rng.standard_normal(switches.shape).astype(np.float32)
        trace.append(LayerTrace(jnp.asarray(pooled), jnp.asarray(switches)))
    features = np.arange(maps[-1], dtype=np.int32)[::-1].copy()
    want = backproject(network, {"params": params}, tuple(trace), len(maps), features, size, chunk=8)
    kernels = tuple(params[f"conv{l}"]["kernel"] for l in range(1, len(maps) + 1))
    switches = tuple(t.switches for t in trace)
    got = winograd.walk_back(trace[-1].pooled, switches, kernels, features, size, group=2, threads=2, least=1)
    assert got.shape == want.shape == (2, len(features), *size)
    np.testing.assert_allclose(got, want, atol=1e-5 * float(jnp.abs(want).max()))


def test_inactive_features_give_exact_zeros(rng):
    network, variables = random_network(SPECS["paper"], (24, 24))
    variables["params"]["conv3"]["bias"] -= 1e6
    images = deconvolve(network, variables, rng.uniform(size=(24, 24)), 3, rule=Rule(path="winograd"))
    assert not np.any(images)


def test_works_within_another_compiled_function(rng):
    network, variables = random_network(SPECS["paper"], (24, 24))
    _, trace = jax.jit(functools.partial(network.apply, head=False))(
        variables, rng.uniform(size=(1, 24, 24)).astype(np.float32)
    )
    kernels = tuple(variables["params"][f"conv{l}"]["kernel"] for l in (1, 2, 3))
    given = (trace[-1].pooled, tuple(t.switches for t in trace), kernels)
    inner = jax.jit(lambda features: winograd.backproject.__wrapped__(*given, features, (24, 24)))
    want = winograd.backproject(*given, jnp.arange(5), (24, 24))
    np.testing.assert_allclose(inner(jnp.arange(5)), want, atol=1e-6)


def test_the_path_is_chosen_from_the_blocks_and_can_be_forced():
    assert Rule(path="auto").on(SPECS["paper"]).path == "winograd"
    assert Rule(path="plain").on(SPECS["paper"]).path == "plain"
    for name in set(SPECS) - {"paper"}:
        assert Rule(path="auto").on(SPECS[name]).path == "plain"
        with pytest.raises(ValueError, match='use "plain"'):
            Rule(path="winograd").on(SPECS[name])
    with pytest.raises(ValueError, match="auto, plain, winograd"):
        Rule(path="fast")


def test_shapes_of_another_network_are_refused(rng):
    network, variables = random_network(SPECS["paper"], (24, 24))
    _, trace = jax.jit(functools.partial(network.apply, head=False))(
        variables, rng.uniform(size=(1, 24, 24)).astype(np.float32)
    )
    kernels = tuple(variables["params"][f"conv{l}"]["kernel"] for l in (1, 2, 3))
    with pytest.raises(ValueError, match="layer 1: switches"):
        winograd.backproject(trace[-1].pooled, tuple(t.switches for t in trace), kernels, jnp.arange(2), (26, 24))
