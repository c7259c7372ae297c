"""Networks from Keras, Keras 0.3, PyTorch and TensorFlow's checkpoints: the same logits as their source."""

import io
import json
import os
import struct
import warnings
import zipfile

import h5py
import jax
import numpy as np
import pytest
import reference
from safetensors.numpy import save_file

from deconv_jax.deconvolution.deconvolve import deconvolve
from deconv_jax.deconvolution.rule import Rule
from deconv_jax.errors import InputError
from deconv_jax.importers import musicnn
from deconv_jax.importers.keras import import_keras
from deconv_jax.importers.stack import Layer, Settings, assemble, read_settings, settings
from deconv_jax.importers.torch import import_sequential, import_torch
from deconv_jax.network.file import load_network
from deconv_jax.network.spec import Block, Dense
from deconv_jax.sound.front_end import FrontEnd

FREQ, TIME = 17, 12
FRONT = FrontEnd(sample_rate=800, n_fft=32, hop=16, clip_seconds=11 * 16 / 800)


@pytest.fixture(scope="module")
def keras():
    os.environ["KERAS_BACKEND"] = "numpy"  # nothing to compile
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("keras", reason="keras is not installed: pip install 'deconv_jax[test]'")


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'deconv_jax[torch]'")


@pytest.fixture
def seen(rng):
    return rng.standard_normal((FREQ, TIME)).astype(np.float32)


def outputs(folder, seen):
    trained = load_network(folder)

    def both(variables, x):
        logits = trained.network.apply(variables, x)[0]
        return logits, trained.network.probabilities(logits)

    return trained, *jax.jit(both)(trained.variables, seen)


def shaken(model, rng):
    """A Keras model with weights in every place that could be mixed up, batch norms of both signs among them."""

    def value(variable):
        values = rng.uniform(0.5, 1.5, variable.shape) if variable.name in ("moving_variance", "gamma") else None
        if variable.name == "gamma":
            values *= rng.choice([-1, 1], variable.shape)
        return rng.standard_normal(variable.shape) * 0.3 if values is None else values

    model.set_weights([value(v) for v in model.weights])
    return model


def predicted(model, x):
    """What Keras itself says, shape (classes,)."""
    with jax.numpy_rank_promotion("allow"):
        return np.asarray(model(x, training=False))[0]


def keras_models(keras):
    layers = keras.layers
    return {
        "batch norm after ReLU, time first": (
            ("time", "freq"),
            [
                layers.BatchNormalization(name="of_the_input"),
                layers.Conv2D(4, 3, padding="same", activation="relu", name="b"),
                layers.BatchNormalization(),
                layers.MaxPooling2D((4, 1), (2, 2)),
                layers.Dropout(0.25),
                layers.Conv2D(3, (3, 2), name="a", use_bias=False),
                layers.BatchNormalization(scale=False),
                layers.Activation("relu"),
                layers.AveragePooling2D(2, padding="same"),
                layers.Flatten(),
                layers.Dense(5, activation="relu"),
                layers.BatchNormalization(),
                layers.Dense(3, activation="sigmoid"),
            ],
        ),
        "strides, padding, global pooling": (
            ("freq", "time"),
            [
                layers.BatchNormalization(axis=1),
                layers.ZeroPadding2D(((1, 2), (0, 1))),
                layers.Conv2D(4, (4, 3), strides=2, name="conv"),
                layers.LeakyReLU(negative_slope=0.2),
                layers.MaxPooling2D(3, 2, padding="same"),
                layers.Conv2D(5, 3, strides=(1, 2), padding="same"),
                layers.MaxPooling2D((2, 1)),
                layers.ReLU(max_value=6),
                layers.GlobalAveragePooling2D(),
                layers.BatchNormalization(),
                layers.Dense(3, activation="softmax"),
            ],
        ),
    }


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.filterwarnings("ignore")  # Keras's own: HDF5 is legacy to it
def test_a_model_that_keras_wrote_gives_the_same_probabilities(keras, rng, seen, tmp_path, which, ending):
    axes, layers = list(keras_models(keras).values())[which]
    shape = (FREQ, TIME) if axes == ("freq", "time") else (TIME, FREQ)
    model = shaken(keras.Sequential([keras.Input((*shape, 1)), *layers]), rng)
    path = tmp_path / f"model.{ending}"
    model.save(path)
    folder = import_keras(path, tmp_path / "n", Settings(FRONT, ("a", "b", "c"), axes))
    x = seen if axes == ("freq", "time") else seen.T
    want = predicted(model, x[None, ..., None])
    trained, logits, found = outputs(folder, seen)
    np.testing.assert_allclose(found, want, atol=1e-5)
    assert trained.network.final == ("sigmoid" if which == 0 else "softmax")
    back = np.log(want) - (np.log1p(-want) if which == 0 else 0)
    np.testing.assert_allclose(
        logits - (logits.mean() if which else 0), back - (back.mean() if which else 0), atol=1e-5
    )
    if which == 0:
        assert [b.norm for b in trained.network.blocks] == ["after", "before"]
        assert trained.network.blocks[0].pool == (1, 4)
        assert trained.network.dense == (Dense(5, norm="after"),)


