"""The same methods for a model that is not described by block specs: your own Flax Linen or NNX model, or any function.

`deconvolve_function` takes a function from the input to a layer's map, whatever it is written in, and gives the
vector-Jacobian product seeded with each feature's own map, with the backward rule of every rectifier changed
(`deconv_jax.network.activations`). The rule is changed in the function's jaxpr: no line of the model has to be.

A rectifier is known by what it computes, in any spelling: `relu(x)`, `where(x > 0, x, 0)`, `-minimum(-x, 0)`,
`maximum(x, a·x)`, `max(x, 0) + a·min(x, 0)`, `clip(x, 0, 6)`. The steps between two values of equal shape, where all
that comes out has gone in at one place, are a function of one number each; what it gives at numbers of both signs
from 1e-6 to 1e6 says what it is. It is a rectifier if it is 0 at 0, linear on both sides, rising (or falling) on both
or flat on one, and flat, if at all, from some cap on. Everything else that the signal passes has to be linear in it
(convolutions, stored batch norm, padding, averages) or a maximum over places or maps (pooling), which keep their own
gradient. A function that has a `custom_vjp` of its own keeps that. What has no rule is refused, and named.

With Linen, a map is picked by `capture_intermediates` (or `sow`):

    >>> import jax
    >>> import jax.numpy as jnp
    >>> from flax import linen as nn
    >>> from deconv_jax import deconvolve_function
    >>> class CNN(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         x = nn.max_pool(nn.relu(nn.Conv(8, (3, 3), name="low")(x)), (2, 2), (2, 2))
    ...         x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3), name="high")(x)), (2, 2), (2, 2))
    ...         self.sow("intermediates", "map", x)
    ...         return nn.Dense(3)(x.reshape(x.shape[0], -1))
    >>> magnitude = jnp.ones((16, 20))
    >>> model = CNN()
    >>> variables = model.init(jax.random.key(0), magnitude[None, ..., None])
    >>> def layer_map(magnitude):
    ...     _, state = model.apply(variables, magnitude[None, ..., None], mutable="intermediates")
    ...     return state["intermediates"]["map"][0][0]
    >>> deconvolve_function(layer_map, magnitude).shape
    (4, 16, 20)
    >>> images = deconvolve_function(layer_map, magnitude, method="guided")

With NNX, call the layers as far as you want to go:

    >>> from flax import nnx
    >>> conv = nnx.Conv(1, 8, (3, 3), rngs=nnx.Rngs(0))
    >>> deconvolve_function(lambda x: nnx.relu(conv(x[None, ..., None]))[0], magnitude).shape
    (8, 16, 20)

The images go into `deconv_jax.auralise` as those of `deconvolve` do.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal

from deconv_jax.deconvolution.deconvolve import check_chosen
from deconv_jax.errors import SettingError
from deconv_jax.network.activations import METHODS

_LINEAR = frozenset(
    (
        "broadcast_in_dim",
        "concatenate",
        "cumsum",
        "dynamic_slice",
        "dynamic_update_slice",
        "expand_dims",
        "gather",
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
        "transpose",
        "stop_gradient",
        "argmax",  # without a gradient; what is chosen by it is looked at where that is used
        "argmin",
    )
)
"""Primitives that move numbers about, are linear in the signal or a maximum over it, and keep their own gradient."""

_VIEWS = frozenset(("broadcast_in_dim", "expand_dims", "reshape", "squeeze", "transpose"))

_PRODUCTS = frozenset(("dot_general", "conv_general_dilated"))
"""Linear in each factor: allowed where only one of them depends on the input."""

_POINTWISE: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "and": np.logical_and,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "convert_element_type": lambda x: x,
    "copy": lambda x: x,
    "div": np.divide,
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.logical_not,
    "or": np.logical_or,
    "select_n": lambda which, *cases: np.choose(np.asarray(which, int), cases),
    "sign": np.sign,
    "sub": np.subtract,
}
"""Primitives that rectifiers are spelled with, number by number."""

_CALLS = frozenset(("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "remat", "remat2", "checkpoint"))

_SMALL = 2.0**-10
"""Where slopes are taken: below any cap, and a power of two, so that nothing is rounded."""


def deconvolve_function(
    layer_map: Callable[[jax.Array], jax.Array],
    magnitude: Any,
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
      Images, shape (features,) + magnitude.shape.

    Raises:
      ValueError: unknown method or feature, an input that is not real, a map that is no single array, or a step of
        the model that the method has no rule for; the message names it.

    Functions of the same steps and shapes are compiled once, whatever their weights are; those with a derivative of
    their own (`custom_vjp`, for gradients `custom_jvp` too) once for each function object.
    """
    if method not in METHODS:
        raise SettingError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if not isinstance(chunk, int) or chunk < 1:
        raise SettingError(f"chunk must be a whole number of at least 1, not {chunk!r}")
    magnitude = jnp.asarray(magnitude)
    if magnitude.dtype.kind == "c":
        raise SettingError(f"magnitude must be real, not {magnitude.dtype}: take the absolute value of a spectrum")
    magnitude = magnitude if jnp.issubdtype(magnitude.dtype, jnp.floating) else magnitude.astype(jnp.float32)
    traced = jax.make_jaxpr(layer_map)(magnitude)
    if len(traced.out_avals) != 1 or not traced.out_avals[0].ndim:
        found = ", ".join(str(a) for a in traced.out_avals)
        raise SettingError(f"layer_map must return one array, the layer's map with features last, not {found}")
    chosen = check_chosen(features, traced.out_avals[0].shape[-1], "the map")
    # Within the gradient a custom_jvp is the function's own derivative; the other methods look into it.
    jaxpr, values = _inlined(traced, _CALLS - {"custom_jvp_call"} if method == "gradient" else _CALLS)
    flow = _Flow.of(jaxpr)
    rectifiers = () if method == "gradient" else _rectifiers(flow, values, method)
    text = str(jaxpr)
    owner = layer_map if "custom_" in text else None
    return _program(_Key(text, owner, rectifiers, method, chunk, flow))(values, magnitude, chosen)


