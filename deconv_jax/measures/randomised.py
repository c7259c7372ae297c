"""What the method shows without learning: the same network with random weights, beside which a feature stands.

Random-weight networks give plausible images too (Adebayo et al. 2018; Nie et al. 2018). So every number here is read
against that of a twin that never was trained, and a second twin shows how often chance alone would pass.
The features of two networks do not correspond: feature 3 of the twin is no earlier state of feature 3.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deconv_jax.measures.likeness import standardised
from deconv_jax.network.model import Network, convolution, initial_variables
from deconv_jax.network.spec import Block

SEEDS = (1607_02444, 1607_02445)
"""Seeds of the twin and of the second twin; a training run that uses one of them would begin as its own twin."""


def twin(network: Network, variables: Any, size: tuple[int, int], seed: int) -> dict[str, Any]:
    """The variables of the same network before any training.

    Args:
      network: the architecture.
      variables: of the trained network; the scale of its input (`variables["input"]`) is kept.
      size: (freq, time) of the clips that it classifies.
      seed: of the random weights, drawn by the initialiser that training begins with.

    Batch norm stands as it does before any training: scale 1, bias 0, and a stored mean of 0 and variance of 1. The
    trained network's statistics are of its own activations and would mean nothing for other weights.
    """
    return {**variables, **initial_variables(network, size, seed)}


# --- stronger controls ----------------------------------------------------------------------


def shuffled_kernels(variables: Any, seed: int) -> dict[str, Any]:
    """The same weights with the kernels of each layer dealt out anew: every pair of maps gets another pair's kernel.

    What single kernels detect is kept, what layers make of it is not.
    """

    def deal(rng: np.random.Generator, kernel: np.ndarray) -> np.ndarray:
        flat = kernel.reshape(*kernel.shape[:2], -1)
        return flat[..., rng.permutation(flat.shape[-1])].reshape(kernel.shape)

    return _dealt(variables, seed, deal)


def shuffled_weights(variables: Any, seed: int) -> dict[str, Any]:
    """The same weights with those of each filter (all kernels that lead to one map) in another order."""

    def deal(rng: np.random.Generator, kernel: np.ndarray) -> np.ndarray:
        return rng.permuted(kernel.reshape(-1, kernel.shape[-1]), axis=0).reshape(kernel.shape)

    return _dealt(variables, seed, deal)


def _dealt(variables: Any, seed: int, deal: Callable[[np.random.Generator, np.ndarray], np.ndarray]) -> dict[str, Any]:
    """Variables with the convolutions' kernels (freq, time, maps in, maps) dealt out, each layer by its own chance."""
    params = dict(variables["params"])
    for number, name in enumerate(sorted(n for n in params if n.startswith("conv"))):
        kernel = deal(np.random.default_rng([seed, number]), np.asarray(params[name]["kernel"]))
        params[name] = {**params[name], "kernel": kernel}
    return {**variables, "params": params}


def renormalised(network: Network, variables: Any, seen: np.ndarray) -> dict[str, Any]:
    """The same network with its batch norm estimated anew on some clips, layer by layer; the head stays as it is.

    A network with random or shuffled weights whose batch norm is not of its own activations has features that never
    respond or always do, which makes it an easy control. Where a block has no batch norm (none was there, or it was
    folded away), its convolution is brought to a mean of 0 and a variance of 1.

    Args:
      network, variables: as in `network.apply`.
      seen: what the network sees of the clips, shape (clips, freq, time).
    """
    params = {name: dict(layer) for name, layer in variables["params"].items()}
    stats = {name: dict(layer) for name, layer in variables.get("batch_stats", {}).items()}
    whole = network.clone(blocks=())  # only its own input scale is left
    maps = jnp.asarray(seen)[..., None]
    given = variables.get("input", {})
    maps = (maps - _as_maps(given.get("mean", 0.0))) / _as_maps(given.get("scale", 1.0))
    for number, block in enumerate(network.blocks, 1):
        conv, norm = f"conv{number}", f"norm{number}"
        found = _before_norm(block, params[conv], maps)
        mean, var = (np.asarray(f(found, axis=(0, 1, 2)), np.float64) for f in (jnp.mean, jnp.var))
        if block.norm != "none":
            stats[norm] = {"mean": mean.astype(np.float32), "var": var.astype(np.float32)}
        else:
            unit = np.sqrt(var + block.epsilon * max(float(np.mean(var)), _TINY))
            params[conv]["kernel"] = (np.asarray(params[conv]["kernel"], np.float64) / unit).astype(np.float32)
            if "bias" in params[conv]:
                bias = (np.asarray(params[conv]["bias"], np.float64) - mean) / unit
                params[conv]["bias"] = bias.astype(np.float32)
        own = {"params": {"conv1": params[conv]}}
        if block.norm != "none":
            own = {"params": own["params"] | {"norm1": params[norm]}, "batch_stats": {"norm1": stats[norm]}}
        maps = _pooled(whole.clone(blocks=(block,)), own, convolution(block, params[conv], maps))
    done = {**variables, "params": params}
    return {**done, "batch_stats": stats} if stats else done