@pytest.mark.filterwarnings("ignore")
def test_a_convolution_along_time_comes_from_keras(keras, rng, seen, tmp_path):
    layers = keras.layers
    stack = [
        layers.Conv1D(4, 3, padding="causal", activation="relu"),
        layers.MaxPooling1D(2),
        layers.Conv1D(3, 2, strides=2),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.GlobalMaxPooling1D(),
        layers.Dense(3),
    ]
    model = shaken(keras.Sequential([keras.Input((TIME, FREQ)), *stack]), rng)
    model.save(tmp_path / "model.keras")
    folder = import_keras(
        tmp_path / "model.keras", tmp_path / "n", Settings(FRONT, axes=("time", "freq"), final="sigmoid")
    )
    want = predicted(model, seen.T[None])
    trained, logits, _ = outputs(folder, seen)
    np.testing.assert_allclose(logits, want, atol=1e-5)
    assert trained.labels == ["class 0", "class 1", "class 2"]
    assert trained.network.blocks[0].kernel == (FREQ, 3)


@pytest.mark.filterwarnings("ignore")
def test_what_keras_has_and_blocks_have_not_is_refused_by_name(keras, tmp_path):
    layers = keras.layers
    for wrong, words in (
        (layers.Conv2D(2, 3, dilation_rate=2, name="wide"), "wide.*dilated"),
        (layers.PReLU(name="learnt"), "learnt.*PReLU"),
        (layers.Activation("softsign", name="odd"), "odd.*softsign"),
        (layers.Conv2DTranspose(2, 3, name="up"), "up.*Conv2DTranspose"),
    ):
        first, last = [layers.Conv2D(2, 3, name="first")], [layers.GlobalMaxPooling2D(), layers.Dense(3)]
        keras.Sequential([keras.Input((FREQ, TIME, 1)), *first, wrong, *last]).save(tmp_path / "m.keras")
        with pytest.raises(InputError, match=words):
            import_keras(tmp_path / "m.keras", tmp_path / "n", Settings(FRONT))
    assert not (tmp_path / "n").exists()


def theano_file(path, rng):
    """Weights as Keras 0.3 wrote them: every layer has a group, those without weights an empty one."""
    arrays = {
        0: [rng.standard_normal((4, 1, 3, 3)), rng.standard_normal(4)],
        3: [rng.standard_normal((3, 4, 2, 3)), rng.standard_normal(3)],
        7: [rng.standard_normal((3 * 4 * 3, 3)), rng.standard_normal(3)],
    }
    with h5py.File(path, "w") as file:
        file.attrs["nb_layers"] = 9
        for number in range(9):
            group = file.create_group(f"layer_{number}")
            group.attrs["nb_params"] = len(arrays.get(number, ()))
            for i, array in enumerate(arrays.get(number, ())):
                group.create_dataset(f"param_{i}", data=array.astype("f"))
    return arrays


