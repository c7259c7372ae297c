"""A network's spec → a pure Flax CNN whose pooling layers hand out their argmax switches.

`network.apply(variables, magnitude)` returns `(logits, trace)`; the trace is what the deconvolution walks back along
(paper, section 2.1; Zeiler & Fergus 2014, section 2.1).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from deconv_jax.errors import SettingError
from deconv_jax.network import first_layer
from deconv_jax.network.activations import activate, activate_with, derivative
from deconv_jax.network.layers import average_pool, convolve, dropout, max_pool, pads
from deconv_jax.network.spec import FINALS, HEADS, NO_WINNER, Block, Dense


class LayerTrace(NamedTuple):
    """What one pooling layer leaves behind: one entry of the trace.

    Attributes:
      pooled: pooled feature maps, shape (..., freq, time, maps).
      switches: uint8 argmax of every pooling window, counted row by row; ties go to the first; 255 for a window that
        holds no part of the clip. Same shape. Zeros where windows are averaged.
      gate: the activation's derivative, shape (..., freq, time, maps) before the pooling; None unless asked for.
    """

    pooled: jax.Array
    switches: jax.Array
    gate: jax.Array | None = None


Trace = tuple[LayerTrace, ...]


class Network(nn.Module):
    """The CNN that a tuple of blocks describes, with a dense head.

    Parameters are `conv1` … `convN`, `dense1` …, `output`, each with `kernel` and (if used) `bias`; batch norms are
    `norm1` … and `dense_norm1` …, with `scale` and `bias` among the parameters and `mean` and `var` in the collection
    `batch_stats`. The optional collection `input` holds `mean` and `scale`, both broadcast against (freq, time): the
    network sees (magnitude - mean) / scale, so nothing is assumed about the magnitude's unit.

    Attributes:
      blocks: the convolutional stages.
      dense: the dense layers before the output: widths, or `Dense` where there is more to say.
      classes: number of logits.
      dropout: share dropped after each dense layer, in training only.
      head: how maps become a vector: "flatten", or the "average" or "max" of every map.
      final: what makes probabilities of the logits: "softmax" (one class), "sigmoid" (any number of tags).
      output: whether a dense layer gives the logits; without one they are what comes before it.

    Raises:
      ValueError: head, final, output, dropout or the width of a dense layer is something else.
    """

    blocks: tuple[Block, ...]
    dense: tuple[int | Dense, ...] = (512, 256)
    classes: int = 3
    dropout: float = 0.5
    head: str = "flatten"
    final: str = "softmax"
    output: bool = True

    def __post_init__(self) -> None:
        for field, known in (("head", HEADS), ("final", FINALS), ("output", (True, False))):
            value = getattr(self, field)
            if value not in known or type(value) is not type(known[0]):
                raise SettingError(f"network.{field} must be one of {', '.join(map(str, known))}, not {value!r}")
        share: Any = self.dropout
        if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share < 1:
            raise SettingError(f"network.dropout must be at least 0 and below 1, not {share!r}")
        for width in self.dense:
            if not isinstance(width, Dense):
                Dense(width)  # raises where it is none
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        magnitude: jax.Array,
        *,
        train: bool = False,
        head: bool = True,
        frames: jax.Array | None = None,
        gates: bool = False,
        counted: int | None = None,
        start: int = 0,
        back: str = "gradient",
    ) -> tuple[jax.Array | None, Trace]:
        """Classifies spectrograms and records every pooling layer.

        Args:
          magnitude: shape (freq, time) or (clips, freq, time): the magnitude, or whatever else the network's front
            end makes of the sound.
          train: apply dropout, which needs `rngs={"dropout": key}`, and let batch norm use the batch's own mean and
            variance over clips, freq and time (Ioffe & Szegedy 2015, section 3), which needs
            `mutable=["batch_stats"]`: each statistic there becomes .9 of itself and .1 of the batch's.
          head: compute logits. The dense layers fit one clip length only; without them any length will do.
          frames: number of frames that hold the clip, shape () or (clips,), where the rest of `magnitude` is
            padding that must change nothing; None if all do. "SAME" padding with a stride follows the padded
            length: call `resolved` first.
          gates: record the activations' derivatives, which all methods but the deconvnet need.
          counted: in training, how many clips of the batch count in batch norm: what comes after them only fills up
            the devices. None for all.
          start: go on from what the convolution of this block (1-based) gives, bias included: `magnitude` is that,
            shape (clips, freq, time, maps), all of it. One more than there are blocks: from the last pooled maps.
          back: what gradients of all this meet at an activation: one of `deconv_jax.network.activations.METHODS`.

        Returns:
          logits, shape (classes,) or (clips, classes), or None without head; and the trace, one `LayerTrace`
          per block that was run.
        """
        single = magnitude.ndim == 2
        x = magnitude
        if not start:
            x = (x[None] if single else x)[..., None]
            x = (x - self._input("mean", 0.0)) / self._input("scale", 1.0)
        rows = None if counted is None or counted == len(x) else jnp.arange(len(x)).reshape(-1, 1, 1, 1) < counted
        valid = None if frames is None else jnp.broadcast_to(jnp.asarray(frames), x.shape[:1])
        if valid is not None:
            x = jnp.where(_columns(x, valid), x, 0)
        in_training = train and not start and valid is None and not gates and back == "gradient"
        trace = []
        for number, block in enumerate(self.blocks, 1):
            if number < start:
                continue
            conv = _conv(block, x.shape[1:3], f"conv{number}")
            norm = _batch_norm(train, block.epsilon, rows, f"norm{number}")
            gate = None
            if in_training and number == 1 and not self.is_initializing() and first_layer.fits(block, x.shape[-1]):
                x, switches = self._first(block, x[:counted], x)
            else:
                x = x if number == start else conv(x)
                x = norm(x) if block.norm == "before" else x
                gate = derivative(x, block.activation, block.slope) if gates else None
                x = _activate(x, block, back)
                x = norm(x) if block.norm == "after" else x
                after = None if valid is None else block.convolved(valid, 1)
                x, switches = self._pool(block, x, after)
            x = norm(x) if block.norm == "pooled" else x
            if valid is not None:
                valid = block.pooled(valid, 1)
                x = jnp.where(_columns(x, valid), x, 0)
                switches = jnp.where(_columns(x, valid), switches, NO_WINNER)
            trace.append(LayerTrace(x, switches, gate))
            x = self._dropped(x, block.dropout, train)
        logits = self._logits(x, train, rows, back) if head else None
        if single:
            trace = [LayerTrace(t.pooled[0], t.switches[0], None if t.gate is None else t.gate[0]) for t in trace]
            logits = None if logits is None else logits[0]
        return logits, tuple(trace)

    def _first(self, block: Block, counted: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Pooled maps and switches of the first block in training, and batch norm's statistics of the clips counted."""
        params: Any = self.get_variable("params", "conv1")
        kernel, bias = params["kernel"], params.get("bias", jnp.zeros(block.maps))
        if block.norm == "before":
            norm: Any = self.get_variable("params", "norm1")
            stats: Any = self.get_variable("batch_stats", "norm1")
            kernel, bias, found = first_layer.normalised(kernel, bias, norm, block.epsilon, counted)
            if self.is_mutable_collection("batch_stats"):
                moved = {k: NORM_MOMENTUM * stats[k] + (1 - NORM_MOMENTUM) * found[k] for k in ("mean", "var")}
                self.put_variable("batch_stats", "norm1", moved)
        return first_layer.pooled_convolution(x, kernel, bias, block.pool)

    def _dropped(self, x: jax.Array, share: float, train: bool) -> jax.Array:
        return dropout(x, self.make_rng("dropout"), share) if train and share else x

    def _logits(self, x: jax.Array, train: bool, rows: jax.Array | None, back: str) -> jax.Array:
        if self.head == "flatten":
            x = x.reshape(x.shape[0], -1)
        else:
            x = x.mean(axis=(1, 2)) if self.head == "average" else x.max(axis=(1, 2))
        for number, given in enumerate(self.dense, 1):
            spec = given if isinstance(given, Dense) else Dense(given)
            dense = nn.Dense(
                spec.width,
                use_bias=spec.use_bias,
                kernel_init=nn.initializers.glorot_uniform(),
                name=f"dense{number}",
            )
            norm = _batch_norm(train, spec.epsilon, None if rows is None else rows[..., 0, 0], f"dense_norm{number}")
            x = norm(dense(x)) if spec.norm == "before" else dense(x)
            x = _activate(x, spec, back)
            x = norm(x) if spec.norm == "after" else x
            x = self._dropped(x, self.dropout, train)
        if not self.output:
            return x
        return nn.Dense(self.classes, kernel_init=nn.initializers.glorot_uniform(), name="output")(x)

    def _pool(self, block: Block, x: jax.Array, frames: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Pooled maps and switches; with `frames` given, columns from there on are treated as padding."""
        edges = pads(block.pool_padding, x.shape[1:3], block.pool, block.stride)
        padded = any(n for pair in edges for n in pair)
        inside = None if frames is None or not padded else _columns(x, frames)
        if block.pooling == "average":
            pooled = average_pool(x, block.pool, block.stride, edges, inside, block.count_padding)
            return pooled, jnp.zeros(pooled.shape, jnp.uint8)
        if padded:
            x = x if inside is None else jnp.where(inside, x, LOWEST)
            x = jnp.pad(x, [(0, 0), *edges, (0, 0)], constant_values=LOWEST)
        return max_pool(x, block.pool, block.stride)

    def probabilities(self, logits: jax.Array) -> jax.Array:
        """What the logits say, in the same shape: of classes (summing to one), or of independent tags."""
        return jax.nn.softmax(logits) if self.final == "softmax" else jax.nn.sigmoid(logits)

    def _input(self, name: str, default: float) -> jax.Array:
        value = self.get_variable("input", name, default)
        return jnp.broadcast_to(jnp.asarray(value, jnp.float32), np.broadcast_shapes(jnp.shape(value), (1, 1)))[
            None, ..., None
        ]


def _activate(x: jax.Array, spec: Block | Dense, back: str) -> jax.Array:
    plain = back == "gradient"
    return activate(x, spec.activation, spec.slope) if plain else activate_with(x, spec.activation, spec.slope, back)


def _conv(block: Block, size: Sequence[int], name: str) -> nn.Conv:
    return nn.Conv(
        block.maps,
        block.kernel,
        block.conv_stride,
        padding=block.padding if isinstance(block.padding, str) else _conv_pads(block, size),
        use_bias=block.use_bias,
        kernel_init=nn.initializers.glorot_uniform(),
        conv_general_dilated=convolve,
        name=name,
    )


NORM_MOMENTUM = 0.9
"""Share of a stored statistic of batch norm that a training step keeps."""


def _batch_norm(train: bool, epsilon: float, rows: jax.Array | None, name: str) -> Callable[[jax.Array], jax.Array]:
    norm = nn.BatchNorm(use_running_average=not train, momentum=NORM_MOMENTUM, epsilon=epsilon, name=name)
    return functools.partial(norm, mask=rows)


LOWEST = float(np.finfo(np.float32).min)
"""Fills padding that must never win a maximum; finite, so that checks for infinities stay useful."""


def convolution(block: Block, params: Any, maps: jax.Array) -> jax.Array:
    """What a block's convolution makes of maps, (clips, freq, time, maps in): where `Network.__call__` can `start`."""
    padding = block.padding if isinstance(block.padding, str) else _conv_pads(block, maps.shape[1:3])
    x = convolve(maps, params["kernel"], block.conv_stride, padding)
    return x + params["bias"].reshape(1, 1, 1, -1) if "bias" in params else x


def _conv_pads(block: Block, size: Sequence[int]) -> list[tuple[int, int]]:
    return list(pads(block.padding, size, block.kernel, block.conv_stride))


def _columns(x: jax.Array, valid: jax.Array) -> jax.Array:
    """Which time columns of x, (clips, freq, time, maps), lie within the first `valid` (clips,)."""
    columns = jnp.arange(x.shape[2])[None]
    return (columns < valid[:, None])[:, None, :, None]


def paper_network(classes: int = 3, maps: int = 64) -> Network:
    """The paper's network (section 4): 5 × [3×3 convolution, ReLU, 2×2 max-pool], two dense layers."""
    return Network(blocks=(Block(maps=maps),) * 5, classes=classes)


def initial_variables(network: Network, size: tuple[int, int], seed: int) -> dict[str, Any]:
    """What a training with this seed begins with, for an input of (freq, time) = `size`.

    Returns:
      `params`, and for a network with batch norm `batch_stats`: means of 0 and variances of 1.
    """
    return dict(_initial(network, size, jax.random.key(seed)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _initial(network: Network, size: tuple[int, int], key: jax.Array) -> Any:
    return network.init(key, jnp.zeros(size))
