"""The training run: music → clips → a network that names their genre, with checkpoints and a report."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from absl import logging
from tqdm import tqdm

from deconv_jax import audio, pictures, runtime
from deconv_jax.corpus import builtin
from deconv_jax.corpus.tracks import (
    Clips,
    Track,
    index_folder,
    index_table,
    load_clips,
    shared_groups,
    shuffle_labels,
    split,
)
from deconv_jax.errors import InputError
from deconv_jax.network import Block, Dense, Network, initial_variables, layer_sizes
from deconv_jax.network_file import save_network
from deconv_jax.spectrogram import FrontEnd, analyse
from deconv_jax.training import evaluation
from deconv_jax.training import workdir as wd

State = dict[str, Any]


def train(config: dict, workdir, cache_dir=None) -> dict:
    """Trains the network that a config describes, or goes on where an interrupted run stopped.

    Everything that is random follows from `config["seed"]` and the step, so a run that was interrupted ends with
    the numbers of one that was not.

    Args:
      config: settings as in `configs/genre3.py`, as plain dicts.
      workdir: folder for everything that the run leaves; see `deconv_jax.training.workdir`.
      cache_dir: where the built-in music is kept; the platform's cache if left out.

    Returns:
      The report, as in `report.json`.

    Raises:
      InputError: the music or the workdir cannot be used. ValueError: a setting is wrong.
      FloatingPointError: the loss is no number any more; the message names the step.
    """
    runtime.keep_freed_memory()
    workdir = Path(workdir).absolute()
    front_end = wd.front_end(config)
    _check_training(config["train"], wd.network(config, 2), front_end)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        _claim(workdir, config)
    except OSError as error:
        raise InputError(
            f"--workdir={audio.shown(workdir)}: cannot be written ({error.strerror}); name another"
        ) from None
    if (workdir / "report.json").is_file():
        logging.info("This run is finished; its report is %s", workdir / "report.json")
        report = wd.read_json(workdir / "report.json", "report")
        if not (workdir / "network").is_dir():  # a run of version 0.1
            trained = wd.load(workdir)
            _save(workdir, trained.network, trained.variables, front_end, trained.labels, report)
        return report

    tracks, left_out = _tracks(config, cache_dir)
    parts = split(tracks, config["data"]["split"], config["seed"], config["data"].get("fold", ""))
    labels = sorted({t.label for t in tracks})
    corpus: dict[str, Any] = {"labels": labels, "songs": {p: [t.name for t in ts] for p, ts in parts.items()}}
    artists = {p: [t.group for t in ts] for p, ts in parts.items()}
    if any(map(any, artists.values())):
        corpus["groups"] = artists
    if shared := shared_groups(parts):
        logging.warning("the index puts %d artists into more than one part, such as %s", len(shared), shared[0])
    if (workdir / "corpus.json").is_file() and wd.read_json(workdir / "corpus.json", "run") != corpus:
        raise InputError(
            f"--workdir={audio.shown(workdir)}: was begun with other songs than are there now; "
            "restore them, or name another --workdir"
        )
    wd.write_json(workdir / "corpus.json", corpus)
    if config["data"].get("shuffle_labels"):
        parts = shuffle_labels(parts, config["seed"])
    clips, skipped = load_clips(parts, labels, front_end, config["data"]["clips_per_song"])
    skipped = left_out + skipped
    for name, reason in skipped:
        logging.warning("skipped %s: %s", name, reason)

    network = wd.network(config, len(labels))
    layer_sizes(network.blocks, (front_end.bins, front_end.clip_frames))  # raises if a layer gets nothing
    optimiser = optax.adam(config["train"]["learning_rate"])
    state = _initial_state(network, optimiser, front_end, clips["train"], config["seed"])
    run = _Run(network, optimiser, front_end, clips, config)
    history, best = _fit(run, state, workdir)

    variables = {"params": best["params"], "input": best["input"]}
    predictions = {"network": predict(network, variables, front_end, clips["test"])}
    logging.info("Measuring the baselines")
    predictions |= evaluation.baselines(clips["train"], clips["test"], len(labels), front_end.sample_rate)
    base, difference = evaluation.compare(predictions, clips["test"], artists["test"], config["seed"])
    test = base.pop("network")
    report = {
        "labels": labels,
        "clips": {p: len(c.labels) for p, c in clips.items()},
        "songs": {p: len(np.unique(c.songs)) for p, c in clips.items()},
        "artists": {p: len({artists[p][s] for s in c.songs} - {""}) for p, c in clips.items()},
        "best_step": int(best["step"]),
        "steps": history[-1]["step"],
        "test": test,
        "baselines": base,
        "difference": difference,
        "skipped": [list(s) for s in skipped],
    }
    accuracies = {"network": test["by_clip"]["accuracy"]} | {n: b["by_clip"]["accuracy"] for n, b in base.items()}
    confusion = np.asarray(test["by_song"]["confusion"])
    with audio.replacing(workdir / "report.png") as temporary:
        temporary.write_bytes(pictures.training_sheet(history, confusion, labels, accuracies))
    _save(workdir, network, variables, front_end, labels, report)
    wd.write_json(workdir / "report.json", report)
    return report


def _save(workdir: Path, network: Network, variables, front_end: FrontEnd, labels: list[str], report: dict) -> None:
    """The best weights as a network file, which `bin/auralise --network` takes without this run's folder."""
    source = {"made_by": "bin/train", "step": report["best_step"], "test": report["test"], "songs": report["songs"]}
    save_network(workdir / "network", network, variables, front_end, labels, wd.plain(source))


