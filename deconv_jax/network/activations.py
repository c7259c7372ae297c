"""Activations, forward and back: what each method lets through on the way down.

Three methods differ in nothing but this step. With s the signal that comes down and x what the activation saw:

- `deconvnet` (Zeiler & Fergus 2014, section 2.1, and the paper): the signal is rectified, relu(s), wherever x was.
- `guided` (Springenberg et al. 2015, section 3.4): relu(s) where x > 0, zero elsewhere.
- `gradient` (Simonyan et al. 2014): s · σ'(x), the plain vector-Jacobian product.

Zeiler and Fergus send the signal through the same rectifier as the maps, so that a reconstruction of maps that
are never negative is never negative. That carries over to activations that are rectifiers: relu and relu6 (maps
never negative: relu(s); the cap says nothing about a signal whose level is arbitrary), leaky_relu (the same leaky
rectifier, whose result does not depend on the signal's level either) and linear (no rectifier, no step). It does
not carry over to elu, tanh and their like: their maps are negative too, and passing the signal through them would
make the image depend on its arbitrary level. Networks that use them are explained by `gradient` only.
"""

import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp

from deconv_jax.errors import SettingError

METHODS = ("deconvnet", "guided", "gradient")

RECTIFIERS = ("relu", "relu6", "leaky_relu", "linear")
"""Activations that all three methods have a rule for."""


_FORWARD: dict[str, Callable[[jax.Array, float], jax.Array]] = {
    "relu": lambda x, slope: jax.nn.relu(x),
    "relu6": lambda x, slope: jax.nn.relu6(x),
    "leaky_relu": lambda x, slope: jax.nn.leaky_relu(x, slope),
    "linear": lambda x, slope: x,
    "elu": lambda x, slope: jax.nn.elu(x, slope),
    "selu": lambda x, slope: jax.nn.selu(x),
    "gelu": lambda x, slope: jax.nn.gelu(x, approximate=False),
    "silu": lambda x, slope: jax.nn.silu(x),
    "softplus": lambda x, slope: jax.nn.softplus(x),
    "tanh": lambda x, slope: jnp.tanh(x),
    "sigmoid": lambda x, slope: jax.nn.sigmoid(x),
}

ACTIVATIONS = tuple(_FORWARD)


def activate(x: jax.Array, name: str, slope: float) -> jax.Array:
    """σ(x); `slope` is leaky_relu's below zero and elu's α, and means nothing to the others."""
    return _FORWARD[name](x, slope)


def derivative(x: jax.Array, name: str, slope: float) -> jax.Array:
    """σ'(x), same shape; 0 at the corner of relu, 1 at that of leaky_relu."""
    return jax.jvp(lambda x: activate(x, name, slope), (x,), (jnp.ones_like(x),))[1]


def pass_back(signal: jax.Array, gate: jax.Array | None, name: str, slope: float, method: str) -> jax.Array:
    """The signal below an activation.

    Args:
      signal: what comes down, any shape.
      gate: σ' where the forward pass went through, broadcast against the signal; None for the deconvnet.
      name, slope: of the activation; one of `RECTIFIERS` unless the method is "gradient".
      method: one of `METHODS`.
    """
    if method != "gradient" and name != "linear":
        signal = activate(signal, "leaky_relu" if name == "leaky_relu" else "relu", slope)
    return signal if gate is None else signal * gate


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def activate_with(x: jax.Array, name: str, slope: float, method: str) -> jax.Array:
    """`activate`, whose backward rule is the method's: what a vector-Jacobian product through it then is."""
    return activate(x, name, slope)


def _activate_with_backward(
    name: str, slope: float, method: str, gate: jax.Array | None, signal: jax.Array
) -> tuple[jax.Array]:
    return (pass_back(signal, gate, name, slope, method),)


activate_with.defvjp(
    lambda x, name, slope, method: (
        activate(x, name, slope),
        None if method == "deconvnet" else derivative(x, name, slope),
    ),
    _activate_with_backward,
)


def check_method(method: str, names: Iterable[str]) -> None:
    """Whether a method has a rule for all of these activations.

    Raises:
      ValueError: unknown method, or an activation that it has no rule for; the message says why.
    """
    if method not in METHODS:
        raise SettingError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    for name in names:
        if method != "gradient" and name not in RECTIFIERS:
            raise SettingError(
                f'method "{method}" has no rule for the activation {name}: it is no rectifier, so the image would '
                'depend on the arbitrary level of the signal; use method "gradient"'
            )
