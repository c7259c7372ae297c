"""Clips → numbers for every feature, made where the images are: no image leaves its device.

The numbers are those of `deconv_jax.measures.features.measure`, for many clips at once, and the moments at which a
feature responds most. Clips are shared out over the devices; each device explains its own, so the result of a clip
depends on how many devices there are by rounding only (batches of other sizes add up in another order).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deconv_jax.deconvolution import deconvolve
from deconv_jax.deconvolution.plain import clips_together
from deconv_jax.deconvolution.rule import DECONVNET, Rule
from deconv_jax.measures import features
from deconv_jax.measures.features import Measures
from deconv_jax.network.model import Network
from deconv_jax.network.receptive_field import middles
from deconv_jax.network.spec import Block, resolved
from deconv_jax.network.trained import Trained
from deconv_jax.sound.front_end import FrontEnd, analyse, undo_level
from deconv_jax.system.devices import row_of

MOMENTS = 3
"""Moments of strongest response that are kept of every feature and clip."""


def measure_clips(
    trained: Trained,
    waveforms: np.ndarray,
    layer: int,
    *,
    rule: Rule = DECONVNET,
    devices: Sequence[jax.Device] | None = None,
) -> tuple[Measures, np.ndarray]:
    """Measures every feature of a layer in every clip of a batch.

    Args:
      trained: the network.
      waveforms: float, shape (clips, samples); `batch_size` says how many bound the memory.
      layer: 1-based layer.
      rule: as in `deconv_jax.deconvolution.deconvolve`.
      devices: share the clips out among these; all local devices if left out.

    Returns:
      measures, arrays of shape (clips, features): those of `features.measure`; and moments, shape
      (clips, features, MOMENTS): seconds from the beginning of the clip, strongest first, NaN where there are fewer.
      A moment is a peak over time of the pooled map's maximum over frequency, at the centre of that cell's receptive
      field, which may be far wider than a cell: see `deconv_jax.network.receptive_field`.

    Raises:
      ValueError: as in `deconv_jax.deconvolution.deconvolve`.
    """
    network, front = trained.network, trained.front_end
    used = deconvolve.used_variables(trained.variables, layer)
    deconvolve.check_features(network.blocks, layer, None)
    rule = rule.on(network.blocks[:layer])
    if rule.path == "winograd":  # compiled by itself, with options and threads of its own
        seen = analyse(front, waveforms)[1]
        images, maps = deconvolve.images_and_maps(network, used, seen, layer, rule=rule, devices=devices)
        found = _reduced(_own_unit(front, images, waveforms), maps, network, front, layer)
    else:
        shared = row_of(devices)
        used, given = jax.device_put(used, shared.whole()), shared.place(_given(front, waveforms))
        found = _measured(network, front, used, given, layer, rule, shared)
    host = {name: np.asarray(array)[: len(waveforms)] for name, array in found.items()}
    return _finished(host, network.blocks[:layer], front)


def activations(
    trained: Trained, waveforms: np.ndarray, layers: Sequence[int], devices: Sequence[jax.Device] | None = None
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Maximum and mean of the pooled map of every feature, by the forward pass alone.

    Args:
      trained, waveforms, devices: as in `measure_clips`.
      layers: 1-based layers.

    Returns:
      Layer → (maximum, mean), each of shape (clips, features).
    """
    shared, front = row_of(devices), trained.front_end
    used = jax.device_put(deconvolve.used_variables(trained.variables, max(layers)), shared.whole())
    found = _activations(trained.network, front, used, shared.place(_given(front, waveforms)), tuple(layers), shared)
    clips = len(waveforms)
    return {l: (np.asarray(top)[:clips], np.asarray(mean)[:clips]) for l, (top, mean) in found.items()}


