"""Batch norm folded away: the same network without it, which every path explains and the fast ones cover."""

import dataclasses
from typing import Any

import numpy as np

from deconv_jax.network.model import Network
from deconv_jax.network.spec import Dense


def fold(network: Network, variables: Any) -> tuple[Network, dict[str, Any]]:
    """Takes batch norm that stands between a convolution (or dense layer) and its activation into that layer.

    With γ, β, μ, σ² of the norm, γ (W x + b - μ) / √(σ² + ε) + β is W' x + b' for W' = W γ / √(σ² + ε) and
    b' = (b - μ) γ / √(σ² + ε) + β (Jacob et al. 2018, section 3.2): the same logits, traces and images, to rounding,
    for any padding. (Images: of the transposed norm, `norm_back="transpose"`.) Norms elsewhere stay: with zeros as
    padding they cannot be taken into the next layer.

    Args:
      network, variables: as in `network.apply`.

    Returns:
      The network without those norms, and its variables as NumPy arrays, float32; what it was given if it has none.
    """
    params = {name: dict(layer) for name, layer in variables["params"].items()}
    stats = dict(variables.get("batch_stats", {}))
    blocks, dense = list(network.blocks), list(network.dense)
    layers: list[tuple[str, str, list[Any]]] = [("conv", "norm", blocks), ("dense", "dense_norm", dense)]
    for layer, norm, specs in layers:
        for index, spec in enumerate(specs):
            if isinstance(spec, int) or spec.norm != "before":
                continue
            number = index + 1
            kernel, bias = _folded(
                params[f"{layer}{number}"], params.pop(f"{norm}{number}"), stats.pop(f"{norm}{number}"), spec.epsilon
            )
            params[f"{layer}{number}"] = {"kernel": kernel, "bias": bias}
            specs[index] = dataclasses.replace(spec, norm="none", use_bias=True)
    done = {k: v for k, v in variables.items() if k not in ("params", "batch_stats")} | {"params": params}
    if stats:
        done["batch_stats"] = stats
    plain = tuple(d.width if isinstance(d, Dense) and d == Dense(d.width) else d for d in dense)
    return network.clone(blocks=tuple(blocks), dense=plain), done


def _folded(layer: Any, norm: Any, stats: Any, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a layer with its norm in them; computed in float64, for σ may be small."""
    factor = np.asarray(norm["scale"], np.float64) / np.sqrt(np.asarray(stats["var"], np.float64) + epsilon)
    bias = np.asarray(layer.get("bias", 0.0), np.float64) - np.asarray(stats["mean"], np.float64)
    kernel = np.asarray(layer["kernel"], np.float64) * factor
    return kernel.astype(np.float32), (bias * factor + np.asarray(norm["bias"], np.float64)).astype(np.float32)