def _check_training(settings: dict, network: Network, front_end: FrontEnd) -> None:
    layers: list[Block | Dense] = [*network.blocks, *(d for d in network.dense if isinstance(d, Dense))]
    if any(layer.norm != "none" for layer in layers):
        raise ValueError("config.network: bin/train does not train batch norm; it runs in imported networks only")
    if network.final != "softmax" or not network.output:
        raise ValueError("config.network: bin/train trains networks with an output layer and softmax only")
    if front_end.kind == "cqt":
        raise ValueError("config.front_end: bin/train computes spectrograms as it goes and has no constant-Q transform")
    for name in ("epochs", "batch_size", "checkpoint_steps"):
        if settings[name] < 1:
            raise ValueError(f"config.train.{name} must be at least 1, not {settings[name]}")
    if not settings["learning_rate"] > 0:
        raise ValueError(f"config.train.learning_rate must be above 0, not {settings['learning_rate']}")


_ADDED = {"shuffle_labels": False, "index": "", "fold": "", "split_by": "artist"}
"""Settings of config.data that came after the first version, and what they were before."""


def _claim(workdir: Path, config: dict) -> None:
    """Writes config.json, or checks that the run that is here already is this one."""
    path = workdir / "config.json"
    config = json.loads(json.dumps(config))
    if not path.is_file():
        wd.write_json(path, config)
        return
    there = wd.read_json(path, "run")
    for name, default in _ADDED.items():  # a run from before there was this setting goes on
        if name in config["data"]:
            there["data"].setdefault(name, default)
    if there != config:
        changed = sorted(k for k in _flat(there).items() ^ _flat(config).items())
        name = changed[0][0]
        raise InputError(
            f"--workdir={audio.shown(workdir)}: holds a run with another config.{name} "
            f"({_flat(there).get(name, 'none')} there, {_flat(config).get(name, 'none')} now); name another --workdir, "
            "or delete this one"
        )


def _flat(tree, prefix="") -> dict[str, str]:
    if not isinstance(tree, dict):
        return {prefix: json.dumps(tree)}
    return {k: v for key, sub in tree.items() for k, v in _flat(sub, f"{prefix}.{key}".lstrip(".")).items()}


def _tracks(config: dict, cache_dir) -> tuple[list[Track], list[tuple[str, str]]]:
    """The tracks that the settings name, and (name, reason) of those that cannot be used."""
    data = config["data"]
    split_by = data.get("split_by", "artist")
    if split_by not in ("artist", "song"):
        raise ValueError(f"config.data.split_by must be artist or song, not {split_by!r}")
    skipped: list[tuple[str, str]] = []
    if data.get("index"):
        tracks, skipped = index_table(data["index"], data["root"] or None)
    elif data["root"]:
        tracks = index_folder(data["root"])
    else:
        tracks = _builtin(data, cache_dir)
    if split_by == "song":
        tracks = [dataclasses.replace(t, group="") for t in tracks]
    return tracks, skipped


