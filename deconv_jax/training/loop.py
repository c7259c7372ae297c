"""The training run: music → clips → a network that names their genre, with checkpoints and a report."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from deconv_jax.network.file import save_network
from deconv_jax.network.folding import fold
from deconv_jax.network.model import Network
from deconv_jax.network.spec import layer_sizes
from deconv_jax.pictures import spectrograms
from deconv_jax.sound.front_end import FrontEnd
from deconv_jax.system import files, hosts, locks, runtime
from deconv_jax.system.devices import Devices, all_devices, feed
from deconv_jax.training import evaluation
from deconv_jax.training import workdir as wd
from deconv_jax.training.checkpoints import Keeper, diverged, no_totals
from deconv_jax.training.prepare import Music, check_same_run, lengthen, prepare, settings
from deconv_jax.training.recipe import Batches, Recipe
from deconv_jax.training.step import initial_state, make_train_step, predict
from deconv_jax.training.teachers import load_teachers
from deconv_jax.training.workdir import State, evaluated

log = logging.getLogger(__name__)


def train(config: dict, workdir, cache_dir=None) -> dict:
    """Trains the network that a config describes, or goes on where an interrupted run stopped.

    A finished run goes on, too, where it is now to have more epochs and its learning rate is constant.

    Everything that is random follows from `config["seed"]` and the step, so a run that was interrupted ends with
    the numbers of one that was not. All devices of all processes share every batch (`deconv_jax.system.devices`); of
    several processes, the first alone reads and writes the workdir.

    Args:
      config: settings as in `configs/genre3.py`, as plain dicts.
      workdir: folder for everything that the run leaves; see `deconv_jax.training.workdir`.
      cache_dir: where the built-in music is kept; the platform's cache if left out.

    Returns:
      The report, as in `report.json`; an empty one in all processes but the first.

    Raises:
      InputError: the music or the workdir cannot be used, or another run is at work in it. ValueError: a setting is
        wrong. FloatingPointError: the loss is no number any more; the message names the step.
    """
    runtime.keep_freed_memory()
    workdir = Path(workdir).absolute()
    settings(config)
    if not hosts.first():
        return _train(config, workdir, cache_dir)
    with locks.writing(workdir, "workdir", ["network"]):
        return _train(config, workdir, cache_dir)


def _train(config: dict, workdir: Path, cache_dir) -> dict:
    front_end = wd.front_end(config)
    first = hosts.first()
    longer = first and check_same_run(workdir, config)
    done = first and not longer and (workdir / "report.json").is_file()
    if hosts.from_first(np.int32(done)):
        return _finished(workdir, front_end, config["train"].get("keep_all", False)) if first else {}
    music = prepare(config, front_end, workdir, cache_dir)
    if longer:
        lengthen(workdir, config)
    run = _run(config, music, front_end)
    history, best = _fit(run, workdir)
    variables = run.devices.replicate({k: v for k, v in best.items() if k != "step"})
    predictions = {"network": predict(run.network, variables, front_end, music.clips["test"], devices=run.devices)}
    return _report(run, workdir, history, best, predictions) if first else {}


def _report(run: "_Run", workdir: Path, history: list[dict], best: State, predictions: dict) -> dict:
    """Measures the baselines and writes what a finished run leaves; the report last."""
    music, labels, clips = run.music, run.music.labels, run.music.clips
    log.info("Measuring the baselines")
    predictions |= evaluation.baselines(clips["train"], clips["test"], len(labels), run.front_end.sample_rate)
    results = evaluation.results(predictions, clips["test"], music.artists["test"], run.seed)
    report = {
        "labels": labels,
        "clips": {p: len(c.labels) for p, c in clips.items()},
        "songs": {p: len(np.unique(c.songs)) for p, c in clips.items()},
        "artists": {p: len({music.artists[p][s] for s in c.songs} - {""}) for p, c in clips.items()},
        "best_step": int(best["step"]),
        "steps": history[-1]["step"],
        **results,
        "skipped": [list(s) for s in music.skipped],
    }
    named = {"network": results["test"]} | results["baselines"]
    accuracies = {name: result["by_clip"]["accuracy"] for name, result in named.items()}
    confusion = np.asarray(results["test"]["by_song"]["confusion"])
    files.write_bytes(workdir / "report.png", spectrograms.training_sheet(history, confusion, labels, accuracies))
    tested = clips["test"]
    names = [track.name for track in music.parts["test"]]
    evaluation.Tested(predictions, tested.labels, tested.songs, names, music.artists["test"]).write(workdir)
    network, variables = fold(run.network, {k: v for k, v in best.items() if k != "step"})
    _save(workdir, network, variables, run.front_end, labels, report)
    files.write_json(workdir / "report.json", report)
    return report


def _finished(workdir: Path, front_end: FrontEnd, keep_all: bool) -> dict:
    log.info("This run is finished; its report is %s", workdir / "report.json")
    if keep_all and not (workdir / "checkpoints" / "kept").is_dir():
        log.warning("config.train.keep_all: this run kept no validations; train anew in another workdir for them")
    report = wd.read_json(workdir / "report.json", "report")
    if not (workdir / "network").is_dir():  # a run of version 0.1
        trained = wd.load(workdir)
        _save(workdir, trained.network, trained.variables, front_end, trained.labels, report)
    return report


def _save(workdir: Path, network: Network, variables, front_end: FrontEnd, labels: list[str], report: dict) -> None:
    """The best weights as a network file, which `bin/auralise --network` takes without this run's folder."""
    source = {"made_by": "bin/train", "step": report["best_step"], "test": report["test"], "songs": report["songs"]}
    if wd.read_json(workdir / "config.json", "run")["data"].get("shuffle_labels"):
        source["shuffle_labels"] = True
    save_network(workdir / "network", network, variables, front_end, labels, files.plain(source))


