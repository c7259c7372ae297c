"""Block specs → a pure Flax CNN whose pooling layers hand out their argmax switches.

A network is data: a tuple of `Block`s and a head. `network.apply(variables, magnitude)` returns `(logits, trace)`;
the trace is what the deconvolution walks back along (paper, section 2.1; Zeiler & Fergus 2014, section 2.1).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from deconv_jax.layers import convolve, max_pool

NO_WINNER = 255
"""The switch of a window that holds no part of the clip: it unpools to zeros."""


@dataclasses.dataclass(frozen=True)
class Block:
    """One convolution → ReLU → max-pool → dropout stage.

    Attributes:
      maps: number of feature maps.
      kernel: (frequency, time) size of the kernels.
      padding: "SAME" or "VALID".
      use_bias: whether a bias is added. It acts forward only, never in the deconvolution.
      pool: (frequency, time) window of the max-pooling; (1, 1) for none.
      stride: (frequency, time) stride of the pooling; the window's size when left out. Windows that do not fit
        wholly are dropped (floor).
      dropout: share of activations dropped after the pooling, in training only.
    """

    maps: int = 64
    kernel: tuple[int, int] = (3, 3)
    padding: str = "SAME"
    use_bias: bool = True
    pool: tuple[int, int] = (2, 2)
    stride: tuple[int, int] = None  # type: ignore[assignment]  # filled in below
    dropout: float = 0.5

    def __post_init__(self):
        object.__setattr__(self, "kernel", tuple(self.kernel))
        object.__setattr__(self, "pool", tuple(self.pool))
        object.__setattr__(self, "stride", tuple(self.stride or self.pool))
        for name in ("kernel", "pool", "stride"):
            pair = getattr(self, name)
            if len(pair) != 2 or any(int(n) != n or n < 1 for n in pair):
                raise ValueError(f"block.{name} must be two whole numbers of at least 1, not {pair}")
        if self.maps < 1:
            raise ValueError(f"block.maps must be at least 1, not {self.maps}")
        if self.padding not in ("SAME", "VALID"):
            raise ValueError(f'block.padding must be "SAME" or "VALID", not {self.padding!r}')
        if self.pool[0] * self.pool[1] >= NO_WINNER:
            raise ValueError(f"block.pool must hold fewer than {NO_WINNER} cells, not {self.pool}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"block.dropout must be at least 0 and below 1, not {self.dropout}")

    def convolved(self, length, axis: int):
        """Length of the convolution's output along an axis (0 frequency, 1 time); ints or integer arrays."""
        return length if self.padding == "SAME" else length - self.kernel[axis] + 1

    def pooled(self, length, axis: int):
        """Length of the pooled output along an axis, from the block's input length; below 1 if nothing fits."""
        return (self.convolved(length, axis) - self.pool[axis]) // self.stride[axis] + 1


class LayerTrace(NamedTuple):
    """What one pooling layer leaves behind: one entry of the trace.

    Attributes:
      pooled: pooled feature maps, shape (..., freq, time, maps).
      switches: uint8 argmax of every pooling window, counted row by row; ties go to the first. Same shape.
    """

    pooled: jax.Array
    switches: jax.Array


Trace = tuple[LayerTrace, ...]