def _builtin(data: dict, cache_dir) -> list[Track]:
    try:
        files = builtin.build(cache_dir or builtin.default_cache_dir(), songs_per_genre=data["songs_per_genre"])
    except OSError as error:
        raise InputError(f"--cache_dir: {error.strerror}") from None
    return index_folder(files[0].parents[1], keep=set(files))


class _Run:
    """The compiled steps of one run and what they share."""

    def __init__(self, network: Network, optimiser, front_end: FrontEnd, clips: dict[str, Clips], config: dict):
        self.network, self.front_end, self.clips = network, front_end, clips
        self.seed, self.settings = config["seed"], config["train"]
        counts = np.bincount(clips["train"].labels, minlength=network.classes)
        self.class_weights = (counts.sum() / (network.classes * counts)).astype(np.float32)
        self.step = make_train_step(network, optimiser, front_end, self.class_weights, self.seed)


def make_train_step(
    network: Network, optimiser: optax.GradientTransformation, front_end: FrontEnd, class_weights: np.ndarray, seed: int
) -> Callable[[State, Any, Any], tuple[State, jax.Array, jax.Array]]:
    """One compiled step of gradient descent, spectrograms included.

    Args:
      class_weights: weight of each class in the loss, shape (classes,), so that a rare genre counts as much as a
        common one.
      seed: of the dropout; the step's number is folded in.

    Returns:
      A function (state, waveforms int16 (clips, samples), labels (clips,)) → (state, loss, number right).
    """

    def step(state, waveforms, labels):
        magnitude = magnitudes(waveforms, front_end)
        key = jax.random.fold_in(jax.random.key(seed), state["step"])

        def loss_of(params):
            variables = {"params": params, "input": state["input"]}
            logits, _ = network.apply(variables, magnitude, train=True, rngs={"dropout": key})
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean(losses * jnp.asarray(class_weights)[labels]), logits

        (loss, logits), gradient = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        updates, opt_state = optimiser.update(gradient, state["opt_state"], state["params"])
        right = jnp.sum(logits.argmax(axis=-1) == labels)
        params = optax.apply_updates(state["params"], updates)
        new = state | {"params": params, "opt_state": opt_state, "step": state["step"] + 1}
        return new, loss, right

    return jax.jit(step, donate_argnums=0)


def magnitudes(waveforms, front_end: FrontEnd) -> jax.Array:
    """int16 or float waveforms (clips, samples) → what the network sees (clips, freq, time)."""
    scale = 1 / 32768 if waveforms.dtype == np.int16 else 1.0
    return analyse(front_end, jnp.asarray(waveforms, jnp.float32) * scale)[1]


def predict(network: Network, variables, front_end: FrontEnd, clips: Clips, batch: int = 16) -> np.ndarray:
    """Probabilities of every clip, shape (clips, classes)."""
    apply = jax.jit(lambda v, w: jax.nn.softmax(network.apply(v, magnitudes(w, front_end))[0]))
    rows = []
    for first in range(0, len(clips.labels), batch):
        some = clips.waveforms[first : first + batch]
        padded = np.pad(some, ((0, batch - len(some)), (0, 0)))
        rows.append(np.asarray(apply(variables, padded))[: len(some)])
    return np.concatenate(rows)


def _initial_state(network: Network, optimiser, front_end: FrontEnd, clips: Clips, seed: int) -> State:
    """Fresh weights, and the input's mean and scale from clips spread over the training part.

    The linear magnitude is divided by one number, its root mean square, and stays a magnitude: the phase reading
    of auralisation needs one. The log magnitude is standardised for each frequency.
    """
    some = clips.waveforms[np.unique(np.linspace(0, len(clips.labels) - 1, 256).astype(int))]
    rows = [np.asarray(magnitudes(some[i : i + 16], front_end), np.float64) for i in range(0, len(some), 16)]
    magnitude = np.concatenate(rows)
    if network.log or not front_end.linear:
        magnitude = np.log1p(1e4 * magnitude) if network.log else magnitude
        mean = magnitude.mean(axis=(0, 2))[:, None]
        scale = np.maximum(magnitude.std(axis=(0, 2)), 1e-3)[:, None]
    else:
        mean, scale = np.zeros((1, 1)), np.sqrt(np.mean(magnitude**2)).reshape(1, 1)
    params = initial_variables(network, (front_end.bins, front_end.clip_frames), seed)["params"]
    return {
        "params": params,
        "input": {"mean": jnp.asarray(mean, jnp.float32), "scale": jnp.asarray(scale, jnp.float32)},
        "opt_state": optimiser.init(params),
        "step": jnp.zeros((), jnp.int32),
        "epoch_loss": np.zeros((), np.float64),
        "epoch_right": np.zeros((), np.int64),
    }


