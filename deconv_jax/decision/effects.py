"""What features do for the answer: logits of a network some of whose pooled maps are taken out.

An image shows what made a feature respond; whether the answer hangs on it is another question, and it is asked here by
intervention: a map is replaced, and the network runs on from there, exactly.

What an effect is not. It is no share of the logit: effects of single features do not add up to what the set does
(`interactions` says by how much), and a feature whose work others do as well has none. It is no statement about sound
in general, but about these clips. And a map of zeros beside others that belong to music is an input that the layers
above never met in training, so part of an effect may be their surprise: that is why there is a mean to put in its place
(`mean_maps`), and why a curve stands beside those of random orders (`curve`). A feature of a network that never learnt
has effects too.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deconv_jax.deconvolution.deconvolve import batch_of, check_features
from deconv_jax.deconvolution.plain import CHUNK_BYTES, clips_together
from deconv_jax.errors import SettingError
from deconv_jax.network.model import Network, convolution
from deconv_jax.network.spec import layer_sizes

BLOCK = 64
"""Settings of scales that are run in one call, filled up: so other numbers of them compile nothing of their own."""


def effects(
    network: Network,
    variables: Any,
    magnitude: Any,
    layer: int,
    features: Sequence[int] | None = None,
    *,
    replacement: Any = "zero",
    chunk: int | None = None,
) -> jax.Array:
    """The change of every class's logit when a feature's pooled map is taken out, one feature at a time.

    Args:
      network, variables: as in `network.apply`.
      magnitude: spectrogram, shape (freq, time), or a batch (clips, freq, time), of the length that the dense layers
        were made for. Of a song: its clips.
      layer: 1-based layer.
      features: 0-based features, in the order wanted; all of the layer's if left out.
      replacement: what stands in the map's place: "zero", or an array such as `mean_maps` makes, shape (freq, time,
        maps) of the layer or what is broadcast to it.
      chunk: features run together; chosen from the shapes if left out. Changes memory, not results.

    Returns:
      Logits without the feature minus logits with it, shape (features, classes) or (clips, features, classes),
      float32. Below zero: the feature spoke for the class. Zero exactly where its map is what would replace it.

    Raises:
      ValueError: layer or feature does not exist, the clip is too short for the layer or has another length than the
        dense layers, or the replacement has another shape than the maps.

    Example:

        >>> import jax
        >>> import numpy as np
        >>> from deconv_jax import Block, Network, effects
        >>> network = Network(blocks=(Block(maps=4),), dense=(), classes=2)
        >>> seen = np.ones((16, 20), np.float32)
        >>> variables = network.init(jax.random.key(0), seen)
        >>> effects(network, variables, seen, layer=1).shape
        (4, 2)
    """
    chosen = check_features(network.blocks, layer, features)
    run = functools.partial(_effects, features=chosen)
    return _by_clips(run, network, variables, magnitude, layer, replacement, chunk, len(chosen))


def scaled_logits(
    network: Network,
    variables: Any,
    magnitude: Any,
    layer: int,
    scales: Any,
    *,
    replacement: Any = "zero",
    chunk: int | None = None,
) -> jax.Array:
    """Logits of the network with its layer's pooled maps scaled, for several settings of the scales.

    Args:
      network, variables, magnitude, layer, replacement, chunk: as in `effects`.
      scales: shape (settings, maps): 1 leaves a map as it is, 0 takes it out, what lies between fades it from the one
        to the other.

    Returns:
      shape (settings, classes) or (clips, settings, classes), float32.

    Raises:
      ValueError: as `effects`, or the scales have another shape.
    """
    check_features(network.blocks, layer, None)
    scales = jnp.asarray(scales, jnp.float32)
    if scales.ndim != 2 or scales.shape[1] != network.blocks[layer - 1].maps or not len(scales):
        maps = network.blocks[layer - 1].maps
        raise SettingError(f"scales must be (settings, {maps}) for layer {layer}, not of shape {scales.shape}")
    count = len(scales)
    if count > BLOCK // 2:
        scales = jnp.concatenate([scales, jnp.repeat(scales[-1:], -count % BLOCK, axis=0)])
    found = [
        _by_clips(
            functools.partial(_scaled, scales=block),
            network,
            variables,
            magnitude,
            layer,
            replacement,
            chunk,
            len(block),
        )
        for block in (scales[first : first + BLOCK] for first in range(0, len(scales), BLOCK))
    ]
    return jnp.concatenate(found, axis=-2)[..., :count, :]


def pooled_maps(network: Network, variables: Any, magnitude: Any, layer: int) -> jax.Array:
    """The pooled maps of a layer, shape (clips, freq, time, maps): what `logits_from` goes on from.

    Args:
      network, variables, magnitude, layer: as in `effects`; one clip gives an axis of one.
    """
    check_features(network.blocks, layer, None)
    batch, _ = batch_of(magnitude)
    size = (batch.shape[1], batch.shape[2])
    check_length(network, variables, layer_sizes(network.blocks, size)[-1], size)
    return _pooled(network, variables, batch, layer)


@functools.partial(jax.jit, static_argnames=("network", "layer"))
def _pooled(network: Network, variables: Any, batch: Any, layer: int) -> jax.Array:
    return from_layer(network, variables, batch, layer)[0]


@functools.partial(jax.jit, static_argnames=("network", "layer"))
def logits_from(network: Network, variables: Any, pooled: jax.Array, layer: int, scales: Any) -> jax.Array:
    """What `scaled_logits` gives with zeros in a map's place, from maps that are held: only what is above them runs.

    Args:
      network, variables, layer: as in `effects`.
      pooled: of `pooled_maps`, for the same network and layer.
      scales: shape (maps,).

    Returns:
      shape (clips, classes), float32.
    """
    entered, logits = _above(network, variables, layer)
    return logits(entered(pooled * jnp.asarray(scales, jnp.float32).reshape(1, 1, 1, -1)))


class Curve(NamedTuple):
    """What sets of features do, in the order given and in random ones.

    Attributes:
      counts: numbers of features, shape (counts,).
      deletion: logits with so many features of the order taken out, shape (…, counts, classes).
      insertion: logits with only so many of the order left in, same shape.
      random_deletion, random_insertion: the same for random orders, shape (…, orders, counts, classes): an order that
        means something leaves their band.
    """

    counts: np.ndarray
    deletion: jax.Array
    insertion: jax.Array
    random_deletion: jax.Array
    random_insertion: jax.Array


def curve(
    network: Network,
    variables: Any,
    magnitude: Any,
    layer: int,
    order: Sequence[int],
    *,
    counts: Sequence[int] | None = None,
    orders: int = 5,
    seed: int = 0,
    replacement: Any = "zero",
    chunk: int | None = None,
) -> Curve:
    """Deletion and insertion: features are taken out, or put back, one after another in an order.

    Args:
      network, variables, magnitude, layer, replacement, chunk: as in `effects`.
      order: 0-based features, each at most once, such as `numpy.argsort(effects[:, target])`: those first that speak
        most for the target. What it leaves out stays in when features are deleted, and out when they are inserted.
      counts: how many of them; 0, 1, 2, 4, 8 … and all if left out.
      orders: number of random orders, each of the features in `order`.
      seed: of the random orders.

    Raises:
      ValueError: as `effects`; a feature comes twice; or a count is none of 0 to the length of the order.
    """
    chosen = check_features(network.blocks, layer, order)
    if len(np.unique(chosen)) < len(chosen):
        raise SettingError("order must name a feature once at most")
    some = [0, *(2**k for k in range(32) if 2**k < len(chosen)), len(chosen)]
    taken = np.asarray(some if counts is None else counts)
    whole = taken.ndim == 1 and taken.size and taken.dtype.kind in "iu"
    if not whole or taken.min() < 0 or taken.max() > len(chosen):
        raise SettingError(f"counts must be whole numbers from 0 to {len(chosen)}, the order's length, not {counts}")
    rng = np.random.default_rng(seed)
    rows = [chosen, *(rng.permutation(chosen) for _ in range(orders))]
    first = np.zeros((len(rows), len(taken), network.blocks[layer - 1].maps), np.float32)
    for row, scale in zip(rows, first, strict=True):
        for count, one in zip(taken, scale, strict=True):
            one[row[:count]] = 1
    scales = np.stack([1 - first, first])
    logits = scaled_logits(
        network, variables, magnitude, layer, scales.reshape(-1, scales.shape[-1]), replacement=replacement, chunk=chunk
    )
    deletion, insertion = jnp.moveaxis(logits.reshape(*logits.shape[:-2], *scales.shape[:-1], -1), -4, 0)
    return Curve(
        taken, deletion[..., 0, :, :], insertion[..., 0, :, :], deletion[..., 1:, :, :], insertion[..., 1:, :, :]
    )


def interactions(
    network: Network,
    variables: Any,
    magnitude: Any,
    layer: int,
    features: Sequence[int],
    *,
    replacement: Any = "zero",
    chunk: int | None = None,
) -> jax.Array:
    """What two features do together beyond the sum of what each does: effect({f, g}) - effect(f) - effect(g).

    Args:
      network, variables, magnitude, layer, replacement, chunk: as in `effects`.
      features: 0-based features, such as the 16 strongest: all their pairs are run.

    Returns:
      shape (features, features, classes) or (clips, features, features, classes), float32, symmetric, zero for a
      feature with itself. Of two features that speak for a class and stand in for each other it is below zero: only
      both together are missed.

    Raises:
      ValueError: as `effects`.
    """
    chosen = check_features(network.blocks, layer, features)
    count = len(chosen)
    left, right = np.triu_indices(count, 1)
    scales = np.ones((1 + count + len(left), network.blocks[layer - 1].maps), np.float32)
    scales[1 + np.arange(count), chosen] = 0
    for side in (left, right):
        scales[1 + count + np.arange(len(side)), chosen[side]] = 0
    logits = scaled_logits(network, variables, magnitude, layer, scales, replacement=replacement, chunk=chunk)
    change = logits - logits[..., :1, :]
    single, pairs = change[..., 1 : count + 1, :], change[..., count + 1 :, :]
    beyond = pairs - single[..., left, :] - single[..., right, :]
    table = jnp.zeros((*logits.shape[:-2], count, count, logits.shape[-1]))
    return table.at[..., left, right, :].set(beyond).at[..., right, left, :].set(beyond)


def mean_maps(network: Network, variables: Any, magnitude: Any, layer: int) -> jax.Array:
    """The mean of a layer's pooled maps over clips and time, to stand in a map's place.

    Args:
      network, variables, layer: as in `effects`.
      magnitude: reference clips, shape (clips, freq, time), of any length.

    Returns:
      shape (freq, 1, maps), float32: every row of a map keeps a level of its own, since rows are frequencies.
    """
    check_features(network.blocks, layer, None)
    lower = network.clone(blocks=network.blocks[:layer])
    if np.ndim(magnitude) != 3 or 0 in np.shape(magnitude):
        raise SettingError(f"magnitude must be clips, (clips, freq, time), not of shape {np.shape(magnitude)}")
    clips, freq, time = np.shape(magnitude)
    group = clips_together(lower.blocks, (freq, time))
    batch = jnp.asarray(magnitude, jnp.float32)
    total = sum(_total(lower, variables, batch[first : first + group]) for first in range(0, clips, group))
    return total / (clips * layer_sizes(lower.blocks, (freq, time))[-1][1])


@functools.partial(jax.jit, static_argnames="network")
def _total(network: Network, variables: Any, batch: Any) -> jax.Array:
    traced: Any = network.apply(variables, batch, head=False)
    return traced[1][-1].pooled.sum(axis=(0, 2))[:, None]


def _by_clips(
    run: Callable[..., jax.Array],
    network: Network,
    variables: Any,
    magnitude: Any,
    layer: int,
    replacement: Any,
    chunk: int | None,
    count: int,
) -> jax.Array:
    """Looks at the shapes, and runs so many clips at once as bound the memory: (…, count, classes)."""
    batch, single = batch_of(magnitude)
    clips, size = len(batch), (batch.shape[1], batch.shape[2])
    sizes = layer_sizes(network.blocks, size)
    check_length(network, variables, sizes[-1], size)
    filler = _filler(replacement, (*sizes[layer], network.blocks[layer - 1].maps))
    group = min(clips, clips_together(network.blocks, size))
    if not chunk:
        above = [*sizes[layer : layer + 1], *sizes[layer:-1]]  # a convolution is about as large as what goes into it
        largest = max(f * t * b.maps for (f, t), b in zip(above, network.blocks[layer - 1 :], strict=True))
        chunk = CHUNK_BYTES // (4 * group * largest)
    chunk = -(-count // -(-count // max(1, min(chunk, count))))  # in equal parts
    batch = jnp.pad(batch, [(0, -clips % group), (0, 0), (0, 0)]) if clips % group else batch
    found = [
        run(network, variables, batch[first : first + group], layer, filler, chunk) for first in range(0, clips, group)
    ]
    return _joined(found, clips, count, single)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _joined(found: list[jax.Array], clips: int, count: int, single: bool) -> jax.Array:
    """What belongs to clips and rows that were asked for, without the clips' axis if there is a single one."""
    logits = jnp.concatenate(found)[:clips, :count]
    return logits[0] if single else logits


