"""How much of the input one activation sees: the paper's printed rule (Table 1), and the true receptive field."""

import dataclasses
from collections.abc import Sequence

from deconv_jax.deconvolution import reach
from deconv_jax.network import Block
from deconv_jax.spectrogram import FrontEnd


def printed_size(layer: int, front: FrontEnd) -> tuple[float, float]:
    """The effective size of a layer by the rule that gives the paper's Table 1.

    width = ((3 · 2^(l-1) - 1) · hop + n_fft) / sample_rate, height = (3 · 2^(l-1) + 1) · sample_rate / n_fft. The
    rule counts the pooling's stride but not what pooling and the earlier kernels add; it holds for the paper's
    3×3 kernels and 2×2 pools. It gives 1055 Hz for layer 5, where the paper prints 1270.

    Args:
      layer: 1-based layer.

    Returns:
      Width in seconds and height in Hz.
    """
    cells = 3 * 2 ** (layer - 1)
    return _extent(cells, cells, front)


def true_size(blocks: Sequence[Block], layer: int, front: FrontEnd) -> tuple[float, float]:
    """The receptive field of one activation of a layer, before the layer's own pooling: all that it can see.

    Args:
      blocks: of the network.
      layer: 1-based layer.

    Returns:
      Width in seconds, from the first to the last sample under the frames seen, and height in Hz, counting the
      bins as the printed rule does.
    """
    *below, own = blocks[:layer]
    seen = [*below, dataclasses.replace(own, pool=(1, 1), stride=(1, 1))]
    bins, frames = ((last - first + 1) for first, last in (reach(seen, axis) for axis in (0, 1)))
    return _extent(bins, frames, front)


def _extent(bins: int, frames: int, front: FrontEnd) -> tuple[float, float]:
    return (
        ((frames - 1) * front.hop + front.n_fft) / front.sample_rate,
        (bins + 1) * front.sample_rate / front.n_fft,
    )
