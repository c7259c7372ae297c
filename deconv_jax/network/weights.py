"""A network's weights by name, and whether they are those that it needs: looked at on loading and before every use."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deconv_jax.errors import SettingError
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Dense


def named(tree: Any) -> dict[str, Any]:
    """Names such as params/conv1/kernel → leaves."""
    return {jax.tree_util.keystr(k, simple=True, separator="/"): v for k, v in jax.tree.leaves_with_path(tree)}


@functools.lru_cache(maxsize=256)
def shapes(network: Network, size: tuple[int, int], head: bool = True) -> dict[str, tuple[int, ...]]:
    """Name → shape of the weights of a network of an input (freq, time) = `size`, those of its head only if wanted."""
    made = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros(size), head=head))
    return {name: leaf.shape for name, leaf in sorted(named(made).items())}


def check_shapes(network: Network, variables: Any, size: tuple[int, int], *, head: bool = True) -> None:
    """Looks whether variables hold what a network needs, in its shapes; whatever else they hold may be there.

    Args:
      network, variables: as in `network.apply`.
      size: (freq, time) of the input.
      head: whether the logits are wanted too.

    Raises:
      SettingError: a weight is missing or of another shape; the message names it.
    """
    found = {name: np.shape(value) for name, value in named(variables).items()}
    for name, wanted in shapes(network, size, head).items():
        if name not in found:
            raise SettingError(f"weight {name} is missing; wanted is one of shape {wanted}")
        if found[name] != wanted:
            raise SettingError(f"weight {name} is {found[name]} where the network needs {wanted}")
    for name, shape in found.items():
        near = zip(shape[::-1], size[::-1], strict=False)
        if name.startswith("input/") and (len(shape) > 2 or any(n not in (1, m) for n, m in near)):
            raise SettingError(f"weight {name} is {shape}, which does not fit {size[0]} bins × {size[1]} frames")


def check_weights(network: Network, variables: Any, size: tuple[int, int]) -> None:
    """Looks whether variables, arrays, are all that a whole network needs, and nothing else.

    Raises:
      SettingError: as `check_shapes`; or a weight is left over or divides by zero.
    """
    check_shapes(network, variables, size)
    known = shapes(network, size).keys() | {"input/mean", "input/scale"}
    if left := sorted(named(variables).keys() - known):
        raise SettingError(f"weight {left[0]} is left over: the network that is described has none")
    if not np.all(variables.get("input", {}).get("scale", 1)):
        raise SettingError("weight input/scale holds zeros; the input is divided by it")
    norms = {f"norm{n}": block.epsilon for n, block in enumerate(network.blocks, 1)}
    norms |= {f"dense_norm{n}": d.epsilon for n, d in enumerate(network.dense, 1) if isinstance(d, Dense)}
    for norm, stored in variables.get("batch_stats", {}).items():
        if not np.all(stored["var"] + np.float32(norms[norm]) > 0):
            raise SettingError(f"weight batch_stats/{norm}/var holds zeros, and the layer's epsilon is 0")
