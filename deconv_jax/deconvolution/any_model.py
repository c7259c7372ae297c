"""The same methods for a model that is not described by block specs: your own Flax Linen or NNX model, or any function.

`deconvolve_function` takes a function from the input to a layer's map, whatever it is written in, and gives the
vector-Jacobian product seeded with each feature's own map, with the backward rule of every rectifier changed
(`deconv_jax.network.activations`). The rule is changed in the function's jaxpr: no line of the model has to be. Known
rectifiers are relu and relu6 (or `maximum(x, 0)`) and leaky_relu; everything else that the signal passes has to be
linear in it (convolutions, stored batch norm, padding, averages) or a maximum (pooling), which keep their own gradient.
A function that has a `custom_vjp` of its own keeps that. What has no rule is refused, and named.

With Linen, a map is picked by `capture_intermediates` (or `sow`):

    import jax
    import jax.numpy as jnp
    from flax import linen as nn
    from deconv_jax import deconvolve_function

    class CNN(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.max_pool(nn.relu(nn.Conv(8, (3, 3), name="low")(x)), (2, 2), (2, 2))
            x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3), name="high")(x)), (2, 2), (2, 2))
            self.sow("intermediates", "map", x)
            return nn.Dense(3)(x.reshape(x.shape[0], -1))

    def layer_map(magnitude):
        _, state = model.apply(variables, magnitude[None, ..., None], mutable="intermediates")
        return state["intermediates"]["map"][0][0]

    magnitude = jnp.ones((16, 20))
    model = CNN()
    variables = model.init(jax.random.key(0), magnitude[None, ..., None])
    images = deconvolve_function(layer_map, magnitude)                       # (4, 16, 20)
    images = deconvolve_function(layer_map, magnitude, method="guided")

With NNX, call the layers as far as you want to go:

    from flax import nnx

    conv = nnx.Conv(1, 8, (3, 3), rngs=nnx.Rngs(0))
    images = deconvolve_function(lambda x: nnx.relu(conv(x[None, ..., None]))[0], magnitude)    # (8, 16, 20)

The images go into `deconv_jax.auralise` as those of `deconvolve` do.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

from deconv_jax.errors import SettingError
from deconv_jax.network.activations import METHODS

_LINEAR = frozenset(
    (
        "add",
        "add_any",
        "broadcast_in_dim",
        "concatenate",
        "convert_element_type",
        "copy",
        "cumsum",
        "dynamic_slice",
        "dynamic_update_slice",
        "expand_dims",
        "gather",
        "neg",
        "optimization_barrier",
        "pad",
        "reduce_max",
        "reduce_precision",
        "reduce_sum",
        "reduce_window_max",
        "reduce_window_sum",
        "reshape",
        "rev",
        "scatter-add",
        "slice",
        "split",
        "squeeze",
        "stack",
        "sub",
        "transpose",
        "stop_gradient",
    )
)
"""Primitives that are linear in the signal, or a maximum over it, and keep their own gradient."""

_PRODUCTS = frozenset(("mul", "dot_general", "conv_general_dilated"))
"""Linear in each factor: allowed where only one of them depends on the input."""

_COMPARISONS = frozenset(("eq", "ne", "ge", "gt", "le", "lt", "argmax", "argmin"))

_CALLS = frozenset(("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "remat", "remat2", "checkpoint"))

_LEAKY = frozenset(("ge", "gt", "mul", "select_n", "jit", "pjit", "broadcast_in_dim", "convert_element_type"))


def deconvolve_function(
    layer_map: Callable[[jax.Array], jax.Array],
    magnitude,
    features: Sequence[int] | None = None,
    *,
    method: str = "deconvnet",
    chunk: int = 8,
) -> jax.Array:
    """Deconvolves features of a layer of any model: what in this input made them respond.

    Args:
      layer_map: the model as far as the layer: input → its map, shape (..., features), features last. It has to be
        deterministic (dropout off, batch norm by stored statistics).
      magnitude: the input, in any shape that `layer_map` takes.
      features: 0-based features, in the order wanted; all if left out.
      method: "deconvnet", "guided" or "gradient"; see `deconv_jax.network.activations`.
      chunk: features walked back together. Changes memory, not results.

    Returns:
      Images, shape (features, *magnitude.shape).

    Raises:
      ValueError: unknown method or feature, a map that is no single array, or a step of the model that the method
        has no rule for; the message names it.
    """
    if method not in METHODS:
        raise SettingError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    magnitude = jnp.asarray(magnitude)
    traced = jax.make_jaxpr(layer_map)(magnitude)
    if len(traced.out_avals) != 1:
        raise SettingError(f"layer_map must return one array, the layer's map, not {len(traced.out_avals)}")
    count = traced.out_avals[0].shape[-1]
    chosen = np.arange(count) if features is None else np.asarray(features)
    if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
        raise SettingError(f"features must be a list of at least one whole number, not {features!r}")
    wrong = chosen[(chosen < 0) | (chosen >= count)]
    if wrong.size:
        raise SettingError(f"feature {wrong[0]} does not exist: the map has features 0 to {count - 1}")

    def changed(x):
        return _run(traced.jaxpr, traced.consts, [x], [True], method)[0][0]

    @jax.jit
    def images(magnitude, chosen):
        maps, back = jax.vjp(layer_map if method == "gradient" else changed, magnitude)

        def image(feature):
            alone = jnp.arange(count) == feature
            return back(jnp.where(alone.reshape((1,) * (maps.ndim - 1) + (-1,)), maps, 0))[0]

        return jax.lax.map(image, chosen, batch_size=min(chunk, len(chosen)))

    return images(magnitude, jnp.asarray(chosen, jnp.int32))


def _run(jaxpr: Jaxpr, consts, arguments, depends, method: str) -> tuple[list[Any], list[bool]]:
    """Evaluates a jaxpr with the rectifiers' rules changed; also says which results depend on the input."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= dict(zip(jaxpr.invars, arguments, strict=True))
    moving = {v for v, d in zip(jaxpr.invars, depends, strict=True) if d}

    def read(var):
        return var.val if isinstance(var, Literal) else values[var]

    def moves(var) -> bool:
        return not isinstance(var, Literal) and var in moving

    for equation in jaxpr.eqns:
        inputs, along = [read(v) for v in equation.invars], [moves(v) for v in equation.invars]
        outputs, out_moves = _step(equation, inputs, along, method)
        values |= dict(zip(equation.outvars, outputs, strict=True))
        moving |= {v for v, d in zip(equation.outvars, out_moves, strict=True) if d}
    return [read(v) for v in jaxpr.outvars], [moves(v) for v in jaxpr.outvars]