LAYERS_03 = [
    {"conv": {"weights": "layer_0", "padding": "same"}},
    "relu",
    {"max_pool": {"window": 2}},
    {"conv": {"weights": "layer_3", "padding": "same"}},
    "relu",
    {"max_pool": {"window": 2}},
    {"dropout": 0.5},
    "flatten",
    {"dense": {"weights": "layer_7"}},
    "softmax",
]


def theano_convolution(x, kernel, bias):
    """x (in, rows, columns), kernel (out, in, rows, columns): a true convolution, cut as Keras 0.3 cut "same"."""
    rows, columns = kernel.shape[2:]
    full = np.zeros((len(kernel), x.shape[1] + rows - 1, x.shape[2] + columns - 1))
    for out, into, a, b in np.ndindex(kernel.shape):
        full[out, a : a + x.shape[1], b : b + x.shape[2]] += kernel[out, into, a, b] * x[into]
    top, left = (rows - 1) // 2, (columns - 1) // 2
    return full[:, top : top + x.shape[1], left : left + x.shape[2]] + bias[:, None, None]


def test_weights_of_keras_03_give_the_logits_of_a_true_convolution(rng, seen, tmp_path):
    arrays = theano_file(tmp_path / "old.h5", rng)
    spec = settings(
        {"front_end": {"sample_rate": 800, "n_fft": 32, "hop": 16, "clip_seconds": 0.22}, "layers": LAYERS_03}
    )
    x = seen[None].astype(np.float64)
    for number in (0, 3):
        x = np.maximum(theano_convolution(x, *arrays[number]), 0)
        x = reference.pool(np.moveaxis(x, 0, -1), (2, 2), (2, 2))[0].transpose(2, 0, 1)
    want = x.ravel() @ arrays[7][0] + arrays[7][1]
    trained, logits, found = outputs(import_keras(tmp_path / "old.h5", tmp_path / "n", spec), seen)
    np.testing.assert_allclose(logits, want, atol=1e-5 * np.abs(want).max())
    assert found.sum() == pytest.approx(1)
    assert trained.network.blocks[0] == Block(maps=4, padding=((1, 1), (1, 1)), dropout=0.0)


def test_hostile_and_odd_hdf5_is_refused(rng, tmp_path):
    spec = Settings(FRONT, layers=tuple(LAYERS_03))
    path = tmp_path / "old.h5"
    theano_file(path, rng)
    with pytest.raises(InputError, match=r"9 layers and no architecture"):
        import_keras(path, tmp_path / "n", Settings(FRONT))
    with h5py.File(path, "a") as file:
        del file["layer_3/param_1"]
    with pytest.raises(InputError, match=r"param_1 is missing"):
        import_keras(path, tmp_path / "n", spec)
    with h5py.File(path, "a") as file:
        file["layer_3/param_1"] = h5py.ExternalLink("/etc/passwd", "/x")
    with pytest.raises(InputError, match=r"param_1 is a link"):
        import_keras(path, tmp_path / "n", spec)
    with h5py.File(path, "a") as file:
        del file["layer_3/param_1"]
        file["layer_3"].create_dataset("param_1", (2**40,), "f", chunks=(1024,))
    with pytest.raises(InputError, match=r"param_1.*too large"):
        import_keras(path, tmp_path / "n", spec)
    path.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match=r"cannot be read as HDF5"):
        import_keras(path, tmp_path / "n", spec)
    for name, content in (("config.json", b"{}"), ("../config.json", b"{}")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, content)
        with pytest.raises(InputError, match=r"without (model\.weights\.h5|config\.json)"):
            import_keras(path, tmp_path / "n", spec)


TORCH_LAYERS = [
    {"conv": {"weights": "features.0", "padding": 2, "stride": [2, 1]}},
    {"norm": {"weights": "features.1"}},
    "relu",
    {"max_pool": {"window": 3, "stride": 2, "padding": 1}},
    {"conv": {"weights": "features.4"}},
    {"leaky_relu": 0.1},
    {"average_pool": {"window": [1, 2]}},
    "flatten",
    {"dense": {"weights": "classifier"}},
]