def _fit(run: _Run, state: State, workdir: Path) -> tuple[list[dict], State]:
    """Runs the epochs that are left; returns the history and the best state's params, input and step."""
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    last = ocp.CheckpointManager(workdir / "checkpoints" / "last", options=options)
    best = ocp.CheckpointManager(workdir / "checkpoints" / "best", options=options)
    history = []
    if last.latest_step() is not None:
        state = last.restore(last.latest_step(), args=ocp.args.StandardRestore(state))
        logging.info("Going on from step %d of %s", int(state["step"]), workdir)
    done = int(state["step"])
    for step in best.all_steps():  # saved just before the run was killed, ahead of `last`
        if step > done:
            best.delete(step)
    metrics = workdir / "metrics.jsonl"
    if metrics.is_file():
        lines = [json.loads(line) for line in metrics.read_text().splitlines() if line.endswith("}")]
        history = [line for line in lines if line["step"] <= done]
    train, settings = run.clips["train"], run.settings
    size = min(settings["batch_size"], len(train.labels))
    steps = len(train.labels) // size
    for epoch in range(done // steps, settings["epochs"]):
        order = np.random.Generator(np.random.PCG64([run.seed, epoch])).permutation(len(train.labels))
        state = _epoch(run, state, last, train, order, size, steps, epoch)
        seen = steps * size
        validation = predict(
            run.network, {k: state[k] for k in ("params", "input")}, run.front_end, run.clips["validation"]
        )
        labels = run.clips["validation"].labels
        likelihood = np.log(np.maximum(validation[np.arange(len(labels)), labels], 1e-12))
        weights = run.class_weights[labels]
        entry = {
            "epoch": epoch + 1,
            "step": int(state["step"]),
            "train_loss": float(state["epoch_loss"]) / steps,
            "train_accuracy": int(state["epoch_right"]) / seen,
            "validation_loss": float(-np.sum(likelihood * weights) / np.sum(weights)),
            "validation_accuracy": evaluation.scores(validation, labels)["accuracy"],
        }
        if entry["validation_loss"] < min((h["validation_loss"] for h in history), default=np.inf):
            keep = {k: state[k] for k in ("params", "input", "step")}
            best.save(entry["step"], args=ocp.args.StandardSave(keep))
        history.append(entry)
        with audio.replacing(metrics) as temporary:
            temporary.write_text("".join(json.dumps(h) + "\n" for h in history))
        state = state | {"epoch_loss": np.zeros((), np.float64), "epoch_right": np.zeros((), np.int64)}
        last.save(entry["step"], args=ocp.args.StandardSave(state), force=True)
    restored = best.restore(best.latest_step(), args=ocp.args.StandardRestore())
    last.close()
    best.close()
    return history, restored


def _epoch(run: _Run, state: State, last, train: Clips, order, size: int, steps: int, epoch: int) -> State:
    """The rest of one epoch, from the state's step."""
    total, right = float(state["epoch_loss"]), int(state["epoch_right"])
    begin = int(state["step"]) - epoch * steps
    bar = tqdm(
        total=steps * size, initial=begin * size, unit="clip", desc=f"epoch {epoch + 1}/{run.settings['epochs']}"
    )
    with bar:
        for index in range(begin, steps):
            batch = np.sort(order[index * size : (index + 1) * size])
            state, device_loss, hits = run.step(state, train.waveforms[batch], train.labels[batch])
            loss = float(device_loss)  # waits for the step
            step = int(state["step"])
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"step {step}: the loss is {loss}; nothing of it was kept. Lower --config.train.learning_rate "
                    "and train in a new --workdir"
                )
            total, right = total + loss, right + int(hits)
            state = state | {"epoch_loss": np.asarray(total), "epoch_right": np.asarray(right)}
            seen = (index + 1) * size
            bar.set_postfix(loss=f"{total / (index + 1):.3f}", accuracy=f"{right / seen:.3f}", refresh=False)
            bar.update(size)
            if step % run.settings["checkpoint_steps"] == 0 and index + 1 < steps:
                last.save(step, args=ocp.args.StandardSave(state), force=True)
    return state
