"""The on-disk form: what is written comes back, and what does not fit is refused by name."""

import copy
import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from test_deconvolution_any_network import random_variables

import deconv_jax
from deconv_jax.deconvolution.deconvolve import deconvolve
from deconv_jax.errors import InputError
from deconv_jax.network.file import load_network, save_network, turned, turned_blocks
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block, Dense
from deconv_jax.page import network as page_network
from deconv_jax.sound.front_end import FrontEnd, analyse
from deconv_jax.training import workdir

FRONT = FrontEnd(sample_rate=1600, n_fft=64, hop=32, clip_seconds=0.4, kind="mel", bands=12, scale="log10")
LABELS = ["a", "<b>", "ü"]


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A network of (time, freq) spectrograms, with all that a description can hold."""
    blocks = (
        Block(maps=2, kernel=(3, 2), padding=("SAME", (1, 0)), norm="after", pool=(4, 1), stride=(2, 2)),
        Block(maps=3, conv_stride=(2, 1), activation="leaky_relu", slope=0.1, pooling="average", pool_padding="SAME"),
    )
    dense = (4, Dense(5, norm="before"))
    network = Network(blocks=blocks, dense=dense, classes=3, dropout=0.0, final="sigmoid")
    variables = random_variables(network, (FRONT.clip_frames, FRONT.bins))
    variables["input"] = {"mean": np.full((1, 1), 0.5, "f"), "scale": np.linspace(1, 2, 12, dtype="f")[None]}
    folder = tmp_path_factory.mktemp("stored") / "network"
    save_network(folder, network, variables, FRONT, LABELS, {"made_by": "a test"}, axes=("time", "freq"))
    return folder, network, variables


def test_what_is_written_comes_back_turned_to_frequency_and_time(rng, stored):
    folder, network, variables = stored
    trained = deconv_jax.load_network(folder)
    assert (trained.front_end, trained.labels, trained.checkpoint) == (FRONT, LABELS, folder)
    assert trained.network.blocks == turned_blocks(network.blocks)
    assert trained.network.final == "sigmoid"
    assert trained.about["config"]["source"] == {"made_by": "a test"}
    seen = rng.standard_normal((FRONT.bins, FRONT.clip_frames)).astype(np.float32)
    want, trace = jax.jit(network.apply)(variables, seen.T)
    got, turned_trace = jax.jit(trained.network.apply)(trained.variables, seen)
    np.testing.assert_allclose(got, want, atol=1e-5)
    np.testing.assert_allclose(turned_trace[1].pooled, trace[1].pooled.swapaxes(0, 1), atol=1e-5)
    images = deconvolve(network, variables | {"input": {}}, seen.T, 2)
    plain = deconvolve(trained.network, dict(trained.variables) | {"input": {}}, seen, 2)
    np.testing.assert_allclose(plain, images.swapaxes(1, 2), atol=1e-4 * float(jnp.abs(images).max()))
    assert workdir.load(network=folder).labels == LABELS
    with pytest.raises(ValueError, match="a network names weights by itself"):
        workdir.load(folder, None, folder)


def test_turning_twice_changes_nothing(stored):
    _, network, variables = stored
    size = (FRONT.bins, FRONT.clip_frames)
    twice, again = turned(*turned(network, variables, size), size[::-1])
    assert twice == network
    jax.tree.map(np.testing.assert_array_equal, again, dict(variables))


def damaged(folder, tmp_path, change=None, weights=None):
    """A copy of the network with its description or weights changed."""
    description = json.loads((folder / "network.json").read_text())
    arrays = load_file(folder / "weights.safetensors")
    if change:
        change(description)
    if weights:
        weights(arrays)
    (tmp_path / "network.json").write_text(json.dumps(description))
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, tmp_path / "weights.safetensors")
    return tmp_path


def put(*path, value):
    def change(description):
        for key in path[:-1]:
            description = description[key]
        description[path[-1]] = value

    return change


def nested(deep):
    return {"a": nested(deep - 1)} if deep else {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("version", value=2), ["version 2 is newer"]),
        (put("version", value="1"), ["version is '1'"]),
        (put("format", value="x"), ["format is 'x'"]),
        (put("axis", value=1), ["axis is unknown", "axes"]),
        (put("axes", value=["freq", "freq"]), ["axes"]),
        (put("labels", value=["a", "b"]), ["output/bias", "(3,)", "(2,)"]),
        (put("labels", value=["a", "a", "b"]), ["labels has 'a' twice"]),
        (put("labels", value="abc"), ["labels must be a list"]),
        (put("front_end", "sample_rat", value=1), ["front_end.sample_rat is unknown"]),
        (put("front_end", "hop", value=0.5), ["front_end.hop must be a whole number"]),
        (put("front_end", "hop", value=33), ["front_end: hop must be 1 to"]),
        (put("front_end", "scale", value="loud"), ["front_end: scale must be one of linear"]),
        (put("network", "blocks", value=[]), ["network.blocks must be a list of at least one"]),
        (put("network", "blocks", 1, value="conv"), ["network.blocks[1] must be a mapping"]),
        (put("network", "blocks", 1, "dilation", value=2), ["network.blocks[1].dilation is unknown", "conv_stride"]),
        (put("network", "blocks", 0, "norm", value="batch"), ["network.blocks[0]: block.norm must be one of none"]),
        (put("network", "blocks", 0, "kernel", value=[3]), ["network.blocks[0]: block.kernel"]),
        (put("network", "blocks", 0, "maps", value="many"), ["network.blocks[0].maps must be a whole number"]),
        (put("network", "blocks", 0, "pool", value=[99, 1]), ["leaves nothing for layer 1"]),
        (put("network", "dense", value=[4, {"width": 5, "units": 5}]), ["network.dense[1].units is unknown"]),
        (put("network", "final", value="argmax"), ["network.final must be one of softmax, sigmoid"]),
        (put("network", "blocks", 0, "count_padding", value=1), ["count_padding must be true or false"]),
        (put("network", "log", value=1), ["network.log must be one of True, False"]),
        (put("network", "heads", value=1), ["network.heads is unknown"]),
        (put("network", "a\nb", value=1), ["network.a\\nb is unknown"]),
        (put("network", "dropout", value=True), ["network.dropout must be"]),
        (put("network", "blocks", 0, "kernel", value=[True, 3]), ["block.kernel must be two whole numbers from 1"]),
        (put("network", "blocks", 0, "stride", value=[2, 2**31]), ["block.stride", "1,048,576"]),
        (put("network", "blocks", 0, "padding", value=[[2**19, 2**19], [2**19, 0]]), ["layer 1 has", "numbers"]),
        (put("front_end", "n_fft", value=9e11), ["front_end: n_fft must be at most 1,048,576, not 9e+11"]),
        (put("front_end", "sample_rate", value=10**9), ["front_end: sample_rate must be at most 1,000,000"]),
        (put("front_end", "clip_seconds", value=1e9), ["front_end: clip_seconds must be at most 3,600"]),
        (put("front_end", "floor", value=float("nan")), ["front_end.floor must be a finite number"]),
        (put("labels", 1, value="\ud800"), ["labels[1] is no text"]),
        (put("source", value="my lab"), ["source must be a mapping of fields, not 'my lab'"]),
        (put("source", value={"a": float("inf")}), ["source.a must be a finite number"]),
        (put("source", value=nested(99)), ["nested more than 16 deep"]),
        (put("source", value={"made_by": "bin/train", "test": {"by_clip": 1}}), ["source.test.by_clip must be a map"]),
        (
            put("source", value={"made_by": "bin/train", "test": {"by_clip": {"accuracy": "high", "n": 3}}}),
            ["source.test.by_clip must hold accuracy", "'high'"],
        ),
    ],
)
def test_wrong_descriptions_are_refused_with_file_and_field(stored, tmp_path, change, words):
    folder = damaged(stored[0], tmp_path, change)
    with pytest.raises(InputError) as error:
        load_network(folder)
    message = str(error.value)
    assert str(folder) in message
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("params/conv2/kernel"), ["params/conv2/kernel is missing", "(3, 3, 2, 3)"]),
        (lambda w: w.pop("batch_stats/norm1/var"), ["batch_stats/norm1/var is missing"]),
        (lambda w: w.update({"params/conv3/kernel": np.ones(1, "f")}), ["params/conv3/kernel is left over"]),
        (
            lambda w: w.update({"params/conv1/kernel": np.ones((2, 3, 1, 2), "f")}),
            ["params/conv1/kernel is (2, 3, 1, 2)"],
        ),
        (lambda w: w.update({"params/conv1/bias": np.ones(2)}), ["params/conv1/bias is of type float64", "float32"]),
        (lambda w: w.update({"params/conv1/bias": np.full(2, np.nan, "f")}), ["params/conv1/bias", "no numbers"]),
        (lambda w: w.update({"input/scale": np.zeros((1, 1), "f")}), ["input/scale holds zeros"]),
        (lambda w: w["batch_stats/norm1/var"].fill(-0.1), ["batch_stats/norm1/var holds negative variances"]),
        (lambda w: w.update({"input/mean": np.zeros((7, 7), "f")}), ["input/mean is (7, 7)"]),
        (lambda w: w.update({"conv1": np.zeros(1, "f")}), ["conv1 is unknown"]),
    ],
)
def test_wrong_weights_are_refused_by_name(stored, tmp_path, change, words):
    folder = damaged(stored[0], tmp_path, weights=change)
    with pytest.raises(InputError) as error:
        load_network(folder)
    assert str(folder / "weights.safetensors") in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_variances_of_zero_need_an_epsilon(stored, tmp_path):
    def still(weights):
        weights["batch_stats/norm1/var"].fill(0)

    load_network(damaged(stored[0], tmp_path, weights=still))
    change = put("network", "blocks", 0, "epsilon", value=0)
    with pytest.raises(InputError, match=r"batch_stats/norm1/var holds zeros, and the layer's epsilon is 0"):
        load_network(damaged(stored[0], tmp_path, change, still))


ODD = (None, True, -1, 0, 3, 1.5, 2**20, 9e11, 10**30, float("inf"), float("nan"), "", "x", "mel", "SAME", "\ud800")
ODD = (*ODD, [], {}, [1], [2, 2], [[0, 1], [1, 0]], ["SAME", "VALID"], nested(14), {"test": {}, "made_by": "bin/train"})


def places(tree, path=()):
    """Paths to all fields of a description."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [found for key, value in pairs for found in ((*path, key), *places(value, (*path, key)))]