def torch_state(rng):
    normal = rng.standard_normal
    return {
        "features.0.weight": 0.2 * normal((3, 1, 5, 5)),
        "features.0.bias": normal(3),
        "features.1.weight": normal(3),
        "features.1.bias": normal(3),
        "features.1.running_mean": normal(3),
        "features.1.running_var": rng.uniform(0.5, 2, 3),
        "features.1.num_batches_tracked": np.array(7),
        "features.4.weight": 0.3 * normal((4, 3, 3, 3)),
        "classifier.weight": normal((2, 4 * 3 * 2)),
        "classifier.bias": normal(2),
    }


def test_a_state_dict_and_its_spec_give_the_logits_of_pytorchs_rules(rng, seen, tmp_path):
    state = {k: v.astype("f") for k, v in torch_state(rng).items()}
    save_file(state, tmp_path / "w.safetensors")
    spec = Settings(FRONT, ("x", "y"), layers=tuple(TORCH_LAYERS))
    trained, logits, _ = outputs(import_torch(tmp_path / "w.safetensors", tmp_path / "n", spec), seen)
    s = {k: v.astype(np.float64) for k, v in state.items()}
    two = ((2, 2), (2, 2))
    x = reference.convolve(
        seen[..., None], s["features.0.weight"].transpose(2, 3, 1, 0), s["features.0.bias"], two, (2, 1)
    )
    x = (x - s["features.1.running_mean"]) / np.sqrt(s["features.1.running_var"] + 1e-5)
    x = np.maximum(x * s["features.1.weight"] + s["features.1.bias"], 0)
    x = reference.pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))[0]
    x = reference.convolve(x, s["features.4.weight"].transpose(2, 3, 1, 0), 0, "VALID")
    x = reference.average(np.where(x > 0, x, 0.1 * x), (1, 2), (1, 2), "VALID")[0]
    want = s["classifier.weight"] @ x.transpose(2, 0, 1).ravel() + s["classifier.bias"]
    np.testing.assert_allclose(logits, want, atol=1e-5 * np.abs(want).max())
    assert trained.network.blocks[0].norm == "before"


@pytest.mark.parametrize("counted", [True, False, None])
def test_averages_count_padding_as_pytorch_does(torch, rng, seen, tmp_path, counted):
    """count_include_pad is true by default; by both rules logits and images are those it computes."""
    said = {} if counted is None else {"count_include_pad": counted}
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AvgPool2d(3, 2, 1, **said), nn.Conv2d(3, 2, 2), nn.Flatten(), nn.Linear(56, 2)
    )  # fmt: skip
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.tensor(0.3 * rng.standard_normal(tuple(weight.shape))))
    x = torch.tensor(seen, requires_grad=True)
    maps = model[:3](x[None, None])
    want = model[3:](maps)[0].detach().numpy()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    pool = {"window": 3, "stride": 2, "padding": 1} | ({} if counted is None else {"count_padding": counted})
    layers = [{"conv": {"weights": 0}}, "relu", {"average_pool": pool}, {"conv": {"weights": 3}}, "flatten"]
    spec = Settings(FRONT, ("x", "y"), layers=(*layers, {"dense": {"weights": 5}}))
    for folder in (
        import_sequential(model, tmp_path / "a", Settings(FRONT, ("x", "y"))),
        import_torch(tmp_path / "w.pt", tmp_path / "b", spec),
    ):
        trained, logits, _ = outputs(folder, seen)
        np.testing.assert_allclose(logits, want, atol=1e-5 * np.abs(want).max())
    images = deconvolve(trained.network, trained.variables, seen, 1, rule=Rule("gradient"))
    for number, image in enumerate(images):
        seed = torch.zeros_like(maps)
        seed[0, number] = maps[0, number].detach()
        (back,) = torch.autograd.grad(maps, x, seed, retain_graph=True)
        np.testing.assert_allclose(image, back.numpy(), atol=1e-5 * np.abs(back.numpy()).max())


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_weights_of_half_precision_are_read(torch, rng, seen, tmp_path, ending):
    from safetensors.torch import save_file as save_torch

    state = {k: torch.tensor(np.asarray(v, "f")).bfloat16() for k, v in torch_state(rng).items()}
    spec = Settings(FRONT, ("x", "y"), layers=tuple(TORCH_LAYERS))
    (torch.save if ending == "pt" else save_torch)(state, tmp_path / f"half.{ending}")
    save_file({k: v.float().numpy() for k, v in state.items()}, tmp_path / "full.safetensors")
    half, full = (
        load_network(import_torch(tmp_path / name, tmp_path / f"of_{name}", spec)).variables
        for name in (f"half.{ending}", "full.safetensors")
    )
    jax.tree.map(np.testing.assert_array_equal, half, full)  # nothing is computed


