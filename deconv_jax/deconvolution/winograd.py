"""Deconvolution of many feature maps at once: the fast path on a CPU.

Does what `deconvolution.backproject` does, which is the plain path and says what is computed; this module is only
about speed.  Covered: 3x3 SAME stride-1 convolutions, 2x2 stride-2 floor pooling, one input channel (the
spectrogram), any number of layers, maps, clips and sizes.

Three different steps make up the way back:

* First step (layer L).  One live map, so the transposed convolution is nine
  shifted multiplications (`_first_step`).
* Middle steps (layers L-1 ... 2), nearly all of the arithmetic
  (`_middle_step`).  Winograd's F(4x4, 3x3) (Lavin and Gray 2016), transposed,
  because here the *input* is sparse.  A 4x4 block of the unpooled map is 2x2
  pooling windows with one survivor each, so evaluating it at the six points
  0, 1, -1, 2, -2, inf needs four products per value and the full-size unpooled
  map never exists.  36 matrix products [positions, C_out] @ [C_out, C_in]
  follow, and each block's 6x6 result overlaps its neighbours by one pixel
  on every side.  With A, B and G as printed there
  (`B_T` below is its B^T):

      block (4x4) -> A block A^T -> times G kernel G^T -> B (.) B^T -> 6x6

* Last step (layer 1, many maps to one image).  Each pooling window writes one
  4x4 patch: a 16 x C table per window, made from its switches and shared by
  all features, then a batched product and an overlap-add (`_patch_writer`).

Everything runs on strips of one row of blocks, so that temporaries stay in the
CPU's caches: page faults and memory traffic, not arithmetic, bound the plain
version.  A strip leaves the two rows that the next one still adds to in
`overlap`, so rows come out one late: strip i yields rows 4i-1 ... 4i+2, and
likewise columns.  Buffers in this "late" layout have row 0 and column 0 at
index 1; what lies outside the map is junk, which the next switches (255)
discard.

XLA on CPU drops `optimization_barrier` before it fuses, and then recomputes
the transforms many times over: `runtime.KEEP_BARRIERS` keeps them, and is
needed for the speed, not for the result.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import optimization_barrier as barrier

from deconv_jax.errors import SettingError
from deconv_jax.network.layers import FILTER, IN, OUT
from deconv_jax.network.spec import NO_WINNER, Block
from deconv_jax.system import runtime

Writer = Callable[[Any, Sequence[jax.Array], jax.Array], jax.Array]
"""(strip, its rows, what was made so far) → that with the rows."""

# Winograd's transforms by their names in Lavin and Gray 2016, section 4.3; rows are the points 0, 1, -1, 2, -2, inf.
A = OUT.T.astype(np.float32)
G = FILTER.astype(np.float32)
B_T = IN.astype(np.float32)


def covers(blocks: Sequence[Block]) -> bool:
    """Whether this path can walk back through these blocks."""
    plain = Block()
    fields = ("kernel", "padding", "conv_stride", "activation", "norm", "pool", "stride", "pooling", "pool_padding")
    return all(getattr(block, name) == getattr(plain, name) for block in blocks for name in fields)


@functools.partial(jax.jit, static_argnames=("size", "group"))
def backproject(
    pooled: jax.Array, switches: Any, kernels: Sequence[jax.Array], features: Any, size: tuple[int, int], group: int = 8
) -> jax.Array:
    """Deconvolves features of layer L = len(kernels) down to the input.

    Args:
      pooled: pooled maps of layer L [shape=(clips, h_L, w_L, C_L), float32].
      switches: for l = 1 ... L, the winner's place in its 2x2 window, row-major
        0 ... 3, or 255 for none [shape=(clips, h_l, w_l, C_l), uint8].
      kernels: for l = 1 ... L, the forward (cross-correlation) kernels
        [shape=(3, 3, C_{l-1}, C_l), float32], C_0 = 1.
      features: 0-based maps of layer L to deconvolve [shape=(n,), int32].
      size: (freq, time) of the input; h_l = floor(h_{l-1} / 2).
      group: features that go down together; bounds memory, not the result.

    Returns:
      Images, which may be negative [shape=(clips, n, freq, time), float32].

    Raises:
      ValueError: if the shapes do not belong to one network of this kind.
    """
    _check(pooled, switches, kernels, size)
    n = features.shape[0]
    if len(kernels) == 1:  # no maps in between: little memory, and outside of a loop XLA uses all cores
        return jax.vmap(lambda p, s: _one_group(p, (s,), kernels, [], features, size))(pooled, switches[0])
    groups = max(1, -(-n // group))
    group = -(-n // groups)
    grouped = jnp.resize(features, (groups, group))  # repeats some to fill up
    transformed = [_transform_kernel(k) for k in kernels[1:-1]]

    def one_clip(clip: Any) -> jax.Array:
        pooled, switches = clip
        images = lax.map(lambda f: _one_group(pooled, switches, kernels, transformed, f, size), grouped)
        return images.reshape((groups * group, *size))[:n]

    return lax.map(one_clip, (pooled, tuple(switches)))


def walk_back(
    pooled: jax.Array,
    switches: Any,
    kernels: Sequence[jax.Array],
    features: Any,
    size: tuple[int, int],
    group: int = 8,
    threads: int | None = None,
    least: int = 16,
) -> jax.Array:
    """`backproject` with the features shared out over threads.

    XLA runs the strips' small operations one after the other on one core, so two threads with half of the features
    each are nearly twice as fast. Arguments and result are those of `backproject`; `threads` are there to be used, by
    default one per available core, each for `least` features or more. Layer 1 is too little work to share.
    """
    workers = 1 if len(kernels) == 1 else min(threads or runtime.cores(), -(-len(features) // least))
    share = -(-len(features) // workers)
    padded = np.resize(np.asarray(features, np.int32), workers * share)
    given = (pooled, tuple(switches), tuple(kernels))
    program = _compiled(jax.tree.map(_like, (*given, padded[:share])), size, group)

    def run(part: Any) -> jax.Array:
        return jax.block_until_ready(program(*given, jax.device_put(part, pooled.device)))

    if workers == 1:
        return run(padded)
    with ThreadPoolExecutor(workers) as pool:
        images = list(pool.map(run, np.split(padded, workers)))
    return jnp.concatenate(images, axis=1)[:, : len(features)]


def _like(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=getattr(array, "sharding", None))


@functools.lru_cache(maxsize=64)
def _compiled(arguments: Any, size: tuple[int, int], group: int) -> Any:
    """`backproject` compiled ahead, for all threads to share.

    jax 0.12 cannot compile barriers that stand in very small loops, such as those of a network of few maps; there
    they are dropped, which changes the speed of what is fast anyway.
    """
    lowered = backproject.lower(*arguments, size, group)
    try:
        return lowered.compile(compiler_options=runtime.KEEP_BARRIERS)
    except jax.errors.JaxRuntimeError:
        return lowered.compile()


def _check(pooled: jax.Array, switches: Any, kernels: Sequence[jax.Array], size: tuple[int, int]) -> None:
    shape = (1, *tuple(size))
    if len(switches) != len(kernels):
        raise SettingError(f"{len(kernels)} kernels but {len(switches)} switches")
    for layer, (s, k) in enumerate(zip(switches, kernels, strict=False), 1):
        if k.shape[:3] != (3, 3, shape[0]):
            raise SettingError(f"layer {layer}: kernel {k.shape}, not (3, 3, {shape[0]}, maps)")
        shape = (k.shape[3], shape[1] // 2, shape[2] // 2)
        if s.shape[1:] != shape[1:] + shape[:1]:
            raise SettingError(f"layer {layer}: switches {s.shape}, not (clips, {shape[1]}, {shape[2]}, {shape[0]})")
    if pooled.shape != switches[-1].shape:
        raise SettingError(f"pooled map {pooled.shape}, switches {switches[-1].shape}")


def _one_group(
    pooled: jax.Array,
    switches: Any,
    kernels: Sequence[jax.Array],
    transformed: Any,
    features: Any,
    size: tuple[int, int],
) -> Any:
    """Images of a few features of one clip -> (features, freq, time)."""
    sizes = [size] + [s.shape[:2] for s in switches]  # sizes[l]: after pooling l
    depth, n = len(kernels), features.shape[0]

    def take(x: jax.Array) -> jax.Array:  # by itself: within other arithmetic the transposition is made value by value
        return barrier(jnp.moveaxis(jnp.take(x, features, axis=-1), -1, 0))

    live = _unpool_single(take(pooled), take(switches[-1]), sizes[depth - 1])
    kernel = take(kernels[-1])  # (n, 3, 3, C_in)
    if depth == 1:
        return sum(
            live[:, 2 - i : 2 - i + size[0], 2 - j : 2 - j + size[1]] * kernel[:, i, j, 0][:, None, None]
            for i in range(3)
            for j in range(3)
        )
    buffer, write = _patch_writer(switches[0], kernels[0], sizes[1], n)
    if depth == 2:
        rows, columns = _blocks(sizes[1])
        v = _first_step(live, kernel, (4 * rows, 4 * columns), late=1)
        patches = lax.fori_loop(0, rows, lambda i, p: write(i, list(lax.dynamic_slice_in_dim(v, 4 * i, 4)), p), buffer)
        return _overlap_add(patches, size)
    v, late = _first_step(live, kernel, sizes[depth - 1], late=0), 0
    for layer in range(depth - 1, 1, -1):
        target = sizes[layer - 1]
        out, put = (buffer, write) if layer == 2 else _row_writer(target, n, kernels[layer - 1].shape[2])
        v = _middle_step(v, late, switches[layer - 1], transformed[layer - 2], target, out, put)
        late = 1
    return _overlap_add(v, size)


# --- first step: a single map -------------------------------------------------


def _unpool_single(maps: jax.Array, switches: Any, size: tuple[int, int]) -> jax.Array:
    """(n, h, w) maps -> rectified, unpooled, with a border of zeros (n, H+2, W+2)."""
    n, h, w = maps.shape
    maps = jax.nn.relu(maps)
    place = [[jnp.where(switches == 2 * a + b, maps, 0.0) for b in (0, 1)] for a in (0, 1)]
    full = jnp.stack([jnp.stack(row, 3) for row in place], 2).reshape(n, 2 * h, 2 * w)
    return barrier(jnp.pad(full, ((0, 0), (1, 1 + size[0] - 2 * h), (1, 1 + size[1] - 2 * w))))


def _first_step(live: jax.Array, kernel: jax.Array, shape: Sequence[int], late: int) -> jax.Array:
    """(n, H+2, W+2) and (n, 3, 3, C) -> rectified maps (rows, columns, n, C)."""
    h, w = shape

    def grow(axis: int, want: int) -> tuple[int, int]:
        return (late, max(0, want + 2 - late - live.shape[axis]))

    live = barrier(jnp.pad(live, ((0, 0), grow(1, h), grow(2, w))).transpose(1, 2, 0))
    kernel = barrier(kernel)
    return jax.nn.relu(
        sum(
            live[2 - i : 2 - i + h, 2 - j : 2 - j + w, :, None] * kernel[None, None, :, i, j]
            for i in range(3)
            for j in range(3)
        )
    )


# --- middle steps: transposed Winograd ----------------------------------------


def _blocks(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of 4x4 blocks that yield all late rows and columns."""
    return (size[0] + 4) // 4, (size[1] + 4) // 4