def check_length(network: Network, variables: Any, last: tuple[int, int], size: tuple[int, int]) -> None:
    name = "dense1" if network.dense else "output"
    if network.head != "flatten" or name not in variables["params"]:
        return
    have, wanted = last[0] * last[1] * network.blocks[-1].maps, len(variables["params"][name]["kernel"])
    if have != wanted:
        raise SettingError(
            f"the dense layers take {wanted} numbers, and {size[0]} bins × {size[1]} frames give {have}: "
            "they fit clips of one length, so cut a song into clips"
        )


def _filler(replacement: Any, shape: tuple[int, int, int]) -> jax.Array:
    """What stands in a map's place, (1, freq or 1, time or 1, maps or 1)."""
    if isinstance(replacement, str) and replacement != "zero":
        raise SettingError(f'replacement must be "zero" or an array, not {replacement!r}')
    filler = jnp.asarray(0.0 if isinstance(replacement, str) else replacement, jnp.float32)
    filler = filler.reshape((1,) * (4 - filler.ndim) + filler.shape)
    if filler.ndim != 4 or any(n not in (1, m) for n, m in zip(filler.shape, (1, *shape), strict=True)):
        raise SettingError(f"replacement must be broadcast to the maps' {shape}, not of shape {np.shape(replacement)}")
    return filler


