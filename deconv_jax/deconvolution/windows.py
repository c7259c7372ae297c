"""A clip of any length as a row of overlapping windows of one length, and their results side by side again.

The overlap covers everything that the kept part of a window depends on, so the result does not depend on the cutting.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deconv_jax.network.receptive_field import reach
from deconv_jax.network.spec import Block, Padding
from deconv_jax.system import runtime

WINDOW_FRAMES = 512
"""Frames that a window of a long clip contributes; clips up to about this length are one window."""


Pieces = Sequence[tuple[int, int]]
"""(first clip of a group, number of a window)."""

Run = Callable[[tuple[int, int], int], tuple[jax.Array, jax.Array]]
"""(piece, which of the devices) → its images and maps."""


class Windows(NamedTuple):
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


def windows_of(blocks: Sequence[Block], frames: int) -> Windows:
    """How to cut a clip of so many frames."""
    stride = math.prod(b.step(1) for b in blocks)
    if any(b.pooling == "average" and _pads_time(b.pool_padding) for b in blocks):
        # What an average counts at the end of the clip depends on where that is: one window, as long as the clip.
        return Windows([0], frames, [0, frames], stride)
    first, last = reach(blocks, axis=1)
    halo = stride * -(-max(last // stride * stride - first, last + 1 + (-first - 1) // stride * stride) // stride)
    hop = max(1, WINDOW_FRAMES // stride) * stride
    length = hop + 2 * halo
    if frames <= length:
        return Windows([0], _rounded(frames), [0, frames], stride)
    starts = [k * hop for k in range(1 + -(-(frames - length) // hop))]
    return Windows(starts, length, [0, *(start + halo for start in starts[1:]), frames], stride)


def _pads_time(padding: Padding) -> bool:
    side = padding if isinstance(padding, str) else padding[1]
    return side == "SAME" or (not isinstance(side, str) and any(side))


def _rounded(frames: int) -> int:
    """The next of 16 lengths per octave up to 256 frames, of 4 above: little padding, and few shapes to compile."""
    step = 2 ** max(0, frames.bit_length() - (5 if frames <= 256 else 3))
    return -(-frames // step) * step


def joined(pieces: Pieces, windows: Windows, run: Run, shapes: Sequence[tuple[int, ...]]) -> list[jax.Array]:
    """The windows' images and maps side by side, within a function that is being traced."""
    rows: dict[int, list[Any]] = {}
    for first, n in pieces:
        cuts = zip(run((first, n), 0), windows.cuts(n, [shape[-1] for shape in shapes]), strict=True)
        rows.setdefault(first, []).append([array[..., inside] for array, (inside, _) in cuts])
    whole = [[jnp.concatenate(arrays, axis=-1) for arrays in zip(*row, strict=True)] for row in rows.values()]
    together = [jnp.concatenate(arrays) for arrays in zip(*whole, strict=True)]
    return [a[: shape[0]] if len(shape) == 4 else a[0] for a, shape in zip(together, shapes, strict=True)]


def gathered(
    pieces: Pieces, windows: Windows, run: Run, shapes: Sequence[tuple[int, ...]], devices: Sequence[jax.Device]
) -> list[jax.Array]:
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
