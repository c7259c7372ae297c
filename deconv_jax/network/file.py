"""The on-disk form of a network: `network.json` beside `weights.safetensors`, in a folder of their own.

network.json           format, version, front_end, axes, network (blocks and head), labels, source
weights.safetensors    params/conv1/kernel, params/conv1/bias, batch_stats/norm1/mean, input/mean … (all float32)

The front end holds the fields of `FrontEnd`, the network those of `Network`, each block those of `Block` and each
dense layer those of `Dense` (or just its width); what is left out has its default. `axes` is the order in which
kernels, windows, strides, paddings and a flattened map are written: ["freq", "time"], or ["time", "freq"] for a network
that was trained so; it is turned to (freq, time) on loading. (Ties in a pooling window then go to the lowest frequency
first, where the source's framework would take the earliest frame.)

Nothing is executed on loading and no pickle is read; every field and every weight is checked against what the network
needs.
"""

import dataclasses
import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from deconv_jax.errors import InputError, SettingError
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block, Dense, layer_sizes
from deconv_jax.network.trained import Trained
from deconv_jax.network.weights import check_weights, named
from deconv_jax.sound.front_end import FrontEnd
from deconv_jax.system import files

Made = TypeVar("Made")

FORMAT = "deconv_jax network"
VERSION = 1
DESCRIPTION, WEIGHTS = "network.json", "weights.safetensors"
AXES = (("freq", "time"), ("time", "freq"))

_SIZE_LIMIT = 16 * 2**20
"""Bytes of a description; the largest sensible one has some kilobytes."""

_DEEPEST = 16
"""Mappings and lists within each other; a description has five."""

_CELLS = 2**31
"""Numbers of a layer's maps for one clip; 8 GiB."""


def save_network(
    folder: str | Path,
    network: Network,
    variables: Any,
    front_end: FrontEnd,
    labels: Sequence[str],
    source: Mapping[str, Any] | None = None,
    axes: tuple[str, str] = ("freq", "time"),
) -> Path:
    """Writes a network, whole or not at all.

    Args:
      folder: for the two files; made if it is not there. An earlier network in it is replaced.
      network, variables: as in `network.apply`, in the order of `axes`; `params`, and where there are any
        `batch_stats` and `input`.
      front_end: how its input is made.
      labels: names of the classes.
      source: where it comes from, kept as it is.
      axes: order of kernels, windows and so on.

    Returns:
      The folder.

    Raises:
      ValueError: network, weights, front end and labels do not fit together.
      OSError: the folder cannot be written.
    """
    from safetensors.numpy import save

    folder = Path(folder)
    weights = {
        f"{kind}/{name}": np.ascontiguousarray(value, np.float32)
        for kind in ("params", "batch_stats", "input")
        for name, value in named(variables.get(kind, {})).items()
    }
    description = {
        "format": FORMAT,
        "version": VERSION,
        "front_end": dataclasses.asdict(front_end),
        "axes": list(axes),
        "network": _described(network),
        "labels": list(labels),
        "source": dict(source or {}),
    }
    text = json.dumps(description, indent=2, allow_nan=False, default=str) + "\n"
    _fitted(json.loads(text), weights, "the network")  # what would not load is not written
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DESCRIPTION
    with files.replacing(path) as described, files.replacing(folder / WEIGHTS) as weighed:
        weighed.write_bytes(save(weights))
        described.write_text(text, encoding="utf-8")
        path.unlink(missing_ok=True)  # killed from here on, it leaves no network rather than halves of two
    return folder