@functools.partial(jax.jit, static_argnames=("network", "layer", "chunk"))
def _effects(
    network: Network, variables: Any, batch: Any, layer: int, filler: jax.Array, chunk: int, features: Any
) -> jax.Array:
    """(clips, features rounded up to whole chunks, classes)."""
    maps, entered, logits = from_layer(network, variables, batch, layer)
    change, whole, before = filler - maps, entered(maps), logits(entered(maps))

    def without(feature: jax.Array) -> jax.Array:
        # The convolution is linear: what changes in it is the convolution of the one map that does.
        one = jnp.take(change, feature[None], axis=-1)
        after = logits(whole + entered(one, feature))
        return jnp.where(jnp.any(one != 0, axis=(1, 2, 3))[:, None], after - before, 0)

    return _mapped(without, features, chunk)


@functools.partial(jax.jit, static_argnames=("network", "layer", "chunk"))
def _scaled(
    network: Network, variables: Any, batch: Any, layer: int, filler: jax.Array, chunk: int, scales: Any
) -> jax.Array:
    """(clips, settings rounded up to whole chunks, classes)."""
    maps, entered, logits = from_layer(network, variables, batch, layer)
    scales = scales.reshape(-1, 1, 1, 1, scales.shape[-1])
    return _mapped(lambda scale: logits(entered(maps * scale + filler * (1 - scale))), scales, chunk)