def test_odd_state_dicts_are_refused_by_name(torch, tmp_path):
    endless = {"a.weight": torch.ones(2)}
    endless["state_dict"] = {"model": endless}
    huge, complex_one = torch.ones(1).expand(2**20, 2**20), torch.ones(2, dtype=torch.complex64)
    spec = Settings(FRONT, layers=tuple(TORCH_LAYERS))
    for state, words in (
        (endless, "its state_dict holds itself"),
        ({"a.weight": huge}, r"a\.weight has 1099511627776 numbers"),
        ({"a.weight": complex_one}, r"a\.weight is no plain array of real numbers"),
        ([1], "holds a list"),
        ({}, r"features\.0\.weight is missing"),
    ):
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(InputError, match=words):
            import_torch(tmp_path / "w.pt", tmp_path / "n", spec)


def test_an_average_by_another_divisor_is_refused(torch, tmp_path):
    pool = torch.nn.AvgPool2d(2, divisor_override=3)
    with pytest.raises(InputError, match=r"layer 1: AvgPool2d with divisor_override=3"):
        import_sequential(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), pool), tmp_path / "n", Settings(FRONT))


def test_a_sequential_and_its_state_dict_give_pytorchs_own_logits(torch, rng, seen, tmp_path):
    nn = torch.nn
    features = nn.Sequential(
        nn.Conv2d(1, 3, 5, (2, 1), 2), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(3, 4, 3, bias=False), nn.LeakyReLU(0.1), nn.AvgPool2d((1, 2)),
    )  # fmt: skip
    model = nn.Sequential()
    model.add_module("features", features)
    model.add_module("flat", nn.Flatten())
    model.add_module("classifier", nn.Linear(24, 2))
    model.load_state_dict({k: torch.tensor(np.asarray(v)) for k, v in torch_state(rng).items()})
    model.eval()
    with torch.inference_mode():
        want = model(torch.tensor(seen)[None, None])[0].numpy()
    torch.save(model.state_dict(), tmp_path / "w.pt")
    spec = Settings(FRONT, ("x", "y"), layers=tuple(TORCH_LAYERS))
    for folder in (
        import_sequential(model, tmp_path / "a", Settings(FRONT, ("x", "y"))),
        import_torch(tmp_path / "w.pt", tmp_path / "b", spec),
    ):
        np.testing.assert_allclose(outputs(folder, seen)[1], want, atol=1e-5 * np.abs(want).max())
    torch.save(model, tmp_path / "whole.pt")
    with pytest.raises(InputError, match=r"without running code"):
        import_torch(tmp_path / "whole.pt", tmp_path / "c", spec)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([], "list the layers"),
        (["relu"], r"activation before the first convolution"),
        ([{"conv": {"weights": "features.9"}}], r"features\.9\.weight is missing; it has classifier\.weight"),
        ([{"conv": {"weights": "features.0", "dilation": 2}}], r"layers\[0\]: conv has no option dilation"),
        ([{"conv": {}}], r"layers\[0\]: conv needs the name of its weights"),
        ([{"conv": {"weights": "features.4"}}], r"does not take the 1 map"),
        (["conv2d"], r"layers\[0\]: 'conv2d' is no layer"),
        ([*TORCH_LAYERS[:3], "tanh"], r"second activation"),
        ([*TORCH_LAYERS[:4], {"max_pool": {"window": 2}}], r"second pooling"),
        ([*TORCH_LAYERS[:7], "relu"], r"second activation"),
        ([*TORCH_LAYERS[:5], {"average_pool": {"window": 2}}, "relu"], r"relu after average-pooling"),
        (TORCH_LAYERS[:7], r"ends in maps"),
        ([{"dropout": [1]}], r"layers\[0\]: dropout takes a number"),
        ([{"norm": {"weights": "features.1", "epsilon": "x"}}], r"layers\[0\]: epsilon takes a number"),
        ([{"conv": {"weights": "features.0", "padding": [[1, 1], 2]}}, *TORCH_LAYERS[7:]], "block.padding must be"),
        ([{"max_pool": {None: 1, "x": 2}}], "max_pool has no option None"),
        ([*TORCH_LAYERS, "softmax", "relu"], r"after the softmax"),
        ([*TORCH_LAYERS[:6], *TORCH_LAYERS[7:]], r"params/output/kernel is \(24, 2\).*\(48, 2\)"),
    ],
)
def test_layers_that_make_no_network_are_refused_by_name(rng, tmp_path, layers, words):
    save_file({k: v.astype("f") for k, v in torch_state(rng).items()}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=words):
        import_torch(tmp_path / "w.safetensors", tmp_path / "n", Settings(FRONT, ("x", "y"), layers=tuple(layers)))
    assert not (tmp_path / "n").exists()


