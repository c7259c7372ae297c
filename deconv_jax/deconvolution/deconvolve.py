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

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deconv_jax.deconvolution import winograd
from deconv_jax.errors import SettingError
from deconv_jax.network.activations import check_method, pass_back
from deconv_jax.network.layers import average_back, back_pads, convolve_back, pads, unpool
from deconv_jax.network.model import Network, Trace
from deconv_jax.network.receptive_field import reach
from deconv_jax.network.spec import Block, layer_sizes, resolved
from deconv_jax.system import runtime

WINDOW_FRAMES = 512
"""Frames that a window of a long clip contributes; clips up to about this length are one window."""

PATHS = ("auto", "plain", "winograd")

NORM_BACKS = ("transpose", "inverse")

CHUNK_BYTES = 32 * 2**20
"""Largest intermediate array of one chunk of features and clips."""


def deconvolve(
    network: Network,
    variables,
    magnitude,
    layer: int,
    features: Sequence[int] | None = None,
    *,
    method: str = "deconvnet",
    norm_back: str = "transpose",
    chunk: int | None = None,
    path: str = "auto",
    devices: Sequence[jax.Device] | None = None,
) -> jax.Array:
    """Deconvolves features of one layer: what in this clip made them respond.

    Args:
      network, variables: as in `network.apply`.
      magnitude: spectrogram, shape (freq, time), or a batch (clips, freq, time). Any number of frames.
      layer: 1-based layer.
      features: 0-based features, in the order wanted; all of the layer's if left out.
      method: "deconvnet", "guided" or "gradient"; see `deconv_jax.network.activations`.
      norm_back: "transpose" or "inverse": what batch norm does to the signal; see the head of this module.
      chunk: features walked back together on the plain path; chosen from the shapes if left out. Changes memory,
        not results.
      path: "plain" for `backproject`, "winograd" for `deconv_jax.deconvolution.winograd`, which is several times
        as fast on a CPU and covers 3×3 kernels with 2×2 pools; "auto" takes it where it covers the blocks and the
        backend is a CPU.
      devices: share clips, and windows of long clips, out among these; all local devices if left out.

    Returns:
      Images, shape (features, freq, time) or (clips, features, freq, time), float32, in the unit of `magnitude`
      up to a factor of the network's own; of "gradient", in the unit of a derivative. A feature that no part of the
      clip activates is exactly zero.

    Raises:
      ValueError: layer, feature, method or path does not exist, the clip is too short for the layer, the method has
        no rule for an activation, or the path does not cover the blocks.
    """
    return sweep(
        network,
        variables,
        magnitude,
        layer,
        features,
        method=method,
        norm_back=norm_back,
        chunk=chunk,
        path=path,
        devices=devices,
    )[0]