@dataclasses.dataclass
class _Run:
    """The compiled step of one run, its first state, and what they share.

    Attributes:
      size: clips of a batch.
      round_steps, steps: from one validation to the next, and of the whole training.
      class_weights: weight of each class in the validation's loss.
    """

    music: Music
    front_end: FrontEnd
    network: Network
    recipe: Recipe
    seed: int
    devices: Devices
    size: int
    round_steps: int
    steps: int
    class_weights: np.ndarray
    batches: Batches
    step: Callable
    state: State


def _run(config: dict, music: Music, front_end: FrontEnd) -> _Run:
    recipe, augment = settings(config)
    network, seed, train = wd.network(config, len(music.labels)), config["seed"], music.clips["train"]
    layer_sizes(network.blocks, (front_end.bins, front_end.clip_frames))  # raises if a layer gets nothing
    seconds = recipe.crop_seconds or front_end.clip_seconds
    layer_sizes(network.blocks, (front_end.bins, front_end.frames(round(seconds * front_end.sample_rate))))
    # Where classes take turns in the batches they weigh the same there, and so they do in validation.
    counted = train if recipe.sampling == "clips" else music.clips["validation"]
    counts = np.maximum(np.bincount(counted.labels, minlength=network.classes), 1)
    weights = (counts.sum() / (network.classes * counts)).astype(np.float32)
    round_steps, steps = recipe.rounds(len(train.labels))
    optimiser = recipe.optimiser_for(steps)
    devices, size = all_devices(), min(recipe.batch_size, len(train.labels))
    shared = devices if devices.several else None
    in_step = weights if recipe.sampling == "clips" else np.ones_like(weights)
    teachers = load_teachers(recipe.teachers, music, front_end)
    step = make_train_step(network, optimiser, front_end, in_step, seed, shared, size, recipe, augment, teachers)
    state = initial_state(network, optimiser, front_end, train, seed, recipe)
    batches = Batches(train, music.parts["train"], size, seed, recipe.sampling)
    return _Run(
        music, front_end, network, recipe, seed, devices, size, round_steps, steps, weights, batches, step, state
    )


def _fit(run: _Run, workdir: Path) -> tuple[list[dict], State]:
    """Trains to the end; returns the history and the best state's weights, input and step.

    Of several processes, the first alone has history and checkpoints; the others get its state.
    """
    state, totals = run.state, no_totals()
    history: list[dict] = []
    best = jax.tree.map(np.asarray, evaluated(state) | {"step": state["step"]})
    keeping = contextlib.closing(Keeper(workdir, run.recipe.keep_all)) if hosts.first() else contextlib.nullcontext()
    with keeping as keeper:
        if keeper:
            state, totals, history = keeper.latest(state, totals)
            keeper.began(run.state, history)
        state = run.devices.replicate(state)
        while int(state["step"]) < run.steps and not hosts.from_first(np.int32(_is_over(history, run.recipe))):
            state, totals = _round(run, state, totals, keeper)
            entry = _validated(run, state, totals)
            totals = no_totals()
            if keeper:
                history.append(entry)
                keeper.validated(state, history, _best_step(history, run.recipe))
        if keeper:
            best = keeper.best_of(_best_step(history, run.recipe), best)
    return history, best