def _transform_kernel(kernel: jax.Array) -> jax.Array:
    """(3, 3, C_in, C_out) -> G k G^T, 36 matrices (36, C_out, C_in)."""
    u = jnp.einsum("ei,fj,ijab->efba", G, G, kernel, precision="highest")
    return u.reshape((36, *u.shape[2:]))


def _middle_step(
    v: jax.Array, late: int, switches: Any, transformed: Any, size: tuple[int, int], out: jax.Array, put: Writer
) -> jax.Array:
    """Unpool and transposed convolution, strip by strip.

    v: rectified maps at pooled size (rows, columns, n, C), (0, 0) at (late, late).
    size: of the result.  put(i, rows, out) -> out takes rows 4i-1 ... 4i+2.
    """
    n, c = v.shape[2:]
    rows, columns = _blocks(size)
    switches = _pad_switches(switches, 0, (2 * rows, 2 * columns))
    v = jnp.pad(v, ((0, max(0, late + 2 * rows - v.shape[0])), (0, 0), (0, 0), (0, 0)))
    width = min(v.shape[1] - late, 2 * columns)

    def strip(i: Any, state: Any) -> Any:
        overlap, out = state
        s = lax.dynamic_slice_in_dim(switches, 2 * i, 2)
        x = lax.dynamic_slice_in_dim(v, late + 2 * i, 2)[:, late : late + width]
        x = jnp.pad(x, ((0, 0), (0, 2 * columns - width), (0, 0), (0, 0)))
        x, s = barrier(jnp.where(s[:, :, None] < 4, x, 0.0)), barrier(s)
        x = barrier(_evaluate(x, s)).reshape(36, columns * n, c)
        x = jnp.einsum("kpc,kcd->kpd", x, transformed).reshape(6, 6, columns, n, -1)
        done, overlap = _interpolate(x, overlap)
        return overlap, put(i, done, out)

    zero = jnp.zeros((6, columns, n, transformed.shape[2]), jnp.float32)
    return lax.fori_loop(0, rows, strip, ((zero, zero), out))[1]


