"""Do attributions point at what the answer hangs on? A table of methods, beside controls that know nothing of it.

Every method's image of a clip orders the cells of its spectrogram. In that order cells are taken out of the clip
(deletion) or put into silence (insertion), and the network says how probable it holds its first answer then. What is
left is heard as a sound is: it is quiet, and the front end takes its level out, where it does so of any sound
(`deconv_jax.decision.faithfulness`, which knows no front end, leaves the level as it is).

Three controls stand beside the methods: cells in random order; in the order of their own energy, which knows the sound
and no network; and every method's image of the same network with random weights, which knows everything but what was
learnt (Adebayo et al. 2018). A method says something of what was learnt only where it is ahead of all three.

What this is not: sounds with holes are like none that the network has heard, so part of a fall may be surprise. And all
masks hold the same number of cells, but not the same energy: how much they hold stands in the table.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from deconv_jax.decision import attribution
from deconv_jax.decision import faithfulness as measures
from deconv_jax.errors import InputError, SettingError
from deconv_jax.experiments.output import made_with, seed, untrained
from deconv_jax.measures.intervals import interval
from deconv_jax.network.trained import Trained
from deconv_jax.pictures import paper
from deconv_jax.sound import audio, blocks
from deconv_jax.sound.auralisation import match_gain
from deconv_jax.sound.front_end import FrontEnd, levelled
from deconv_jax.system import files

RANDOM, ENERGY = "random order", "energy of the input"
UNTRAINED = "{}, random weights"
_OPTIONS = {"integrated_gradients": {"steps": 16}}
MEASURES = ("deletion", "FF", "insertion", "AI", "AD", "AG", "Fid-In", "energy", "sparseness", "complexity")
"""The first two followed the truth where it is known (`deconv_jax.experiments.cues`), so methods are told apart by
deletion; the others are no grounds to trust one."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How faithfulness is measured.

    Attributes:
      clips: of every sound file, spread evenly over it.
      share: of the cells that a mask keeps: those first in the method's order.
      steps: of the curves of deletion and insertion.
      sounds: clips whose masks are written as sound, of different files where there are so many.
      draws: of the bootstrap over sound files.
    """

    clips: int = 2
    share: float = 0.1
    steps: int = 10
    sounds: int = 3
    draws: int = 2000


@dataclasses.dataclass(frozen=True)
class _Clip:
    """A clip, the song that it is of, and what it was heard as."""

    song: int
    name: str
    waveform: np.ndarray
    heard: blocks.Heard


def check(trained: Trained) -> None:
    """ValueError where masks of what the network sees are no masks of sound."""
    if not trained.front_end.linear:
        raise SettingError("faithfulness masks magnitudes, and this network hears their logarithm")


def faithfulness(
    trained: Trained, paths: Sequence[Path], out: Path, offset: float = 0.0, settings: Settings = Settings()
) -> tuple[list[str], list[str]]:
    """Writes faithfulness.png, .csv and .json, and sounds of some clips below `out/faithfulness`.

    Args:
      trained: the network.
      paths: sound files that it was not trained on.
      offset: seconds to skip in each.
      settings: see `Settings`.

    Returns:
      What was found, in sentences, and a line for every file that could not be used.

    Raises:
      InputError: no file can be used. ValueError: see `check`.
    """
    check(trained)
    front = trained.front_end
    clips, failed = _clips(paths, front, offset, settings.clips)
    seen = np.stack([clip.heard.seen for clip in clips])
    probabilities = measures.answers_of(trained.network, trained.variables, seen)
    answers = probabilities.argmax(axis=1)
    start = untrained(trained, seed(trained))
    rng = np.random.default_rng(0)
    rows = np.stack([clip.heard.seen * clip.heard.level for clip in clips])
    images = {RANDOM: rng.random(seen.shape), ENERGY: rows**2}
    methods = attribution.methods_of(trained.network)
    for method in tqdm(methods, desc="attributing", unit="method"):
        for name, variables in ((method, trained.variables), (UNTRAINED.format(method), start)):
            found = attribution.attribute(
                trained.network, variables, seen, answers, method=method, **_OPTIONS.get(method, {})
            )
            images[name] = np.asarray(found.image)
    measured = {}
    for name, image in tqdm(images.items(), desc="masking", unit="method"):
        measured[name] = _measure(trained, rows, probabilities, _ranks(image, rng), settings)
        positive = np.maximum(image, 0)
        measured[name] |= {"sparseness": measures.sparseness(positive), "complexity": measures.complexity(positive)}
    songs = np.array([clip.song for clip in clips])
    table = _table(measured, songs, settings)
    sentences = _said(table, len(clips), len(set(songs.tolist())), probabilities.max(axis=1))
    if left := [method for method in attribution.METHODS if method not in methods]:
        sentences.append(f"Left out, as an activation of this network is no rectifier: {', '.join(left)}.")
    _write_sounds(front, clips, {n: _ranks(i, rng) for n, i in images.items() if n in measured}, out, settings)
    curves = {
        name: (m["insertion curve"].mean(axis=0), m["deletion curve"].mean(axis=0)) for name, m in measured.items()
    }
    files.write_bytes(out / "faithfulness.png", paper.mask_curves(curves, _kind, "\n".join(sentences)))
    files.write_csv(out / "faithfulness.csv", table)
    about = {
        "sentences": sentences,
        "methods": table,
        "options": _OPTIONS,
        "settings": dataclasses.asdict(settings),
        "offset": offset,
    }
    about |= {"clips": [{"name": c.name, "answer": trained.labels[a]} for c, a in zip(clips, answers, strict=True)]}
    files.write_json(out / "faithfulness.json", about | {"failed": failed} | made_with(trained))
    return sentences, failed


def _kind(name: str) -> str:
    """Of a row: "control", "untrained" or "method"."""
    return "control" if name in (RANDOM, ENERGY) else "method" if name in attribution.METHODS else "untrained"


def _clips(paths: Sequence[Path], front: FrontEnd, offset: float, count: int) -> tuple[list[_Clip], list[str]]:
    clips, failed = [], []
    for song, path in enumerate(paths):
        try:
            waveform = audio.read(path, front.sample_rate, offset)
        except InputError as error:
            failed.append(str(error))
            continue
        heard = audio.sounding(waveform, front.clip_samples, count)
        if not heard:
            failed.append(f"{files.shown(path)}: is silent where its clips are; choose a part with sound by offset")
        for number, part in heard.items():
            clips.append(_Clip(song, files.shown(f"{path.stem}_{number}"), part, blocks.analyse(front, part)))
    if not clips:
        raise InputError(f"no sound file could be used; first reason: {[*failed, 'all are silent'][0]}")
    return clips, failed


def _ranks(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where each cell stands in its image's order, the largest value first, as a share from 0; ties at random."""
    flat = images.reshape(len(images), -1)
    ranks = np.empty(flat.shape, np.float32)
    for image, rank in zip(flat, ranks, strict=True):
        rank[np.lexsort((rng.random(image.size), -image))] = np.arange(image.size) / image.size
    return ranks.reshape(images.shape)


