"""Layer-wise relevance propagation: a logit is shared out over what made it, layer by layer, down to the input.

Every layer's rule shares the relevance R of its outputs out over its inputs a in proportion to what each gave to them
(Montavon et al. 2019, sections 10.1 and 10.2), with s = R / (z + ε · sign(z)) at every output z:

- ε: z = Σ a w + b, the input's share is a · Σ w s. Dense layers; with composite "epsilon" all layers.
- γ: the same with w + γ · max(w, 0) for w; for inputs below zero and outputs below zero in the generalised form that
  keeps signs (Andéol et al. 2021). Convolutions above the first.
- flat: w = 1, a = 1, b = 0: what comes down is spread evenly (Lapuschkin et al. 2019). The first convolution of
  "gamma_flat".
- box: z = Σ a w - Σ low · max(w, 0) - Σ high · min(w, 0), for inputs between low and high (Montavon et al. 2017). The
  first convolution of "gamma_box".

Batch norm before an activation is folded into its layer. Activations, and norms that stand elsewhere, hand relevance
down as it is; the winner of a max-pooling takes all; averages follow the ε rule. What biases gave is nobody's: it is
absorbed, and is why the sum need not be the logit. These are the rules of zennit (Anders et al. 2021), which tests hold
them against.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from deconv_jax.network.activations import activate
from deconv_jax.network.model import Network, convolution
from deconv_jax.network.spec import Dense

COMPOSITES = ("gamma_flat", "gamma_box", "epsilon")

STABILISER = 1e-6
"""ε of all rules but the ε rule's own."""

_Layer = Callable[[Any, jax.Array], jax.Array]
"""(parameters, input) → output, linear but for a bias."""


@functools.partial(jax.jit, static_argnames=("network", "composite"))
def relevance(
    network: Network,
    variables: Any,
    batch: jax.Array,
    targets: jax.Array,
    *,
    composite: str,
    epsilon: jax.Array,
    gamma: jax.Array,
    low: jax.Array,
    high: jax.Array,
) -> jax.Array:
    """Relevance of every cell for the targets' logits.

    Args:
      network, variables: without batch norm before activations: `deconv_jax.network.folding.fold`.
      batch: shape (clips, freq, time); targets: shape (clips,).
      composite: one of `COMPOSITES`.
      epsilon, gamma: of the rules.
      low, high: bounds of the batch for the box rule, broadcast to it.

    Returns:
      shape (clips, freq, time).
    """
    x, low, high = (_seen(variables, jnp.broadcast_to(given, batch.shape)) for given in (batch, low, high))
    steps, inputs = list(_steps(network, variables)), []
    for _, layer, params in steps:
        inputs.append(x)
        x = layer(params, x)
    found = x * jax.nn.one_hot(targets, x.shape[1])
    for number, ((kind, layer, params), given) in reversed(list(enumerate(zip(steps, inputs, strict=True)))):
        if kind == "winner":
            (found,) = jax.vjp(functools.partial(layer, params), given)[1](found)
        elif kind == "average":
            found = _epsilon(layer, params, given, found, STABILISER)
        elif kind == "dense" or (kind == "convolution" and composite == "epsilon"):
            found = _epsilon(layer, params, given, found, epsilon)
        elif kind == "convolution" and number:
            found = _gamma(layer, params, given, found, gamma)
        elif kind == "convolution":
            flat = composite == "gamma_flat"
            found = _flat(layer, params, given, found) if flat else _box(layer, params, given, found, low, high)
    return found[..., 0]


def _seen(variables: Any, magnitude: jax.Array) -> jax.Array:
    """The magnitude as it goes into the first convolution, (clips, freq, time, 1)."""
    for name, apply in (("mean", jnp.subtract), ("scale", jnp.divide)):
        value = jnp.asarray(variables.get("input", {}).get(name, float(name == "scale")), jnp.float32)
        magnitude = apply(magnitude, value.reshape((1,) * (magnitude.ndim - value.ndim) + value.shape))
    return magnitude[..., None]