class Network(nn.Module):
    """The CNN that a tuple of blocks describes, with a dense head.

    Parameters are `conv1` … `convN`, `dense1` …, `output`, each with `kernel` and (if used) `bias`. The optional
    collection `input` holds `mean` and `scale`, both broadcast against (freq, time): the network sees
    (magnitude - mean) / scale, or (log(1 + 10⁴ · magnitude) - mean) / scale with `log` set; the magnitude is
    that of a Hann window whose peaks reach n_fft / 4 at full scale, so nothing is assumed about its unit.

    Attributes:
      blocks: the convolutional stages.
      dense: widths of the dense layers before the output.
      classes: number of logits.
      dropout: share dropped after each dense layer, in training only.
      log: compress the magnitude. The deconvolved image is then no magnitude: auralise it as a mask.
    """

    blocks: tuple[Block, ...]
    dense: tuple[int, ...] = (512, 256)
    classes: int = 3
    dropout: float = 0.5
    log: bool = False

    @nn.compact
    def __call__(
        self,
        magnitude: jax.Array,
        *,
        train: bool = False,
        head: bool = True,
        frames: jax.Array | None = None,
    ) -> tuple[jax.Array | None, Trace]:
        """Classifies spectrograms and records every pooling layer.

        Args:
          magnitude: shape (freq, time) or (clips, freq, time).
          train: apply dropout; needs `rngs={"dropout": key}`.
          head: compute logits. The dense layers fit one clip length only; without them any length will do.
          frames: number of frames that hold the clip, shape () or (clips,), where the rest of `magnitude` is
            padding that must change nothing; None if all do.

        Returns:
          logits, shape (classes,) or (clips, classes), or None without head; and the trace, one `LayerTrace`
          per block.
        """
        single = magnitude.ndim == 2
        x = (magnitude[None] if single else magnitude)[..., None]
        if self.log:
            x = jnp.log1p(1e4 * x)
        x = (x - self._input("mean", 0.0)) / self._input("scale", 1.0)
        valid = None if frames is None else jnp.broadcast_to(jnp.asarray(frames), x.shape[:1])
        if valid is not None:
            x = jnp.where(_columns(x, valid), x, 0)
        trace = []
        for number, block in enumerate(self.blocks, 1):
            conv = nn.Conv(
                block.maps,
                block.kernel,
                padding=block.padding,
                use_bias=block.use_bias,
                kernel_init=nn.initializers.glorot_uniform(),
                conv_general_dilated=convolve,
                name=f"conv{number}",
            )
            x, switches = max_pool(nn.relu(conv(x)), block.pool, block.stride)
            if valid is not None:
                valid = block.pooled(valid, 1)
                x = jnp.where(_columns(x, valid), x, 0)
                switches = jnp.where(_columns(x, valid), switches, NO_WINNER)
            trace.append(LayerTrace(x, switches))
            x = nn.Dropout(block.dropout, deterministic=not train)(x)
        logits = None
        if head:
            x = x.reshape(x.shape[0], -1)
            for number, width in enumerate(self.dense, 1):
                dense = nn.Dense(width, kernel_init=nn.initializers.glorot_uniform(), name=f"dense{number}")
                x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(dense(x)))
            output = nn.Dense(self.classes, kernel_init=nn.initializers.glorot_uniform(), name="output")
            logits = output(x)
        if single:
            trace = [LayerTrace(t.pooled[0], t.switches[0]) for t in trace]
            logits = None if logits is None else logits[0]
        return logits, tuple(trace)

    def _input(self, name: str, default: float) -> jax.Array:
        value = self.get_variable("input", name, default)
        return jnp.broadcast_to(jnp.asarray(value, jnp.float32), np.broadcast_shapes(jnp.shape(value), (1, 1)))[
            None, ..., None
        ]


def _columns(x: jax.Array, valid: jax.Array) -> jax.Array:
    """Which time columns of x, (clips, freq, time, maps), lie within the first `valid` (clips,)."""
    columns = jnp.arange(x.shape[2])[None]
    return (columns < valid[:, None])[:, None, :, None]


def paper_network(classes: int = 3, maps: int = 64) -> Network:
    """The paper's network (section 4): 5 × [3×3 convolution, ReLU, 2×2 max-pool], two dense layers."""
    return Network(blocks=(Block(maps=maps),) * 5, classes=classes)


def initial_params(network: Network, size: tuple[int, int], seed: int):
    """The weights that a training with this seed begins with, for an input of (freq, time) = `size`."""
    return jax.jit(network.init)(jax.random.key(seed), jnp.zeros(size))["params"]


def layer_sizes(blocks: Sequence[Block], size: tuple[int, int]) -> list[tuple[int, int]]:
    """(freq, time) of the input and of every pooled layer after it.

    Raises:
      ValueError: a layer has nothing left to look at, because the input is too small.
    """
    sizes = [size]
    for number, block in enumerate(blocks, 1):
        freq, time = block.pooled(sizes[-1][0], 0), block.pooled(sizes[-1][1], 1)
        if freq < 1 or time < 1:
            raise ValueError(
                f"an input of {size[0]} bins × {size[1]} frames leaves nothing for layer {number}: use a longer clip"
            )
        sizes.append((freq, time))
    return sizes
