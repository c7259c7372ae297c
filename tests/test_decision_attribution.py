"""What spoke for a class, by hand where a network is small or linear, and against other libraries where they are."""

import copy
import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_decision_effects import NETWORKS, ODD, PLAIN, SIZE, made, run

import deconv_jax
from deconv_jax.decision import attribution as module
from deconv_jax.decision.attribution import FUNCTION_METHODS, METHODS, attribute, attribute_function
from deconv_jax.decision.effects import effects
from deconv_jax.deconvolution.deconvolve import deconvolve
from deconv_jax.network.folding import fold
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
    for method in ("gradient", "smoothgrad", "guided"):  # without a rectifier guided is the gradient
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


def test_smoothgrad_is_the_mean_gradient_of_noisy_clips(clips):
    variables = made(PLAIN)
    found = attribute(PLAIN, variables, clips, 1, method="smoothgrad", samples=3, seed=5).image
    span = np.ptp(clips, axis=(1, 2), keepdims=True)
    noise = [
        np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(5), n), (1, *SIZE))) * 0.15 * span
        for n in range(3)
    ]
    want = np.mean([attribute(PLAIN, variables, clips + x, 1, method="gradient").image for x in noise], axis=0)
    np.testing.assert_allclose(found, want, atol=1e-5 * np.abs(want).max())
    other = attribute(PLAIN, variables, clips, 1, method="smoothgrad", samples=3, seed=6).image
    assert np.abs(found - other).max() > 1e-3 * np.abs(want).max()
    still = attribute(PLAIN, variables, clips, 1, method="smoothgrad", samples=3, noise=0).image
    np.testing.assert_allclose(still, attribute(PLAIN, variables, clips, 1, method="gradient").image, atol=1e-6)


def test_occlusion_is_what_a_patch_takes_with_it(clips):
    variables = made(PLAIN)
    found = attribute(PLAIN, variables, clips, 1, method="occlusion", patch=(10, 6), stride=(5, 6), fill=0.3).image
    total, count = np.zeros_like(clips), np.zeros(SIZE)
    whole = np.asarray(run(PLAIN, variables, clips)[0])[:, 1]
    for row in (0, 5, 10, 15):  # the last of each axis ends with the clip
        for column in (0, 6, 12, 18):
            inside = np.zeros(SIZE, bool)
            inside[row : row + 10, column : column + 6] = True
            lost = whole - np.asarray(run(PLAIN, variables, np.where(inside, np.float32(0.3), clips))[0])[:, 1]
            total, count = total + lost[:, None, None] * inside, count + inside
    assert count.min() >= 1
    np.testing.assert_allclose(found, total / count, atol=1e-5 * np.abs(total / count).max() + 1e-7)


@pytest.mark.parametrize("composite", ["epsilon", "gamma_flat", "gamma_box"])
@pytest.mark.parametrize("name", ["plain", "odd", "leaky"])
def test_relevance_is_shared_out_and_none_is_lost_but_to_biases(composite, name, clips):
    """Without biases (and shifts of norms and inputs) all of the logit comes down."""
    network = {**NETWORKS, "leaky": LEAKY}[name]
    variables = made(network, seed=3)
    bare = jax.tree_util.tree_map_with_path(lambda path, x: 0 * x if path[-1].key in ("bias", "mean") else x, variables)
    found = attribute(network, bare, clips, [0, 2, 1], method="lrp", composite=composite, gamma=0.5, box=(0, 1))
    np.testing.assert_allclose(found.owed, found.logit, atol=1e-6)
    # The stabilisers absorb a share where an output is near zero.
    assert np.abs(found.gap).max() < 0.02 * np.abs(found.image).sum(axis=(1, 2)).max()
    assert np.abs(found.image).max() > 0


def test_relevance_of_a_rectifying_network_without_biases_is_gradient_times_input(clips):
    network = Network(blocks=(Block(maps=3), Block(maps=4)), dense=(6,), classes=3, head="average")
    variables = jax.tree_util.tree_map_with_path(
        lambda path, x: 0 * x if path[-1].key == "bias" else x, made(network, seed=3)
    )
    want = attribute(network, variables, clips, 1, method="gradient_x_input").image
    found = attribute(network, variables, clips, 1, method="lrp", composite="epsilon", epsilon=1e-9).image
    np.testing.assert_allclose(found, want, atol=1e-3 * np.abs(want).max())


