"""How a signal walks back: the choices that every deconvolution is made with."""

import dataclasses
from collections.abc import Sequence

import jax

from deconv_jax.deconvolution import winograd
from deconv_jax.errors import SettingError
from deconv_jax.network.activations import METHODS, check_method
from deconv_jax.network.spec import Block

NORM_BACKS = ("transpose", "inverse")

PATHS = ("auto", "plain", "winograd")


@dataclasses.dataclass(frozen=True)
class Rule:
    """How a signal walks back.

    Attributes:
      method: "deconvnet", "guided" or "gradient"; see `deconv_jax.network.activations`.
      norm_back: "transpose" or "inverse": what batch norm does to the signal; see the head of
        `deconv_jax.deconvolution.deconvolve`.
      path: "plain" for any block spec, "winograd" for `deconv_jax.deconvolution.winograd`, which is several times as
        fast on a CPU and covers 3×3 kernels with 2×2 pools; "auto" takes it where it covers the blocks and the backend
        is a CPU. Changes the time, and results by rounding only.
    """

    method: str = "deconvnet"
    norm_back: str = "transpose"
    path: str = "auto"

    def __post_init__(self) -> None:
        for name, known in (("method", METHODS), ("norm_back", NORM_BACKS), ("path", PATHS)):
            if getattr(self, name) not in known:
                raise SettingError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")

    def on(self, blocks: Sequence[Block], *, traced: bool = False) -> "Rule":
        """The same with the path that will be taken on these blocks.

        Args:
          traced: within the user's own jit or grad, where "auto" is the plain path: the other is compiled by itself.

        Raises:
          ValueError: the method has no rule for an activation, or the path does not cover the blocks.
        """
        check_method(self.method, (block.activation for block in blocks))
        covered = self.method == "deconvnet" and winograd.covers(blocks)
        if self.path == "winograd" and not covered:
            raise SettingError(
                'path "winograd" needs the deconvnet method, and 3×3 kernels, SAME padding, ReLU and 2×2 max-pools in '
                'every block; use "plain"'
            )
        if self.path != "auto":
            return self
        fast = covered and not traced and jax.default_backend() == "cpu"
        return dataclasses.replace(self, path="winograd" if fast else "plain")


DECONVNET = Rule()
"""The paper's."""