@settings(max_examples=int(os.environ.get("NETWORK_FILE_EXAMPLES", "60")), deadline=None, derandomize=True)
@given(st.data())
def test_a_changed_file_loads_and_works_or_says_one_clear_line(stored, tmp_path_factory, data):
    description = json.loads((stored[0] / "network.json").read_text())
    content = bytearray((stored[0] / "weights.safetensors").read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        *path, last = data.draw(st.sampled_from(places(description)))
        target = description
        for key in path:
            target = target[key]
        target[last] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
    for _ in range(data.draw(st.integers(0, 2))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    folder = tmp_path_factory.mktemp("changed")
    (folder / "network.json").write_text(json.dumps(description))
    (folder / "weights.safetensors").write_bytes(content)
    said = ""
    try:
        trained = load_network(folder)
    except InputError as error:
        said = str(error)
    if said:
        assert str(folder) in said
        assert said.isprintable()
        return
    front, size = trained.front_end, (trained.front_end.bins, trained.front_end.clip_frames)
    seen = jax.ShapeDtypeStruct(size, np.float32)
    logits, trace = jax.eval_shape(trained.network.apply, trained.variables, seen)
    assert logits.shape == (len(trained.labels),)
    assert trace[-1].pooled.shape[-1] == trained.network.blocks[-1].maps
    assert front.frequencies().shape == (front.bins,)
    if front.kind != "cqt":
        clip = jax.ShapeDtypeStruct((front.clip_samples,), np.float32)
        assert jax.eval_shape(lambda waveform: analyse(front, waveform)[1], clip).shape == size
    assert all(isinstance(text, str) for row in page_network.about(trained) for text in row)
    json.dumps(trained.about["config"], allow_nan=False).encode()


def test_damaged_and_missing_files_are_refused(stored, tmp_path):
    with pytest.raises(InputError, match=r"network\.json: does not exist.*bin/import_network"):
        load_network(tmp_path)
    folder = damaged(stored[0], tmp_path)
    whole = (folder / "weights.safetensors").read_bytes()
    for broken in (b"", whole[:9], whole[:100], b"\xff" * 200):
        (folder / "weights.safetensors").write_bytes(broken)
        with pytest.raises(InputError, match=r"weights\.safetensors: is no readable safetensors"):
            load_network(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(InputError, match=r"weights\.safetensors: cannot be read"):
        load_network(folder)
    for broken in ("{", "[" * 100_000, "[]", "null"):
        (folder / "network.json").write_text(broken)
        with pytest.raises(InputError, match=r"network\.json"):
            load_network(folder)


def test_what_would_not_load_is_not_written(stored, tmp_path):
    _, network, variables = stored
    with pytest.raises(ValueError, match="labels"):
        save_network(tmp_path / "n", network, variables, FRONT, ["one", "one"])
    assert not (tmp_path / "n").exists()


def test_a_logarithm_of_version_0_1_is_the_front_ends_today(stored, tmp_path):
    """Until 0.1 a network could compress its input itself."""
    folder = stored[0]
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    description = json.loads((folder / "network.json").read_text())
    description["network"]["log"] = True
    (tmp_path / "network.json").write_text(json.dumps(description))
    front = load_network(tmp_path).front_end
    assert front == dataclasses.replace(load_network(folder).front_end, scale="log1p", factor=1e4)
