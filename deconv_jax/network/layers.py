"""The operations of a layer, forward and back: convolution, max-pooling with switches, unpooling.

All arrays are (clips, freq, time, maps), float32, maps last: the layout that XLA's CPU convolution is fast in.
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

Pair = tuple[int, int]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def pads(padding: Any, size: Sequence[int], window: Sequence[int], stride: Sequence[int]) -> tuple[Pair, Pair]:
    """Cells added (before, after) along frequency and time.

    Args:
      padding: "SAME", "VALID", or a pair of these or of numbers; as in `deconv_jax.network.spec.Block`.
      size: (freq, time) of what is padded. TensorFlow's "SAME" depends on it if there is a stride: it adds
        max((ceil(n / stride) - 1) · stride + window - n, 0), the odd one at the end.
    """
    edges = []
    for axis, side in enumerate((padding, padding) if isinstance(padding, str) else padding):
        if side == "SAME":
            n, step = size[axis], stride[axis]
            total = max((-(-n // step) - 1) * step + window[axis] - n, 0)
            side = (total // 2, total - total // 2)
        edges.append((0, 0) if side == "VALID" else tuple(side))
    return edges[0], edges[1]


def convolve(
    x: jax.Array, kernel: jax.Array, window_strides: Sequence[int] = (1, 1), padding: Any = "SAME", **_: Any
) -> jax.Array:
    """Cross-correlation of x with kernel, shape (height, width, maps in, maps out); Flax's signature.

    On a CPU, a single map in, the spectrogram, and 3×3 kernels between many maps have rules of their own: there XLA
    takes six times as long forward for the one and twice as long for the gradient of the other.
    """
    if in_shifts(kernel.shape[:2], kernel.shape[2], window_strides, padding):
        return _convolve_one(x, kernel)
    if _is_plain(window_strides, padding) and kernel.shape[:2] == (3, 3) and min(kernel.shape[2:]) >= 16:
        return _convolve_3x3(x, kernel)
    return _convolve(x, kernel, padding, tuple(window_strides))


def in_shifts(window: Sequence[int], maps: int, strides: Sequence[int], padding: Any) -> bool:
    """Whether a convolution of so many maps with kernels of this size is a sum of shifted multiples of the one map."""
    return _is_plain(strides, padding) and maps == 1 and math.prod(window) <= 25


def _is_plain(strides: Sequence[int], padding: Any) -> bool:
    return padding == "SAME" and tuple(strides) == (1, 1) and jax.default_backend() == "cpu"


def _convolve(
    x: jax.Array, kernel: jax.Array, padding: Any, strides: Sequence[int] = (1, 1), dilation: Pair = (1, 1)
) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, lhs_dilation=dilation, dimension_numbers=_DIMENSIONS)


@jax.custom_vjp
def _convolve_one(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A sum of shifted multiples of one map: no work for matrix products, and what follows is fused into it."""
    weights = kernel.reshape(-1, 1, 1, 1, kernel.shape[3])
    multiples = (view * weight for view, weight in zip(shifted(x, kernel.shape[:2]), weights, strict=True))
    return functools.reduce(operator.add, multiples)