@pytest.mark.parametrize("method", FUNCTION_METHODS)
def test_a_function_is_attributed_as_the_network_that_it_is(method, clips):
    variables = made(PLAIN)
    options = {"patch": (8, 8)} if method == "occlusion" else {}
    want = attribute(PLAIN, variables, clips, [0, 1, 2], method=method, **options)

    def function(x):
        return PLAIN.apply(variables, x)[0]

    found = attribute_function(function, clips, [0, 1, 2], method=method, chunk=2, **options)
    np.testing.assert_allclose(found.image, want.image, atol=1e-5 * np.abs(want.image).max())
    np.testing.assert_allclose(found.logit, want.logit, atol=1e-6)
    assert deconv_jax.attribute_function is attribute_function


@pytest.mark.parametrize("method", METHODS)
def test_clips_stand_alone_however_many_run_at_once(method, clips, monkeypatch):
    network = LEAKY
    variables = scaled(made(network))
    targets = [2, 0, 1]
    monkeypatch.setattr(module, "clips_together", lambda *_: 2)  # two, and one with a filler
    every = attribute(network, variables, clips, targets, method=method)
    near = 1e-5 * np.abs(every.image).max()
    assert near
    for clip, target in enumerate(targets):
        one = attribute(network, variables, clips[clip], target, method=method)
        assert (one.image.shape, one.logit.shape) == (SIZE, ())
        np.testing.assert_allclose(one.image, every.image[clip], atol=near)
        np.testing.assert_allclose(one.logit, every.logit[clip], atol=1e-6)
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
        (lambda v, x: attribute(PLAIN, v, x, 0, method="lrp", composite="flat"), "one of gamma_flat, .* not 'flat'"),
        (lambda v, x: attribute(PLAIN, v, x, 0, method="lrp", box=(5, 1)), "box must be the lowest"),
        (lambda v, x: attribute(PLAIN, v, x * np.nan, 0), "magnitude must be finite"),
        (lambda v, x: attribute(PLAIN, v, x, 0, method="lrp", epsilon=0), "epsilon must be above 0"),
        (lambda v, x: attribute(PLAIN, v, x, 0, method="smoothgrad", noise=-1), "noise must be at least 0, not -1"),
        (lambda v, x: attribute(PLAIN, v, x, 0, method="occlusion", patch=4), "patch must be two whole numbers"),
        (lambda v, x: attribute(PLAIN, v, x, 0, method="occlusion", patch=(4, 4), stride=(4, 5)), "no larger than"),
        (lambda v, x: attribute_function(lambda x: x, x, 0), r"function must return logits, shape \(classes,\)"),
        (lambda v, x: attribute_function(lambda x: x[0], x, 0, method="lrp"), "method must be one of gradient"),
        (lambda v, x: attribute(ODD, made(ODD), x, 0, method="guided"), "no rule for the activation elu"),
    ],
)
def test_what_cannot_be_asked_is_named(call, says, clips):
    with pytest.raises(ValueError, match=says):
        call(made(PLAIN), clips)


PEERS = {
    "flattened": Network(
        blocks=(Block(maps=6, norm="before"), Block(maps=8, pool=(3, 2)), Block(maps=5, norm="before")), dense=(7,)
    ),
    "averaged": Network(blocks=(Block(maps=6, pooling="average"), Block(maps=8)), dense=(7,), head="average"),
}


