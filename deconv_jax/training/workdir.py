"""What a training run leaves in its folder, and how it is found again.

config.json      every setting of the run
corpus.json      labels, and which songs are for training, validation and test
checkpoints/     best (by validation loss) and last, written by Orbax; with config.train.keep_all kept, the weights of
                 every validation and those before training
metrics.jsonl    one line for each epoch
network/         the best weights as a network file (`deconv_jax.network.file`), batch norm folded
report.json, report.png    test results beside the baselines; written last
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import platformdirs

from deconv_jax.errors import InputError, SettingError
from deconv_jax.importers import named
from deconv_jax.network.file import DESCRIPTION, built, load_network, upgraded
from deconv_jax.network.folding import fold
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block
from deconv_jax.network.trained import Trained
from deconv_jax.network.weights import check_weights
from deconv_jax.sound.front_end import FrontEnd
from deconv_jax.system import files

PACKAGE = Path(__file__).resolve().parents[1]


def default_workdir(name: str = "genre3") -> Path:
    """Where a run goes if no folder is named: `runs/` of the checkout, or the user's data folder if installed."""
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "configs").is_dir():
        return checkout / "runs" / name
    return Path(platformdirs.user_data_dir("deconv_jax")) / "runs" / name


def read_json(path: Path, what: str):
    """Reads a JSON file of a workdir.

    Raises:
      InputError: missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"{files.shown(path)}: does not exist, so {files.shown(path.parent)} holds no {what}; "
            "run bin/train first, or name its folder as workdir"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{files.shown(path)}: cannot be read ({error}); train again in a new workdir") from None


def front_end(config: dict) -> FrontEnd:
    """The front end that a config describes; SettingError names a field that is wrong."""
    return built(FrontEnd, upgraded(config, "config")["front_end"], "config.front_end")


def network(config: dict, classes: int) -> Network:
    """The network that a config describes: blocks `block1`, `block2` … in order, then the head.

    Raises:
      ValueError: a field that no block has, or a value that it cannot take; the message names it.
    """
    fields = dict(upgraded(config, "config")["network"])
    names = sorted((n for n in fields if n.startswith("block")), key=lambda n: (len(n), n))
    blocks = []
    for number, name in enumerate(names, 1):
        if name != f"block{number}":
            raise SettingError(f"config.network has {name} but no block{number}: number the blocks from 1")
        blocks.append(built(Block, fields.pop(name), f"config.network.{name}"))
    if not blocks:
        raise SettingError("config.network has no block1: at least one block is needed")
    known = ("dense", "dropout", "head", "final", "output")
    if unknown := sorted(fields.keys() - known):
        raise SettingError(f"config.network.{unknown[0]} is unknown; known are block1, block2 …, {', '.join(known)}")
    dense = fields.pop("dense", ())
    if not isinstance(dense, list | tuple):
        raise SettingError(f"config.network.dense must be a list of widths, not {dense!r}")
    try:
        return Network(blocks=tuple(blocks), dense=tuple(dense), classes=classes, **fields)
    except SettingError as error:
        raise SettingError(f"config.{'' if str(error).startswith('network.') else 'network: '}{error}") from None


_network_of = network


State = dict[str, Any]
"""Arrays by name: "params", "input" (its mean and scale), "opt_state", "step"; with batch norm "batch_stats"; and where
weights are averaged "average", which holds "params" and "batch_stats" of its own."""


def evaluated(state: State) -> State:
    """What of a state is validated, kept as the best, and explained: variables for `network.apply`."""
    weights = state.get("average", state)
    return {k: weights[k] for k in ("params", "batch_stats") if k in weights} | {"input": state["input"]}


def run_of(checkpoint: Path) -> Path | None:
    """The folder of the run in which a checkpoint lies, if it lies in one."""
    above = Path(checkpoint).absolute().parents
    there = len(above) > 2 and above[1].name == "checkpoints" and (above[2] / "config.json").is_file()
    return above[2] if there else None


def checkpoints(workdir: Path) -> dict[int, Path]:
    """Checkpoints of a run by step, in the order of training.

    `bin/train` keeps the best and the last, and with `config.train.keep_all` those of every validation and of step 0,
    before training. Of a step that has several it is the best, else the kept one.
    """
    places = [Path(workdir).absolute() / "checkpoints" / name for name in ("last", "kept", "best")]
    found = {int(path.name): path for place in places for path in place.glob("*") if path.name.isdecimal()}
    return dict(sorted(found.items()))


def epochs(workdir: Path) -> dict[int, int]:
    """The epoch that ended with each validation of a run, by its step; 0 for step 0."""
    try:
        lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
        return {0: 0} | {line["step"]: line["epoch"] for line in lines}
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or not whole: the steps say enough
        return {0: 0}


def _described(workdir: Path) -> tuple[dict[str, Any], list[str]]:
    """Config and labels of a run; InputError if its files hold something else."""
    config = read_json(workdir / "config.json", "training run")
    corpus = read_json(workdir / "corpus.json", "training run")
    for name, found, wanted in (("config", config, ("front_end", "network")), ("corpus", corpus, ("labels",))):
        if not isinstance(found, dict) or not all(isinstance(found.get(field), dict | list) for field in wanted):
            raise InputError(
                f"{files.shown(workdir / name)}.json: is not what bin/train wrote; restore it, or train anew elsewhere"
            )
    return config, [str(label) for label in corpus["labels"]]


def load(workdir=None, checkpoint=None, network=None, called: str = "workdir") -> Trained:
    """Loads a trained network, from wherever the flags of a command say; batch norm folded, where that can be.

    Args:
      workdir: folder of the run, whose best checkpoint is taken; a network's name or folder will do as well. If None,
        the run that `checkpoint` lies in.
      checkpoint: folder of one checkpoint, such as `WORKDIR/checkpoints/best/1230`.
      network: a name (`deconv_jax.importers.named`) or the folder of a network file (`deconv_jax.network.file`), in
        the place of both. A folder of the same name as a network is meant by "./NAME".
      called: what errors about `workdir` call it.

    Raises:
      InputError: no run, checkpoint or network there, or its arrays do not fit the network that is described.
      ValueError: both a network and a run are named.
    """
    given = (workdir, checkpoint, network)
    if not any(given) or not all(one is None or isinstance(one, str | Path) for one in given):
        raise SettingError(f"name a workdir, a checkpoint or a network, not {', '.join(map(repr, given))}")
    if network is not None:
        if workdir is not None or checkpoint is not None:
            raise SettingError("a network names weights by itself: leave out workdir and checkpoint")
        return named.load(network) if str(network) in named.names() else load_network(network)
    if workdir is not None and checkpoint is None:
        if str(workdir) in named.names():
            return named.load(str(workdir))
        if (Path(workdir) / DESCRIPTION).is_file():
            return load_network(workdir)
    import orbax.checkpoint as ocp

    given, named_by = (checkpoint, "checkpoint") if workdir is None else (workdir, called)
    if workdir is None:
        above = Path(checkpoint).absolute().parents
        workdir = next((p for p in above if (p / "config.json").is_file()), above[0])
    workdir = Path(workdir).absolute()
    if not (workdir / "config.json").is_file():
        wanted = "the folder of a run of bin/train or of a network, or a network's name"
        wanted = "a folder that bin/train wrote, below its run's" if named_by == "checkpoint" else wanted
        raise InputError(f"{files.shown(given)}: holds no training run; wanted is {wanted}", named_by)
    config, labels = _described(workdir)
    net, front = _network_of(config, len(labels)), front_end(config)
    if checkpoint is None:
        folder = workdir / "checkpoints" / "best"
        steps = sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())
        if not steps:
            raise InputError(f"{files.shown(workdir)}: holds no checkpoint yet; let bin/train run for an epoch", called)
        checkpoint = folder / str(steps[-1])
    checkpoint = Path(checkpoint).absolute()
    if not checkpoint.is_dir():
        raise InputError(
            f"{files.shown(checkpoint)}: does not exist; wanted is a folder that bin/train wrote", "checkpoint"
        )
    try:
        stored = ocp.CheckpointManager(checkpoint.parent, options=ocp.CheckpointManagerOptions(read_only=True)).restore(
            int(checkpoint.name), args=ocp.args.StandardRestore()
        )
    except Exception as error:  # Orbax raises many kinds for a damaged folder; all mean the same to a user
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"{files.shown(checkpoint)}: is no checkpoint that can be read ({reason}); "
            "wanted is a folder that bin/train wrote, such as WORKDIR/checkpoints/best/1230",
            "checkpoint",
        ) from None
    variables = jax.tree.map(jnp.asarray, evaluated(stored))
    try:
        check_weights(net, variables, (front.bins, front.clip_frames))
    except ValueError as error:
        raise InputError(
            f"{files.shown(checkpoint)}: holds another architecture: {error}; name the workdir that the checkpoint "
            "belongs to"
        ) from None
    net, variables = fold(net, variables)
    about = {"config": config, "report": _report_for(workdir, int(checkpoint.name))}
    return Trained(net, variables, front, labels, checkpoint, about)


def _report_for(workdir: Path, step: int) -> dict | None:
    """A run's report, as far as it is about the checkpoint of a step: what was tested is the best one alone."""
    if not (workdir / "report.json").is_file():
        return None
    report = read_json(workdir / "report.json", "report")
    if report.get("best_step", step) == step:
        return report
    return {name: report[name] for name in ("labels", "clips", "songs", "artists", "skipped") if name in report}
