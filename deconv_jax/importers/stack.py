"""A list of layers, in a framework's own order → block specs, head and weights.

Every importer reads its source into `Layer`s; `assemble` finds the convolutional blocks and the head among them. What
does not fit a block is refused by the layer's name, never left out. Two orders are rewritten where that changes
nothing: an activation after a max-pool is done before it (both keep the order of values), and so is a batch norm whose
scales are all positive; a batch norm of the input becomes the input's mean and scale, and one between the maps and
a dense layer goes into that layer's weights.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deconv_jax.errors import InputError, SettingError
from deconv_jax.network.activations import ACTIVATIONS
from deconv_jax.network.file import AXES, built, mapping, read_axes, save_network
from deconv_jax.network.model import Network
from deconv_jax.network.spec import FINALS, Block, Dense, layer_sizes
from deconv_jax.sound.front_end import FrontEnd
from deconv_jax.system import files, locks

_FALLING = ("gelu", "silu")
"""Activations that do not keep the order of values."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a source.

    Attributes:
      kind: conv, norm, activation, pool, global_pool, pad, flatten, dense or dropout.
      name: as the source calls it, for messages.
      options: conv: padding, stride; norm: epsilon; activation: name, slope; pool: kind ("max" or "average"), window,
        stride, padding, count_padding; global_pool: kind; pad: padding; dropout: rate.
      weights: conv: kernel (rows, columns, in, out) and bias; dense: kernel (in, out) and bias; norm: scale, bias, mean
        and var, each (features,) or, on the input, broadcast against it.
    """

    kind: str
    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a source's weights do not say, and the spec does.

    Attributes:
      front_end: how the input is made.
      labels: names of the classes; numbered if left out.
      axes: order of the input's axes.
      final: "softmax" or "sigmoid", where the source gives logits and does not say.
      mean, scale: of the input, numbers or one for each frequency.
      layers: the layers in the spec's own words, for sources that hold weights only.
    """

    front_end: FrontEnd
    labels: tuple[str, ...] | None = None
    axes: tuple[str, str] = AXES[0]
    final: str | None = None
    mean: Any = None
    scale: Any = None
    layers: tuple[Any, ...] = ()


def save(folder, layers: Sequence[Layer], settings: Settings, source: Mapping[str, Any], channels_first: bool) -> Path:
    """Assembles the layers and writes the network file.

    Args:
      folder: for the network file.
      layers, settings, channels_first: see `assemble`.
      source: where they come from, kept in the file.

    Raises:
      InputError: the layers make no network, or one that does not fit front end and labels.
    """
    try:
        network, variables = assemble(layers, settings, channels_first)
        labels = settings.labels or tuple(f"class {n}" for n in range(network.classes))
        if len(labels) != network.classes:
            raise SettingError(f"it has {network.classes} outputs, but {len(labels)} labels are given")
        return save_network(folder, network, variables, settings.front_end, labels, source, settings.axes)
    except ValueError as error:
        raise InputError(f"{files.shown(source['file'])}: {error}") from None
    except OSError as error:
        raise locks.unwritable(folder, error, "out") from None


def assemble(layers: Sequence[Layer], settings: Settings, channels_first: bool = False) -> tuple[Network, dict]:
    """The network that the layers make, and its variables, in the order of `settings.axes`.

    Args:
      layers: from the input on.
      settings: front end, axes and so on.
      channels_first: whether a flattened map is (maps, rows, columns), as in PyTorch, and not (rows, columns, maps).

    Raises:
      ValueError: a layer does not fit; the message names it and says why.
    """
    front = settings.front_end
    size = (front.bins, front.clip_frames) if settings.axes == AXES[0] else (front.clip_frames, front.bins)
    stack = _Stack(settings, size)
    for layer in layers:
        stack.add(layer)
    return stack.finish(channels_first)


