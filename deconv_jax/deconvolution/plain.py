"""The way back for any block spec: the plain path, which says what is computed."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from deconv_jax.deconvolution.rule import DECONVNET, Rule
from deconv_jax.network.activations import pass_back
from deconv_jax.network.layers import average_back, back_pads, convolve_back, pads, unpool
from deconv_jax.network.model import Network, Trace
from deconv_jax.network.spec import Block, layer_sizes

CHUNK_BYTES = 32 * 2**20
"""Largest intermediate array of one chunk of features and clips."""


@functools.partial(jax.jit, static_argnames=("network", "layer", "size", "chunk", "rule"))
def backproject(
    network: Network,
    variables: Any,
    trace: Trace,
    layer: int,
    features: Any,
    size: tuple[int, int],
    *,
    chunk: int = 4,
    rule: Rule = DECONVNET,
) -> jax.Array:
    """The way back alone, from a given trace: the plain path, for any block spec.

    Args:
      network, variables: the kernels are taken from `variables["params"]`.
      trace: of a batch, as `network.apply` returns it; with gates unless the method is "deconvnet".
      layer: 1-based.
      features: int array, shape (n,), n a multiple of `chunk` or below it.
      size: (freq, time) of the input.
      chunk: features walked back together.
      rule: how the signal walks back; its path is this one.

    Returns:
      Images, shape (clips, n, freq, time), before the input's scale is undone.
    """
    blocks = network.blocks[:layer]
    kernels = kernels_of(variables, layer)
    norms = [_norm_factor(variables, number, block, rule.norm_back) for number, block in enumerate(blocks, 1)]
    sizes = [tuple(size), *(t.pooled.shape[1:3] for t in trace[: layer - 1])]
    gates = [None if rule.method == "deconvnet" else t.gate for t in trace]

    def below(number: int, signal: jax.Array, switches: Any, gate: jax.Array | None, norm: Any) -> jax.Array:
        """A signal (n, freq, time, maps) above block `number` → what goes into its transposed convolution."""
        block = blocks[number - 1]
        full = tuple(block.convolved(n, axis) for axis, n in enumerate(sizes[number - 1]))
        signal = signal * norm if block.norm == "pooled" else signal
        signal = _unpool(block, signal, switches, full)
        signal = signal * norm if block.norm == "after" else signal
        signal = pass_back(signal, gate, block.activation, block.slope, rule.method)
        return signal * norm if block.norm == "before" else signal

    def walk_back(numbers: jax.Array) -> jax.Array:
        """(k,) features → (k, clips, freq, time)."""
        clips = trace[0].pooled.shape[0]

        def take(x: Any) -> Any:
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

            def repeated(x: Any, count: int = signal.shape[0]) -> Any:
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


def _unpool(block: Block, signal: jax.Array, switches: jax.Array, size: Any) -> jax.Array:
    """The pooling's transpose, (clips, freq, time, maps) at the pooled size → at `size`."""
    edges = pads(block.pool_padding, size, block.pool, block.stride)
    if block.pooling == "average":
        kept = jnp.where(switches == 0, signal, 0)
        return average_back(kept, block.pool, block.stride, edges, size, block.count_padding)
    padded = (size[0] + sum(edges[0]), size[1] + sum(edges[1]))
    full = unpool(signal, switches, block.pool, block.stride, padded)
    (top, _), (first, _) = edges
    return full[:, top : top + size[0], first : first + size[1]]


def _norm_factor(variables: Any, number: int, block: Block, norm_back: str) -> jax.Array:
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


def _spread(signal: jax.Array, kernel: jax.Array, block: Block, size: Sequence[int]) -> jax.Array:
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


def kernels_of(variables: Any, layer: int) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(variables["params"][f"conv{l}"]["kernel"]) for l in range(1, layer + 1))


def chunk_of(blocks: Sequence[Block], size: tuple[int, int]) -> int:
    """Features whose largest intermediate, an unpooled signal, stays within `CHUNK_BYTES`."""
    sizes = layer_sizes(blocks, size)
    largest = max(4 * f * t * below.maps for (f, t), below in zip(sizes[1:], blocks, strict=True))
    return max(1, min(16, CHUNK_BYTES // (4 * largest)))


def clips_together(blocks: Sequence[Block], size: tuple[int, int]) -> int:
    """Clips of (freq, time) = `size` whose images, or largest maps, take four times `CHUNK_BYTES`; at least one."""
    return max(1, 4 * CHUNK_BYTES // (4 * size[0] * size[1] * max(b.maps for b in blocks)))
