"""How much sound a feature of each layer looks at: the paper's Table 1, and what is true of the network.

Two answers exist and differ. The paper's rule widens a kernel by the pooling before it; the receptive field also
counts what the pooling windows and the kernels of earlier layers add. Each stands under its own name.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from deconv_jax.network.spec import Block, Padding, layer_sizes, resolved
from deconv_jax.sound.front_end import FrontEnd

PRINTED = ((93, 86), (162, 151), (302, 280), (580, 538), (1137, 1270))
"""Table 1 as the paper prints it: (ms, Hz) for layers 1 to 5. Its own rule gives 1055 Hz, not 1270, for layer 5."""


@dataclasses.dataclass(frozen=True)
class Extent:
    """What one output of a layer's convolution looks at.

    Attributes:
      layer: from 1.
      kernel: (frequency, time) size of the layer's kernels.
      rule_bins, rule_frames: the kernel's size times the strides before it, the paper's rule.
      rule_hz, rule_ms: the same as `hertz` and `milliseconds` of it.
      true_bins, true_frames: the receptive field, in rows and columns of the network's input.
      true_hz, true_ms: the same in Hz and ms.
    """

    layer: int
    kernel: tuple[int, int]
    rule_bins: int
    rule_frames: int
    rule_hz: float
    rule_ms: float
    true_bins: int
    true_frames: int
    true_hz: float
    true_ms: float


def extents(blocks: Sequence[Block], front_end: FrontEnd) -> list[Extent]:
    """Effective sizes of every layer's features, by the paper's rule and truly.

    Args:
      blocks: any block spec.
      front_end: gives bins and frames their Hz and ms.

    Returns:
      One `Extent` per layer. For the paper's network the rule is (3 · 2^(l-1) - 1) · hop + n_fft samples wide and
      (3 · 2^(l-1) + 1) · sample_rate / n_fft high (section 4, Table 1).
    """
    found = []
    for layer, block in enumerate(blocks, 1):
        strides = [math.prod(b.step(axis) for b in blocks[: layer - 1]) for axis in (0, 1)]
        bins, frames = (size * stride for size, stride in zip(block.kernel, strides, strict=True))
        # An output of the convolution itself: the layer's own pooling comes after it.
        unpooled = dataclasses.replace(block, pool=(1, 1), stride=(1, 1), pool_padding="VALID")
        before_pooling = [*blocks[: layer - 1], unpooled]
        (low, high), (first, last) = (reach(before_pooling, axis) for axis in (0, 1))
        true_bins, true_frames = high - low + 1, last - first + 1
        found.append(
            Extent(
                layer,
                block.kernel,
                bins,
                frames,
                hertz(bins, front_end),
                milliseconds(frames, front_end),
                true_bins,
                true_frames,
                hertz(true_bins, front_end),
                milliseconds(true_frames, front_end),
            )
        )
    return found


def milliseconds(frames: int, front_end: FrontEnd) -> float:
    """Length of the sound that so many neighbouring frames are made from."""
    return 1000 * ((frames - 1) * front_end.hop + front_end.n_fft) / front_end.sample_rate


def hertz(bins: int, front_end: FrontEnd) -> float:
    """Height of so many neighbouring bins, with half of a Hann window's main lobe at each side as in Table 1.

    NaN for mel bands and constant-Q bins: how high so many of them are depends on where they are.
    """
    if front_end.kind != "stft":
        return math.nan
    return (bins + 1) * front_end.sample_rate / front_end.n_fft


def is_the_papers(blocks: Sequence[Block], front_end: FrontEnd) -> bool:
    """Whether Table 1 is about this network: its kernels, pooling and front end, whatever the number of maps."""
    fields = [(b.kernel, b.pool, b.stride, b.padding, b.conv_stride, b.pool_padding) for b in blocks]
    same = fields == [((3, 3), (2, 2), (2, 2), "SAME", (1, 1), "VALID")] * 5
    sound = (front_end.kind, front_end.sample_rate, front_end.n_fft, front_end.hop)
    return same and sound == ("stft", 11025, 512, 256)


def reach(blocks: Sequence[Block], axis: int) -> tuple[int, int]:
    """First and last input row or column that cell 0 of the last block's pooled map sees.

    Cell j sees that range moved by j times the product of the strides; the width of the range is the true
    receptive field. Axis 0 is frequency, 1 is time; without padding's share of the convolutions, "VALID".
    """
    first = last = 0
    for block in reversed(blocks):
        size, step = block.pool[axis], block.stride[axis]
        before = _before(block.pool_padding, axis, size)
        first, last = first * step - before, last * step + size - 1 - before
        size, step = block.kernel[axis], block.conv_stride[axis]
        before = _before(block.padding, axis, size)
        first, last = first * step - before, last * step + size - 1 - before
    return first, last


def middles(blocks: Sequence[Block], axis: int) -> tuple[float, int]:
    """Middle of the receptive field of the last block's first pooled cell, and the step to the next one's.

    Both in cells of the input; with "SAME" and a stride, of blocks that are `resolved`.
    """
    first, last = reach(blocks, axis)
    return (first + last) / 2, math.prod(block.step(axis) for block in blocks)


def centres(blocks: Sequence[Block], size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Where the cells of the last block's pooled map lie: the middles of their receptive fields.

    Args:
      blocks: up to the layer.
      size: (freq, time) of the network's input.

    Returns:
      Rows of the input, shape (layer freq,), and frames, shape (layer time,), rising; within the input, halves too.
    """
    some, found = resolved(blocks, (size[0], size[1])), []
    for axis, cells in enumerate(layer_sizes(some, (size[0], size[1]))[-1]):
        middle, step = middles(some, axis)
        found.append(np.clip(middle + step * np.arange(cells), 0, size[axis] - 1))
    return found[0], found[1]


def _before(padding: Padding, axis: int, size: int) -> int:
    """Cells that padding adds before an axis; of "SAME", as many as without a stride (`resolved` knows better)."""
    side = padding if isinstance(padding, str) else padding[axis]
    if isinstance(side, str):
        return (size - 1) // 2 if side == "SAME" else 0
    return side[0]