class _Stack:
    """The blocks and the head found so far."""

    def __init__(self, settings: Settings, size: tuple[int, int]):
        self.settings, self.size = settings, size
        self.blocks: list[dict[str, Any]] = []
        self.dense: list[dict[str, Any]] = []
        self.params: dict[str, dict[str, np.ndarray]] = {}
        self.stats: dict[str, dict[str, np.ndarray]] = {}
        self.input: dict[str, np.ndarray] = {}
        self.head: str | None = None
        self.final: str | None = None
        self.padding: Any = None  # of a layer that only pads
        self.folded: tuple[np.ndarray, np.ndarray] | None = None  # a batch norm on its way into the next dense layer

    def add(self, layer: Layer) -> None:
        if self.final is not None and layer.kind != "dropout":
            raise SettingError(f"layer {layer.name}: comes after the {self.final} that ends the network")
        if self.padding is not None and layer.kind != "conv":
            raise SettingError(f"layer {layer.name}: padding by a layer of its own is known before convolutions only")
        getattr(self, f"_{layer.kind}")(layer)

    def _conv(self, layer: Layer) -> None:
        if self.head:
            raise SettingError(f"layer {layer.name}: a convolution after {self.head} is not known")
        kernel = layer.weights["kernel"]
        padding = layer.options.get("padding", "VALID")
        if self.padding is not None:
            if padding != "VALID":
                raise SettingError(f"layer {layer.name}: pads by itself after a layer that pads; only one is known")
            padding, self.padding = self.padding, None
        number = len(self.blocks) + 1
        below = self.blocks[-1]["maps"] if self.blocks else 1
        if kernel.ndim != 4 or kernel.shape[2] != below:
            raise SettingError(
                f"layer {layer.name}: kernel {kernel.shape} does not take the {below} map(s) below it (rows, columns, "
                "in, out); grouped convolutions and inputs of several channels are not known"
            )
        self.blocks.append(
            {
                "maps": kernel.shape[3],
                "kernel": kernel.shape[:2],
                "padding": padding,
                "conv_stride": layer.options.get("stride", (1, 1)),
                "use_bias": "bias" in layer.weights,
                "activation": "linear",
                "pool": (1, 1),
                "dropout": 0.0,
            }
        )
        self.params[f"conv{number}"] = dict(layer.weights)

    def _activation(self, layer: Layer) -> None:
        name, slope = layer.options["name"], float(layer.options.get("slope", 0.0))
        if name == "linear":
            return
        if name in FINALS and self.head and (name == "softmax" or not self.dense or self.dense[-1]["maybe_last"]):
            self.final = name
            return
        if name not in ACTIVATIONS:
            raise SettingError(
                f"layer {layer.name}: the activation {name} is not known; known are {', '.join(ACTIVATIONS)}"
            )
        if self.head:
            if not self.dense:
                raise SettingError(
                    f"layer {layer.name}: an activation between the maps and the first dense layer is not known"
                )
            self.dense[-1] |= {"activation": name, "slope": slope, "maybe_last": False}
            return
        block = self._open(layer)
        if block["activation"] != "linear":
            raise SettingError(f"layer {layer.name}: is the second activation after one convolution")
        if "pooling" in block:
            if block["pooling"] != "max" or name in _FALLING:
                raise SettingError(
                    f"layer {layer.name}: {name} after {block['pooling']}-pooling is not known; before it, it is"
                )
            if block.get("norm") == "pooled":
                self._raise_norm(layer, block)
        block |= {"activation": name, "slope": slope}

    def _raise_norm(self, layer: Layer, block: dict) -> None:
        if not np.all(self.params[f"norm{len(self.blocks)}"]["scale"] > 0):
            raise SettingError(
                f"layer {layer.name}: pooling, batch norm with negative scales, then an activation is an order that "
                "blocks do not have"
            )
        block["norm"] = "before"

    def _norm(self, layer: Layer) -> None:
        weights, epsilon = layer.weights, float(layer.options.get("epsilon", 1e-3))
        if not np.all(weights["var"] + epsilon > 0):
            raise SettingError(f"layer {layer.name}: has variances that are not above zero")
        factor = weights["scale"] / np.sqrt(weights["var"] + epsilon)
        shift = weights["bias"] - weights["mean"] * factor
        if not self.blocks:
            if self.input:
                raise SettingError(f"layer {layer.name}: is the second batch norm of the input")
            if not np.all(factor):
                raise SettingError(f"layer {layer.name}: has scales of zero, so part of the input is never seen")
            self.input = {"mean": _plane(-shift / factor), "scale": _plane(1 / factor)}
            return
        if self.head and (not self.dense or self.dense[-1].get("norm", "none") != "none"):
            if self.folded is not None:
                raise SettingError(f"layer {layer.name}: is the second batch norm in a row")
            self.folded = factor, shift
            return
        target = self.dense[-1] if self.head else self._open(layer)
        features = target["width"] if self.head else target["maps"]
        if factor.shape != (features,):
            raise SettingError(f"layer {layer.name}: normalises {factor.shape}, not the {features} features before it")
        if target.get("norm", "none") != "none":
            raise SettingError(f"layer {layer.name}: is the second batch norm after one layer")
        target["norm"] = "pooled" if "pooling" in target else "after" if target["activation"] != "linear" else "before"
        target["epsilon"] = epsilon
        name = f"dense_norm{len(self.dense)}" if self.head else f"norm{len(self.blocks)}"
        self.params[name] = {k: np.asarray(weights[k]) for k in ("scale", "bias")}
        self.stats[name] = {k: np.asarray(weights[k]) for k in ("mean", "var")}
        if self.head:
            target["maybe_last"] = False

    def _pool(self, layer: Layer) -> None:
        block = self._open(layer)
        if "pooling" in block:
            raise SettingError(f"layer {layer.name}: is the second pooling after one convolution")
        block |= {
            "pooling": layer.options["kind"],
            "pool": tuple(layer.options["window"]),
            "stride": tuple(layer.options["stride"]),
            "pool_padding": layer.options.get("padding", "VALID"),
            "count_padding": layer.options.get("count_padding", False),
        }

    def _pad(self, layer: Layer) -> None:
        self.padding = layer.options["padding"]

    def _open(self, layer: Layer) -> dict[str, Any]:
        if not self.blocks or self.head:
            where = f"after {self.head}" if self.head else "before the first convolution"
            raise SettingError(f"layer {layer.name}: {layer.kind} {where} is not known")
        return self.blocks[-1]

    def _flatten(self, layer: Layer) -> None:
        if not self.head:  # after global pooling there is nothing left to flatten
            self._open(layer)
            self.head = "flatten"

    def _global_pool(self, layer: Layer) -> None:
        self._open(layer)
        self.head = layer.options["kind"]

    def _dense(self, layer: Layer) -> None:
        if not self.head:
            raise SettingError(
                f"layer {layer.name}: a dense layer on maps needs flatten or global pooling before it, and a "
                "convolution before that"
            )
        weights = dict(layer.weights)
        if self.folded is not None:
            factor, shift = self.folded
            if len(factor) != len(weights["kernel"]):
                raise SettingError(f"layer {layer.name}: a batch norm of {len(factor)} features does not fit before it")
            bias = weights.get("bias", np.zeros(weights["kernel"].shape[1], np.float32))
            weights = {"kernel": weights["kernel"] * factor[:, None], "bias": bias + shift @ weights["kernel"]}
            self.folded = None
        self.dense.append(
            {"width": weights["kernel"].shape[1], "activation": "linear", "slope": 0.0, "maybe_last": True}
            | {"use_bias": "bias" in weights, "name": layer.name}
        )
        self.params[f"dense{len(self.dense)}"] = weights

    def _dropout(self, layer: Layer) -> None:
        if self.blocks and not self.head:
            self.blocks[-1]["dropout"] = float(layer.options.get("rate", 0.0))

    def finish(self, channels_first: bool) -> tuple[Network, dict]:
        if not self.blocks:
            raise SettingError("it has no convolution")
        if not self.head:
            raise SettingError("it ends in maps: wanted are flatten or global pooling after the last convolution")
        if self.folded is not None:
            raise SettingError("it ends in a batch norm that no dense layer follows")
        blocks = tuple(Block(**b) for b in self.blocks)
        classes = blocks[-1].maps
        if self.dense:
            last = self.dense.pop()
            if last["activation"] != "linear" or last.get("norm", "none") != "none":
                raise SettingError(f"layer {last['name']}: its outputs are not followed by softmax, sigmoid or nothing")
            classes = last["width"]
            output = self.params.pop(f"dense{len(self.dense) + 1}")
            self.params["output"] = {"bias": np.zeros(classes, np.float32)} | output
        elif self.head == "flatten":
            raise SettingError("it has no dense layer after its flattened maps")
        kept = ("width", "activation", "slope", "norm", "epsilon", "use_bias")
        network = Network(
            blocks=blocks,
            dense=tuple(Dense(**{k: v for k, v in d.items() if k in kept}) for d in self.dense),
            classes=classes,
            dropout=0.0,
            head=self.head,
            final=self.final or self.settings.final or "softmax",
            output="output" in self.params,
        )
        first = self.params.get("dense1", self.params.get("output"))
        if self.head == "flatten" and channels_first and first is not None:
            rows, columns = layer_sizes(network.blocks, self.size)[-1]
            kernel = first["kernel"]
            if len(kernel) == rows * columns * blocks[-1].maps:  # else the message about its shape comes later
                turned = kernel.reshape(blocks[-1].maps, rows, columns, -1)
                first["kernel"] = np.moveaxis(turned, 0, 2).reshape(kernel.shape)
        variables: dict[str, Any] = {"params": self.params}
        if self.stats:
            variables["batch_stats"] = self.stats
        if given := self._input():
            variables["input"] = given
        return network, variables

    def _input(self) -> dict[str, np.ndarray]:
        """The input's mean and scale: the spec's, and then a first batch norm's."""
        mean, scale = (self._given(k, d) for k, d in (("mean", 0.0), ("scale", 1.0)))
        if self.settings.mean is None and self.settings.scale is None:
            return self.input
        if not np.all(scale):
            raise SettingError("the spec's input scale holds zeros; the input is divided by it")
        if self.input:  # ((x - m) / s - m') / s'
            return {"mean": mean + scale * self.input["mean"], "scale": scale * self.input["scale"]}
        return {"mean": mean, "scale": scale}

    def _given(self, name: str, default: float) -> np.ndarray:
        value = getattr(self.settings, name)
        try:
            array = np.asarray(default if value is None else value, np.float32)
        except (TypeError, ValueError):
            raise SettingError(
                f"the spec's input {name} must be a number, or a list of one for each frequency"
            ) from None
        axis = self.settings.axes.index("freq")
        if array.ndim == 1:
            array = array.reshape((-1, 1) if axis == 0 else (1, -1))
        return np.broadcast_to(array, np.broadcast_shapes(array.shape, (1, 1)))


