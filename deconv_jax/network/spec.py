"""A network as data: a tuple of `Block`s, and `Dense` layers for its head.

The defaults are the paper's network. The other fields describe networks that people have: strides, any padding,
batch norm, average pooling, other rectifiers, tags instead of classes. Axes are always (frequency, time); networks
that were trained on (time, frequency) are turned when they are loaded (`deconv_jax.network.file`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from deconv_jax.errors import SettingError
from deconv_jax.network.activations import ACTIVATIONS
from deconv_jax.network.layers import pads

NO_WINNER = 255
"""The switch of a window that holds no part of the clip: it unpools to zeros."""

NORMS = ("none", "before", "after", "pooled")
POOLINGS = ("max", "average")
HEADS = ("flatten", "average", "max")
FINALS = ("softmax", "sigmoid")

MOST = 2**20
"""The largest whole number of a spec: nothing that anybody trains is near it, and memory is safe below it."""

Padding = str | tuple[str | tuple[int, int], str | tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Block:
    """One convolution → activation → pooling → dropout stage, with batch norm where a network has it.

    Attributes:
      maps: number of feature maps.
      kernel: (frequency, time) size of the kernels; (1, k) or (bins, k) is a convolution along time.
      padding: of the convolution: "SAME" (TensorFlow's rule: with a stride, what is left over goes to the end),
        "VALID", or a pair for (frequency, time) of "SAME", "VALID" or zeros added (before, after), such as
        ((1, 1), (1, 1)) for PyTorch's padding=1.
      use_bias: whether a bias is added. It acts forward only, never in the deconvolution.
      pool: (frequency, time) window of the pooling; (1, 1) for none.
      stride: (frequency, time) stride of the pooling; the window's size when left out. Windows that do not fit
        wholly are dropped (floor).
      dropout: share of activations dropped after the pooling, in training only.
      conv_stride: (frequency, time) stride of the convolution.
      activation: one of `deconv_jax.network.activations.ACTIVATIONS`; which methods know it is said there.
      slope: leaky_relu's below zero, or elu's α.
      norm: batch norm by stored statistics: "none", "before" the activation, "after" it, or "pooled": after the
        pooling.
      epsilon: added to the batch norm's variance.
      pooling: "max" or "average"; cells that padding adds never win.
      pool_padding: of the pooling, as `padding`.
      count_padding: whether cells that padding adds count in an average, as zeros: as PyTorch has it by default
        (count_include_pad), and Keras has not.
    """

    maps: int = 64
    kernel: tuple[int, int] = (3, 3)
    padding: Padding = "SAME"
    use_bias: bool = True
    pool: tuple[int, int] = (2, 2)
    stride: tuple[int, int] = None  # type: ignore[assignment]  # filled in below
    dropout: float = 0.5
    conv_stride: tuple[int, int] = (1, 1)
    activation: str = "relu"
    slope: float = 0.0
    norm: str = "none"
    epsilon: float = 1e-3
    pooling: str = "max"
    pool_padding: Padding = "VALID"
    count_padding: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "stride", self.pool if self.stride is None else self.stride)
        for name in ("kernel", "pool", "stride", "conv_stride"):
            pair = getattr(self, name)
            if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(_whole(n, 1) for n in pair):
                raise SettingError(f"block.{name} must be two whole numbers from 1 to {MOST:,}, not {pair}")
            object.__setattr__(self, name, tuple(int(n) for n in pair))
        if not _whole(self.maps, 1):
            raise SettingError(f"block.maps must be a whole number from 1 to {MOST:,}, not {self.maps}")
        for name in ("padding", "pool_padding"):
            object.__setattr__(self, name, _padding(name, getattr(self, name)))
        if any(n >= size for pair, size in zip(_pairs(self.pool_padding), self.pool, strict=True) for n in pair):
            raise SettingError(
                f"block.pool_padding must be smaller than the window {self.pool}, not {self.pool_padding}"
            )
        if self.pool[0] * self.pool[1] >= NO_WINNER and self.pooling == "max":
            raise SettingError(f"block.pool must hold fewer than {NO_WINNER} cells, not {self.pool}")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise SettingError(f"block.dropout must be at least 0 and below 1, not {self.dropout}")
        _check_layer("block", self)
        if not isinstance(self.count_padding, bool):
            raise SettingError(f"block.count_padding must be true or false, not {self.count_padding!r}")
        if self.norm not in NORMS:
            raise SettingError(f"block.norm must be one of {', '.join(NORMS)}, not {self.norm!r}")
        if self.pooling not in POOLINGS:
            raise SettingError(f"block.pooling must be one of {', '.join(POOLINGS)}, not {self.pooling!r}")

    def convolved(self, length: Any, axis: int) -> Any:
        """Length of the convolution's output along an axis (0 frequency, 1 time); ints or integer arrays."""
        return _length(length, self.padding, axis, self.kernel, self.conv_stride)

    def pooled(self, length: Any, axis: int) -> Any:
        """Length of the pooled output along an axis, from the block's input length; below 1 if nothing fits."""
        return _length(self.convolved(length, axis), self.pool_padding, axis, self.pool, self.stride)

    def step(self, axis: int) -> int:
        """Input rows or columns from one cell of the pooled map to the next."""
        return self.conv_stride[axis] * self.stride[axis]


def _whole(value: Any, least: int) -> bool:
    number = isinstance(value, int | float | np.integer) and not isinstance(value, bool)
    return number and bool(least <= value <= MOST and int(value) == value)


def _padding(name: str, given: Any) -> Padding:
    """Padding in its one form: a word where one says it for both axes, a pair else."""
    if given in ("SAME", "VALID"):
        return given
    pair: list[str | tuple[int, int]] = []
    for side in given if isinstance(given, list | tuple) and len(given) == 2 else ["?"]:
        numbers = isinstance(side, list | tuple) and len(side) == 2 and all(_whole(n, 0) for n in side)
        if side not in ("SAME", "VALID") and not numbers:
            raise SettingError(
                f'block.{name} must be "SAME", "VALID", or for (frequency, time) a pair of "SAME", "VALID" or two '
                f"whole numbers (before, after), not {given!r}"
            )
        pair.append(side if isinstance(side, str) else (int(side[0]), int(side[1])))
    return pair[0] if pair[0] == pair[1] and isinstance(pair[0], str) else (pair[0], pair[1])


def _pairs(padding: Padding) -> list[tuple[int, int]]:
    """The zeros that are named as numbers, (0, 0) for words."""
    return (
        [(0, 0) if isinstance(side, str) else side for side in padding] if isinstance(padding, tuple) else [(0, 0)] * 2
    )


def _length(length: Any, padding: Padding, axis: int, window: Sequence[int], stride: Sequence[int]) -> Any:
    side = padding if isinstance(padding, str) else padding[axis]
    if side == "SAME":
        return -(-length // stride[axis])
    before, after = (0, 0) if isinstance(side, str) else side
    return (length + before + after - window[axis]) // stride[axis] + 1


def _check_layer(kind: str, layer: "Block | Dense") -> None:
    if layer.activation not in ACTIVATIONS:
        raise SettingError(f"{kind}.activation must be one of {', '.join(ACTIVATIONS)}, not {layer.activation!r}")
    for name in ("slope", "epsilon"):
        value = getattr(layer, name)
        if not isinstance(value, int | float) or not 0 <= value < np.inf:
            raise SettingError(f"{kind}.{name} must be a number of at least 0, not {value!r}")
    if not isinstance(layer.use_bias, bool):
        raise SettingError(f"{kind}.use_bias must be true or false, not {layer.use_bias!r}")


def resolved(blocks: Sequence["Block"], size: tuple[int, int]) -> tuple["Block", ...]:
    """The same blocks with "SAME" written as numbers wherever it depends on the size of the input.

    With a stride above 1 TensorFlow's rule adds more or less, as the length asks for. A window of a long clip must
    be padded as the whole clip is, so the whole clip's numbers are put in.
    """
    done = []
    for block in blocks:
        after = (block.convolved(size[0], 0), block.convolved(size[1], 1))
        changes: dict[str, Any] = {}
        for name, given, lengths, window, stride in (
            ("padding", block.padding, size, block.kernel, block.conv_stride),
            ("pool_padding", block.pool_padding, after, block.pool, block.stride),
        ):
            if given == "VALID" or (given == "SAME" and stride == (1, 1)):
                continue
            changes[name] = pads(given, lengths, window, stride)
        done.append(dataclasses.replace(block, **changes) if changes else block)
        size = (block.pooled(size[0], 0), block.pooled(size[1], 1))
    return tuple(done)


@dataclasses.dataclass(frozen=True)
class Dense:
    """One dense layer of the head, before the output.

    Attributes:
      width: number of units.
      activation, slope: as in `Block`.
      norm: "none", or batch norm "before" or "after" the activation; `epsilon` is added to its variance.
      use_bias: whether a bias is added.
    """

    width: int
    activation: str = "relu"
    slope: float = 0.0
    norm: str = "none"
    epsilon: float = 1e-3
    use_bias: bool = True

    def __post_init__(self) -> None:
        if not _whole(self.width, 1):
            raise SettingError(f"dense.width must be a whole number from 1 to {MOST:,}, not {self.width}")
        _check_layer("dense", self)
        if self.norm not in NORMS[:3]:
            raise SettingError(f"dense.norm must be one of {', '.join(NORMS[:3])}, not {self.norm!r}")


def layer_sizes(blocks: Sequence[Block], size: tuple[int, int]) -> list[tuple[int, int]]:
    """(freq, time) of the input and of every pooled layer after it.

    Raises:
      ValueError: a layer has nothing left to look at, because the input is too small.
    """
    sizes = [size]
    for number, block in enumerate(blocks, 1):
        freq, time = block.pooled(sizes[-1][0], 0), block.pooled(sizes[-1][1], 1)
        # A pooling that pads makes something of nothing.
        if min(freq, time, block.convolved(sizes[-1][0], 0), block.convolved(sizes[-1][1], 1)) < 1:
            raise SettingError(
                f"an input of {size[0]} bins × {size[1]} frames leaves nothing for layer {number}: use a longer clip"
            )
        sizes.append((freq, time))
    return sizes