def _steps(network: Network, variables: Any) -> Iterator[tuple[str, _Layer, Any]]:
    """Kind, function and parameters of every step, from the first convolution to the logits."""
    params, stats = variables["params"], variables.get("batch_stats", {})

    def bent(spec: Any, name: str) -> Iterator[tuple[str, _Layer, Any]]:
        yield "as it is", lambda _, x: activate(x, spec.activation, spec.slope), None
        if spec.norm == "after":
            yield normed(spec, name)

    def normed(spec: Any, name: str) -> tuple[str, _Layer, Any]:
        return "as it is", functools.partial(_normed, spec.epsilon), (params[name], stats[name])

    for number, block in enumerate(network.blocks, 1):
        yield "convolution", functools.partial(convolution, block), params[f"conv{number}"]
        yield from bent(block, f"norm{number}")
        pool = functools.partial(_pooled, network, block)
        yield "average" if block.pooling == "average" else "winner", pool, None
        if block.norm == "pooled":
            yield normed(block, f"norm{number}")
    if network.head == "flatten":
        yield "winner", lambda _, x: x.reshape(len(x), -1), None  # moves numbers: its transpose hands all of it down
    elif network.head == "average":
        yield "average", lambda _, x: x.mean(axis=(1, 2)), None
    else:
        yield "winner", lambda _, x: x.max(axis=(1, 2)), None
    for number, given in enumerate(network.dense, 1):
        yield "dense", _dense, params[f"dense{number}"]
        yield from bent(given if isinstance(given, Dense) else Dense(given), f"dense_norm{number}")
    if network.output:
        yield "dense", _dense, params["output"]


def _pooled(network: Network, block: Any, _: Any, x: jax.Array) -> jax.Array:
    return network._pool(block, x, None)[0]


def _dense(params: Any, x: jax.Array) -> jax.Array:
    x = x @ params["kernel"]
    return x + params["bias"].reshape(1, -1) if "bias" in params else x


def _normed(epsilon: float, given: Any, x: jax.Array) -> jax.Array:
    params, stats = (
        {name: jnp.asarray(v).reshape((1,) * (x.ndim - 1) + (-1,)) for name, v in d.items()} for d in given
    )
    return (x - stats["mean"]) / jnp.sqrt(stats["var"] + epsilon) * params["scale"] + params["bias"]


def _share(found: jax.Array, z: jax.Array, epsilon: Any) -> jax.Array:
    return found / (z + jnp.where(z >= 0, epsilon, -epsilon))


def _changed(params: Any, change: Callable[[jax.Array], jax.Array], *, bias: bool = True) -> Any:
    """Parameters, changed; without a bias if that is not wanted."""
    return {name: change(jnp.asarray(p)) for name, p in params.items() if bias or name != "bias"}


def _epsilon(layer: _Layer, params: Any, x: jax.Array, found: jax.Array, epsilon: Any) -> jax.Array:
    z, back = jax.vjp(functools.partial(layer, params), x)
    return x * back(_share(found, z, epsilon))[0]


def _gamma(layer: _Layer, params: Any, x: jax.Array, found: jax.Array, gamma: Any) -> jax.Array:
    z = layer(params, x)
    up, down = (lambda p: p + gamma * jnp.maximum(p, 0)), (lambda p: p + gamma * jnp.minimum(p, 0))
    parts, total = (jnp.maximum(x, 0), jnp.minimum(x, 0)), jnp.zeros_like(x)
    for side, ways in ((z > 0, (up, down)), (z < 0, (down, up))):
        changed = [_changed(params, way, bias=not n) for n, way in enumerate(ways)]
        runs = [jax.vjp(functools.partial(layer, p), part) for p, part in zip(changed, parts, strict=True)]
        shared = jnp.where(side, _share(found, runs[0][0] + runs[1][0], STABILISER), 0)
        total += sum(part * back(shared)[0] for part, (_, back) in zip(parts, runs, strict=True))
    return total


def _flat(layer: _Layer, params: Any, x: jax.Array, found: jax.Array) -> jax.Array:
    z, back = jax.vjp(functools.partial(layer, _changed(params, jnp.ones_like, bias=False)), jnp.ones_like(x))
    return back(_share(found, z, STABILISER))[0]


def _box(layer: _Layer, params: Any, x: jax.Array, found: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    signs = ((x, lambda p: p), (low, lambda p: jnp.maximum(p, 0)), (high, lambda p: jnp.minimum(p, 0)))
    runs = [(part, *jax.vjp(functools.partial(layer, _changed(params, way)), part)) for part, way in signs]
    z = runs[0][1] - runs[1][1] - runs[2][1]
    parts = [part * back(_share(found, z, STABILISER))[0] for part, _, back in runs]
    return parts[0] - parts[1] - parts[2]