def _plane(array: np.ndarray) -> np.ndarray:
    """Statistics of the input as a plane (rows, columns) of it."""
    return np.asarray(array, np.float32).reshape((1, 1) if np.size(array) == 1 else np.shape(array))


# --- the spec ---------------------------------------------------------------------------------------------------------


def read_settings(path) -> Settings:
    """Reads a YAML (or JSON) spec: `front_end`, and where wanted `labels`, `axes`, `final`, `input` and `layers`.

    Raises:
      InputError: missing, no YAML, or a field that is unknown or cannot have its value; the message names it.
    """
    import yaml

    name = files.shown(path)
    try:
        with open(path, "rb") as handle:
            text = handle.read(_SPEC_BYTES + 1)
        if len(text) > _SPEC_BYTES:
            raise InputError(f"{name}: has more than {_SPEC_BYTES} bytes, too many for a spec", "spec")
        count = _parts(yaml.compose(text, Loader=yaml.SafeLoader), {})
        if count > _SPEC_PARTS:
            raise InputError(f"{name}: its aliases stand for {count:.3g} values, too many for a spec", "spec")
        given = yaml.safe_load(text)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); name a YAML file", "spec") from None
    except (yaml.YAMLError, RecursionError, *_WRONG_SCALAR) as error:
        raise InputError(f"{name}: is no YAML ({' '.join(str(error).split())[:200]})", "spec") from None
    try:
        return settings(given)
    except ValueError as error:
        raise InputError(f"{name}: {files.shown(str(error))}", "spec") from None