def _step(equation, inputs: list, along: list[bool], method: str) -> tuple[list, list[bool]]:
    """One equation: (its results, which of them depend on the input)."""
    primitive, params = equation.primitive, equation.params
    name, count = primitive.name, len(equation.outvars)

    def plainly() -> list:
        found = primitive.bind(*inputs, **primitive.get_bind_params(params))
        return list(found) if primitive.multiple_results else [found]

    if not any(along):
        return plainly(), [False] * count
    if name in _CALLS:
        inner = params.get("jaxpr", params.get("call_jaxpr"))
        jaxpr, consts = (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())
        if params.get("name") == "leaky_relu" and along[0] and not any(along[1:]) and _steps(jaxpr) <= _LEAKY:

            def leaky(x):
                return jaxpr_as_fun(ClosedJaxpr(jaxpr, consts))(x, *inputs[1:])[0]

            return [_rectified(leaky, inputs[0], method)], [True]
        return _run(jaxpr, consts, inputs, along, method)
    if name.startswith("custom_vjp_call"):
        return plainly(), [True] * count
    if name in ("max", "min") and not all(along):
        bound = inputs[along.index(False)]
        if name == "max" and _is_zero(bound):
            return [_rectified(jax.nn.relu, inputs[along.index(True)], method)], [True]
        if name == "min":  # the cap of relu6 says nothing about a signal's level
            return (plainly() if method == "guided" else [_uncapped(inputs[along.index(True)], bound)]), [True]
    elif (
        name == "max"
        or name in _LINEAR
        or name in _COMPARISONS  # no gradient; what they decide is looked at where it is used
        or (name in _PRODUCTS and sum(along) == 1)
        or (name == "div" and not along[1])
        or (name == "select_n" and not along[0])
    ):
        return plainly(), [True] * count
    raise SettingError(
        f'method "{method}" has no rule for the step "{name}" of this function, which is neither linear nor a maximum '
        'nor a rectifier (relu, relu6, leaky_relu); use method "gradient", give the step a custom_vjp, or, if it '
        "stands before the first layer, compute it outside"
    )


def _steps(jaxpr: Jaxpr) -> set[str]:
    """Names of all primitives within."""
    names = set()
    for equation in jaxpr.eqns:
        names.add(equation.primitive.name)
        inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
        if inner is not None:
            names |= _steps(getattr(inner, "jaxpr", inner))
    return names


def _is_zero(value) -> bool:
    return not isinstance(value, jax.core.Tracer) and not np.any(np.asarray(value))


def _rectified(function: Callable, x: jax.Array, method: str) -> jax.Array:
    """function(x), a rectifier, whose backward rule is the rectifier of the signal; guided: times its derivative."""

    @jax.custom_vjp
    def rule(x):
        return function(x)

    def backward(x, signal):
        below = function(signal)
        if method == "guided":
            below = below * jax.jvp(function, (x,), (jnp.ones_like(x),))[1]
        return (below,)

    rule.defvjp(lambda x: (function(x), x), backward)
    return rule(x)


def _uncapped(x, cap) -> jax.Array:
    return x + jax.lax.stop_gradient(jnp.minimum(x, cap) - x)
