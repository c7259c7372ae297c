"""A network's first block in training on a CPU: convolution, batch norm, pooling and rectifier without a full-size map.

One map comes in and 64 go out, at four times the size of what is kept: written and read, back and forth, they took
half of a training step. A maximum needs no map, its gradient lives at one cell of each window, and the mean and
variance that batch norm asks for follow from those of the few cells of the input that a kernel sees.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from deconv_jax.network import layers
from deconv_jax.network.spec import Block


def fits(block: Block, maps: int) -> bool:
    """Whether a block that hears so many maps is one that this module computes, on this machine."""
    convolution = layers.in_shifts(block.kernel, maps, block.conv_stride, block.padding)
    window = block.pooling == "max" and block.pool == block.stride and block.pool_padding == "VALID"
    return convolution and window and block.activation == "relu" and block.norm in ("none", "before")


def normalised(
    kernel: jax.Array, bias: jax.Array, norm: Mapping[str, jax.Array], epsilon: float, x: jax.Array
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Kernel and bias with the batch norm of what they make of x in them (Ioffe & Szegedy 2015, algorithm 1).

    Args:
      kernel, bias: shapes (height, width, 1, maps) and (maps,).
      norm: its `scale` and `bias`, (maps,) each; epsilon: what is added to the variance.
      x: one map of the clips that count, shape (clips, freq, time, 1).

    Returns:
      Kernel and bias; the `mean` and `var` of the maps, (maps,) each.
    """
    seen = jnp.stack([view.reshape(-1) for view in layers.shifted(x, kernel.shape[:2])])
    average = seen.mean(axis=1)
    seen = lax.optimization_barrier(seen - average[:, None])
    flat = kernel.reshape(len(seen), -1)
    covariance = (seen @ seen.T) / seen.shape[1]
    mean, var = average @ flat, jnp.sum(flat * (covariance @ flat), axis=0)
    factor = norm["scale"] * lax.rsqrt(var + epsilon)
    return kernel * factor.reshape(1, 1, 1, -1), norm["bias"] - mean * factor, {"mean": mean + bias, "var": var}


def pooled_convolution(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, pool: layers.Pair
) -> tuple[jax.Array, jax.Array]:
    """relu(max-pool(x * kernel + bias)) and the switches of relu(x * kernel + bias), of which it is the maximum.

    Args:
      x: shape (clips, freq, time, 1); kernel: (height, width, 1, maps); bias: (maps,); pool: (freq, time) window.

    Returns:
      Pooled maps and switches, as from `layers.max_pool`.
    """
    pooled, switches = _pooled(x, kernel, pool)
    pooled = pooled + bias.reshape(1, 1, 1, -1)
    return jax.nn.relu(pooled), jnp.where(pooled > 0, switches, jnp.uint8(0))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pooled(x: jax.Array, kernel: jax.Array, pool: layers.Pair) -> tuple[jax.Array, jax.Array]:
    return layers.max_pool(layers.convolve(x, kernel), pool, pool)


def _pooled_forward(x: Any, kernel: Any, pool: layers.Pair) -> tuple[Any, Any]:
    pooled, switches = _pooled(x.value, kernel.value, pool)
    return (pooled, switches), (x.value, kernel.value, switches, () if x.perturbed else None)


def _pooled_backward(pool: layers.Pair, residual: Any, gradient: Any) -> tuple[jax.Array | None, jax.Array | None]:
    x, kernel, switches, wanted = residual
    if isinstance(gradient[0], SymbolicZero):
        return None, None
    into_x = None
    if wanted is not None:
        full = layers.unpool(gradient[0], switches, pool, pool, x.shape[1:3])
        into_x = layers.convolve_back(full, kernel, "SAME")
    return into_x, _kernel_gradient(x, switches, gradient[0], kernel.shape[:2], pool)


_pooled.defvjp(_pooled_forward, _pooled_backward, symbolic_zeros=True)


def _kernel_gradient(
    x: jax.Array, switches: jax.Array, gradient: jax.Array, window: layers.Pair, pool: layers.Pair
) -> jax.Array:
    """One row of pooling windows after the other, all clips at once, so that what is masked stays in the cache.

    A window sees a patch of the input, and its maximum one kernel's size of that: a product of the patches with the
    gradient at each of the window's cells, zero where the maximum was not, and the kernels are cut out of it.
    """
    rows, maps = gradient.shape[1], gradient.shape[3]
    patch = (window[0] + pool[0] - 1, window[1] + pool[1] - 1)
    views = layers.views(layers.pad_for(x, window), patch, pool)
    patches = lax.optimization_barrier(jnp.concatenate(views, axis=-1))
    places = layers.window_cells(pool)

    def add_row(row: Any, total: jax.Array) -> jax.Array:
        seen, signal, winner = (
            lax.dynamic_index_in_dim(a, row, 1, keepdims=False).reshape(-1, a.shape[-1])
            for a in (patches, gradient, switches)
        )
        masked = jnp.concatenate([jnp.where(winner == place, signal, 0) for place in range(len(places))], axis=-1)
        return total + seen.T @ masked

    total = lax.fori_loop(0, rows, add_row, jnp.zeros((len(views), len(places) * maps), x.dtype))
    total = total.reshape(*patch, len(places), maps)
    cut = (total[a : a + window[0], b : b + window[1], place] for place, (a, b) in enumerate(places))
    return sum(cut, jnp.zeros((), x.dtype))[:, :, None]