_SPEC_BYTES, _SPEC_PARTS = 2**20, 10**5
"""A spec has some hundred of each; aliases of aliases make any number of values of a few lines."""

_WRONG_SCALAR = (ValueError, TypeError, AttributeError, IndexError, KeyError, OverflowError)
"""What PyYAML raises for a date, a number and so on that is none."""


def _parts(node, known: dict[int, int]) -> int:
    """How many values a node of YAML stands for, what its aliases stand for included; RecursionError if it is endless.

    Args:
      known: id of a node → the number, to count nodes once; 0 while one is being counted.
    """
    if id(node) not in known:
        known[id(node)] = 0
        inside = node.value if node is not None and not isinstance(node.value, str) else []
        parts = (part for entry in inside for part in (entry if isinstance(entry, tuple) else (entry,)))
        known[id(node)] = 1 + sum(_parts(part, known) for part in parts)
    if not known[id(node)]:
        raise RecursionError("it holds itself")
    return known[id(node)]


def settings(given: Mapping[str, Any]) -> Settings:
    """`Settings` from a spec's fields; ValueError names a field that is wrong."""
    known = ("front_end", "labels", "axes", "final", "input", "layers")
    if not isinstance(given, Mapping):
        raise SettingError(f"must be a mapping with the fields {', '.join(known)}")
    for field in given:
        if field not in known:
            raise SettingError(f"the field {field} is unknown; known are {', '.join(known)}")
    if given.get("front_end") is None:
        raise SettingError(
            "front_end is missing: sample_rate, n_fft, hop, clip_seconds and what differs from the defaults"
        )
    front = built(FrontEnd, given["front_end"], "front_end")
    axes = read_axes(given.get("axes", AXES[0]))
    if given.get("final") not in (None, *FINALS):
        raise SettingError(f"final must be one of {', '.join(FINALS)}, not {given['final']!r}")
    labels = given.get("labels")
    if labels is not None and not (isinstance(labels, list) and labels):
        raise SettingError("labels must be a list of names")
    around = mapping(given.get("input") or {}, "input")
    if set(around) - {"mean", "scale"}:
        raise SettingError("input may hold mean and scale only")
    layers = given.get("layers") or []
    if not isinstance(layers, list):
        raise SettingError("layers must be a list")
    named = None if labels is None else tuple(map(str, labels))
    return Settings(front, named, axes, given.get("final"), around.get("mean"), around.get("scale"), tuple(layers))


