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

    A run of `bin/train` keeps two, the best and the last, which may be one; with `config.train.keep_all` it keeps
    those of every validation, and the weights before training.
    """
    run = workdir.run_of(first.checkpoint)
    if run:
        names = _named(run)
        mine: Networks = {n: functools.partial(_of, first, path) for n, path in names.items()}
        own = [n for n, path in names.items() if path.name == first.checkpoint.name]
        mine = {n: mine[n] for n in [*own, *mine]}
    else:
        name = (first.about.get("card") or {}).get("name") or first.checkpoint.name
        names, mine = {}, {name: lambda: first}
    return mine | {n: functools.partial(named.load, n) for n in named.packaged() if n not in mine}, list(names)


def _named(run: Path) -> dict[str, Path]:
    """The checkpoints of a run by the names under which they can be chosen, in the order of training."""
    epochs, names = workdir.epochs(run), {}
    for step, path in workdir.checkpoints(run).items():
        when = f"epoch {epochs[step]}, step {step:,}" if epochs.get(step) else f"step {step:,}"
        what = "untrained" if step == 0 else path.parent.name
        names[f"{run.name}, {when}" + (f" ({what})" if what != "kept" else "")] = path
    return names


def _of(first: Trained, checkpoint: Path) -> Trained:
    return first if checkpoint.name == first.checkpoint.name else workdir.load(checkpoint=checkpoint)
