"""Random weights of small networks, compiled for once a process however many tests ask for them."""

import functools

import jax
import jax.numpy as jnp


@functools.cache
def _initial(network, size, seed):
    return jax.jit(network.init)(jax.random.key(seed), jnp.zeros(size))


def initial(network, size: tuple[int, ...], seed: int = 0) -> dict:
    """What `network.init` gives for an input of this size, in dictionaries that may be changed."""
    return dict(jax.tree.map(lambda weight: weight, _initial(network, size, seed)))