_TINY = float(np.finfo(np.float32).tiny)


def _as_maps(value: Any) -> jax.Array:
    """Something broadcast against (freq, time), against (clips, freq, time, maps)."""
    value = jnp.asarray(value, jnp.float32)
    return jnp.broadcast_to(value, np.broadcast_shapes(value.shape, (1, 1)))[None, ..., None]


def _before_norm(block: Block, params: Any, maps: jax.Array) -> jax.Array:
    """What a block's batch norm gets: of the convolution, of the activation, or of the pooling."""
    found = convolution(block, params, maps)
    if block.norm in ("none", "before"):
        return found
    bare = dataclasses.replace(block, norm="none")
    if block.norm == "after":
        bare = dataclasses.replace(bare, pool=(1, 1), stride=(1, 1), pool_padding="VALID")
    return _pooled(Network((bare,)), {"params": {"conv1": params}}, found)


def _pooled(network: Network, variables: Any, convolved: jax.Array) -> jax.Array:
    return network.apply(variables, convolved, head=False, start=1)[1][0].pooled  # type: ignore[index]


# --- one clip's images beside a twin's ------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One layer's features beside those of an untrained twin; arrays have shape (features,).

    Attributes:
      difference: 1 - the highest |r| of the feature's picture (levels in dB) with any picture of the twin's layer;
        0: the twin shows the same. NaN for an inactive feature.
      difference_signed: the same of the images themselves, sign and linear amplitude included.
      chance: the same of the second twin beside the first: active (features), difference, difference_signed (medians).
    """

    difference: np.ndarray
    difference_signed: np.ndarray
    chance: dict[str, float]


@dataclasses.dataclass(frozen=True)
class Look:
    """What a comparison needs of one network's images of a layer; the images themselves can then be let go.

    Attributes:
      levels, signed: `standardised` images, shape (features, cells).
    """

    levels: np.ndarray
    signed: np.ndarray


def look(images: np.ndarray) -> Look:
    """What is compared of images (features, freq, time)."""
    return Look(standardised(images, levels=True), standardised(images, levels=False))


def compare(own: Look, first: Look, second: Look) -> Comparison:
    """Compares features with the whole layer of an untrained twin, and a second twin's with it in the same way."""
    found, chance = (_beside(some, first) for some in (own, second))
    active = ~np.isnan(chance["difference"])
    return Comparison(
        **found,
        chance={
            "active": int(active.sum()),
            **{name: _median(values[active]) for name, values in chance.items()},
        },
    )


def _beside(own: Look, first: Look) -> dict[str, np.ndarray]:
    active = own.levels.any(axis=1)
    differences = []
    for mine, others in ((own.levels, first.levels), (own.signed, first.signed)):
        highest = np.abs(mine @ others.T).max(axis=1, initial=0)
        differences.append(np.where(active, np.maximum(1 - highest, 0), np.nan))
    return {"difference": differences[0], "difference_signed": differences[1]}


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else float("nan")