def spelled(
    layers: Sequence[Any],
    weights: Callable[[str, str], Mapping[str, np.ndarray]],
    epsilon: float,
    count_padding: bool = False,
) -> list[Layer]:
    """Layers in the spec's own words → `Layer`s.

        layers:
          - conv: {weights: features.0, padding: 1, stride: 1}   # padding: same, valid, a number, [rows, columns],
          - norm: {weights: features.1}                          #   or [[before, after], [before, after]]
          - relu                                                 # or relu6, leaky_relu: 0.1, elu: 1.0, tanh …
          - max_pool: {window: 2, stride: 2, padding: 0}
          - average_pool: {window: 2, count_padding: false}      # count_padding: PyTorch's count_include_pad
          - dropout: 0.5
          - flatten                                              # or global_average, global_max
          - dense: {weights: classifier.1}
          - softmax                                              # or sigmoid

    Args:
      layers: as above.
      weights: (name in the source, "conv" | "norm" | "dense") → arrays as in `Layer`.
      epsilon: of batch norms that give none.
      count_padding: of average poolings that do not say.

    Raises:
      ValueError: a layer that is none; the message names it.
    """
    found = []
    for number, given in enumerate(layers):
        place = f"layers[{number}]"
        if isinstance(given, str):
            kind, value = given, None
        elif isinstance(given, Mapping) and len(given) == 1:
            kind, value = next(iter(given.items()))
        else:
            raise SettingError(f"{place}: wanted is a word or one word with its options, not {given!r:.80}")
        options = dict(value) if isinstance(value, Mapping) else {}
        name = str(options.pop("weights", f"{place} ({kind})"))

        def take(known, options=options, place=place, kind=kind):
            if wrong := sorted(map(str, set(options) - set(known))):
                raise SettingError(f"{place}: {kind} has no option {wrong[0]}; known are weights, {', '.join(known)}")

        if kind in ("conv", "norm", "dense") and not (isinstance(value, Mapping) and "weights" in value):
            raise SettingError(f"{place}: {kind} needs the name of its weights, as in {kind}: {{weights: NAME}}")
        if kind == "conv":
            take(("padding", "stride"))
            padding, stride = _padding(options.get("padding", "valid"), place), _pair(options.get("stride", 1), place)
            found.append(Layer("conv", name, {"padding": padding, "stride": stride}, weights(name, kind)))
        elif kind == "norm":
            take(("epsilon", "stored"))
            found.append(_spelled_norm(name, options, weights(name, kind), epsilon, place))
        elif kind == "dense":
            take(())
            found.append(Layer("dense", name, {}, weights(name, kind)))
        elif kind in ("max_pool", "average_pool"):
            found.append(_spelled_pool(name, kind, options, count_padding, take, place))
        elif kind in ("global_average", "global_max"):
            found.append(Layer("global_pool", name, {"kind": kind.partition("_")[2]}))
        elif kind == "flatten":
            found.append(Layer("flatten", name))
        elif kind == "dropout":
            found.append(Layer("dropout", name, {"rate": _number(value or 0, place, kind)}))
        elif kind in (*ACTIVATIONS, "softmax"):
            default = {"leaky_relu": 0.01, "elu": 1.0}.get(kind, 0.0)
            slope = _number(default if value is None else value, place, kind)
            found.append(Layer("activation", name, {"name": kind, "slope": slope}))
        else:
            raise SettingError(f"{place}: {kind!r} is no layer that is known")
    return found


