"""The training run: music → clips → a network that names their genre, with checkpoints and a report."""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from tqdm import tqdm

from deconv_jax.data.store import FAILED_SHARE, Clips, load_clips, store_clips, write_skipped
from deconv_jax.data.tracks import PARTS, Track, index_folder, index_table, shared_groups, shuffle_labels, split
from deconv_jax.errors import InputError
from deconv_jax.music import builtin
from deconv_jax.network.file import save_network
from deconv_jax.network.model import Network, initial_variables
from deconv_jax.network.spec import Block, Dense, layer_sizes
from deconv_jax.pictures import spectrograms
from deconv_jax.sound import audio
from deconv_jax.sound.front_end import FrontEnd, analyse
from deconv_jax.system import hosts, locks, runtime
from deconv_jax.system.devices import Devices, ahead, all_devices, feed
from deconv_jax.training import evaluation
from deconv_jax.training import workdir as wd
from deconv_jax.training.checkpoints import BEST, Keeper, State, no_totals


def train(config: dict, workdir, cache_dir=None) -> dict:
    """Trains the network that a config describes, or goes on where an interrupted run stopped.

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
    _check_training(config["train"], wd.network(config, 2), wd.front_end(config))
    if not hosts.first():
        return _train(config, workdir, cache_dir)
    flag = f"--workdir={audio.shown(workdir)}"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with locks.claimed(workdir, "--workdir", ["network"]):
            return _train(config, workdir, cache_dir)
    except OSError as error:
        what = error.strerror or str(error).splitlines()[0]
        raise InputError(f"{flag}: cannot be written ({what}); free some space or name another") from None


def _train(config: dict, workdir: Path, cache_dir) -> dict:
    front_end = wd.front_end(config)
    first = hosts.first()
    if first:
        _check_claim(workdir, config)
    done = first and (workdir / "report.json").is_file()
    if hosts.from_first(np.int32(done)):
        return _finished(workdir, front_end) if first else {}

    tracks, left_out = _tracks(config, cache_dir)
    parts = split(tracks, config["data"]["split"], config["seed"], config["data"].get("fold", ""))
    labels = sorted({t.label for t in tracks})
    corpus: dict[str, Any] = {"labels": labels, "songs": {p: [t.name for t in ts] for p, ts in parts.items()}}
    artists = {p: [t.group for t in ts] for p, ts in parts.items()}
    if any(map(any, artists.values())):
        corpus["groups"] = artists
    if shared := shared_groups(parts):
        logging.warning("the index puts %d artists into more than one part, such as %s", len(shared), shared[0])
    if first:
        if (workdir / "corpus.json").is_file() and wd.read_json(workdir / "corpus.json", "run") != corpus:
            raise InputError(
                f"--workdir={audio.shown(workdir)}: was begun with other songs than are there now; "
                "restore them, or name another --workdir"
            )
        # Not before: a first command with a wrong name of a folder must not bind the workdir to it.
        if not (workdir / "config.json").is_file():
            wd.write_json(workdir / "config.json", config)
        wd.write_json(workdir / "corpus.json", corpus)
    if config["data"].get("shuffle_labels"):
        parts = shuffle_labels(parts, config["seed"])
    clips, skipped = _clips(config, parts, labels, front_end, workdir, cache_dir)
    skipped = left_out + skipped
    if first:
        write_skipped(workdir / "skipped.csv", skipped)
    for name, reason in skipped:
        logging.warning("skipped %s: %s", name, reason)

    network = wd.network(config, len(labels))
    layer_sizes(network.blocks, (front_end.bins, front_end.clip_frames))  # raises if a layer gets nothing
    optimiser = optax.adam(config["train"]["learning_rate"])
    state = _initial_state(network, optimiser, front_end, clips["train"], config["seed"])
    run = _Run(network, optimiser, front_end, clips, config)
    history, best = _fit(run, state, workdir)

    variables = run.devices.replicate({"params": best["params"], "input": best["input"]})
    predictions = {"network": predict(network, variables, front_end, clips["test"], devices=run.devices)}
    if not first:
        return {}
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
        temporary.write_bytes(spectrograms.training_sheet(history, confusion, labels, accuracies))
    _save(workdir, network, variables, front_end, labels, report)
    wd.write_json(workdir / "report.json", report)
    return report


def _clips(config: dict, parts, labels: list[str], front_end: FrontEnd, workdir: Path, cache_dir):
    """`load_clips`; of several processes, each stores its share of the songs before all open the store."""
    folder = Path(cache_dir or builtin.default_cache_dir()) / "clips"
    per_song = config["data"]["clips_per_song"]
    if hosts.joined():
        songs = [track for tracks in parts.values() for track in tracks]
        store_clips(songs, folder, front_end.sample_rate, front_end.clip_samples, per_song, share=hosts.share())
        hosts.barrier("stored")
    listing = workdir / "skipped.csv" if hosts.first() else None
    failed_share = config["data"].get("failed_share", FAILED_SHARE)
    clips, skipped = load_clips(parts, labels, front_end, per_song, folder, failed_share, listing=listing)
    counts = np.asarray([len(clips[part].labels) for part in PARTS])
    if np.any(hosts.from_first(counts) != counts):
        raise InputError(f"--cache_dir={audio.shown(folder.parent)}: holds other clips here than where process 0 runs")
    return clips, skipped


def _finished(workdir: Path, front_end: FrontEnd) -> dict:
    logging.info("This run is finished; its report is %s", workdir / "report.json")
    report = wd.read_json(workdir / "report.json", "report")
    if not (workdir / "network").is_dir():  # a run of version 0.1
        trained = wd.load(workdir)
        _save(workdir, trained.network, trained.variables, front_end, trained.labels, report)
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


def _check_claim(workdir: Path, config: dict) -> None:
    """Checks that the run that is here already, if there is one, is this one."""
    path = workdir / "config.json"
    if not path.is_file():
        return
    config = json.loads(json.dumps(config))
    there = wd.read_json(path, "run")
    for name, default in _ADDED.items():  # a run from before there was this setting goes on
        if name in config["data"]:
            there["data"].setdefault(name, default)
    if "failed_share" in config["data"]:
        there["data"]["failed_share"] = config["data"]["failed_share"]  # changes nothing that is trained
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
        self.devices = all_devices()
        self.size = min(self.settings["batch_size"], len(clips["train"].labels))
        shared = self.devices if self.devices.several else None
        self.step = make_train_step(network, optimiser, front_end, self.class_weights, self.seed, shared, self.size)


def make_train_step(
    network: Network,
    optimiser: optax.GradientTransformation,
    front_end: FrontEnd,
    class_weights: np.ndarray,
    seed: int,
    devices: Devices | None = None,
    size: int | None = None,
) -> Callable[[State, Any, Any], tuple[State, jax.Array, jax.Array]]:
    """One compiled step of gradient descent, spectrograms included.

    Args:
      class_weights: weight of each class in the loss, shape (classes,), so that a rare genre counts as much as a
        common one.
      seed: of the dropout; the step's number is folded in.
      devices: that share the batch; None for one.
      size: clips of a batch; what comes after them only fills up the devices, and counts for nothing.

    Returns:
      A function (state, waveforms int16 (clips, samples), labels (clips,)) → (state, loss, number right).
    """

    def heard(waveforms):
        return magnitudes(waveforms, front_end)

    if devices is not None:
        heard = devices.each_clip(heard)

    def step(state, waveforms, labels):
        magnitude = heard(waveforms)
        clips = len(labels) if size is None else size
        key = jax.random.fold_in(jax.random.key(seed), state["step"])

        def loss_of(params):
            variables = {"params": params, "input": state["input"]}
            logits, _ = network.apply(variables, magnitude, train=True, rngs={"dropout": key})
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return jnp.mean((losses * jnp.asarray(class_weights)[labels])[:clips]), logits

        (loss, logits), gradient = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        updates, opt_state = optimiser.update(gradient, state["opt_state"], state["params"])
        right = jnp.sum((logits.argmax(axis=-1) == labels)[:clips])
        params = optax.apply_updates(state["params"], updates)
        new = state | {"params": params, "opt_state": opt_state, "step": state["step"] + 1}
        return new, loss, right

    return jax.jit(step, donate_argnums=0, out_shardings=None if devices is None else devices.whole())


def magnitudes(waveforms, front_end: FrontEnd) -> jax.Array:
    """int16 or float waveforms (clips, samples) → what the network sees (clips, freq, time)."""
    scale = 1 / 32768 if waveforms.dtype == np.int16 else 1.0
    return analyse(front_end, jnp.asarray(waveforms, jnp.float32) * scale)[1]


def predict(
    network: Network, variables, front_end: FrontEnd, clips: Clips, batch: int = 16, devices: Devices | None = None
) -> np.ndarray:
    """Probabilities of every clip, shape (clips, classes).

    Args:
      variables: on the devices, if there are several (`Devices.replicate`).
      batch: clips at a time.
      devices: that share a batch, each with the same share; by default all there are.
    """
    devices = devices or all_devices()
    apply = _probabilities(network, front_end, devices)
    size = devices.rows(batch)
    indices = np.arange(len(clips.labels))
    batches = (indices[first : first + size] for first in range(0, len(indices), size))

    def read(some):
        return devices.deal(
            size, (front_end.clip_samples,), np.int16, lambda first, last: clips.waveforms[some[first:last]]
        )

    rows = [np.asarray(apply(variables, waveforms)) for waveforms in ahead(read, batches)]
    return np.concatenate(rows)[: len(indices)]


@functools.lru_cache(maxsize=8)
def _probabilities(network: Network, front_end: FrontEnd, devices: Devices) -> Callable:
    heard = devices.each_clip(lambda waveforms: magnitudes(waveforms, front_end))
    return jax.jit(lambda v, w: jax.nn.softmax(network.apply(v, heard(w))[0]), out_shardings=devices.whole())


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
    }


def _fit(run: _Run, state: State, workdir: Path) -> tuple[list[dict], State]:
    """Runs the epochs that are left; returns the history and the best state's params, input and step.

    Of several processes, the first alone has history and checkpoints; the others get its state.
    """
    best = jax.tree.map(np.asarray, {k: state[k] for k in BEST})
    history: list[dict] = []
    totals = no_totals()
    with contextlib.closing(Keeper(workdir)) if hosts.first() else contextlib.nullcontext() as keeper:
        if keeper:
            state, totals, history = keeper.latest(state, totals)
        state = run.devices.replicate(state)
        labels = run.clips["validation"].labels
        steps = len(run.clips["train"].labels) // run.size
        for epoch in range(int(state["step"]) // steps, run.settings["epochs"]):
            state, totals = _epoch(run, state, totals, keeper, steps, epoch)
            variables = {k: state[k] for k in ("params", "input")}
            validation = predict(run.network, variables, run.front_end, run.clips["validation"], devices=run.devices)
            likelihood = np.log(np.maximum(validation[np.arange(len(labels)), labels], 1e-12))
            weights = run.class_weights[labels]
            entry = {
                "epoch": epoch + 1,
                "step": int(state["step"]),
                "train_loss": float(totals["epoch_loss"]) / steps,
                "train_accuracy": int(totals["epoch_right"]) / (steps * run.size),
                "validation_loss": float(-np.sum(likelihood * weights) / np.sum(weights)),
                "validation_accuracy": evaluation.scores(validation, labels)["accuracy"],
            }
            totals = no_totals()
            if keeper:
                better = entry["validation_loss"] < min((h["validation_loss"] for h in history), default=np.inf)
                history.append(entry)
                keeper.epoch_over(state, history, better)
        if keeper:
            best = keeper.best_of(best)
    return history, best


def _epoch(
    run: _Run, state: State, totals: State, keeper: Keeper | None, steps: int, epoch: int
) -> tuple[State, State]:
    """The rest of one epoch, from the state's step."""
    train, size = run.clips["train"], run.size
    total, right = float(totals["epoch_loss"]), int(totals["epoch_right"])
    begin = int(state["step"]) - epoch * steps
    order = np.random.Generator(np.random.PCG64([run.seed, epoch])).permutation(len(train.labels))
    batches = (np.sort(order[index * size : (index + 1) * size]) for index in range(begin, steps))
    bar = tqdm(
        total=steps * size,
        initial=begin * size,
        unit="clip",
        desc=f"epoch {epoch + 1}/{run.settings['epochs']}",
        disable=keeper is None,
    )
    with bar, contextlib.closing(feed(run.devices, train, run.front_end.clip_samples, batches)) as fed:
        for index, (waveforms, labels) in enumerate(fed, begin):
            state, device_loss, hits = run.step(state, waveforms, labels)
            loss = float(device_loss)  # waits for the step
            step = int(state["step"])
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"step {step}: the loss is {loss}; nothing of it was kept. Lower --config.train.learning_rate "
                    "and train in a new --workdir"
                )
            total, right = total + loss, right + int(hits)
            totals = {"epoch_loss": np.asarray(total), "epoch_right": np.asarray(right)}
            seen = (index + 1) * size
            bar.set_postfix(loss=f"{total / (index + 1):.3f}", accuracy=f"{right / seen:.3f}", refresh=False)
            bar.update(size)
            if keeper and step % run.settings["checkpoint_steps"] == 0 and index + 1 < steps:
                keeper.save_last(state | totals)
    return state, totals
