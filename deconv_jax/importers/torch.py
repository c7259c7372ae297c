"""PyTorch networks → layers: a state dict and a spec that names its layers, or an `nn.Sequential` by itself.

A `.safetensors` file needs no PyTorch; a `.pt` or `.pth` file is read by `torch.load(weights_only=True)`, which runs
nothing that the file holds. PyTorch's kernels are (out, in, rows, columns), its flattened maps (maps, rows, columns).
A 1-D convolution of the input takes its rows, the frequencies, as channels: axes are (freq, time) there, and a spec
gives its padding and stride for both, as in padding: [0, 1].
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deconv_jax.errors import InputError, SettingError
from deconv_jax.importers.stack import Layer, Settings, save, spelled
from deconv_jax.system import files

_EPSILON = 1e-5

_MOST = 2**30
"""Numbers of the largest weight that is read."""


def import_torch(path, folder, settings: Settings) -> Path:
    """Writes the network file of a state dict.

    Args:
      path: `.safetensors`, or what `torch.save(model.state_dict(), …)` wrote.
      folder: for the network file.
      settings: front end, labels and the list of layers.

    Returns:
      The folder.

    Raises:
      InputError: no such file, no state dict, a layer that is not known or not there; the message names it.
    """
    path, name = Path(path), files.shown(path)
    if not settings.layers:
        raise InputError(f"{name}: a state dict does not tell its architecture; list the layers in the spec")
    state = _state(path, name)
    begun: list[bool] = []

    def weights(prefix: str, kind: str) -> dict[str, np.ndarray]:
        found = _arrays(state, prefix, kind, bool(begun))
        if kind == "conv":
            begun.append(True)
        return found

    try:
        layers = spelled(settings.layers, weights, _EPSILON, count_padding=True)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from None
    return save(folder, layers, settings, {"made_by": "bin/import_network", "file": path.name, "kind": "torch"}, True)


def import_sequential(module, folder, settings: Settings) -> Path:
    """Writes the network file of an `nn.Sequential`, nested ones included, which tells its layers by itself.

    Args:
      module: in any mode; its running statistics are taken.
      folder, settings: as in `import_torch`, without `layers`.

    Raises:
      InputError: a layer that is not known; the message names it.
    """
    try:
        layers = _children(module, "", [])
    except ValueError as error:
        raise InputError(f"nn.Sequential: {error}") from None
    source = {"made_by": "deconv_jax.importers.torch", "file": "nn.Sequential", "kind": "torch"}
    return save(folder, layers, settings, source, True)


def _state(path: Path, name: str) -> dict[str, np.ndarray]:
    try:
        if path.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.numpy import load_file

            try:
                state: Any = load_file(path)
            except (SafetensorError, TypeError, KeyError, AttributeError) as error:
                raise InputError(f"{name}: is no readable safetensors file ({error!r:.120})") from None
        else:
            if not path.is_file():
                raise InputError(f"{name}: does not exist; name a .safetensors, .pt or .pth file")
            try:
                import torch
            except ImportError:
                raise InputError(
                    f"{name}: needs PyTorch to be read; pip install 'deconv_jax[torch]', or save the weights as "
                    "safetensors"
                ) from None
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # torch raises many kinds; all mean that these are no plain weights
                reason = " ".join(str(error).split())[:160]
                raise InputError(
                    f"{name}: is no state dict that can be read without running code ({reason}); save it by "
                    "torch.save(model.state_dict(), FILE)"
                ) from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the path and its rights") from None
    above: list[int] = []
    while isinstance(state, Mapping) and isinstance(state.get("state_dict", state.get("model")), Mapping):
        above.append(id(state))
        state = state.get("state_dict", state.get("model"))
        if id(state) in above:
            raise InputError(f"{name}: its state_dict holds itself; save it by torch.save(model.state_dict(), FILE)")
    if not isinstance(state, Mapping):
        raise InputError(f"{name}: holds a {type(state).__name__}, wanted is a state dict: names and weights")
    return {str(k): _float32(v, str(k), name) for k, v in state.items() if hasattr(v, "shape")}


def _float32(value, key: str, name: str) -> np.ndarray:
    """A tensor of any kind of real numbers, bfloat16 (which NumPy has not) included, as an array."""
    if isinstance(value, np.ndarray):
        return value
    if value.numel() > _MOST:
        raise InputError(f"{name}: the weight {files.shown(key)} has {value.numel()} numbers; at most {_MOST} are read")
    try:
        if value.is_complex():
            raise TypeError(f"it is of type {value.dtype}")
        return value.float().numpy(force=True)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{name}: the weight {files.shown(key)} is no plain array of real numbers ({reason}); save it as float32"
        ) from None


def _arrays(state: Mapping[str, np.ndarray], prefix: str, kind: str, begun: bool) -> dict[str, np.ndarray]:
    def take(part: str) -> np.ndarray:
        key = f"{prefix}.{part}"
        if key not in state:
            near = sorted(k for k in state if k.endswith(f".{part}"))
            raise SettingError(f"the weight {key} is missing; it has {', '.join(near[:8]) or 'none of that kind'}")
        return np.asarray(state[key], np.float32)

    if kind == "norm":
        mean, var = take("running_mean"), take("running_var")
        affine = f"{prefix}.weight" in state
        scale, bias = (take("weight"), take("bias")) if affine else (np.ones_like(mean), np.zeros_like(mean))
        return {"scale": scale, "bias": bias, "mean": mean, "var": var}
    kernel = take("weight")
    if kind == "dense":
        if kernel.ndim != 2:
            raise SettingError(f"the weight {prefix}.weight is {kernel.shape}, wanted is (out, in)")
        kernel = kernel.T
    elif kernel.ndim == 3:  # (out, in, steps) → (rows, columns, in, out)
        kernel = kernel.transpose(2, 1, 0)[None] if begun else kernel.transpose(1, 2, 0)[:, :, None]
    elif kernel.ndim == 4:
        kernel = kernel.transpose(2, 3, 1, 0)
    else:
        raise SettingError(f"the weight {prefix}.weight is {kernel.shape}, wanted is (out, in, rows, columns)")
    found = {"kernel": np.ascontiguousarray(kernel)}
    return found | ({"bias": take("bias")} if f"{prefix}.bias" in state else {})


def _children(module, above: str, layers: list[Layer]) -> list[Layer]:
    for name, child in module.named_children():
        place = f"{above}{name}"
        kind = type(child).__name__
        if kind == "Sequential":
            _children(child, f"{place}.", layers)
            continue
        layers += _module(kind, child, place, any(layer.kind == "conv" for layer in layers))
    return layers


def _module(kind: str, m, name: str, begun: bool) -> list[Layer]:
    one = kind.endswith("1d")

    def plane(value) -> tuple[int, int]:
        pair = tuple(value) if isinstance(value, list | tuple) else (value,) * (1 if one else 2)
        return (1, pair[0]) if one else (pair[0], pair[1])

    def around(value) -> Any:
        rows, columns = plane(value)
        rows = 0 if one else rows
        return ((rows, rows), (columns, columns))

    def plain(*fields: str) -> None:
        for field in fields:
            value = getattr(m, field, 1)
            if any(v not in (1, False) for v in (value if isinstance(value, list | tuple) else [value])):
                raise SettingError(f"layer {name}: {kind} with {field}={value} is not known")

    state = {f"{name}.{k}": v.numpy(force=True) for k, v in m.state_dict().items()}
    if kind in ("Conv1d", "Conv2d"):
        plain("dilation", "groups")
        if m.padding_mode != "zeros":
            raise SettingError(f"layer {name}: padding_mode={m.padding_mode} is not known")
        padding: Any = m.padding.upper() if isinstance(m.padding, str) else around(m.padding)
        if one and isinstance(padding, str):
            padding = ("VALID", padding)
        return [
            Layer("conv", name, {"padding": padding, "stride": plane(m.stride)}, _arrays(state, name, "conv", begun))
        ]
    if kind in ("BatchNorm1d", "BatchNorm2d"):
        if m.running_mean is None:
            raise SettingError(f"layer {name}: keeps no running statistics")
        return [Layer("norm", name, {"epsilon": m.eps}, _arrays(state, name, "norm", begun))]
    if kind == "Linear":
        return [Layer("dense", name, {}, _arrays(state, name, "dense", begun))]
    if match := re.fullmatch(r"(Max|Avg)Pool[12]d", kind):
        plain("dilation", "ceil_mode")
        if getattr(m, "divisor_override", None) is not None:
            raise SettingError(f"layer {name}: {kind} with divisor_override={m.divisor_override} is not known")
        options: dict[str, Any] = {"kind": "max" if match[1] == "Max" else "average", "window": plane(m.kernel_size)}
        options |= {"count_padding": m.count_include_pad} if match[1] == "Avg" else {}
        return [Layer("pool", name, options | {"stride": plane(m.stride), "padding": around(m.padding)})]
    if match := re.fullmatch(r"Adaptive(Max|Avg)Pool[12]d", kind):
        if any(n != 1 for n in np.ravel(m.output_size)):
            raise SettingError(f"layer {name}: adaptive pooling to {m.output_size} is not known; to 1 it is")
        return [Layer("global_pool", name, {"kind": "max" if match[1] == "Max" else "average"})]
    if kind == "Flatten":
        return [Layer("flatten", name)]
    if kind in ("Dropout", "Dropout1d", "Dropout2d"):
        return [Layer("dropout", name, {"rate": m.p})]
    if kind == "Identity":
        return []
    words = {"ReLU": "relu", "ReLU6": "relu6", "LeakyReLU": "leaky_relu", "ELU": "elu", "SELU": "selu", "GELU": "gelu"}
    words |= {"SiLU": "silu", "Softplus": "softplus", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softmax": "softmax"}
    words |= {"LogSoftmax": "softmax"}
    if kind in words:
        changed = {"GELU": ("approximate", "none"), "Softplus": ("beta", 1)}.get(kind)
        if changed and getattr(m, changed[0]) != changed[1]:
            raise SettingError(f"layer {name}: {m} is not known with these options")
        slope = getattr(m, "negative_slope", getattr(m, "alpha", 0.0))
        return [Layer("activation", name, {"name": words[kind], "slope": float(slope)})]
    raise SettingError(f"layer {name}: {kind} is not known; known are Conv, BatchNorm, pooling, Linear and activations")