def _spelled_pool(name: str, kind: str, options: dict, count_padding: bool, take: Callable, place: str) -> Layer:
    average = kind == "average_pool"
    take(("window", "stride", "padding", *(["count_padding"] if average else [])))
    window = _pair(options.get("window", 2), place)
    how = {
        "kind": kind.partition("_")[0],
        "window": window,
        "stride": _pair(options.get("stride", window), place),
        "padding": _padding(options.get("padding", 0), place),
    }
    return Layer(
        "pool", name, how | ({"count_padding": options.get("count_padding", count_padding)} if average else {})
    )


def _spelled_norm(name: str, options: dict, weights: Mapping[str, np.ndarray], epsilon: float, place: str) -> Layer:
    epsilon = _number(options.get("epsilon", epsilon), place, "epsilon")
    stored = options.get("stored", "variance")
    if stored not in ("variance", "deviation"):
        raise SettingError(f"{place}: stored must be variance or deviation, not {stored!r}")
    if stored == "deviation":  # (x - mean) / (deviation + ε)
        weights, epsilon = dict(weights) | {"var": (weights["var"] + epsilon) ** 2}, 0.0
    return Layer("norm", name, {"epsilon": epsilon}, weights)


def _number(value, place: str, what: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise SettingError(f"{place}: {what} takes a number, not {value!r:.80}")
    return float(value)


def _pair(value, place: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, list | tuple) else ()
    if len(pair) != 2 or not all(isinstance(n, int) for n in pair):
        raise SettingError(f"{place}: wanted is a whole number or two of them, not {value!r:.80}")
    return pair[0], pair[1]


def _padding(value, place: str):
    if isinstance(value, str):
        return value.upper()
    if isinstance(value, list | tuple) and len(value) == 2 and any(isinstance(v, list | tuple | str) for v in value):
        return tuple(v.upper() if isinstance(v, str) else tuple(v) if isinstance(v, list | tuple) else v for v in value)
    rows, columns = _pair(value, place)
    return "VALID" if rows == columns == 0 else ((rows, rows), (columns, columns))
