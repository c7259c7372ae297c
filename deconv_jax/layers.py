"""The operations of a layer, forward and back: convolution, max-pooling with switches, unpooling.

All arrays are (clips, freq, time, maps), float32, maps last: the layout that XLA's CPU convolution is fast in.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Pair = tuple[int, int]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def convolve(x, kernel, window_strides=(1, 1), padding="SAME", **_) -> jax.Array:
    """Cross-correlation of x with kernel, shape (height, width, maps in, maps out); Flax's signature."""
    return lax.conv_general_dilated(x, kernel, window_strides, padding, dimension_numbers=_DIMENSIONS)


def convolve_back(y: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    """Transpose of `convolve` at stride 1: the cross-correlation with the flipped, transposed kernel."""
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    pads = []
    for size in kernel.shape[:2]:
        before = (size - 1) // 2 if padding == "SAME" else 0
        after = size - 1 - before if padding == "SAME" else 0
        pads.append((size - 1 - before, size - 1 - after))
    return convolve(y, flipped, padding=pads)


def _cells(window: Pair) -> list[Pair]:
    return [(a, b) for a in range(window[0]) for b in range(window[1])]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def max_pool(x: jax.Array, window: Pair, stride: Pair) -> tuple[jax.Array, jax.Array]:
    """Max-pooling that keeps where each maximum stood.

    Args:
      x: shape (clips, freq, time, maps).
      window: (freq, time) size; stride: (freq, time) step. Windows that do not fit wholly are dropped.

    Returns:
      The maxima and their switches (uint8, row-major index within the window, the first of equals), each of
      shape (clips, (freq - window) // stride + 1, …, maps).

    The window's cells are compared one strided view after another. XLA fuses that into one pass, and the backward
    rule only needs the switches; `lax.reduce_window` and its select-and-scatter take about five times as long on
    a CPU.
    """
    height, width = ((n - w) // s + 1 for n, w, s in zip(x.shape[1:3], window, stride, strict=True))
    rows, columns = (height - 1) * stride[0] + 1, (width - 1) * stride[1] + 1
    views = [x[:, a : a + rows : stride[0], b : b + columns : stride[1]] for a, b in _cells(window)]
    best, switches = views[0], jnp.zeros(views[0].shape, jnp.uint8)
    for index, view in enumerate(views[1:], 1):
        switches = jnp.where(view > best, jnp.uint8(index), switches)
        best = jnp.maximum(best, view)
    return best, switches


def _max_pool_forward(x, window, stride):
    pooled, switches = max_pool(x, window, stride)
    return (pooled, switches), (switches, np.empty((*x.shape[1:3], 0)))


def _max_pool_backward(window, stride, residual, gradient):
    switches, like = residual
    return (unpool(gradient[0], switches, window, stride, like.shape[:2]),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def unpool(values: jax.Array, switches: jax.Array, window: Pair, stride: Pair, size: Pair) -> jax.Array:
    """Puts every value back where its maximum stood, zeros elsewhere (Zeiler & Fergus 2014, section 2.1).

    Args:
      values, switches: shape (clips, freq, time, maps), broadcast against each other. A switch that is no cell
        of the window drops its value.
      window, stride: those of the pooling. Where windows overlap, values that meet are added.
      size: (freq, time) before the pooling; rows and columns that the pooling dropped come back as zeros.
    """
    cells = [jnp.where(switches == index, values, 0) for index in range(window[0] * window[1])]
    clips, height, width, maps = cells[0].shape
    if window == stride:
        full = jnp.stack(cells, axis=-2).reshape(clips, height, width, *window, maps)
        full = full.swapaxes(2, 3).reshape(clips, height * window[0], width * window[1], maps)
        short = [(0, n - m) for n, m in zip(size, full.shape[1:3], strict=True)]
        return jnp.pad(full, [(0, 0), *short, (0, 0)])
    total = jnp.zeros((clips, *size, maps), values.dtype)
    for (a, b), cell in zip(_cells(window), cells, strict=True):
        pads = [
            (offset, n - offset - ((m - 1) * step + 1), step - 1)
            for offset, n, m, step in zip((a, b), size, (height, width), stride, strict=True)
        ]
        total += lax.pad(cell, jnp.zeros((), cell.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    return total