@dataclasses.dataclass(frozen=True)
class _Key:
    """What a compiled program depends on; `owner` is the function where its steps do not say all of it."""

    text: str
    owner: Callable[..., Any] | None
    rectifiers: tuple[tuple[int, int], ...]
    method: str
    chunk: int
    flow: "_Flow" = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=32)
def _program(key: _Key) -> Callable[..., jax.Array]:
    """(constants, input, features) → images, compiled for each number of features."""

    @jax.jit
    def images(values: Sequence[Any], magnitude: Any, chosen: Any) -> jax.Array:
        maps, back = jax.vjp(lambda x: _run(key.flow, key.rectifiers, [*values, x], key.method), magnitude)

        def image(feature: jax.Array) -> jax.Array:
            alone = jnp.arange(maps.shape[-1]) == feature
            return back(jnp.where(alone.reshape((1,) * (maps.ndim - 1) + (-1,)), maps, 0))[0]

        return jax.lax.map(image, chosen, batch_size=min(key.chunk, len(chosen)))

    return images


def _inner(equation: JaxprEqn) -> tuple[Jaxpr, Sequence[Any]]:
    """The jaxpr that a call calls, and its constants."""
    inner: Any = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    return (inner.jaxpr, inner.consts) if isinstance(inner, ClosedJaxpr) else (inner, ())


def _bind(equation: JaxprEqn, inputs: Sequence[Any]) -> list[Any]:
    """The results of one equation."""
    primitive = equation.primitive
    found = primitive.bind(*inputs, **primitive.get_bind_params(equation.params))
    return list(found) if primitive.multiple_results else [found]


