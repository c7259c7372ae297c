"""Networks that the studio offers: the one that was named, the checkpoints of its run, and those of the package."""

import functools
from collections.abc import Callable
from pathlib import Path

from deconv_jax.importers import named
from deconv_jax.network.trained import Trained
from deconv_jax.training import workdir

Networks = dict[str, Callable[[], Trained]]
"""Names → what loads them, the first one first."""


def offered(first: Trained) -> tuple[Networks, list[str]]:
    """What can be chosen beside a network, and which of it are checkpoints of one run, in the order of training.

    A run of `bin/train` keeps two, the best and the last, which may be one.
    """
    kept = workdir.checkpoints(first.checkpoint)
    if kept:
        run = first.checkpoint.absolute().parents[2].name
        names = {f"{run}, step {step:,} ({path.parent.name})": path for step, path in kept.items()}
        mine: Networks = {n: functools.partial(_of, first, path) for n, path in names.items()}
        own = [n for n, path in names.items() if path == first.checkpoint.absolute()]
        mine = {n: mine[n] for n in [*own, *mine]}
    else:
        name = (first.about.get("card") or {}).get("name") or first.checkpoint.name
        names, mine = {}, {name: lambda: first}
    return mine | {n: functools.partial(named.load, n) for n in named.packaged() if n not in mine}, list(names)


def _of(first: Trained, checkpoint: Path) -> Trained:
    return first if checkpoint == first.checkpoint.absolute() else workdir.load(checkpoint=checkpoint)
