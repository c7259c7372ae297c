"""Keras models → layers: today's `.keras`, `.h5` of Keras 1 to 3, and the HDF5 weights of Keras 0.3.

Only h5py and JSON are used, so neither Keras nor TensorFlow has to be installed and nothing in the file is run. A file
is not trusted: members of an archive are read by name into memory, no link out of an HDF5 file is followed, and sizes
are checked before anything is read.

Keras 0.3 (2015, the authors' time) stored weights as `layer_K/param_0 …` with `nb_layers` at the root and no
architecture, so a spec has to list the layers (`deconv_jax.importers.stack.spelled`), each by its `layer_K`. Theano's
kernels are (out, in, rows, columns) and are flipped: Theano convolves, JAX correlates.
"""

import io
import itertools
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deconv_jax.errors import InputError, SettingError
from deconv_jax.importers.stack import Layer, Settings, save, spelled
from deconv_jax.system import files

_MOST = 4 * 2**30
"""Bytes of the largest member or dataset that is read."""

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def import_keras(path, folder, settings: Settings) -> Path:
    """Writes the network file of a Keras model.

    Args:
      path: `.keras`, or HDF5 of any age.
      folder: for the network file.
      settings: front end, labels and so on, which a Keras file does not hold; `layers` for files of weights only.

    Returns:
      The folder.

    Raises:
      InputError: no such file, or one that holds something else; a layer that is not known; the message names it.
    """
    import h5py

    path, name = Path(path), files.shown(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                config = json.loads(_member(archive, "config.json", name))
                with h5py.File(io.BytesIO(_member(archive, "model.weights.h5", name)), "r") as file:
                    layers, first = _model(config, _Archive(file, name), name)
        else:
            with h5py.File(path, "r") as file:
                if "nb_layers" in file.attrs:
                    layers, first = _keras_03(file, settings, name)
                elif "model_config" in file.attrs:
                    config = json.loads(_text(file.attrs["model_config"]))
                    layers, first = _model(config, _Legacy(file, name), name)
                else:
                    raise InputError(
                        f"{name}: holds neither a model nor the weights of Keras 0.3 (no model_config, no nb_layers); "
                        "save it by model.save"
                    )
    except OSError as error:
        raise InputError(f"{name}: cannot be read as HDF5 or .keras ({str(error)[:120]}); name a Keras model") from None
    except (zipfile.BadZipFile, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{name}: is damaged ({error}); save it again") from None
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{name}: is no Keras model of a kind that is known ({error!r:.120})") from None
    return save(folder, layers, settings, {"made_by": "bin/import_network", "file": path.name, "kind": "keras"}, first)


def _member(archive: zipfile.ZipFile, member: str, name: str) -> bytes:
    try:
        size = archive.getinfo(member).file_size
    except KeyError:
        raise InputError(f"{name}: is an archive without {member}, so no Keras model") from None
    if size > _MOST:
        raise InputError(f"{name}: {member} would unpack to {size} bytes; at most {_MOST} are read")
    with archive.open(member) as handle:
        return handle.read(size)


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def dataset(group, path: str, name: str) -> np.ndarray:
    """An array of an HDF5 file, as float32; nothing outside the file is touched.

    Raises:
      ValueError: missing, no numbers, linked or stored elsewhere, or too large; the message names it.
    """
    import h5py

    place = group
    for part in path.split("/"):
        link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
        if link is None:
            raise SettingError(f"the weight {path} is missing")
        if not isinstance(link, h5py.HardLink):
            raise SettingError(f"the weight {path} is a link to elsewhere, which is not followed")
        place = place[part]
    if not isinstance(place, h5py.Dataset) or place.dtype.kind not in "fiu":
        raise SettingError(f"the weight {path} is no array of numbers")
    if place.external or place.is_virtual:
        raise SettingError(f"the weight {path} is stored in another file, which is not read")
    if 4 * int(np.prod(place.shape, dtype=object)) > _MOST:
        raise SettingError(f"the weight {path} has the shape {place.shape}, which is too large")
    return np.asarray(place[()], np.float32)


class _Archive:
    """Weights of a `.keras` archive: layers/CLASS_NAME[_NUMBER]/vars/0 …, counted for each class."""

    def __init__(self, file, name: str):
        self.file, self.name = file, name
        self.seen: dict[str, int] = {}

    def __call__(self, layer: Mapping[str, Any], wanted: list[str]) -> dict[str, np.ndarray]:
        snake = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", layer["class_name"])
        snake = re.sub("([a-z])([A-Z])", r"\1_\2", snake).lower()
        count = self.seen.get(snake, 0)
        self.seen[snake] = count + 1
        place = f"layers/{snake}_{count}" if count else f"layers/{snake}"
        return {part: dataset(self.file, f"{place}/vars/{i}", self.name) for i, part in enumerate(wanted)}


class _Legacy:
    """Weights of an `.h5` model: model_weights/LAYER, whose attribute names its arrays in order."""

    def __init__(self, file, name: str):
        self.file, self.name = file["model_weights"], name

    def __call__(self, layer: Mapping[str, Any], wanted: list[str]) -> dict[str, np.ndarray]:
        if not wanted:
            return {}
        name = layer["config"]["name"]
        paths = [_text(p) for p in self.file[name].attrs["weight_names"]]
        if len(paths) != len(wanted):
            raise SettingError(f"layer {name}: holds {len(paths)} weights where {', '.join(wanted)} are wanted")
        return {part: dataset(self.file, f"{name}/{path}", self.name) for part, path in zip(wanted, paths, strict=True)}


def _model(config, weights, name: str) -> tuple[list[Layer], bool]:
    """Layers of a model's JSON; and whether a flattened map is (maps, rows, columns)."""
    kind = config.get("class_name")
    inside = config["config"]
    given = inside["layers"] if isinstance(inside, dict) else inside  # a list, in Keras 1 and early 2
    if kind != "Sequential" and (kind not in ("Functional", "Model") or not _is_chain(given)):
        raise SettingError(f"is a model of class {kind}; wanted is a Sequential one, or one whose layers form a chain")
    layers: list[Layer] = []
    first = False
    for layer in given:
        made, channels_first = _layer(layer, weights, bool(layers))
        layers += made
        first = first or channels_first
    return layers, first


def _is_chain(layers) -> bool:
    """Whether every layer of a functional model takes the one before it, and nothing else."""
    for before, layer in itertools.pairwise(layers):
        text = json.dumps(layer.get("inbound_nodes"))
        found = re.findall(r'"keras_history": \["([^"]+)"', text) or re.findall(r'\[\[\["([^"]+)", \d+, \d+', text)
        if found != [before["config"]["name"]]:
            return False
    return True


def _layer(layer: Mapping[str, Any], weights, begun: bool) -> tuple[list[Layer], bool]:
    kind, config = layer["class_name"], layer["config"]
    name = str(config.get("name", kind))
    first = config.get("data_format") == "channels_first" or config.get("dim_ordering") == "th"

    def made(what: str, options=None, arrays=None) -> Layer:
        return Layer(what, name, options or {}, arrays or {})

    one = kind.endswith("1D")
    if first and one:
        raise SettingError(f"layer {name}: {kind} with channels first is not known")
    if kind in ("InputLayer", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"):
        weights(layer, [])
        return ([made("dropout", {"rate": config.get("rate", 0.0)})] if "ropout" in kind else []), first
    if kind in ("Conv2D", "Convolution2D", "Conv1D"):
        return _conv(layer, weights, begun, name), first
    if kind == "Dense":
        arrays = weights(layer, ["kernel", "bias"] if config.get("use_bias", True) else ["kernel"])
        return [made("dense", {}, arrays), *_activation(config.get("activation", "linear"), name)], first
    if kind == "BatchNormalization":
        return [_norm(layer, weights, begun, name)], first
    weights(layer, [])  # counted, although it has none
    if kind == "ZeroPadding2D":
        pads = config["padding"]
        pads = [[n, n] if isinstance(n, int) else n for n in ([pads, pads] if isinstance(pads, int) else pads)]
        return [made("pad", {"padding": tuple(map(tuple, pads))})], first
    if match := re.fullmatch(r"(Max|Average)Pooling([12])D", kind):
        window = _two(config.get("pool_size", config.get("pool_length")), one)
        strides = config.get("strides", config.get("stride"))
        side = str(config.get("padding", config.get("border_mode", "valid"))).upper()
        options = {
            "kind": match[1].lower(),
            "window": window,
            "stride": window if strides is None else _two(strides, one),
            "padding": (side, "VALID") if one else side,
        }
        return [made("pool", options)], first
    if match := re.fullmatch(r"Global(Max|Average)Pooling[12]D", kind):
        return [made("global_pool", {"kind": match[1].lower()})], first
    if kind == "Flatten":
        return [made("flatten")], first
    if kind == "Activation":
        return _activation(config["activation"], name), first
    if kind in ("ReLU", "LeakyReLU", "ELU", "Softmax"):
        return _activation({"class_name": kind, "config": config}, name), first
    if kind == "Reshape" and not begun:
        shape = config.get("target_shape", ())
        if len(shape) == 3 and 1 in (shape[0], shape[2]):  # adds the axis of the one map
            return [], first
    raise SettingError(
        f"layer {name}: {kind} is not known; known are Conv2D, Conv1D, Dense, BatchNormalization, pooling, global "
        "pooling, ZeroPadding2D, Dropout, Flatten and activations"
    )


def _conv(layer, weights, begun: bool, name: str) -> list[Layer]:
    config, one = layer["config"], layer["class_name"] == "Conv1D"
    if config.get("groups", 1) != 1:
        raise SettingError(f"layer {name}: grouped convolutions are not known")
    dilation = config.get("dilation_rate", 1)
    if any(n != 1 for n in (dilation if isinstance(dilation, list | tuple) else [dilation])):
        raise SettingError(f"layer {name}: dilated convolutions are not known")
    biased = config.get("use_bias", config.get("bias", True))
    arrays = weights(layer, ["kernel", "bias"] if biased else ["kernel"])
    kernel = arrays["kernel"]
    side: Any = str(config.get("padding", config.get("border_mode", "valid"))).upper()
    strides = _two(config.get("strides", config.get("subsample", 1)), one)
    if one:
        # (steps, in, out): of the first layer, `in` are the input's columns; above it there is one column.
        kernel = kernel[:, None] if begun else kernel[:, :, None]
        side = ((len(kernel) - 1, 0) if side == "CAUSAL" else side, "VALID")
    return [
        Layer("conv", name, {"padding": side, "stride": strides}, arrays | {"kernel": kernel}),
        *_activation(config.get("activation", "linear"), name),
    ]


def _norm(layer, weights, begun: bool, name: str) -> Layer:
    config = layer["config"]
    wanted = [
        p for p in _NORM if (p != "gamma" or config.get("scale", True)) and (p != "beta" or config.get("center", True))
    ]
    arrays = weights(layer, wanted)
    like = arrays["moving_mean"]
    scale, bias = arrays.get("gamma", np.ones_like(like)), arrays.get("beta", np.zeros_like(like))
    found = {"scale": scale, "bias": bias, "mean": like, "var": arrays["moving_variance"]}
    axis = config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list | tuple) else axis
    rank = len(layer.get("build_config", {}).get("input_shape") or ()) or None
    last = axis == -1 or (rank is not None and axis == rank - 1) or (rank is None and axis == 3)
    if not begun and len(like) > 1:  # of the input: along its rows (axis 1) or columns (axis 2)
        if axis not in (1, 2) and not (rank == 3 and axis == -1):
            raise SettingError(
                f"layer {name}: normalises axis {axis} of the input, which is neither its rows nor its columns"
            )
        shape = (-1, 1) if axis == 1 else (1, -1)
        found = {k: v.reshape(shape) for k, v in found.items()}
    elif begun and not last and axis != 1:
        raise SettingError(f"layer {name}: normalises axis {axis}; known is the axis of the maps")
    elif begun and axis == 1 and rank == 4 and layer.get("build_config", {})["input_shape"][1] != len(like):
        raise SettingError(f"layer {name}: normalises axis 1, which is not that of the maps")
    return Layer("norm", name, {"epsilon": config.get("epsilon", 1e-3)}, found)


def _activation(given, name: str) -> list[Layer]:
    """An activation as Keras writes it: a word, a function's record, or a layer's."""
    config: Mapping[str, Any] = {}
    if isinstance(given, Mapping):
        inside = given.get("config")
        config = inside if isinstance(inside, Mapping) else {}
        given = inside if isinstance(inside, str) else given["class_name"]
    known = {"ReLU": "relu", "LeakyReLU": "leaky_relu", "ELU": "elu", "Softmax": "softmax", "swish": "silu"}
    kind = known.get(str(given), str(given))
    slope = {"leaky_relu": 0.3 if given == "LeakyReLU" else 0.2, "elu": 1.0}.get(kind, 0.0)
    slope = config.get("alpha", config.get("negative_slope", slope))
    if kind == "relu" and config:
        if config.get("threshold") or config.get("max_value") not in (None, 6, 6.0):
            raise SettingError(f"layer {name}: ReLU with a threshold, or a cap other than 6, is not known")
        if slope:
            kind = "leaky_relu"
        if config.get("max_value") is not None:
            if slope:
                raise SettingError(f"layer {name}: a leaky ReLU with a cap is not known")
            kind = "relu6"
    if isinstance(slope, Mapping | list):  # an array in newer files
        slope = slope["config"]["value"] if isinstance(slope, Mapping) else slope[0]
    return [Layer("activation", name, {"name": kind, "slope": float(slope or 0.0)})]


def _two(value, one: bool) -> tuple[int, int]:
    """Rows and columns; of a 1-D layer there are rows only."""
    pair = tuple(value) if isinstance(value, list | tuple) else (value,) * (1 if one else 2)
    return (int(pair[0]), 1) if one else (int(pair[0]), int(pair[1]))


# --- Keras 0.3 --------------------------------------------------------------------------------------------------------


def _keras_03(file, settings: Settings, name: str) -> tuple[list[Layer], bool]:
    count = int(file.attrs["nb_layers"])
    if not settings.layers:
        raise InputError(
            f"{name}: holds the weights of {count} layers and no architecture, as Keras 0.3 wrote them; list the "
            "layers in the spec, each by its layer_K"
        )

    def weights(group: str, kind: str) -> dict[str, np.ndarray]:
        if not re.fullmatch(r"layer_\d+", group) or int(group[6:]) >= count:
            raise SettingError(f"{group} is none of its {count} layers, layer_0 to layer_{count - 1}")
        parts = {"conv": ("kernel", "bias"), "dense": ("kernel", "bias"), "norm": ("scale", "bias", "mean", "var")}[
            kind
        ]
        found = {part: dataset(file, f"{group}/param_{i}", name) for i, part in enumerate(parts)}
        if kind == "conv":
            if found["kernel"].ndim != 4:
                raise SettingError(f"{group}/param_0 is {found['kernel'].shape}, wanted are (out, in, rows, columns)")
            found["kernel"] = np.ascontiguousarray(found["kernel"][:, :, ::-1, ::-1].transpose(2, 3, 1, 0))
        return found

    layers = []
    for layer in spelled(settings.layers, weights, 1e-6):
        if layer.kind == "conv" and layer.options["padding"] == "SAME":
            # A full convolution, cut at (k - 1) // 2: for even kernels one place beside TensorFlow's.
            if layer.options["stride"] != (1, 1):
                raise SettingError(f"{layer.name}: strides with same padding are not known in files of Keras 0.3")
            around = tuple((n // 2, (n - 1) // 2) for n in layer.weights["kernel"].shape[:2])
            layer = Layer(layer.kind, layer.name, dict(layer.options) | {"padding": around}, layer.weights)
        layers.append(layer)
    return layers, True