def moments(trained: Trained, waveforms: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """When every feature of every layer responds most, by the forward pass alone; on one device.

    Args:
      trained: the network.
      waveforms: float, shape (clips, samples).

    Returns:
      Layer → (activations, seconds), each of shape (clips, features, MOMENTS): the moments of `measure_clips`,
      strongest first, and how large the map is there; 0 and NaN where there are fewer.
    """
    network, front = trained.network, trained.front_end
    found = _moments(network, front, trained.variables, _given(front, waveforms))
    return {
        layer: (np.asarray(heights), _seconds(np.asarray(columns), network.blocks[:layer], front))
        for layer, (columns, heights) in found.items()
    }


def batch_size(network: Network, front: FrontEnd, layers: Sequence[int], clips: int, devices: int) -> int:
    """How many clips to measure together: whole shares for all devices, memory bounded, and `clips` cut evenly."""
    blocks, size = network.blocks[: max(layers)], (front.bins, front.clip_frames)
    most = devices * clips_together(blocks, size)
    batches = -(-clips // most)
    return devices * -(-clips // (batches * devices))


def _own_unit(front, images, waveforms):
    """Images (clips, features, freq, time) with the level of their clips (clips, samples)."""
    return images if front.level == "none" else undo_level(front, images, analyse(front, waveforms)[0])


def _given(front: FrontEnd, waveforms: np.ndarray) -> np.ndarray:
    """Clips, or what is seen of them where that is made on the host."""
    return np.asarray(analyse(front, waveforms)[1] if front.kind == "cqt" else waveforms, np.float32)


@functools.partial(jax.jit, static_argnames=("network", "front", "layer", "rule", "shared"))
def _measured(network, front, variables, given, layer, rule, shared):
    def explain(variables, given):
        seen = given if front.kind == "cqt" else analyse(front, given)[1]
        images, maps = deconvolve.explain_batch(network, variables, seen, layer, rule=rule)
        return _reduce(_own_unit(front, images, given), maps, network, front, layer)

    return shared.each_clip(explain, whole=1)(variables, given)


@functools.partial(jax.jit, static_argnames=("network", "front", "layers", "shared"))
def _activations(network, front, variables, given, layers, shared):
    def forward(variables, given):
        seen = given if front.kind == "cqt" else analyse(front, given)[1]
        part = network.clone(blocks=resolved(network.blocks[: max(layers)], (seen.shape[1], seen.shape[2])))
        trace = part.apply(variables, seen, head=False)[1]
        return {l: (trace[l - 1].pooled.max(axis=(1, 2)), trace[l - 1].pooled.mean(axis=(1, 2))) for l in layers}

    return shared.each_clip(forward, whole=1)(variables, given)


@functools.partial(jax.jit, static_argnames=("network", "front"))
def _moments(network, front, variables, given):
    seen = given if front.kind == "cqt" else analyse(front, given)[1]
    part = network.clone(blocks=resolved(network.blocks, (seen.shape[1], seen.shape[2])))
    trace = part.apply(variables, seen, head=False)[1]
    return {
        layer: _map_peaks(jnp.moveaxis(one.pooled.max(axis=1), -1, 1), _columns_apart(network.blocks[:layer], front))
        for layer, one in enumerate(trace, 1)
    }


def _reduce(images, maps, network, front, layer):
    """Images and maps of a batch → the arrays of `features.reduce`, (clips, features, …), and the maps' peaks."""
    peaks, _ = _map_peaks(maps.max(axis=2), _columns_apart(network.blocks[:layer], front))
    return features.reduce(images, maps, front.frequencies()) | {"columns": peaks}


_reduced = jax.jit(_reduce, static_argnums=(2, 3, 4))


def _map_peaks(profile, apart: int):
    """Columns of the highest peaks above zero, strongest first, -1 for none, and how high they are, 0 for none.

    (..., time) → twice (..., MOMENTS).

    A peak is higher than the column before it and no lower than the one after it; of two that are fewer than `apart`
    columns from each other the higher one is taken.
    """
    zero = jnp.zeros_like(profile[..., :1])
    before, after = (jnp.concatenate(pair, -1) for pair in ((zero, profile[..., :-1]), (profile[..., 1:], zero)))
    heights = jnp.where((profile > 0) & (profile > before) & (profile >= after), profile, 0)
    place = lax.broadcasted_iota(jnp.int32, profile.shape, profile.ndim - 1)
    columns, tops = [], []
    for _ in range(MOMENTS):
        highest = jnp.argmax(heights, axis=-1, keepdims=True).astype(jnp.int32)
        tops.append(heights.max(axis=-1, keepdims=True))
        columns.append(jnp.where(tops[-1] > 0, highest, -1))
        heights = jnp.where(jnp.abs(place - highest) < apart, 0, heights)
    return jnp.concatenate(columns, axis=-1), jnp.concatenate(tops, axis=-1)


def _columns_apart(blocks: Sequence[Block], front: FrontEnd) -> int:
    return max(1, int(np.ceil(features.APART * front.sample_rate / (front.hop * middles(blocks, axis=1)[1]))))


def _finished(found: dict[str, np.ndarray], blocks: Sequence[Block], front: FrontEnd) -> tuple[Measures, np.ndarray]:
    return features.finished(found), _seconds(found["columns"], blocks, front)


def _seconds(columns: np.ndarray, blocks: Sequence[Block], front: FrontEnd) -> np.ndarray:
    """Middles of the receptive fields of columns, seconds from the beginning of a clip; NaN for column -1."""
    middle, step = middles(resolved(blocks, (front.bins, front.clip_frames)), axis=1)
    frames = middle + columns * step
    return np.where(columns >= 0, np.clip(frames * front.hop / front.sample_rate, 0, front.clip_seconds), np.nan)