def _convolve_one_backward(residual: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = residual
    seen = jnp.concatenate(shifted(x, kernel.shape[:2]), axis=-1).reshape(-1, kernel.shape[0] * kernel.shape[1])
    into_kernel = (seen.T @ gradient.reshape(-1, kernel.shape[3])).reshape(kernel.shape)
    return convolve_back(gradient, kernel, "SAME"), into_kernel


_convolve_one.defvjp(lambda x, kernel: (_convolve_one(x, kernel), (x, kernel)), _convolve_one_backward)


def shifted(x: jax.Array, window: Sequence[int]) -> list[jax.Array]:
    """x as every cell of a SAME kernel sees it, row by row."""
    return views(pad_for(x, window), window, (1, 1))


def pad_for(x: jax.Array, window: Sequence[int]) -> jax.Array:
    """x with the zeros that a SAME kernel of this size sees around it."""
    return jnp.pad(x, [(0, 0), *(((n - 1) // 2, n // 2) for n in window), (0, 0)])


@jax.custom_vjp
def _convolve_3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _convolve(x, kernel, "SAME")


def _convolve_3x3_forward(x: Any, kernel: Any) -> tuple[jax.Array, Any]:
    # What nobody asks for, the kernels' gradient in an attribution, is not even traced, which took seconds.
    return _convolve_3x3(x.value, kernel.value), (x.value if kernel.perturbed else None, kernel.value)


def _convolve_3x3_backward(residual: Any, gradient: Any) -> tuple[jax.Array | None, jax.Array | None]:
    x, kernel = residual
    if isinstance(gradient, SymbolicZero):
        return None, None
    return (
        convolve_back(gradient, kernel, "SAME"),
        None if x is None else kernel_gradient_3x3(x, gradient),
    )


_convolve_3x3.defvjp(_convolve_3x3_forward, _convolve_3x3_backward, symbolic_zeros=True)


# Winograd's minimal filtering F(4, 3) (Lavin & Gray 2016, section 4.3): for a row d of 6 inputs, 3 weights g and
# 4 outputs, y = OUT [(FILTER g) ⊙ (IN d)].
IN = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
FILTER = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
OUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


def kernel_gradient_3x3(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Gradient of a 3×3 SAME convolution in its kernel, shape (3, 3, maps in, maps out).

    F(4, 3) along both axes, transposed: with 4×4 tiles t of the output's gradient and 6×6 tiles d of x,
    dg = FILTERᵀ [Σ_tiles (OUTᵀ t OUT) ⊙ (IN d INᵀ)] FILTER, where the sum over tiles is one small matrix product
    for each of the 36 places: a quarter of the multiplications. As 36 products they take half the time of XLA's
    own gradient on a CPU, as one batched product all of it. The rows are made once, and not in each of six columns
    again, where the caller compiles with `runtime.KEEP_BARRIERS`.
    """
    height, width = x.shape[1:3]
    down, across = -(-height // 4), -(-width // 4)
    short = (4 * down - height, 4 * across - width)
    x = jnp.pad(x, [(0, 0), (1, 1 + short[0]), (1, 1 + short[1]), (0, 0)])
    gradient = jnp.pad(gradient, [(0, 0), (0, short[0]), (0, short[1]), (0, 0)])
    x_rows = [x[:, i : i + 4 * down - 3 : 4] for i in range(6)]
    g_rows = [gradient[:, i::4] for i in range(4)]
    products = []
    for into, out in zip(IN, OUT.T, strict=True):
        x_row, g_row = (lax.optimization_barrier(row) for row in (_weighted(into, x_rows), _weighted(out, g_rows)))
        x_cells = [x_row[:, :, j : j + 4 * across - 3 : 4] for j in range(6)]
        g_cells = [g_row[:, :, j::4] for j in range(4)]
        for along, out_along in zip(IN, OUT.T, strict=True):
            left = _weighted(along, x_cells).reshape(-1, x.shape[-1])
            products.append(left.T @ _weighted(out_along, g_cells).reshape(-1, gradient.shape[-1]))
    summed = jnp.stack(products).reshape(6, 6, x.shape[-1], gradient.shape[-1])
    into_kernel = jnp.asarray(FILTER, x.dtype)
    return jnp.einsum("ka,klio,lb->abio", into_kernel, summed, into_kernel)


def _weighted(weights: Sequence[Any] | np.ndarray, arrays: Sequence[jax.Array]) -> jax.Array:
    return sum((int(w) * a for w, a in zip(weights[1:], arrays[1:], strict=True) if w), int(weights[0]) * arrays[0])


def convolve_back(
    y: jax.Array, kernel: jax.Array, padding: Any, strides: Pair = (1, 1), size: Sequence[int] | None = None
) -> jax.Array:
    """Transpose of `convolve`: the cross-correlation with the flipped, transposed kernel.

    Args:
      y: shape (clips, freq, time, maps out).
      kernel: as in `convolve`.
      padding, strides: those of the convolution.
      size: (freq, time) of its input; may be left out if "SAME" or "VALID" and no stride tell it.
    """
    window = kernel.shape[:2]
    if size is None:
        size = (
            y.shape[1:3] if padding == "SAME" else tuple(n + k - 1 for n, k in zip(y.shape[1:3], window, strict=True))
        )
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    return _convolve(y, flipped, back_pads(y.shape[1:3], window, padding, strides, size), dilation=strides)


def back_pads(
    found: Sequence[int], window: Sequence[int], padding: Any, strides: Pair, size: Sequence[int]
) -> list[Pair]:
    """Edges of the transposed convolution, (before, after) for each axis; negative ones cut off.

    Args:
      found: (freq, time) of the convolution's output; window, padding, strides: its own; size: of its input.
    """
    edges = []
    before = (pair[0] for pair in pads(padding, size, window, strides))
    for n, k, step, first, wanted in zip(found, window, strides, before, size, strict=True):
        spread = (n - 1) * step + 1
        edges.append((k - 1 - first, wanted - spread + first))
    return edges


def window_cells(window: Sequence[int]) -> list[Pair]:
    """(freq, time) of the cells of a window, row by row."""
    return [(a, b) for a in range(window[0]) for b in range(window[1])]


def views(x: jax.Array, window: Sequence[int], stride: Sequence[int]) -> list[jax.Array]:
    """What windows have at each of their cells, in the order of `window_cells`; such as do not fit wholly are dropped.

    Args:
      x: shape (clips, freq, time, maps); window: (freq, time) size; stride: (freq, time) step.

    Returns:
      For each cell, shape (clips, (freq - window) // stride + 1, …, maps).
    """
    height, width = ((n - w) // s + 1 for n, w, s in zip(x.shape[1:3], window, stride, strict=True))
    rows, columns = (height - 1) * stride[0] + 1, (width - 1) * stride[1] + 1
    return [x[:, a : a + rows : stride[0], b : b + columns : stride[1]] for a, b in window_cells(window)]


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
    first, *others = views(x, window, stride)
    best, switches = first, jnp.zeros(first.shape, jnp.uint8)
    for index, view in enumerate(others, 1):
        switches = jnp.where(view > best, jnp.uint8(index), switches)
        best = jnp.maximum(best, view)
    return best, switches


def _max_pool_forward(x: jax.Array, window: Pair, stride: Pair) -> tuple[Any, Any]:
    pooled, switches = max_pool(x, window, stride)
    return (pooled, switches), (switches, np.empty((*x.shape[1:3], 0)))


def _max_pool_backward(window: Pair, stride: Pair, residual: Any, gradient: Any) -> tuple[jax.Array]:
    switches, like = residual
    return (unpool(gradient[0], switches, window, stride, like.shape[:2]),)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def average_pool(
    x: jax.Array,
    window: Pair,
    stride: Pair,
    edges: tuple[Pair, Pair],
    inside: jax.Array | None = None,
    count_padding: bool = False,
) -> jax.Array:
    """Average-pooling.

    Args:
      x: shape (clips, freq, time, maps).
      window, stride: as in `max_pool`; edges: padding (before, after) of frequency and time.
      inside: which cells are no padding, bool, broadcast against x; None for all.
      count_padding: whether cells that padding adds count, as zeros (PyTorch's count_include_pad).

    Returns:
      shape (clips, (freq + padding - window) // stride + 1, …, maps).
    """
    count = jnp.ones((1, *x.shape[1:3], 1), x.dtype)
    if inside is not None:
        x, count = jnp.where(inside, x, 0), jnp.where(inside, count, 0)
    if count_padding:
        return _summed(x, window, stride, edges) / (window[0] * window[1])
    return _summed(x, window, stride, edges) / jnp.maximum(_summed(count, window, stride, edges), 1)


def average_back(
    values: jax.Array,
    window: Pair,
    stride: Pair,
    edges: tuple[Pair, Pair],
    size: Pair,
    count_padding: bool = False,
) -> jax.Array:
    """Transpose of `average_pool`: every value in equal shares over the cells that it was the mean of.

    Args:
      values: shape (clips, freq, time, maps).
      size: (freq, time) before the pooling; window, stride, edges, count_padding: as in `average_pool`.
    """
    like = jax.ShapeDtypeStruct((values.shape[0], *size, values.shape[3]), values.dtype)
    (back,) = jax.linear_transpose(lambda x: average_pool(x, window, stride, edges, None, count_padding), like)(values)
    return back


def _summed(x: jax.Array, window: Pair, stride: Pair, edges: tuple[Pair, Pair]) -> jax.Array:
    # Only a zero that is known when traced makes it a sum that can be transposed.
    zero = np.zeros((), x.dtype)
    return lax.reduce_window(x, zero, lax.add, (1, *window, 1), (1, *stride, 1), [(0, 0), *edges, (0, 0)])


def unpool(values: jax.Array, switches: jax.Array, window: Pair, stride: Pair, size: Pair) -> jax.Array:
    """Puts every value back where its maximum stood, zeros elsewhere (Zeiler & Fergus 2014, section 2.1).

    Args:
      values, switches: shape (clips, freq, time, maps), broadcast against each other. A switch that is no cell
        of the window drops its value.
      window, stride: those of the pooling. Where windows overlap, values that meet are added.
      size: (freq, time) before the pooling and after its padding, if it has any; rows and columns that the pooling
        dropped come back as zeros.
    """
    cells = [jnp.where(switches == index, values, 0) for index in range(window[0] * window[1])]
    clips, height, width, maps = cells[0].shape
    if window == stride:
        full = jnp.stack(cells, axis=-2).reshape(clips, height, width, *window, maps)
        full = full.swapaxes(2, 3).reshape(clips, height * window[0], width * window[1], maps)
        short = [(0, n - m) for n, m in zip(size, full.shape[1:3], strict=True)]
        return jnp.pad(full, [(0, 0), *short, (0, 0)])
    total = jnp.zeros((clips, *size, maps), values.dtype)
    for (a, b), cell in zip(window_cells(window), cells, strict=True):
        pads = [
            (offset, n - offset - ((m - 1) * step + 1), step - 1)
            for offset, n, m, step in zip((a, b), size, (height, width), stride, strict=True)
        ]
        total += lax.pad(cell, jnp.zeros((), cell.dtype), [(0, 0, 0), *pads, (0, 0, 0)])
    return total


def dropout(x: jax.Array, key: jax.Array, share: float) -> jax.Array:
    """Sets a share of the values to zero, at random, and divides the others by 1 - share (Srivastava et al. 2014).

    `jax.random.bernoulli` draws 32 bits a value and took a fifth of a training step. Here as many clips as the share
    allows have bits of their own of one draw: 32 if it is a half, 16 if it is a quarter. A share that is no whole
    number of 65,536ths is rounded down to 2⁻³².

    Args:
      x: shape (clips, ...).
      key: of `jax.random`.
      share: at least 0 and below 1.
    """
    bits = next(n for n in (1, 2, 4, 8, 16, 32) if n == 32 or share * 2**n % 1 == 0)
    together = 32 // bits
    # Behind a barrier, or XLA draws the same 32 bits anew for every value that they decide for.
    drawn = lax.optimization_barrier(jax.random.bits(key, (-(-len(x) // together), *x.shape[1:]), jnp.uint32))
    places = jnp.arange(0, 32, bits, dtype=jnp.uint32).reshape(1, -1, *[1] * (x.ndim - 1))
    parts = (drawn[:, None] >> places) & jnp.uint32(2**bits - 1)
    dropped = parts.reshape(-1, *x.shape[1:])[: len(x)] < jnp.uint32(int(share * 2**bits))
    return jnp.where(dropped, 0, x / (1 - share))