def _measure(
    trained: Trained, rows: np.ndarray, before: np.ndarray, ranks: np.ndarray, settings: Settings
) -> dict[str, np.ndarray]:
    """Every measure of every clip, shape (clips,), and both curves, shape (clips, steps + 1)."""
    every, answers = np.arange(len(rows)), before.argmax(axis=1)

    def heard(masks: np.ndarray) -> np.ndarray:
        seen = levelled(trained.front_end, jnp.asarray(rows * masks, jnp.float32))
        return measures.answers_of(trained.network, trained.variables, seen)

    shares = np.linspace(0, 1, settings.steps + 1)
    insertion = np.stack([heard(ranks < share)[every, answers] for share in shares], axis=1)
    deletion = np.stack([heard(ranks >= share)[every, answers] for share in shares], axis=1)
    mask, power = ranks < settings.share, rows**2
    kept = measures.kept_and_lost(before, heard(mask), heard(~mask), answers)
    return {
        "insertion": np.trapezoid(insertion, shares),
        "deletion": np.trapezoid(deletion, shares),
        **dict(zip(("AI", "AD", "AG", "FF", "Fid-In"), kept, strict=True)),
        "energy": (power * mask).sum(axis=(1, 2)) / power.sum(axis=(1, 2)),
        "insertion curve": insertion,
        "deletion curve": deletion,
    }