def test_an_activation_or_a_batch_norm_after_a_pool_is_done_before_it(rng, seen):
    def stack(*middle):
        kernel = {"kernel": np.random.default_rng(1).standard_normal((3, 3, 1, 2)).astype("f")}
        head = [
            Layer("global_pool", "g", {"kind": "average"}),
            Layer("dense", "d", {}, {"kernel": np.eye(2, dtype="f")}),
        ]
        network, variables = assemble([Layer("conv", "c", {}, kernel), *middle, *head], Settings(FRONT))
        return network, jax.jit(network.apply)(variables, seen)[0]

    pool = Layer("pool", "p", {"kind": "max", "window": (2, 2), "stride": (2, 2)})
    relu = Layer("activation", "r", {"name": "relu"})
    statistics = {
        "bias": np.array([0.3, -0.1], "f"),
        "mean": np.array([0.2, 0.1], "f"),
        "var": np.array([2.0, 0.5], "f"),
    }
    norms = [Layer("norm", "n", {}, statistics | {"scale": np.array(s, "f")}) for s in ([1.0, 2.0], [1.0, -2.0])]
    np.testing.assert_allclose(stack(pool, norms[0], relu)[1], stack(norms[0], relu, pool)[1], atol=1e-6)
    assert stack(pool, relu, norms[1])[0].blocks[0].norm == "pooled"
    with pytest.raises(ValueError, match="negative scales"):
        stack(pool, norms[1], relu)