def _mapped(function: Callable[[Any], jax.Array], given: jax.Array, chunk: int) -> jax.Array:
    """function (given's row → (clips, classes)) of all rows, `chunk` at a time → (clips, rows, classes)."""
    padded = jnp.concatenate([given, jnp.repeat(given[-1:], -len(given) % chunk, axis=0)])
    return lax.map(function, padded, batch_size=chunk).swapaxes(0, 1)


def from_layer(
    network: Network, variables: Any, batch: Any, layer: int
) -> tuple[jax.Array, Callable[..., jax.Array], Callable[[jax.Array], jax.Array]]:
    """The pooled maps of a layer, how maps enter what comes next, and the logits of what has entered.

    What comes next is the next block's convolution, of which one map's share can be had alone, or the head.
    """
    traced: Any = network.clone(blocks=network.blocks[:layer]).apply(variables, batch, head=False)
    return traced[1][-1].pooled, *_above(network, variables, layer)


def _above(
    network: Network, variables: Any, layer: int
) -> tuple[Callable[..., jax.Array], Callable[[jax.Array], jax.Array]]:
    """How a layer's maps enter what comes next, and the logits of what has entered."""
    maps = network.blocks[layer - 1].maps

    def entered(x: jax.Array, feature: jax.Array | None = None) -> jax.Array:
        if layer == len(network.blocks):
            return x if feature is None else x * jax.nn.one_hot(feature, maps).reshape(1, 1, 1, -1)
        params = variables["params"][f"conv{layer + 1}"]
        if feature is not None:
            params = {"kernel": jnp.take(params["kernel"], feature[None], axis=2)}
        return convolution(network.blocks[layer], params, x)

    def logits(x: jax.Array) -> jax.Array:
        answer: Any = network.apply(variables, x, start=layer + 1)
        return answer[0]

    return entered, logits
