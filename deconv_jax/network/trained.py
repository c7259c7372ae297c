"""A trained network with what it needs to be used, and the fingerprint by which results know it again."""

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from deconv_jax.network.model import Network
from deconv_jax.sound.front_end import FrontEnd


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network, ready to explain.

    Attributes:
      network, variables: for `network.apply` and `deconvolve`.
      front_end: how its input is made.
      labels: names of the classes.
      checkpoint: the folder that the weights came from.
      about: what the run was: config, and the report where there is one; or the network file's description.
    """

    network: Network
    variables: Any
    front_end: FrontEnd
    labels: list[str]
    checkpoint: Path
    about: dict[str, Any]

    @functools.cached_property
    def fingerprint(self) -> str:
        """`fingerprint` of all that results depend on."""
        return fingerprint(self.network, self.variables, self.front_end)


def fingerprint(network: Network, variables: Any, front_end: FrontEnd | None = None) -> str:
    """Tells networks apart: 16 hexadecimal digits of SHA-256, the same for the same architecture, weights, front end.

    A field that has its default does not count, so that a later version, which knows more fields, gives the same.
    """
    digest = hashlib.sha256(repr((_told(network), _told(front_end))).encode())
    for path, value in jax.tree.leaves_with_path(variables):
        array = np.ascontiguousarray(value)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def _told(value: Any) -> Any:
    """A setting as plain values: of a dataclass its name and the fields that differ from their defaults."""
    if dataclasses.is_dataclass(value):
        fields = [(f.name, getattr(value, f.name), f.default) for f in dataclasses.fields(value)]
        changed = {name: _told(now) for name, now, default in fields if now != default and name not in _FLAX}
        return (type(value).__name__, sorted(changed.items()))
    return [_told(v) for v in value] if isinstance(value, list | tuple) else value


_FLAX = ("parent", "name")
"""Fields of a module that say where it stands in another."""