def _inlined(closed: ClosedJaxpr, calls: Collection[str]) -> tuple[Jaxpr, list[Any]]:
    """The same function without these calls: a jaxpr whose last input is the function's, and its other inputs."""

    def run(jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

        def read(var: Any) -> Any:
            return var.val if isinstance(var, Literal) else values[var]

        for equation in jaxpr.eqns:
            inputs = [read(v) for v in equation.invars]
            name = equation.primitive.name
            outputs = run(*_inner(equation), inputs) if name in calls else _bind(equation, inputs)
            values |= dict(zip(equation.outvars, outputs, strict=True))
        return [read(v) for v in jaxpr.outvars]

    flat = jax.make_jaxpr(lambda consts, x: run(closed.jaxpr, consts, [x]))(closed.consts, closed.in_avals[0])
    return flat.jaxpr, [*flat.consts, *closed.consts]


@dataclasses.dataclass(frozen=True)
class _Flow:
    """The steps that a function's result hangs on.

    Attributes:
      equations: in their order.
      inputs: variables of the constants, and last the input's.
      out: the result.
      number: variable → its place among all variables, the same for functions of the same steps.
      made: variable → its equation.
      moving: variables that depend on the input.
      entry: variable that a pointwise step makes of moving ones → the nearest one that all of them come through, or
        None if there is none.
    """

    equations: list[JaxprEqn]
    inputs: list[Any]
    out: Any
    number: dict[Any, int]
    made: dict[Any, JaxprEqn]
    moving: set[Any]
    entry: dict[Any, Any]

    @classmethod
    def of(cls, jaxpr: Jaxpr) -> "_Flow":
        needed = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
        equations: list[JaxprEqn] = []
        for equation in reversed(jaxpr.eqns):
            if not needed.isdisjoint(equation.outvars):
                needed |= {v for v in equation.invars if not isinstance(v, Literal)}
                equations.insert(0, equation)
        inputs = [*jaxpr.constvars, *jaxpr.invars]
        flow = cls(equations, inputs, jaxpr.outvars[0], {v: n for n, v in enumerate(inputs)}, {}, {inputs[-1]}, {})
        for equation in equations:
            flow.made.update(dict.fromkeys(equation.outvars, equation))
            flow.number.update({v: len(flow.number) + n for n, v in enumerate(equation.outvars)})
            if along := flow.along(equation):
                flow.moving.update(equation.outvars)
                if equation.primitive.name in _POINTWISE:
                    chains = [flow.chain(v) for v in along]
                    flow.entry[equation.outvars[0]] = next((v for v in chains[0] if all(v in c for c in chains)), None)
        return flow

    def along(self, equation: JaxprEqn) -> list[Any]:
        """The moving ones among an equation's inputs."""
        return [v for v in equation.invars if not isinstance(v, Literal) and v in self.moving]

    def chain(self, var: Any) -> list[Any]:
        """The variable, its entry, the entry of that, and so on."""
        found = [var]
        while (above := self.entry.get(found[-1])) is not None:
            found.append(above)
        return found

    def between(self, entry: Any, var: Any) -> list[Any]:
        """The equations that make a variable of its entry, in their order."""
        found, todo = {entry}, [var]
        while todo:
            if (one := todo.pop()) not in found:
                found.add(one)
                todo += self.along(self.made[one])
        return [self.made[v] for v in sorted(found - {entry}, key=self.number.__getitem__)]

    def origins(self, var: Any) -> set[Any]:
        """What a variable is made of, number by number: itself, unless by pointwise steps or views of others."""
        if var in self.entry or (var in self.made and self.made[var].primitive.name in _VIEWS):
            return set().union(*map(self.origins, self.along(self.made[var])))
        return {var}


def _rectifiers(flow: _Flow, values: list[Any], method: str) -> tuple[tuple[int, int], ...]:
    """The numbers of (result, entry) of every rectifier; ValueError if a step has no rule."""
    found, seen, todo = [], set(), [flow.out]
    constants = dict(zip(flow.inputs, values, strict=False))
    for equation in flow.equations:
        if (along := flow.along(equation)) and equation.primitive.name not in _POINTWISE:
            if not _keeps_its_gradient(flow, equation, along):
                raise _refused(equation, method)
            todo += along
    while todo:
        var = todo.pop()
        if var in seen or var not in flow.entry:
            continue
        seen.add(var)
        equation, entry = flow.made[var], flow.entry[var]
        along = flow.along(equation)
        if entry is None:  # several signals come together
            pools = equation.primitive.name == "max" and _apart(flow, equation.invars)
            if not (pools or _is_linear(flow, equation) or _is_truth(var)):
                raise _refused(equation, method)
            todo += along
            continue
        bent = [e for e in flow.between(entry, var) if not _is_linear(flow, e)]
        if bent and not _is_truth(var):
            try:  # from as far as it goes: max(min(x, 6), 0) is a rectifier, and its inner step is none
                around = reversed(flow.chain(entry))
                entry = next((e for e in around if _is_rectifier(flow, constants, e, var)), None)
            except jax.errors.TracerArrayConversionError:
                raise SettingError(
                    f'what the step "{bent[-1].primitive.name}" computes hangs on values that are traced; call '
                    "deconvolve_function outside of jit and grad, or close over arrays"
                ) from None
            if entry is None:
                raise _refused(bent[-1], method)
            found.append((flow.number[var], flow.number[entry]))
        todo.append(entry)
    return tuple(sorted(found))


def _keeps_its_gradient(flow: _Flow, equation: JaxprEqn, along: list[Any]) -> bool:
    """Whether a step that is not pointwise is linear in the signal, a maximum over it, or has a rule of its own."""
    name = equation.primitive.name
    if name == "reduce_max" and (before := flow.made.get(equation.invars[0])) is not None:
        axis = before.params.get({"stack": "axis", "concatenate": "dimension"}.get(before.primitive.name, ""))
        return axis not in equation.params["axes"] or _apart(flow, before.invars)
    return name in _LINEAR or name.startswith("custom_vjp_call") or (name in _PRODUCTS and len(along) == 1)


def _apart(flow: _Flow, parts: list[Any]) -> bool:
    """Whether the parts of a maximum are signals of different places or maps: pooling, and no rectifier of one."""
    moving = [v for v in parts if not isinstance(v, Literal) and v in flow.moving]
    origins = [flow.origins(v) for v in moving]
    return len(moving) == len(parts) and sum(map(len, origins)) == len(set().union(*origins))


def _is_truth(var: Any) -> bool:
    """Whether it is a yes or no, which has no gradient; what that decides is looked at where it is used."""
    return var.aval.dtype == bool


def _is_linear(flow: _Flow, equation: JaxprEqn) -> bool:
    """Whether a pointwise step is linear, up to a constant, in all that depends on the input."""
    name, along = equation.primitive.name, flow.along(equation)
    if name in ("div", "select_n"):
        return equation.invars[name == "div"] not in along  # the divisor, and what chooses
    if name == "convert_element_type":
        return jnp.issubdtype(equation.params["new_dtype"], np.inexact)
    return name in ("add", "add_any", "sub", "neg", "copy") or (name == "mul" and len(along) == 1)


def _is_rectifier(flow: _Flow, constants: dict[Any, Any], entry: Any, var: Any) -> bool:
    """Whether the steps from an entry to a variable compute a rectifier, as the head of this module defines it."""
    if entry.aval.shape != var.aval.shape:
        return False
    steps = flow.between(entry, var)

    def at(x: float) -> np.ndarray:
        known: dict[Any, np.ndarray] = {entry: np.asarray(x)}
        for equation in steps:
            along = flow.along(equation)
            inputs = [known[v] if v in along else _constant(flow, constants, v) for v in equation.invars]
            known[equation.outvars[0]] = _pointwise(equation, inputs)
        return np.asarray(known[var], np.float64)

    sides = []
    with np.errstate(all="ignore"):
        for sign in (1, -1):
            slope = sign * at(sign * _SMALL) / _SMALL
            sizes = 10.0 ** np.arange(-6, 6.5, 0.7)
            got = np.stack([sign * at(sign * size) for size in sizes])
            straight = slope * sizes.reshape(-1, *[1] * slope.ndim)
            capped = np.abs(got[-1]) < 0.999 * np.abs(straight[-1])
            want = np.where(np.abs(got[-1]) < np.abs(straight), got[-1], straight)
            if not np.all(np.abs(got - want) <= 1e-5 * np.abs(straight)) or np.any(capped & (slope * got[-1] < 0)):
                return False
            sides.append((slope, capped))
        (right, flat_right), (left, flat_left) = sides
        bent = (right != left) | ~(flat_right | flat_left)
        return bool(np.all(at(0.0) == 0) and np.all(right * left >= 0) and np.all(bent))


def _pointwise(equation: JaxprEqn, inputs: list[Any]) -> np.ndarray:
    """A pointwise step in NumPy. Only conversions to whole numbers and truths change a number."""
    kind = equation.params.get("new_dtype", np.float64)
    found = _POINTWISE[equation.primitive.name](*inputs)
    return found if jnp.issubdtype(kind, np.inexact) else np.asarray(found).astype(kind)


def _constant(flow: _Flow, constants: dict[Any, Any], var: Any) -> np.ndarray:
    """What does not depend on the input, in float64, with axes of length 1 where it was only repeated."""
    equation = None if isinstance(var, Literal) else flow.made.get(var)
    if equation is not None and equation.primitive.name in _POINTWISE:
        return _pointwise(equation, [_constant(flow, constants, v) for v in equation.invars])
    if equation is not None and equation.primitive.name == "broadcast_in_dim":
        value, shape = _constant(flow, constants, equation.invars[0]), [1] * len(equation.params["shape"])
        for axis, length in zip(equation.params["broadcast_dimensions"], value.shape, strict=True):
            shape[axis] = length
        return value.reshape(shape)
    with jax.ensure_compile_time_eval():
        value = np.asarray(_exactly(flow, constants, var))
    return value if value.dtype == bool else value.astype(np.float64)


def _exactly(flow: _Flow, constants: dict[Any, Any], var: Any) -> Any:
    """What does not depend on the input, as the function computes it; kept in `constants`."""
    if isinstance(var, Literal):
        return var.val
    if var not in constants:
        equation = flow.made[var]
        found = _bind(equation, [_exactly(flow, constants, v) for v in equation.invars])
        constants |= dict(zip(equation.outvars, found, strict=True))
    return constants[var]


def _refused(equation: JaxprEqn, method: str) -> SettingError:
    return SettingError(
        f'method "{method}" has no rule for the step "{equation.primitive.name}" of this function, which is neither '
        "linear nor a maximum nor part of a rectifier (relu, relu6, leaky_relu, in any spelling); use method "
        '"gradient", give the step a custom_vjp, or, if it stands before the first layer, compute it outside'
    )


def _run(flow: _Flow, rectifiers: tuple[tuple[int, int], ...], inputs: list[Any], method: str) -> jax.Array:
    """The function's result, by equations whose rectifiers have the method's backward rule."""
    values = dict(zip(flow.inputs, inputs, strict=True))
    variables = {number: v for v, number in flow.number.items()}
    entries = {variables[var]: variables[entry] for var, entry in rectifiers}

    def read(var: Any) -> Any:
        if isinstance(var, Literal):
            return var.val
        if var not in values:  # a pointwise step, made once it is known what it is part of
            entry = entries.get(var)
            values[var] = step(flow.made[var])[0] if entry is None else rectified(var, entry)
        return values[var]

    def step(equation: JaxprEqn) -> list[Any]:
        return _bind(equation, [read(v) for v in equation.invars])

    def rectified(var: Any, entry: Any) -> jax.Array:
        def function(x: jax.Array) -> jax.Array:
            known = {entry: x}
            for equation in flow.between(entry, var):
                along = flow.along(equation)
                given = [known[v] if v in along else read(v) for v in equation.invars]
                known[equation.outvars[0]] = _bind(equation, given)[0]
            return known[var]

        return _rectified(function, read(entry), method)

    for equation in flow.equations:
        if equation.outvars[0] not in flow.entry:
            values |= dict(zip(equation.outvars, step(equation), strict=True))
    return read(flow.out)


def _rectified(function: Callable[[jax.Array], jax.Array], x: jax.Array, method: str) -> jax.Array:
    """function(x), a rectifier, with its backward rule.

    A rectifier of any scale and sign is ±c · r(x), where r rises, 1 is its greatest slope, and c times the signal,
    with its sign, is what r meets on its way back: r(signal). Guided: times the derivative of r at x, 0 at a corner
    with a flat side and 1 at any other.
    """

    @jax.custom_vjp
    def rule(x: jax.Array) -> jax.Array:
        return function(x)

    def backward(x: jax.Array, signal: jax.Array) -> tuple[jax.Array]:
        size = jnp.full_like(x, _SMALL)
        right, left = function(size) / _SMALL, -function(-size) / _SMALL
        signal = signal.astype(x.dtype)
        below = jnp.where(signal * (right + left) > 0, right, left) * signal
        if method == "guided":
            slope = jnp.where(x > 0, right, left)
            largest = jnp.maximum(jnp.abs(right), jnp.abs(left))
            corner = jnp.where(right * left == 0, 0, largest)
            capped = jnp.abs(function(x)) < 0.999 * jnp.abs(slope * x)
            slope = jnp.where(x == 0, corner, jnp.where(capped, 0, jnp.abs(slope)))
            below = below * slope / jnp.where(largest > 0, largest, 1)
        return (below,)

    rule.defvjp(lambda x: (function(x), x), backward)
    return rule(x)