# --- musicnn: the format of TensorFlow's checkpoints ------------------------------------------------------------------


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def checkpoint(arrays):
    """A bundle as TensorFlow writes it: keys sorted and sharing their beginnings, two data blocks, no compression."""
    data, entries = b"", [(b"", b"\x08\x01")]
    for name, array in sorted(arrays.items()):
        dims = b"".join(b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(n) for n in array.shape))
        entry = b"\x08\x01" + b"\x12" + varint(len(dims)) + dims
        entry += (b"\x20" + varint(len(data)) if data else b"") + b"\x28" + varint(array.nbytes) + b"\x35" + bytes(4)
        entries.append((name.encode(), entry))
        data += array.astype("<f4").tobytes()

    def block(pairs):
        out, before = b"", b""
        for key, value in pairs:
            shared = next((i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), len(before))
            out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            before = key
        return out + struct.pack("<II", 0, 1)

    index, handles = b"", []
    for part in (entries[:9], entries[9:]):
        body = block(part)
        handles.append((part[-1][0] + b"~", varint(len(index)) + varint(len(body))))
        index += body + bytes(5)
    places = []
    for body in (block([]), block(handles)):
        places.append(varint(len(index)) + varint(len(body)))
        index += body + bytes(5)
    return index + b"".join(places).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57), data


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """musicnn's wheel in small: 2 maps, and the optimiser's slots that have to be left out."""
    rng = np.random.default_rng(3)
    arrays = {}
    for number in range(6):
        name, maps = "batch_normalization" + (f"_{number}" if number else ""), 2 if number else 1
        for part in ("gamma", "beta", "moving_mean", "moving_variance"):
            arrays[f"{name}/{part}"] = rng.uniform(0.5, 1.5, maps).astype("f")
        if number:
            arrays[f"{number}CNN/kernel"] = rng.standard_normal((3, 3, maps if number > 1 else 1, 2)).astype("f")
            arrays[f"{number}CNN/bias"] = rng.standard_normal(2).astype("f")
            arrays[f"{number}CNN/bias/Adam"] = np.full(2, np.nan, "f")
    arrays |= {
        "dense/kernel": rng.standard_normal((4, 50)).astype("f"),
        "dense/bias": rng.standard_normal(50).astype("f"),
    }
    path = tmp_path_factory.mktemp("wheel") / "musicnn.whl"
    index, data = checkpoint(arrays)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("musicnn/MTT_vgg/.index", index)
        archive.writestr("musicnn/MTT_vgg/.data-00000-of-00001", data)
    return path, arrays, index, data


def test_a_checkpoint_of_tensorflow_is_read_without_it(wheel):
    _, arrays, index, data = wheel
    found = musicnn.bundle(index, data)
    assert found.keys() == {k for k in arrays if not k.endswith("Adam")}
    for name, array in found.items():
        np.testing.assert_array_equal(array, arrays[name])


def test_musicnns_tagger_follows_its_code(wheel, rng, tmp_path):
    path, arrays, *_ = wheel
    folder = musicnn.import_musicnn(path, tmp_path / "n")
    seen = rng.standard_normal((96, 187)).astype(np.float32)
    trained, _, tags = outputs(folder, seen)
    assert trained.labels[:2] == ["guitar", "classical"]
    assert len(set(trained.labels)) == 50
    assert len(set(musicnn.MSD.split(","))) == 50
    assert trained.front_end.frequencies()[-1] < 8000
    a = {k: np.asarray(v, np.float64) for k, v in arrays.items()}

    def norm(x, name):
        mean, var, gamma, beta = (a[f"{name}/{p}"] for p in ("moving_mean", "moving_variance", "gamma", "beta"))
        return (x - mean) / np.sqrt(var + 1e-3) * gamma + beta

    x = norm(seen.T[..., None], "batch_normalization")
    windows = [((4, 1), (2, 2)), *[((2, 2), (2, 2))] * 3, ((4, 4), (4, 4))]
    for number, (window, stride) in enumerate(windows, 1):
        y = np.zeros((*x.shape[:2], 2)) + a[f"{number}CNN/bias"]
        padded = np.pad(x, [(1, 1), (1, 1), (0, 0)])
        for i, j in np.ndindex(3, 3):
            y += padded[i : i + x.shape[0], j : j + x.shape[1]] @ a[f"{number}CNN/kernel"][i, j]
        x = norm(np.maximum(y, 0), f"batch_normalization_{number}")
        view = np.lib.stride_tricks.sliding_window_view(x, window, axis=(0, 1))
        x = view[:: stride[0], :: stride[1]].max(axis=(-2, -1))
    want = 1 / (1 + np.exp(-(x.ravel() @ a["dense/kernel"] + a["dense/bias"])))
    np.testing.assert_allclose(tags, want, atol=1e-5)