def _evaluate(x: jax.Array, switches: Any) -> Any:
    """A block A^T from the survivors of its 2x2 windows.

    x (2, 2 columns, n, C), switches (2, 2 columns, C) -> (6, 6, columns, n, C)
    """
    low, right = switches[:, :, None] >= 2, (switches[:, :, None] & 1) == 1

    def down(k: int) -> np.ndarray:
        return A[:, k].reshape(6, 1, 1, 1, 1)

    def across(k: int) -> np.ndarray:
        return A[:, k].reshape(1, 6, 1, 1, 1)

    return sum(
        x[None, None, a, b::2]
        * jnp.where(low[None, None, a, b::2], down(2 * a + 1), down(2 * a))
        * jnp.where(right[None, None, a, b::2], across(2 * b + 1), across(2 * b))
        for a in (0, 1)
        for b in (0, 1)
    )


def _interpolate(
    m: jax.Array, overlap: tuple[jax.Array, jax.Array]
) -> tuple[list[jax.Array], tuple[jax.Array, jax.Array]]:
    """B m B^T and overlap-add: (6, 6, columns, n, C) -> four rectified rows
    (4 columns, n, C), and the two unfinished rows."""

    def combine(m: jax.Array, t: int) -> jax.Array:
        return sum(B_T[e, t] * m[e] for e in range(6) if B_T[e, t])

    # One barrier for each: jax 0.12 cannot compile one around several arrays in a small loop.
    rows = [barrier(r) for r in (combine(m, 0) + overlap[0], combine(m, 1) + overlap[1], combine(m, 2), combine(m, 3))]

    def before(x: jax.Array) -> jax.Array:
        return jnp.pad(x[:-1], ((1, 0), (0, 0), (0, 0)))

    done = []
    for r in rows:
        pixels = (combine(r, 0) + before(combine(r, 4)), combine(r, 1) + before(r[5]), combine(r, 2), combine(r, 3))
        row = jnp.stack([jax.nn.relu(p) for p in pixels], 1)
        done.append(row.reshape((-1, *row.shape[2:])))
    return done, (combine(m, 4), m[5])