def _best_step(history: list[dict], recipe: Recipe) -> int:
    """Step of the validation whose weights are kept: the first of the lowest loss, or the last."""
    kept = history[-1] if recipe.keep == "last" else min(history, key=lambda entry: entry["validation_loss"])
    return kept["step"]


def _is_over(history: list[dict], recipe: Recipe) -> bool:
    """Whether enough is right twice running, or the loss is no lower for as many validations as there is patience."""
    last = history[-2:]
    if recipe.enough and len(last) == 2 and min(entry["validation_accuracy"] for entry in last) >= recipe.enough:
        return True
    losses = [entry["validation_loss"] for entry in history]
    return 0 < recipe.patience <= len(losses) - 1 - int(np.argmin(losses)) if losses else False


def _validated(run: _Run, state: State, totals: State) -> dict:
    """A line of metrics.jsonl: the training since the last one, and the weights on the validation part."""
    clips, step = run.music.clips["validation"], int(state["step"])
    validation = predict(run.network, evaluated(state), run.front_end, clips, devices=run.devices)
    likelihood = np.log(np.maximum(validation[np.arange(len(clips.labels)), clips.labels], 1e-12))
    weights = run.class_weights[clips.labels]
    loss = float(-np.sum(likelihood * weights) / np.sum(weights))
    if not np.isfinite(loss):
        raise diverged(step, f"the validation loss is {loss}")
    number = -(-step // run.round_steps)
    steps = step - (number - 1) * run.round_steps
    return {
        "epoch": number,
        "step": step,
        "train_loss": float(totals["epoch_loss"]) / steps,
        "train_accuracy": int(totals["epoch_right"]) / (steps * run.size),
        "validation_loss": loss,
        "validation_accuracy": evaluation.scores(validation, clips.labels)["accuracy"],
    }


def _round(run: _Run, state: State, totals: State, keeper: Keeper | None) -> tuple[State, State]:
    """The steps that are left until the next validation.

    The loss of a step is read when the next one is on its way, so that the device need not wait for the host.
    """
    begin, size = int(state["step"]), run.size
    number = begin // run.round_steps
    first, end = number * run.round_steps, min((number + 1) * run.round_steps, run.steps)
    rounds = -(-run.steps // run.round_steps)
    sums = {"loss": float(totals["epoch_loss"]), "right": int(totals["epoch_right"])}
    bar = tqdm(
        total=(end - first) * size,
        initial=(begin - first) * size,
        unit="clip",
        desc=f"epoch {number + 1}/{rounds}",
        disable=keeper is None,
    )

    def read(step: int, loss: jax.Array, right: jax.Array) -> None:
        value = float(loss)  # waits for the step
        if not np.isfinite(value):
            raise diverged(step, f"the loss is {value}")
        sums["loss"] += value
        sums["right"] += int(right)
        done = step - first
        bar.set_postfix(
            loss=f"{sums['loss'] / done:.3f}", accuracy=f"{sums['right'] / (done * size):.3f}", refresh=False
        )
        bar.update(size)

    train, samples = run.music.clips["train"], run.front_end.clip_samples
    batches = (run.batches[step] for step in range(begin, end))
    unread: tuple | None = None
    with bar, contextlib.closing(feed(run.devices, train, samples, batches)) as fed:
        for step, (waveforms, labels) in enumerate(fed, begin + 1):
            state, loss, right = run.step(state, waveforms, labels)
            if unread:
                read(*unread)
            unread = (step, loss, right)
            if step == end or (keeper and step % run.recipe.checkpoint_steps == 0):
                read(*unread)
                unread = None
                totals = {"epoch_loss": np.asarray(sums["loss"]), "epoch_right": np.asarray(sums["right"])}
                if keeper and step < end:
                    keeper.save_last(state | totals)
    return state, totals