def sweep(
    network: Network,
    variables,
    magnitude,
    layer: int,
    features: Sequence[int] | None = None,
    *,
    method: str = "deconvnet",
    norm_back: str = "transpose",
    chunk: int | None = None,
    path: str = "auto",
    devices: Sequence[jax.Device] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """As `deconvolve`, and returns the pooled maps that it started from as well.

    Returns:
      images, shape (…, features, freq, time); maps, shape (…, features, layer freq, layer time).
    """
    runtime.keep_freed_memory()
    chosen = check_features(network.blocks, layer, features)
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((variables, magnitude)))
    batch, single = _batch(magnitude)
    clips, bins, frames = batch.shape
    blocks = resolved(network.blocks[:layer], (bins, frames))
    check_method(method, (b.activation for b in blocks))
    if norm_back not in NORM_BACKS:
        raise SettingError(f"norm_back must be one of {', '.join(NORM_BACKS)}, not {norm_back!r}")
    if chunk is not None and (not isinstance(chunk, int | np.integer) or chunk < 1):
        raise SettingError(f"chunk must be a whole number of at least 1, not {chunk!r}")
    # Within the user's own jit or grad there is the plain path only, since the other is compiled by itself.
    path = chosen_path(blocks, "plain" if traced and path == "auto" else path, method)
    sizes = layer_sizes(blocks, (bins, frames))
    _check_variables(blocks, variables, (bins, frames))
    used = used_variables(variables, layer)
    if not traced:
        check_memory(4 * clips * len(chosen) * bins * frames, f"images of {len(chosen)} features × {frames} frames")
    devices = jax.local_devices() if devices is None else list(devices)
    if not devices:
        raise SettingError("devices must name at least one device; leave it out for all that are there")
    windows = _windows(blocks, frames)
    group = min(clips_together(blocks, (bins, windows.length)), -(-clips // len(devices)))
    # Whole groups and windows only, so that a rest compiles nothing of its own.
    beyond = max(0, windows.starts[-1] + windows.length - frames)
    batch = (jnp if traced else np).pad(batch, [(0, -clips % group), (0, 0), (0, beyond)])
    pieces = [(first, n) for first in range(0, clips, group) for n in range(len(windows.starts))]
    devices = devices[: len(pieces)]
    placed = [used if traced else jax.device_put(used, device) for device in devices]
    part = network.clone(blocks=blocks)
    chunk = min(chunk or _chunk(blocks, (bins, windows.length)), len(chosen))

    def run(piece, turn: int) -> tuple[jax.Array, jax.Array]:
        first, start = piece[0], windows.starts[piece[1]]
        window = batch[first : first + group, :, start : start + windows.length]
        window = window if traced else jax.device_put(window, devices[turn])
        valid = min(windows.length, frames - start)
        return _explain_window(part, placed[turn], window, valid, chosen, path, chunk, method, norm_back)

    if len(pieces) == 1:
        return _trim(run(pieces[0], 0), (frames, sizes[-1][1]), single)
    shapes = [(clips, len(chosen), *size) for size in (sizes[0], sizes[-1])]
    join = _joined if traced else functools.partial(_gathered, devices=devices)
    images, maps = join(pieces, windows, run, [shape[single:] for shape in shapes])
    return images, maps


def _batch(magnitude) -> tuple[Any, bool]:
    """(clips, freq, time) in float32, on the host unless it is traced, and whether it came as one clip, two axes."""
    batch: Any = magnitude if isinstance(magnitude, jax.core.Tracer) else np.asarray(magnitude)
    if batch.dtype.kind == "c":
        raise SettingError(f"magnitude must be real, not {batch.dtype}: take the absolute value of the spectrum")
    if batch.ndim not in (2, 3) or 0 in batch.shape:
        raise SettingError(
            "magnitude must be (freq, time) or (clips, freq, time), with at least one of each, "
            f"not of shape {batch.shape}"
        )
    single = batch.ndim == 2
    return (batch[None] if single else batch).astype(np.float32), single


def _check_variables(blocks: Sequence[Block], variables, size: tuple[int, int]) -> None:
    """Whether variables have all that these blocks need, in their shapes; SettingError if not."""
    wanted: dict[tuple[str, str, str], tuple[int, ...]] = {}
    before = 1
    for number, block in enumerate(blocks, 1):
        wanted["params", f"conv{number}", "kernel"] = (*block.kernel, before, block.maps)
        if block.use_bias:
            wanted["params", f"conv{number}", "bias"] = (block.maps,)
        if block.norm != "none":
            for kind, name in (
                ("params", "scale"),
                ("params", "bias"),
                ("batch_stats", "mean"),
                ("batch_stats", "var"),
            ):
                wanted[kind, f"norm{number}", name] = (block.maps,)
        before = block.maps
    for (kind, layer, name), shape in wanted.items():
        found = variables.get(kind, {}).get(layer, {}).get(name)
        if found is None or np.shape(found) != shape:
            there = "is missing" if found is None else f"has the shape {np.shape(found)}"
            raise SettingError(
                f"variables are not those of this network: {kind}/{layer}/{name} {there}, and {shape} is wanted"
            )
    for name, value in variables.get("input", {}).items():
        if any(n not in (1, length) for n, length in zip(np.shape(value)[::-1], size[::-1], strict=False)):
            raise SettingError(
                f"variables are not those of this network: input/{name} has the shape {np.shape(value)}, and the "
                f"magnitude has {size[0]} bins × {size[1]} frames"
            )


def check_memory(size: int, what: str) -> None:
    """Raises SettingError where so many bytes are more than three quarters of what there is."""
    there = runtime.memory()
    if size > 0.75 * there:
        raise SettingError(
            f"{what} take {size / 1e9:.1f} GB, and there are {there / 1e9:.1f} GB of memory: explain a shorter part, "
            "or fewer features or clips at a time"
        )


def _joined(pieces, windows: "_Windows", run, shapes) -> list[jax.Array]:
    """The windows' images and maps side by side, within a function that is being traced."""
    rows: dict[int, list] = {}
    for first, n in pieces:
        cuts = zip(run((first, n), 0), windows.cuts(n, [shape[-1] for shape in shapes]), strict=True)
        rows.setdefault(first, []).append([array[..., inside] for array, (inside, _) in cuts])
    whole = [[jnp.concatenate(arrays, axis=-1) for arrays in zip(*row, strict=True)] for row in rows.values()]
    together = [jnp.concatenate(arrays) for arrays in zip(*whole, strict=True)]
    return [a[: shape[0]] if len(shape) == 4 else a[0] for a, shape in zip(together, shapes, strict=True)]


def _gathered(pieces, windows: "_Windows", run, shapes, devices) -> list[jax.Array]:
    """The windows' images and maps, put together on the host, where no length has to be compiled for."""
    with runtime.handing_back():
        results = [np.zeros(shape, np.float32) for shape in shapes]
    wholes = [result if result.ndim == 4 else result[None] for result in results]
    for turn in range(0, len(pieces), len(devices)):
        some = pieces[turn : turn + len(devices)]
        together = [run(piece, place) for place, piece in enumerate(some)]  # accelerators compute them at once
        for (first, n), found in zip(some, together, strict=True):
            cuts = windows.cuts(n, [shape[-1] for shape in shapes])
            for whole, array, (inside, place) in zip(wholes, found, cuts, strict=True):
                part = whole[first : first + array.shape[0]]
                part[..., place] = np.asarray(array)[: len(part), ..., inside]
    return [jax.device_put(result, devices[0], may_alias=True) for result in results]


def explain_batch(
    network: Network,
    variables,
    batch: jax.Array,
    layer: int,
    *,
    method: str = "deconvnet",
    norm_back: str = "transpose",
) -> tuple[jax.Array, jax.Array]:
    """As `sweep` of all features, in one piece on the plain path: to stand within a compiled function of one's own.

    Args:
      network, variables, layer, method, norm_back: as in `sweep`; nothing is checked.
      batch: shape (clips, freq, time); `clips_together` says how many bound the memory.

    Returns:
      images, shape (clips, features, freq, time); maps, shape (clips, features, layer freq, layer time).
    """
    size = (batch.shape[1], batch.shape[2])
    blocks = resolved(network.blocks[:layer], size)
    part, chosen = network.clone(blocks=blocks), np.arange(blocks[-1].maps, dtype=np.int32)
    chunk = min(_chunk(blocks, size), len(chosen))
    used = used_variables(variables, layer)
    return _explain_window(part, used, batch, size[1], chosen, "plain", chunk, method, norm_back)


def clips_together(blocks: Sequence[Block], size: tuple[int, int]) -> int:
    """Clips of (freq, time) = `size` whose images, or largest maps, take four times `CHUNK_BYTES`; at least one."""
    return max(1, 4 * CHUNK_BYTES // (4 * size[0] * size[1] * max(b.maps for b in blocks)))


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


@functools.partial(jax.jit, static_argnames=("network", "layer", "size", "chunk", "method", "norm_back"))
def backproject(
    network: Network,
    variables,
    trace: Trace,
    layer: int,
    features,
    size: tuple[int, int],
    *,
    chunk: int = 4,
    method: str = "deconvnet",
    norm_back: str = "transpose",
) -> jax.Array:
    """The way back alone, from a given trace: the plain path, for any block spec.

    Args:
      network, variables: the kernels are taken from `variables["params"]`.
      trace: of a batch, as `network.apply` returns it; with gates unless the method is "deconvnet".
      layer: 1-based.
      features: int array, shape (n,), n a multiple of `chunk` or below it.
      size: (freq, time) of the input.
      chunk: features walked back together.
      method, norm_back: as in `deconvolve`.

    Returns:
      Images, shape (clips, n, freq, time), before the input's scale is undone.
    """
    blocks = network.blocks[:layer]
    kernels = _kernels(variables, layer)
    norms = [_norm_factor(variables, number, block, norm_back) for number, block in enumerate(blocks, 1)]
    sizes = [tuple(size), *(t.pooled.shape[1:3] for t in trace[: layer - 1])]
    gates = [None if method == "deconvnet" else t.gate for t in trace]

    def below(number, signal, switches, gate, norm):
        """A signal (n, freq, time, maps) above block `number` → what goes into its transposed convolution."""
        block = blocks[number - 1]
        full = tuple(block.convolved(n, axis) for axis, n in enumerate(sizes[number - 1]))
        signal = signal * norm if block.norm == "pooled" else signal
        signal = _unpool(block, signal, switches, full)
        signal = signal * norm if block.norm == "after" else signal
        signal = pass_back(signal, gate, block.activation, block.slope, method)
        return signal * norm if block.norm == "before" else signal

    def walk_back(numbers):
        """(k,) features → (k, clips, freq, time)."""
        clips = trace[0].pooled.shape[0]

        def take(x):
            """(..., maps) → (k, ..., 1)."""
            return None if x is None else jnp.moveaxis(x[..., numbers], -1, 0)[..., None]

        top = (trace[layer - 1].pooled, trace[layer - 1].switches, gates[layer - 1], norms[layer - 1])
        signal = jax.vmap(functools.partial(below, layer))(*map(take, top))
        kernel = jnp.moveaxis(kernels[layer - 1][..., numbers], -1, 0)
        spread = functools.partial(_spread, block=blocks[layer - 1], size=sizes[layer - 1])
        signal = jax.vmap(spread)(signal, kernel)
        for number in range(layer - 1, 0, -1):
            block = blocks[number - 1]
            flat = signal.reshape(-1, *signal.shape[2:])

            def repeated(x, count=signal.shape[0]):
                """The same for every feature: (clips, ...) → (k · clips, ...)."""
                return None if x is None else jnp.broadcast_to(x[None], (count, *x.shape)).reshape(-1, *x.shape[1:])

            switches, gate = repeated(trace[number - 1].switches), repeated(gates[number - 1])
            flat = below(number, flat, switches, gate, norms[number - 1])
            flat = convolve_back(flat, kernels[number - 1], block.padding, block.conv_stride, sizes[number - 1])
            signal = flat.reshape(-1, clips, *flat.shape[1:])
        return signal[..., 0]

    features = jnp.asarray(features)
    if len(features) <= chunk:
        return walk_back(features).swapaxes(0, 1)
    images = lax.map(walk_back, features.reshape(-1, chunk))
    return images.reshape(-1, *images.shape[2:]).swapaxes(0, 1)


def _unpool(block: Block, signal: jax.Array, switches: jax.Array, size) -> jax.Array:
    """The pooling's transpose, (clips, freq, time, maps) at the pooled size → at `size`."""
    edges = pads(block.pool_padding, size, block.pool, block.stride)
    if block.pooling == "average":
        kept = jnp.where(switches == 0, signal, 0)
        return average_back(kept, block.pool, block.stride, edges, size, block.count_padding)
    padded = tuple(n + sum(pair) for n, pair in zip(size, edges, strict=True))
    full = unpool(signal, switches, block.pool, block.stride, padded)
    (top, _), (first, _) = edges
    return full[:, top : top + size[0], first : first + size[1]]


def _norm_factor(variables, number: int, block: Block, norm_back: str) -> jax.Array:
    """What batch norm multiplies the signal by, shape (1, 1, 1, maps)."""
    if block.norm == "none":
        return jnp.ones((1, 1, 1, block.maps))
    gamma = jnp.asarray(variables["params"][f"norm{number}"]["scale"])
    sigma = jnp.sqrt(jnp.asarray(variables["batch_stats"][f"norm{number}"]["var"]) + block.epsilon)
    if norm_back == "transpose":
        factor = gamma / sigma
    else:
        factor = jnp.where(gamma == 0, 0, sigma / jnp.where(gamma == 0, 1, gamma))
    return factor.reshape(1, 1, 1, -1)


def _spread(signal: jax.Array, kernel: jax.Array, block: Block, size) -> jax.Array:
    """`convolve_back` for a single map: as many shifted multiples as the kernel has cells.

    signal (clips, freq, time, 1), kernel (height, width, maps) → (clips, *size, maps). With one map in, a
    convolution is all memory traffic; shifted multiples fuse into one pass.
    """
    height, width = kernel.shape[:2]
    down, across = block.conv_stride
    rows, columns = back_pads(signal.shape[1:3], (height, width), block.padding, (down, across), size)
    edges = [(0, 0, 0), (*rows, down - 1), (*columns, across - 1), (0, 0, 0)]
    padded = lax.pad(signal, jnp.zeros((), signal.dtype), edges)
    total = jnp.zeros((*signal.shape[:1], *size, kernel.shape[2]), signal.dtype)
    for a in range(height):
        for b in range(width):
            cells = padded[:, height - 1 - a :, width - 1 - b :][:, : size[0], : size[1]]
            total += cells * kernel[a, b].reshape(1, 1, 1, -1)
    return total


def _explain_window(part, variables, window, valid, chosen, path, chunk, method, norm_back):
    """(clips, freq, time) on one device → images (clips, n, freq, time), maps (clips, n, layer freq, layer time)."""
    layer, size = len(part.blocks), window.shape[1:]
    # The image stands for what the network saw, (magnitude - mean) / scale; multiplying by the scale brings it back
    # to the magnitude's own unit. A gradient is divided by it: it is the derivative.
    trace, maps, variables, scale = _trace_window(part, variables, window, valid, chosen, method)
    if path == "winograd":
        switches, kernels = tuple(t.switches for t in trace), _kernels(variables, layer)
        images = winograd.sweep(trace[-1].pooled, switches, kernels, chosen, size)
    else:
        padded = np.pad(chosen, (0, -len(chosen) % chunk), mode="edge")
        images = backproject(
            part, variables, trace, layer, padded, size, chunk=chunk, method=method, norm_back=norm_back
        )[:, : len(chosen)]
    return (images if scale is None else images * scale), maps


@functools.partial(jax.jit, static_argnames=("network", "method"))
def _trace_window(network, variables, magnitude, frames, features, method):
    """The forward pass over a batch of windows.

    Returns:
      the trace; the pooled maps of the features, (clips, n, layer freq, layer time); variables for the way back; and
      the scale that its images must be multiplied by, (1, 1, freq, time) or with ones. A single number is in the
      first layer's kernels already, which saves a pass over the images: the last step is linear. Then it is None.
    """
    _, trace = network.apply(variables, magnitude, head=False, frames=frames, gates=method != "deconvnet")
    # The barrier makes one transposition and one copy of it; fused, the two run value by value.
    maps = lax.optimization_barrier(jnp.moveaxis(trace[-1].pooled, -1, 1))[:, features]
    scale = jnp.asarray(variables.get("input", {}).get("scale", 1.0), jnp.float32)
    scale = 1 / scale if method == "gradient" else scale
    if scale.size > 1:
        return trace, maps, variables, scale.reshape((1,) * (4 - scale.ndim) + scale.shape)
    params = variables["params"]
    first = {"kernel": params["conv1"]["kernel"] * scale.reshape(1, 1, 1, 1)}
    return trace, maps, {**variables, "params": {**params, "conv1": first}}, None


def _kernels(variables, layer: int) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(variables["params"][name]["kernel"]) for name in _names(layer))


def _names(layer: int) -> list[str]:
    return [f"conv{l}" for l in range(1, layer + 1)]


def used_variables(variables, layer: int) -> dict:
    """The part of a network's variables that its first `layer` blocks, and so the images of that layer, depend on."""
    used = {"params": {name: variables["params"][name] for name in _names(layer)}}
    norms = [f"norm{l}" for l in range(1, layer + 1) if f"norm{l}" in variables["params"]]
    used["params"] |= {name: variables["params"][name] for name in norms}
    if norms:
        used["batch_stats"] = {name: variables["batch_stats"][name] for name in norms}
    return used | ({"input": variables["input"]} if "input" in variables else {})


def chosen_path(blocks: Sequence[Block], path: str, method: str = "deconvnet") -> str:
    """The path that will be taken; ValueError if there is none of that name or it does not cover the blocks."""
    if path not in PATHS:
        raise SettingError(f"path must be one of {', '.join(PATHS)}, not {path!r}")
    covered = method == "deconvnet" and winograd.covers(blocks)
    if path == "winograd" and not covered:
        raise SettingError(
            'path "winograd" needs the deconvnet method, and 3×3 kernels, SAME padding, ReLU and 2×2 max-pools in '
            'every block; use "plain"'
        )
    if path == "auto":
        return "winograd" if covered and jax.default_backend() == "cpu" else "plain"
    return path


@functools.partial(jax.jit, static_argnums=(1, 2))
def _trim(arrays, lengths, single):
    """Without the frames of padding, and without the axis of clips if there is a single one: one copy of each."""
    return [array[(0, ...) if single else ...][..., :length] for array, length in zip(arrays, lengths, strict=True)]


def _chunk(blocks: Sequence[Block], size: tuple[int, int]) -> int:
    """Features whose largest intermediate, an unpooled signal, stays within `CHUNK_BYTES`."""
    sizes = layer_sizes(blocks, size)
    largest = max(4 * f * t * below.maps for (f, t), below in zip(sizes[1:], blocks, strict=True))
    return max(1, min(16, CHUNK_BYTES // (4 * largest)))


class _Windows(NamedTuple):
    """How a clip is cut.

    Attributes:
      starts: first frames of the windows.
      length: frames of each of them.
      edges: frames from which each contributes, and the end of the clip.
      stride: frames between two columns of the last block's map.
    """

    starts: list[int]
    length: int
    edges: list[int]
    stride: int

    def cuts(self, n: int, totals: Sequence[int]) -> list[tuple[slice, slice]]:
        """(within the window, within the whole) of window n, for frames and for columns; `totals` says how many."""
        found = []
        for step, total in zip((1, self.stride), totals, strict=True):
            begin, end = self.edges[n] // step, self.edges[n + 1] // step if n + 1 < len(self.starts) else total
            found.append((slice(begin - self.starts[n] // step, end - self.starts[n] // step), slice(begin, end)))
        return found


def _windows(blocks: Sequence[Block], frames: int) -> _Windows:
    """How to cut a clip of so many frames."""
    stride = math.prod(b.step(1) for b in blocks)
    if any(b.pooling == "average" and _pads_time(b.pool_padding) for b in blocks):
        # What an average counts at the end of the clip depends on where that is: one window, as long as the clip.
        return _Windows([0], frames, [0, frames], stride)
    first, last = reach(blocks, axis=1)
    halo = stride * -(-max(last // stride * stride - first, last + 1 + (-first - 1) // stride * stride) // stride)
    hop = max(1, WINDOW_FRAMES // stride) * stride
    length = hop + 2 * halo
    if frames <= length:
        return _Windows([0], _rounded(frames), [0, frames], stride)
    starts = [k * hop for k in range(1 + -(-(frames - length) // hop))]
    return _Windows(starts, length, [0, *(start + halo for start in starts[1:]), frames], stride)


def _pads_time(padding) -> bool:
    side = padding if isinstance(padding, str) else padding[1]
    return side == "SAME" or (not isinstance(side, str) and any(side))


def _rounded(frames: int) -> int:
    """The next of 16 lengths per octave up to 256 frames, of 4 above: little padding, and few shapes to compile."""
    step = 2 ** max(0, frames.bit_length() - (5 if frames <= 256 else 3))
    return -(-frames // step) * step
