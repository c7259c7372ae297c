"""Flags that several commands share about a network: which one, and which of its layers and features.

A function here defines flags of the command that calls it. What is heavy is imported when a flag is used, so that
--help comes at once.
"""

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags

from deconv_jax.cli.values import define, numbers

if TYPE_CHECKING:
    from deconv_jax.network.trained import Trained

flags.disclaim_key_flags()

log = logging.getLogger(__name__)

FOR_SONGS, FOR_EXCERPTS = "real3", "builtin3"
"""Packaged networks that explain if none is named: one has learnt from real music, one tells the built-in genres."""


def define_network() -> "Callable[[object], Trained]":
    """Defines --workdir, --network and --checkpoint; gives: sounds that are named → the network that these name."""
    about = f"A network's name or folder (default: {FOR_SONGS}; {FOR_EXCERPTS} for built-in music); list names them."
    network = flags.DEFINE_string("network", None, about)
    workdir = flags.DEFINE_string("workdir", None, "Folder of a run of bin/train, in its place.")
    checkpoint = flags.DEFINE_string("checkpoint", None, "One checkpoint, such as WORKDIR/checkpoints/last/1230.")

    def load(sounds: object) -> "Trained":
        from deconv_jax.importers import named as names
        from deconv_jax.system import runtime
        from deconv_jax.training import workdir as runs

        if network.value == "list":
            print(names.listing())
            sys.exit()
        runtime.keep_compiled()
        given = workdir.value or checkpoint.value
        packaged = None if given else FOR_SONGS if sounds else FOR_EXCERPTS
        trained = runs.load(workdir.value, checkpoint.value, network.value or packaged)
        if card := trained.about.get("card"):
            log.info("The network is %s: %s.", card["name"], card["what"])
        return trained

    return load


def define_layers(default: str, about: str) -> "Callable[[Trained], list[int]]":
    """Defines --layer; gives what it means for a network."""
    flag = define("layer", default, about, lambda text: text if text == "all" else sorted(numbers(text)))
    return lambda net: list(range(1, len(net.network.blocks) + 1)) if flag.value == "all" else list(flag.value)


def define_features(default: str | None, about: str) -> flags.FlagHolder:
    """Defines --features: "all", "top:N", or numbers, where they are not all meant if there is no default."""

    def read(text: str) -> str | list[int]:
        if default and text.startswith("top:"):
            if not text[4:].isdecimal() or int(text[4:]) < 1:
                raise ValueError("top: takes a whole number from 1, as in top:12")
            return text
        return text if default and text == "all" else numbers(text)

    return define("features", default, about, read)