def load_network(folder: str | Path) -> Trained:
    """Reads a network that `save_network`, `bin/train` or `bin/import_network` wrote, or that you wrote by hand.

    Raises:
      InputError: there is none, it is damaged or from a newer version, a field is unknown or has a value that it
        cannot take, or a weight is missing, left over, of another shape or of another type; the message names it.
    """
    folder = Path(folder).absolute()
    path = folder / DESCRIPTION
    name = files.shown(path)
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            raise InputError(f"{name}: has {path.stat().st_size} bytes, too many for a description of a network")
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{name}: does not exist, so {files.shown(folder)} holds no network; wanted is a folder that bin/train "
            "(WORKDIR/network) or bin/import_network wrote"
        ) from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the path and its rights") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: is no JSON ({error}); import or train the network again") from None
    weights = _read_weights(folder / WEIGHTS)
    try:
        network, variables, front_end, labels = _fitted(description, weights, name, files.shown(folder / WEIGHTS))
    except ValueError as error:
        raise InputError(files.shown(str(error))) from None  # names in it may hold anything
    return Trained(network, variables, front_end, labels, folder, {"config": description, "report": None})


def _read_weights(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    name = files.shown(path)
    try:
        with open(path, "rb"):
            pass
        with safe_open(path, framework="numpy") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
    except OSError as error:
        raise InputError(
            f"{name}: cannot be read ({error.strerror or error}); it belongs beside {DESCRIPTION}"
        ) from None
    except (SafetensorError, TypeError, ValueError, AttributeError, KeyError, struct.error) as error:
        raise InputError(
            f"{name}: is no readable safetensors file ({files.shown(str(error))}); import or train again"
        ) from None


def _fitted(
    description: Any, weights: dict[str, np.ndarray], name: str, weights_name: str | None = None
) -> tuple[Network, dict[str, Any], FrontEnd, list[str]]:
    """(network, variables, front end, labels) of a description and its weights, all checked, (freq, time).

    Raises:
      SettingError: they do not fit; the message names file and field.
    """
    try:
        network, front_end, labels, axes = _read(description)
    except ValueError as error:
        raise SettingError(f"{name}: {error}") from None
    size = (front_end.bins, front_end.clip_frames)
    try:
        variables = _nested(weights)
        if axes == AXES[1]:
            check_weights(network, variables, size[::-1])
            network, variables = turned(network, variables, size)
        check_weights(network, variables, size)
    except ValueError as error:
        raise SettingError(f"{weights_name or name}: {error}") from None
    return network, variables, front_end, labels


def _read(description: Any) -> tuple[Network, FrontEnd, list[str], tuple[str, str]]:
    """Network, front end, labels and axes of a description; SettingError names a field that is wrong."""
    top = mapping(description, "it")
    _check_plain(top, "it", _DEEPEST)
    if top.get("format") != FORMAT:
        raise SettingError(f'format is {top.get("format")!r}, wanted is "{FORMAT}"')
    version = top.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SettingError(f"version is {version!r}, wanted is a whole number from 1")
    if version > VERSION:
        raise SettingError(
            f"version {version} is newer than this deconv_jax knows ({VERSION}); install a newer deconv_jax"
        )
    top = upgraded(top)
    _known(top, ("format", "version", "front_end", "axes", "network", "labels", "source"), "")
    axes = read_axes(top.get("axes", AXES[0]))
    front_end = built(FrontEnd, top.get("front_end", {}), "front_end")
    labels = top.get("labels")
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise SettingError(f"labels must be a list of at least one name, not {labels!r}")
    if len(set(labels)) != len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise SettingError(f"labels has {twice!r} twice; every class needs a name of its own")
    network = _network(top.get("network"), len(labels))
    _check_source(top.get("source", {}))
    blocks = network.blocks if axes == AXES[0] else turned_blocks(network.blocks)
    _check_sizes(blocks, (front_end.bins, front_end.clip_frames))
    return network, front_end, labels, axes


def upgraded(settings: dict[str, Any], name: str = "") -> dict[str, Any]:
    """Settings with the fields `front_end` and `network` as they are today.

    Until version 0.1 a network could take the logarithm of its input itself (`network.log`); the front end does now.

    Args:
      settings: of a network file or a run.
      name: theirs, for the message.

    Raises:
      SettingError: `network.log` is neither true nor false.
    """
    network = settings.get("network")
    if not isinstance(network, dict) or "log" not in network:
        return settings
    network = dict(network)
    if not isinstance(log := network.pop("log"), bool):
        raise SettingError(f"{name and f'{name}: '}network.log must be one of True, False, not {log!r}")
    front = settings.get("front_end", {})
    if log and isinstance(front, dict):
        front = front | {"scale": "log1p", "factor": 1e4}
    return settings | {"network": network, "front_end": front}


def read_axes(given: Any) -> tuple[str, str]:
    """One of `AXES`, from a list.

    Raises:
      SettingError: it is another.
    """
    axes = tuple(given) if isinstance(given, list | tuple) else ()
    if axes not in AXES:
        raise SettingError(f"axes must be [freq, time] or [time, freq], not {given!r:.60}")
    return AXES[AXES.index(axes)]


def _network(fields: Any, classes: int) -> Network:
    """The network that a description's `network` holds; SettingError names a field that is wrong."""
    fields = dict(mapping(fields, "network"))
    blocks = fields.pop("blocks", None)
    if not isinstance(blocks, list) or not blocks:
        raise SettingError(f"network.blocks must be a list of at least one block, not {blocks!r}")
    dense = fields.pop("dense", [])
    if not isinstance(dense, list):
        raise SettingError(f"network.dense must be a list, not {dense!r}")
    layers = tuple(
        built(Dense, {"width": d} if isinstance(d, int) else d, f"network.dense[{i}]") for i, d in enumerate(dense)
    )
    _known(fields, ("classes", "dropout", "head", "final", "output"), "network.")
    if fields.pop("classes", classes) != classes:
        raise SettingError(f"network.classes differs from the number of labels, {classes}")
    conv = tuple(built(Block, b, f"network.blocks[{i}]") for i, b in enumerate(blocks))
    return Network(blocks=conv, dense=layers, classes=classes, **fields)


def turned_blocks(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Blocks with the two axes of every field swapped."""
    names = ("kernel", "padding", "pool", "stride", "conv_stride", "pool_padding")
    done = []
    for block in blocks:
        given: dict[str, Any] = {name: getattr(block, name) for name in names}
        swapped: dict[str, Any] = {k: v if isinstance(v, str) else v[::-1] for k, v in given.items()}
        done.append(dataclasses.replace(block, **swapped))
    return tuple(done)


def turned(network: Network, variables: Any, size: tuple[int, int]) -> tuple[Network, dict[str, Any]]:
    """A network of (time, freq) spectrograms → the same of (freq, time).

    Args:
      network, variables: in the order (time, freq).
      size: (freq, time) of the input; the rows of a dense layer over a flattened map are sorted by it.
    """
    blocks = turned_blocks(network.blocks)
    params = {
        name: {k: np.swapaxes(v, 0, 1) if k == "kernel" and name.startswith("conv") else v for k, v in layer.items()}
        for name, layer in variables["params"].items()
    }
    first = "dense1" if network.dense else "output"
    if network.head == "flatten" and first in params:
        freq, time = layer_sizes(blocks, size)[-1]
        kernel = np.asarray(params[first]["kernel"])
        rows = kernel.reshape(time, freq, -1, kernel.shape[-1]).swapaxes(0, 1)
        params[first] = params[first] | {"kernel": rows.reshape(kernel.shape)}
    done = dict(variables) | {"params": params}
    if "input" in variables:
        done["input"] = {k: np.swapaxes(v, 0, 1) for k, v in variables["input"].items()}
    return network.clone(blocks=blocks), done


def _described(network: Network) -> dict[str, Any]:
    return {
        "blocks": [dataclasses.asdict(b) for b in network.blocks],
        "dense": [dataclasses.asdict(d) if isinstance(d, Dense) else d for d in network.dense],
        "dropout": network.dropout,
        "head": network.head,
        "final": network.final,
        "output": network.output,
    }


def mapping(value: Any, field: str) -> dict[str, Any]:
    """`value` itself; SettingError if it is no mapping."""
    if not isinstance(value, dict):
        raise SettingError(f"{field} must be a mapping of fields, not {value!r:.60}")
    return value


def _check_plain(value: Any, place: str, deep: int) -> None:
    """Raises ValueError for what JSON can say and files cannot take up again: endless numbers, halves of characters."""
    if deep == 0:
        raise SettingError(f"{place:.200} is nested more than {_DEEPEST} deep")
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise SettingError(f"{place:.200} is no text in UTF-8: {value!a:.60}") from None
    elif isinstance(value, float) and not math.isfinite(value):
        raise SettingError(f"{place:.200} must be a finite number, not {value}")
    elif isinstance(value, list):
        for number, part in enumerate(value):
            _check_plain(part, f"{place}[{number}]", deep - 1)
    elif isinstance(value, dict):
        for key, part in value.items():
            _check_plain(key, f"a field of {place}", deep)
            _check_plain(part, key if place == "it" else f"{place}.{key}", deep - 1)


def _check_source(source: Any) -> None:
    """Checks where a network says that it comes from: a mapping; results, if it is of bin/train, as it writes them."""
    results = mapping(source, "source").get("test")
    if source.get("made_by") != "bin/train" or results is None:
        return
    for by in ("by_clip", "by_song"):
        found = mapping(mapping(results, "source.test").get(by), f"source.test.{by}")
        share, count = found.get("accuracy"), found.get("n")
        if not isinstance(share, int | float) or not 0 <= share <= 1 or not isinstance(count, int) or count < 0:
            raise SettingError(
                f"source.test.{by} must hold accuracy, a number from 0 to 1, and n, a whole one, not "
                f"{share!r:.30} and {count!r:.30}"
            )


def _check_sizes(blocks: Sequence[Block], size: tuple[int, int]) -> None:
    """Raises ValueError for an input that is too small for a layer, or maps that are too large for any memory."""
    sizes = layer_sizes(blocks, size)
    cells = [size[0] * size[1]]
    cells += [b.maps * b.convolved(f, 0) * b.convolved(t, 1) for b, (f, t) in zip(blocks, sizes, strict=False)]
    for number, count in enumerate(cells):
        if count > _CELLS:
            what = f"layer {number}" if number else "the input"
            raise SettingError(f"{what} has {count:.3g} numbers for one clip, more than {_CELLS:.3g}; shorten the clip")


def _known(fields: Iterable[str], known: Sequence[str], prefix: str) -> None:
    for field in fields:
        if field not in known:
            raise SettingError(f"{prefix}{field} is unknown; known are {', '.join(known)}")


def built(kind: type[Made], fields: Any, place: str) -> Made:
    """A dataclass from the fields that JSON or YAML gives; SettingError names a field that is wrong."""
    fields = mapping(fields, place)
    specs = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    _known(fields, list(specs), f"{place}.")
    for field, value in fields.items():
        wanted = getattr(specs[field].type, "__name__", "")
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
        fits = {
            "int": number and float(value).is_integer(),
            "float": number,
            "bool": isinstance(value, bool),
            "str": isinstance(value, str),
        }.get(wanted, True)
        if not fits:
            raise SettingError(f"{place}.{field} must be {_WORDS[wanted]}, not {value!r:.60}")
    values = {k: int(v) if specs[k].type is int else _tuples(v) for k, v in fields.items()}
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise SettingError(f"{place}: {error}") from None


_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _nested(weights: dict[str, np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {"params": {}}
    for key, value in weights.items():
        if value.dtype != np.float32:
            raise SettingError(f"weight {key} is of type {value.dtype}, wanted is float32")
        if not np.isfinite(value).all():
            raise SettingError(f"weight {key} holds values that are no numbers (NaN or infinity)")
        if key.endswith("/var") and np.any(value < 0):
            raise SettingError(f"weight {key} holds negative variances")
        parts = key.split("/")
        if parts[0] not in ("params", "batch_stats", "input") or len(parts) != (2 if parts[0] == "input" else 3):
            raise SettingError(f"weight {key} is unknown; names are as in params/conv1/kernel or input/mean")
        if parts[0] == "input" and value.ndim != 2:
            raise SettingError(f"weight {key} is {value.shape}, wanted is (freq or 1, time or 1)")
        place = tree
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = value
    return tree