def twin(torch, network, variables):
    """The same network in PyTorch, and its pooling modules."""
    nn, layers, pools, before = torch.nn, [], [], 1

    def filled(module, given):
        with torch.no_grad():
            for name, value in given.items():
                getattr(module, name).copy_(torch.tensor(np.array(value)))
        return module

    for number, block in enumerate(network.blocks, 1):
        params = variables["params"][f"conv{number}"]
        conv = nn.Conv2d(before, block.maps, block.kernel, padding="same")
        kernel = np.asarray(params["kernel"]).transpose(3, 2, 0, 1)
        layers.append(filled(conv, {"weight": kernel, "bias": params["bias"]}))
        if block.norm == "before":
            scale, stats = variables["params"][f"norm{number}"], variables["batch_stats"][f"norm{number}"]
            given = {"weight": scale["scale"], "bias": scale["bias"]}
            given |= {"running_mean": stats["mean"], "running_var": stats["var"]}
            layers.append(filled(nn.BatchNorm2d(block.maps, eps=block.epsilon), given))
        pools.append((nn.AvgPool2d if block.pooling == "average" else nn.MaxPool2d)(block.pool))
        layers += [nn.ReLU(), pools[-1]]
        before = block.maps
    if network.head == "average":
        layers.append(nn.AdaptiveAvgPool2d(1))
    layers.append(nn.Flatten())
    names = [*(f"dense{n + 1}" for n in range(len(network.dense))), "output"]
    for name in names:
        params = variables["params"][name]
        kernel = np.asarray(params["kernel"])
        if name == names[0] and network.head == "flatten":  # PyTorch counts maps first
            last = run(network, variables, np.zeros(SIZE, np.float32))[1][-1].pooled.shape
            kernel = kernel.reshape(*last, -1).transpose(2, 0, 1, 3).reshape(len(kernel), -1)
        layers += [filled(nn.Linear(*kernel.shape), {"weight": kernel.T, "bias": params["bias"]}), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval(), pools


@pytest.fixture(scope="module", params=PEERS)
def peers(request, clips):
    """A network, its variables, its twin, its pools, the clips in PyTorch, and how near both must come."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deconv_jax[peers]'")
    network = PEERS[request.param]
    variables = made(network, seed=3)
    model, pools = twin(torch, network, variables)
    seen = torch.tensor(clips)[:, None]
    with torch.no_grad():
        np.testing.assert_allclose(model(seen), run(network, variables, clips)[0], atol=1e-5)

    def compare(method, want, **options):
        found = attribute(network, variables, clips, [0, 2, 1], method=method, **options).image
        want = want.detach().numpy()[:, 0]
        assert np.abs(want).max() > 0
        apart = np.abs(found - want) / np.abs(want).max()
        assert apart.max() < 1e-4, method

    return torch, (network, variables), (model, pools), seen, compare


@pytest.mark.filterwarnings("ignore")
def test_captum_finds_the_same(peers):
    captum = pytest.importorskip("captum.attr", reason="Captum is not installed: pip install 'deconv_jax[peers]'")
    torch, _, (model, pools), seen, compare = peers
    targets = torch.tensor([0, 2, 1])
    compare("gradient", captum.Saliency(model).attribute(seen.clone(), target=targets, abs=False))
    compare("gradient_x_input", captum.InputXGradient(model).attribute(seen.clone(), target=targets))
    # In doubles: in single precision Captum's points fall on the other side of a kink at times, 1e-3 away.
    integrated, double = captum.IntegratedGradients(copy.deepcopy(model).double()), seen.double()
    for base in (0.0, 0.3):
        want = integrated.attribute(double, baselines=base, target=targets, n_steps=20, method="gausslegendre")
        compare("integrated_gradients", want, steps=20, baseline=base)
    compare("guided", captum.GuidedBackprop(model).attribute(seen.clone(), target=targets))
    for layer, pool in enumerate(pools, 1):
        cam = captum.LayerGradCam(model, pool).attribute(seen, target=targets, relu_attributions=True)
        if cam.abs().max() > 0:
            compare("grad_cam", captum.LayerAttribution.interpolate(cam, SIZE, "bilinear"), layer=layer)
    for patch, stride in (((8, 8), (8, 8)), ((7, 5), (3, 4))):
        occlusion = captum.Occlusion(model)
        want = occlusion.attribute(seen, (1, *patch), strides=(1, *stride), baselines=0.2, target=targets)
        compare("occlusion", want, patch=patch, stride=stride, fill=0.2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("composite", ["epsilon", "gamma_flat", "gamma_box"])
def test_zennit_finds_the_same(composite, peers, without_torchvision):
    pytest.importorskip("zennit.composites", reason="zennit is not installed: pip install 'deconv_jax[peers]'")
    from zennit import canonizers, composites, rules
    from zennit.types import Convolution, Linear

    torch, given, (model, _), seen, compare = peers
    if importlib.metadata.version("zennit") < "1":  # merges batch norm into a layer, and leaves its epsilon in it
        model, _ = twin(torch, *fold(*given))
    base, merged = composites.layer_map_base(), [canonizers.SequentialMergeBatchNorm()]
    dense = (torch.nn.Linear, rules.Epsilon(epsilon=1e-3))
    convolutions = [(Convolution, rules.Gamma(gamma=0.4)), dense]
    if composite == "epsilon":
        rule = composites.LayerMapComposite([*base, (Linear, rules.Epsilon(epsilon=1e-3))], canonizers=merged)
    elif composite == "gamma_flat":
        first = [(Convolution, rules.Flat())]
        rule = composites.SpecialFirstLayerMapComposite([*base, *convolutions], first, canonizers=merged)
    else:
        low, high = torch.full_like(seen, -0.1), torch.full_like(seen, 1.2)
        rule = composites.EpsilonGammaBox(low=low, high=high, epsilon=1e-3, gamma=0.4, canonizers=merged)
    x = seen.clone().requires_grad_()
    with rule.context(model) as changed:
        logits = changed(x)
        (want,) = torch.autograd.grad(logits, x, logits.detach() * torch.eye(3)[[0, 2, 1]])
    compare("lrp", want, composite=composite, epsilon=1e-3, gamma=0.4, box=(-0.1, 1.2))