def test_damaged_wheels_are_refused(wheel, tmp_path):
    _, _, index, data = wheel
    with pytest.raises(InputError, match=r"holds no musicnn/MSD_vgg"):
        musicnn.import_musicnn(wheel[0], tmp_path / "n", "MSD_vgg")
    with pytest.raises(ValueError, match="MTT_vgg, MSD_vgg"):
        musicnn.import_musicnn(wheel[0], tmp_path / "n", "MTT_big")
    with pytest.raises(InputError, match=r"holds no MTT_vgg"):
        musicnn.import_musicnn(tmp_path, tmp_path / "n")
    folder = tmp_path / "MTT_vgg"
    folder.mkdir()
    for bad_index, bad_data, word in (
        (index[:-1], data, "no table"),
        (index[:40] + index[-48:], data, "cut short"),
        (index, data[:-1], "does not fit its data"),
        (index.replace(b"1CNN", b"9CNN"), data, "1CNN/kernel"),
    ):
        (folder / ".index").write_bytes(bad_index)
        (folder / ".data-00000-of-00001").write_bytes(bad_data)
        with pytest.raises(InputError, match=word):
            musicnn.import_musicnn(tmp_path, tmp_path / "n")
    assert not (tmp_path / "n").exists()


BOMB = "labels:\n  - &a0 [x]\n" + "".join(f"  - &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
"""Some hundred bytes that stand for 9¹¹ values."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("front_end: [", "is no YAML"),
        ("- 1", "must be a mapping"),
        ("labels: [a]", "front_end is missing"),
        ("front_end: {rate: 1}", "front_end.rate is unknown"),
        ("front_end: {hop: 0}", "hop must be 1 to"),
        ("{front_end: {}, labels: x}", "labels must be a list"),
        ("{front_end: {}, layer: []}", "the field layer is unknown"),
        ("{front_end: {}, axes: [time, time]}", "axes must be"),
        ("{front_end: {}, final: relu}", "final must be one of"),
        ("front_end: !!python/object/apply:os.system [ls]", "is no YAML"),
        ("a: 2001-99-99", "is no YAML"),
        ("a: !!int ''", "is no YAML"),
        ("front_end: {hop: x}", "front_end.hop must be a whole number, not 'x'"),
        ("front_end: {n_fft: 9.0e+11}", "front_end: n_fft must be at most"),
        ("{front_end: {}, axes: 5}", "axes must be"),
        ("a: &a {b: *a}", "holds itself"),
        (BOMB, r"aliases stand for .* values"),
        (BOMB.replace("- [", "- {<<: [").replace("]", "]}"), "is no YAML|aliases stand for"),
    ],
)
def test_wrong_specs_are_refused_by_field(tmp_path, text, words):
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(InputError, match=words):
        read_settings(tmp_path / "spec.yaml")


def test_a_spec_says_what_the_weights_do_not(tmp_path):
    spec = {"front_end": {"kind": "mel", "bands": 8, "scale": "decibel"}, "labels": ["a", 1], "axes": ["time", "freq"]}
    (tmp_path / "spec.json").write_text(
        json.dumps(spec | {"input": {"mean": -30, "scale": [10.0] * 8}, "final": "sigmoid"})
    )
    found = read_settings(tmp_path / "spec.json")
    assert found.front_end == FrontEnd(kind="mel", bands=8, scale="decibel")
    assert (found.labels, found.axes, found.final) == (("a", "1"), ("time", "freq"), "sigmoid")
    conv = Layer("conv", "c", {}, {"kernel": np.ones((1, 1, 1, 2), "f")})
    numbers = {"scale": 2, "bias": 1, "mean": 3, "var": 4}
    norm = Layer("norm", "n", {"epsilon": 0.0}, {k: np.full(1, v, "f") for k, v in numbers.items()})
    _, variables = assemble([norm, conv, Layer("global_pool", "g", {"kind": "max"})], found)
    x = np.full((1, 8), 5.0)
    got = (x - variables["input"]["mean"]) / variables["input"]["scale"]
    np.testing.assert_allclose(got, ((x + 30) / 10 - 3) / 2 * 2 + 1, rtol=1e-6)


def test_archives_are_read_into_memory_only(tmp_path, monkeypatch):
    """A member that claims to be larger than what is read is refused before it is unpacked."""
    from deconv_jax.importers import keras as module

    monkeypatch.setattr(module, "_MOST", 10)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("config.json", b"x" * 11)
    (tmp_path / "m.keras").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="would unpack to 11 bytes"):
        import_keras(tmp_path / "m.keras", tmp_path / "n", Settings(FRONT))