def _table(measured: Mapping[str, Mapping[str, np.ndarray]], songs: np.ndarray, settings: Settings) -> list[dict]:
    """A row for each method: means over clips, and by how much its deletion is below that of random order.

    Intervals resample songs, since clips of one song are alike.
    """
    rng = np.random.default_rng(1)
    names = np.unique(songs)
    drawn = rng.choice(names, (settings.draws, len(names)))
    weights = (drawn[:, :, None] == songs).sum(axis=1).astype(float)
    weights /= weights.sum(axis=1, keepdims=True)
    rows = []
    for name, found in measured.items():
        lead = measured[RANDOM]["deletion"] - found["deletion"]
        low, high = interval(weights @ lead)
        row = {"method": name, "kind": _kind(name)} | {measure: float(found[measure].mean()) for measure in MEASURES}
        rows.append(row | {"ahead_of_random": lead.mean(), "low": low, "high": high})
    return rows


def _said(table: Sequence[Mapping[str, Any]], clips: int, songs: int, sure: np.ndarray) -> list[str]:
    found = {row["method"]: row for row in table}
    best = sorted((row for row in table if row["kind"] == "method"), key=lambda row: row["deletion"])
    least = min(found[RANDOM]["deletion"], found[ENERGY]["deletion"])
    ahead = [
        row["method"]
        for row in best
        if row["deletion"] < min(least, found[UNTRAINED.format(row["method"])]["deletion"]) and row["low"] > 0
    ]
    return [
        f"{clips} clips of {songs} songs; the network holds its answers {sure.mean():.2f} probable on average.",
        "How probable the answer stays while cells are taken out (deletion): "
        + "; ".join(f"{row['method']} {row['deletion']:.2f}" for row in best)
        + f"; {ENERGY} {found[ENERGY]['deletion']:.2f}; {RANDOM} {found[RANDOM]['deletion']:.2f}.",
        f"Ahead of random order, of energy and of their own image with random weights: {', '.join(ahead) or 'none'}.",
    ]


def _write_sounds(
    front: FrontEnd, clips: Sequence[_Clip], ranks: Mapping[str, np.ndarray], out: Path, settings: Settings
) -> None:
    """What each method keeps of some clips, and what it leaves, as loud as the clip."""
    first = {clip.song: index for index, clip in reversed(list(enumerate(clips)))}
    chosen = [*sorted(first.values()), *(i for i in range(len(clips)) if i not in first.values())][: settings.sounds]
    for index in chosen:
        clip = clips[index]
        folder = out / "faithfulness" / clip.name
        folder.mkdir(parents=True, exist_ok=True)
        audio.write(folder / "original.wav", clip.waveform, front.sample_rate)
        masks = [
            mask for rank in ranks.values() for mask in (rank[index] < settings.share, rank[index] >= settings.share)
        ]
        waves = blocks.auralise(
            front, [mask.astype(np.float32) for mask in masks], clip.heard, len(clip.waveform), "mask"
        )
        for name, kept, left in zip(ranks, waves[::2], waves[1::2], strict=True):
            file = name.replace(", ", "_").replace(" ", "_")
            audio.write(folder / f"{file}.wav", match_gain(kept, clip.waveform).waveform, front.sample_rate)
            audio.write(folder / f"{file}_rest.wav", match_gain(left, clip.waveform).waveform, front.sample_rate)
