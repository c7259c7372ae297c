"""Networks that tell planted cues: their songs on disk, their training, and those that stand beside them."""

import dataclasses
import importlib.metadata
import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from deconv_jax.experiments.output import seed, untrained
from deconv_jax.music import builtin
from deconv_jax.music.cues import CUES, planted, settings
from deconv_jax.network.trained import Trained
from deconv_jax.system import files
from deconv_jax.training import loop, workdir

TRAINED, RANDOM, SHUFFLED = "trained", "random weights", "shuffled labels"
"""The network, the same with the weights that training begins with, and one whose labels were dealt out at random."""

CHEAP_FIRST = ("tone", "low-pass", "hat", "bass", "pad", "vibrato", "mode")
"""The cues in the order in which the first results come soonest."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How networks for planted cues are made and asked.

    Attributes:
      cues: of `deconv_jax.music.cues.CUES`.
      seconds: of every clip.
      pairs: songs for training, validation and test; each gives a clip of either class.
      steps, batch: of the training.
      enough: share of the validation part that, named right twice running, ends it sooner.
      validation_steps: from one validation to the next.
      layers, maps: of the network: the paper's five blocks, with half as many maps each.
      right: share of the held-out clips that a network has to name right to be asked.
      explained: songs of the test part whose clips are explained.
      points: of integrated gradients' quadrature, of SmoothGrad's noise, and steps of deletion.
      draws: of the bootstrap over songs.
    """

    cues: tuple[str, ...] = CHEAP_FIRST
    seconds: float = 1.5
    pairs: tuple[int, int, int] = (240, 40, 60)
    steps: int = 600
    validation_steps: int = 40
    batch: int = 16
    enough: float = 0.98
    layers: int = 5
    maps: int = 32
    right: float = 0.98
    explained: int = 12
    points: int = 12
    draws: int = 2000


QUICK = Settings(
    cues=("tone", "low-pass"),
    seconds=0.75,
    pairs=(12, 4, 6),
    steps=40,
    batch=8,
    layers=2,
    maps=6,
    right=0.0,
    explained=3,
    points=4,
    draws=200,
)
"""Everything once, in a minute, to see that it runs: networks so small are asked however often they are right."""


def songs(cue: str, wanted: Settings, cache_dir: Path) -> Path:
    """Makes the clips of a cue where they are not there yet.

    Returns:
      Their folder: LABEL/NUMBER.flac, the same number for the clips of one song.
    """
    made = settings(wanted.seconds) | {p: importlib.metadata.version(p) for p in ("midirenderer", "pretty_midi")}
    digest = files.digest(made)[:10]
    folder = Path(cache_dir).absolute() / f"cues-{digest}" / cue  # what tracks.csv names is found from anywhere
    for label in CUES[cue].labels:
        (folder / label).mkdir(parents=True, exist_ok=True)
        files.remove_leftovers(folder / label, files.STALE)
    for number in tqdm(range(sum(wanted.pairs)), desc=f"{cue}: songs", unit="song"):
        paths = [folder / label / f"{number:04d}.flac" for label in CUES[cue].labels]
        if not all(path.exists() for path in paths):
            for path, clip in zip(paths, planted(cue, number, wanted.seconds).clips, strict=True):
                data = io.BytesIO()
                soundfile.write(data, clip, builtin.SAMPLE_RATE, format="FLAC", subtype="PCM_16")
                files.write_bytes(path, data.getvalue())
    return folder


def networks(cue: str, wanted: Settings, folder: Path, cache_dir: Path) -> tuple[dict[str, Trained], dict]:
    """Trains what a cue needs, or goes on, or takes what is there.

    Args:
      cue, wanted: which one, and how.
      folder: for the runs, which are as those of `bin/train`: trained_STEPS and shuffled_STEPS.
      cache_dir: for songs and clips.

    Returns:
      Name → network, and the report of the trained one's run. If it is not right often enough it stands there alone.
      The one that learns shuffled labels is trained for as many steps as the other was.
    """
    sounds = songs(cue, wanted, cache_dir)
    folder.mkdir(parents=True, exist_ok=True)
    parts = np.repeat(["train", "validation", "test"], wanted.pairs)
    rows = [
        {"path": sounds / label / f"{number:04d}.flac", "label": label, "artist": f"song {number}", "split": part}
        for number, part in enumerate(parts)
        for label in CUES[cue].labels
    ]
    files.write_csv(folder / "tracks.csv", rows)
    run, table = folder / f"trained_{wanted.steps}", folder / "tracks.csv"
    report = loop.train(_config(wanted, table, wanted.steps, False), run, cache_dir)
    own = workdir.load(run)
    if accuracy(report) < wanted.right:
        return {TRAINED: own}, report
    null = folder / f"shuffled_{report['steps']}"
    loop.train(_config(wanted, table, report["steps"], True), null, cache_dir)
    twin = dataclasses.replace(own, variables=untrained(own, seed(own)))
    return {TRAINED: own, RANDOM: twin, SHUFFLED: workdir.load(null)}, report


def accuracy(report: dict) -> float:
    """Share of the held-out clips that a run's network named right."""
    return float(report["test"]["by_clip"]["accuracy"])


def _config(wanted: Settings, table: Path, steps: int, shuffled: bool) -> dict:
    """A run of `bin/train`: the blocks of the paper, trained by the recipe of configs/music.py without its changes of
    the clips, which would take a cue away (a band limit), or never let it be whole (a rhythm)."""
    blocks = {f"block{n}": {"maps": wanted.maps, "norm": "before", "dropout": 0.0} for n in range(1, wanted.layers + 1)}
    data = {"root": "", "index": str(table), "clips_per_song": 1, "split": [0.5, 0.1, 0.4], "shuffle_labels": shuffled}
    train: dict[str, Any] = {"steps": steps, "validation_steps": wanted.validation_steps, "batch_size": wanted.batch}
    train |= {"enough": 0.0 if shuffled else wanted.enough, "keep": "last"}
    train |= {"learning_rate": 2e-3, "optimiser": "adamw", "weight_decay": 1e-2, "warmup_steps": 20}
    return {
        "name": "cues",
        "seed": 0,
        "front_end": {"clip_seconds": wanted.seconds, "level": "clip"},
        "network": blocks | {"dense": [], "dropout": 0.0, "head": "average"},
        "data": data,
        "train": train | {"schedule": "cosine", "average": 0.9},
    }
