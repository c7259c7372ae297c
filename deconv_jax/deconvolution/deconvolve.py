"""Deconvolution: a layer's feature maps → spectrograms, all features at once (paper, sections 2.1 and 3).

For feature f of layer L: start from the pooled map f alone and walk back l = L … 1, each time unpooling with the
switches of layer l, rectifying, and convolving with the transposed kernels of layer l, without bias. Nothing is
rectified after the last convolution, so images may be negative (Zeiler & Fergus 2014, section 2.1). The same
image is the vector-Jacobian product of the network, seeded with the map, with ReLU's backward rule replaced by a
ReLU of the incoming signal. The methods "guided" and "gradient" are the same walk with another rule at that one step
(`deconv_jax.network.activations`), from the same seed.

Every other step is the transpose of what the forward pass did: strided convolutions spread, averages share out,
batch norm multiplies by γ/σ. With the last one an image is the same whether a batch norm stands by itself or has been
folded into the kernels before it, and it is the vector-Jacobian product. `norm_back="inverse"` multiplies by σ/γ
instead, undoing the scale, as if the signal were the map's own values on their way back; that depends on the folding,
and lifts maps of small γ without bound (γ = 0 gives zero).

A clip of any length is cut into overlapping windows of a fixed number of frames. The overlap covers everything
that the kept part of a window depends on, so the result does not depend on the cutting, memory does not grow with
the length, and few shapes are ever compiled.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deconv_jax.deconvolution import winograd
from deconv_jax.deconvolution.plain import backproject, chunk_of, clips_together, kernels_of
from deconv_jax.deconvolution.rule import DECONVNET, Rule
from deconv_jax.deconvolution.windows import gathered, joined, windows_of
from deconv_jax.errors import SettingError
from deconv_jax.network.model import Network, Trace
from deconv_jax.network.spec import Block, layer_sizes, resolved
from deconv_jax.network.weights import check_shapes
from deconv_jax.system import runtime


def deconvolve(
    network: Network,
    variables: Any,
    magnitude: Any,
    layer: int,
    features: Sequence[int] | None = None,
    *,
    rule: Rule = DECONVNET,
    devices: Sequence[jax.Device] | None = None,
) -> jax.Array:
    """Deconvolves features of one layer: what in this clip made them respond.

    Args:
      network, variables: as in `network.apply`.
      magnitude: spectrogram, shape (freq, time), or a batch (clips, freq, time). Any number of frames.
      layer: 1-based layer.
      features: 0-based features, in the order wanted; all of the layer's if left out.
      rule: how the signal walks back.
      devices: share clips, and windows of long clips, out among these; all local devices if left out.

    Returns:
      Images, shape (features, freq, time) or (clips, features, freq, time), float32, in the unit of `magnitude`
      up to a factor of the network's own; of "gradient", in the unit of a derivative. A feature that no part of the
      clip activates is exactly zero.

    Raises:
      ValueError: layer or feature does not exist, the clip is too short for the layer, or the rule does not fit the
        blocks.

    Example:

        >>> import jax
        >>> import numpy as np
        >>> from deconv_jax import Block, Network, deconvolve
        >>> network = Network(blocks=(Block(maps=4),), dense=(), classes=2)
        >>> seen = np.ones((16, 20), np.float32)
        >>> variables = network.init(jax.random.key(0), seen)
        >>> deconvolve(network, variables, seen, layer=1).shape
        (4, 16, 20)
    """
    return images_and_maps(network, variables, magnitude, layer, features, rule=rule, devices=devices)[0]


def images_and_maps(
    network: Network,
    variables: Any,
    magnitude: Any,
    layer: int,
    features: Sequence[int] | None = None,
    *,
    rule: Rule = DECONVNET,
    devices: Sequence[jax.Device] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """As `deconvolve`, and returns the pooled maps that it started from as well.

    Returns:
      images, shape (…, features, freq, time); maps, shape (…, features, layer freq, layer time).
    """
    if not isinstance(rule, Rule):
        raise SettingError(f'rule must be a Rule, as in Rule("guided"), not {rule!r}')
    runtime.keep_freed_memory()
    chosen = check_features(network.blocks, layer, features)
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((variables, magnitude)))
    batch, single = batch_of(magnitude)
    clips, bins, frames = batch.shape
    blocks = resolved(network.blocks[:layer], (bins, frames))
    rule = rule.on(blocks, traced=traced)
    sizes = layer_sizes(blocks, (bins, frames))
    part = network.clone(blocks=blocks)
    check_shapes(part, variables, (bins, frames), head=False)
    used = used_variables(variables, layer)
    if not traced:
        check_memory(4 * clips * len(chosen) * bins * frames, f"images of {len(chosen)} features × {frames} frames")
    devices = jax.local_devices() if devices is None else list(devices)
    if not devices:
        raise SettingError("devices must name at least one device; leave it out for all that are there")
    windows = windows_of(blocks, frames)
    group = min(clips_together(blocks, (bins, windows.length)), -(-clips // len(devices)))
    # Whole groups and windows only, so that a rest compiles nothing of its own.
    beyond = max(0, windows.starts[-1] + windows.length - frames)
    batch = (jnp if traced else np).pad(batch, [(0, -clips % group), (0, 0), (0, beyond)])
    pieces = [(first, n) for first in range(0, clips, group) for n in range(len(windows.starts))]
    devices = devices[: len(pieces)]
    placed = [used if traced else jax.device_put(used, device) for device in devices]

    def run(piece: tuple[int, int], turn: int) -> tuple[jax.Array, jax.Array]:
        first, start = piece[0], windows.starts[piece[1]]
        window = batch[first : first + group, :, start : start + windows.length]
        window = window if traced else jax.device_put(window, devices[turn])
        valid = min(windows.length, frames - start)
        return _explain_window(part, placed[turn], window, valid, chosen, rule)

    if len(pieces) == 1:
        return _trim(run(pieces[0], 0), (frames, sizes[-1][1]), single)
    shapes = [(clips, len(chosen), *size) for size in (sizes[0], sizes[-1])]
    join = joined if traced else functools.partial(gathered, devices=devices)
    images, maps = join(pieces, windows, run, [shape[single:] for shape in shapes])
    return images, maps


def explain_batch(
    network: Network,
    variables: Any,
    batch: jax.Array,
    layer: int,
    *,
    rule: Rule = DECONVNET,
) -> tuple[jax.Array, jax.Array]:
    """As `images_and_maps` of all features, in one piece on the plain path: to stand within a compiled function.

    Args:
      network, variables, layer, rule: as in `deconvolve`; nothing is checked, and the path is the plain one.
      batch: shape (clips, freq, time); `clips_together` says how many bound the memory.

    Returns:
      images, shape (clips, features, freq, time); maps, shape (clips, features, layer freq, layer time).
    """
    size = (batch.shape[1], batch.shape[2])
    blocks = resolved(network.blocks[:layer], size)
    part, chosen = network.clone(blocks=blocks), np.arange(blocks[-1].maps, dtype=np.int32)
    used = used_variables(variables, layer)
    return _explain_window(part, used, batch, size[1], chosen, dataclasses.replace(rule, path="plain"))


def batch_of(magnitude: Any, name: str = "magnitude") -> tuple[Any, bool]:
    """(clips, freq, time) in float32, on the host unless it is traced, and whether it came as one clip, two axes.

    Raises:
      ValueError: it has other axes, is empty, complex, no numbers, or not finite.
    """
    batch: Any = magnitude if isinstance(magnitude, jax.core.Tracer) else np.asarray(magnitude)
    if batch.dtype.kind == "c":
        raise SettingError(f"{name} must be real, not {batch.dtype}: take the absolute value of the spectrum")
    if batch.ndim not in (2, 3) or 0 in batch.shape:
        raise SettingError(
            f"{name} must be (freq, time) or (clips, freq, time), with at least one of each, not of shape {batch.shape}"
        )
    single = batch.ndim == 2
    try:
        batch = (batch[None] if single else batch).astype(np.float32)
    except (TypeError, ValueError):
        raise SettingError(f"{name} must be numbers, not {batch.dtype}") from None
    if isinstance(batch, np.ndarray) and not np.isfinite(batch).all():
        raise SettingError(f"{name} must be finite: there are infinities or NaN in it")
    return batch, single


def check_features(blocks: Sequence[Block], layer: int, features: Sequence[int] | None) -> np.ndarray:
    """The features asked for as int32, shape (n,).

    Raises:
      ValueError: layer or feature does not exist.
    """
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer):
        raise SettingError(f"layer must be a whole number, not {layer!r}")
    if not 1 <= layer <= len(blocks):
        raise SettingError(f"layer {layer} does not exist: this network has layers 1 to {len(blocks)}")
    return check_chosen(features, blocks[layer - 1].maps, f"layer {layer}")


def check_chosen(features: Sequence[int] | None, maps: int, where: str) -> np.ndarray:
    """Features among so many maps as int32, shape (n,), all if left out; ValueError if one does not exist."""
    chosen = np.arange(maps) if features is None else np.asarray(features)
    if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
        raise SettingError(f"features must be a list of at least one whole number, not {features!r}")
    wrong = chosen[(chosen < 0) | (chosen >= maps)]
    if wrong.size:
        raise SettingError(f"feature {wrong[0]} does not exist: {where} has features 0 to {maps - 1}")
    return chosen.astype(np.int32)


def check_memory(size: int, what: str) -> None:
    """Raises SettingError where so many bytes are more than three quarters of what there is."""
    there = runtime.memory()
    if size > 0.75 * there:
        raise SettingError(
            f"{what} take {size / 1e9:.1f} GB, and there are {there / 1e9:.1f} GB of memory: explain a shorter part, "
            "or fewer features or clips at a time"
        )


def _explain_window(
    part: Network, variables: Any, window: jax.Array, valid: Any, chosen: np.ndarray, rule: Rule
) -> tuple[jax.Array, jax.Array]:
    """(clips, freq, time) on one device → images (clips, n, freq, time), maps (clips, n, layer freq, layer time)."""
    layer, size = len(part.blocks), (window.shape[1], window.shape[2])
    # The image stands for what the network saw, (magnitude - mean) / scale; multiplying by the scale brings it back
    # to the magnitude's own unit. A gradient is divided by it: it is the derivative.
    trace, maps, variables, scale = _trace_window(part, variables, window, valid, chosen, rule.method)
    if rule.path == "winograd":
        switches, kernels = tuple(t.switches for t in trace), kernels_of(variables, layer)
        images = winograd.walk_back(trace[-1].pooled, switches, kernels, chosen, size)
    else:
        chunk = min(chunk_of(part.blocks, size), len(chosen))
        padded = np.pad(chosen, (0, -len(chosen) % chunk), mode="edge")
        images = backproject(part, variables, trace, layer, padded, size, chunk=chunk, rule=rule)[:, : len(chosen)]
    return (images if scale is None else images * scale), maps


@functools.partial(jax.jit, static_argnames=("network", "method"))
def _trace_window(
    network: Network, variables: Any, magnitude: Any, frames: Any, features: Any, method: str
) -> tuple[Trace, jax.Array, Any, jax.Array | None]:
    """The forward pass over a batch of windows.

    Returns:
      the trace; the pooled maps of the features, (clips, n, layer freq, layer time); variables for the way back; and
      the scale that its images must be multiplied by, (1, 1, freq, time) or with ones. A single number is in the
      first layer's kernels already, which saves a pass over the images: the last step is linear. Then it is None.
    """
    traced: Any = network.apply(variables, magnitude, head=False, frames=frames, gates=method != "deconvnet")
    trace = traced[1]
    # The barrier makes one transposition and one copy of it; fused, the two run value by value.
    maps = lax.optimization_barrier(jnp.moveaxis(trace[-1].pooled, -1, 1))[:, features]
    scale = jnp.asarray(variables.get("input", {}).get("scale", 1.0), jnp.float32)
    scale = 1 / scale if method == "gradient" else scale
    if scale.size > 1:
        return trace, maps, variables, scale.reshape((1,) * (4 - scale.ndim) + scale.shape)
    params = variables["params"]
    first = {"kernel": params["conv1"]["kernel"] * scale.reshape(1, 1, 1, 1)}
    return trace, maps, {**variables, "params": {**params, "conv1": first}}, None


def used_variables(variables: Any, layer: int) -> dict[str, Any]:
    """The part of a network's variables that its first `layer` blocks, and so the images of that layer, depend on."""
    names = [f"{kind}{l}" for kind in ("conv", "norm") for l in range(1, layer + 1)]
    used = {"params": {name: variables["params"][name] for name in names if name in variables["params"]}}
    norms = [name for name in used["params"] if name.startswith("norm")]
    if norms:
        used["batch_stats"] = {name: variables["batch_stats"][name] for name in norms}
    return used | ({"input": variables["input"]} if "input" in variables else {})


@functools.partial(jax.jit, static_argnums=(1, 2))
def _trim(arrays: Any, lengths: Sequence[int], single: bool) -> Any:
    """Without the frames of padding, and without the axis of clips if there is a single one: one copy of each."""
    return [array[(0, ...) if single else ...][..., :length] for array, length in zip(arrays, lengths, strict=True)]