def _pad_switches(switches: Any, late: int, shape: Sequence[int]) -> jax.Array:
    (h, w), (rows, columns) = switches.shape[:2], shape
    return jnp.pad(switches, ((late, rows - late - h), (late, columns - late - w), (0, 0)), constant_values=NO_WINNER)


def _write_rows(out: jax.Array, i: Any, rows: Sequence[jax.Array]) -> jax.Array:
    for r, row in enumerate(rows):
        out = lax.dynamic_update_slice_in_dim(out, row[None], 4 * i + r, 0)
    return out


def _row_writer(size: tuple[int, int], n: int, c: int) -> tuple[jax.Array, Writer]:
    """Keeps the maps themselves, in the late layout."""
    rows, columns = _blocks(size)
    return (jnp.zeros((4 * rows, 4 * columns, n, c), jnp.float32), lambda i, done, out: _write_rows(out, i, done))


# --- last step: a table of patches per window ----------------------------------


def _patch_writer(switches: Any, kernel: jax.Array, size: tuple[int, int], n: int) -> tuple[jax.Array, Writer]:
    """Turns each row of maps into the 4x4 patches that its windows write.

    -> buffer (rows, columns, 16, n) in the late layout, and its writer.
    """
    rows, columns = _blocks(size)
    switches = _pad_switches(switches, 1, (4 * rows, 4 * columns))
    kernel = kernel[:, :, 0]  # a unit at (a, b) of its window writes the kernel at (a, b)
    patch = [jnp.pad(kernel, ((a, 1 - a), (b, 1 - b), (0, 0))).reshape(16, -1) for a in (0, 1) for b in (0, 1)]

    def write(i: Any, done: Sequence[jax.Array], out: jax.Array) -> jax.Array:
        strip = barrier(lax.dynamic_slice_in_dim(switches, 4 * i, 4))
        products = []
        for row, s in zip(done, strip[:, :, None], strict=False):
            table = sum(jnp.where(s == k, patch[k][None], 0.0) for k in range(4))
            products.append(jnp.einsum("wtc,wnc->wtn", barrier(table), barrier(row)))
        return _write_rows(out, i, products)

    return jnp.zeros((4 * rows, 4 * columns, 16, n), jnp.float32), write


def _overlap_add(patches: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Patches at two pixels' distance -> images (n, freq, time)."""
    height, width, _, n = patches.shape
    half = -(-size[0] // 2), -(-size[1] // 2)
    patches = patches.reshape(height, width, 4, 4, n)

    def part(dy: int, dx: int, t: int, u: int) -> jax.Array:  # row t, column u of the patch of window (y + dy, x + dx)
        x = patches[1 + dy : 1 + dy + half[0], 1 + dx : 1 + dx + half[1], t, u]
        return jnp.pad(x, ((0, half[0] - x.shape[0]), (0, half[1] - x.shape[1]), (0, 0)))

    covers = (((0, 1), (-1, 3)), ((0, 2), (1, 0)))  # even and odd pixels: (window, patch row)
    pixels = [[sum(part(dy, dx, t, u) for dy, t in covers[p] for dx, u in covers[q]) for q in (0, 1)] for p in (0, 1)]
    image = jnp.stack([jnp.stack(row, 2) for row in pixels], 1)
    image = image.reshape(2 * half[0], 2 * half[1], n)[: size[0], : size[1]]
    return barrier(image).transpose(2, 0, 1)
