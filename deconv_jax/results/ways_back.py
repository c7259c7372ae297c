"""Which way back makes a feature sound like what it is named after?

An image is heard with the energy that it has in each cell, and of songs with stems it is known in which cells a stem
dominates. So each way from a feature back to the input is scored by the share of its image's energy that lies in these
cells, on songs by which the name was not chosen. Beside it stands the same way back in every control, from the feature
that tells the stem best there: what that reaches as well, nobody has learnt. And two shares that need no network: the
input's own, which an image that is the input again reaches, and that of the cells, which one of even energy reaches.

All ways ask for the same: what raises the energy of the feature's map, which is where the deconvolution starts.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deconv_jax.data import stems
from deconv_jax.data.stems import StemSong
from deconv_jax.decision.effects import pooled_maps
from deconv_jax.deconvolution.deconvolve import deconvolve
from deconv_jax.deconvolution.rule import Rule
from deconv_jax.measures import dissection as rule
from deconv_jax.measures.intervals import interval
from deconv_jax.network.model import Network
from deconv_jax.network.trained import Trained
from deconv_jax.results import dissection
from deconv_jax.results.dissection import Dissection
from deconv_jax.results.dissection_music import Material, heard
from deconv_jax.sound import audio, blocks

WAYS = ("deconvnet", "guided", "gradient", "gradient_x_input", "integrated_gradients", "occlusion")

COLUMNS = (
    "layer", "feature", "concept", "named", "way", "songs", "energy", "control", "control_energy", "input_energy",
    "cells", "ahead_of_control", "control_low", "control_high", "ahead_of_input", "input_low", "input_high",
    "ahead_of_cells", "cells_low", "cells_high",
)  # fmt: skip
"""Of the table; `cells` is the share of cells in which the stem dominates: what an even image reaches."""

TOGETHER = 16
"""Clips that go through a network at once."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How ways back are compared.

    Attributes:
      songs: in which each stem is looked for, of those on which names are scored; of each the clip with most of it.
      steps: of the quadrature of integrated gradients.
      patch: rows and frames that are silent at a time ("occlusion").
      draws: of the bootstrap over songs.
    """

    songs: int = 8
    steps: int = 8
    patch: tuple[int, int] = (32, 32)
    draws: int = 2000


@dataclasses.dataclass(frozen=True)
class _Case:
    """A layer and a stem: its features, clips, what the network sees of them, and where the stem dominates in these."""

    layer: int
    concept: int
    features: list[int]
    clips: list[int]
    seen: np.ndarray
    masks: np.ndarray


def compare(
    trained: Trained,
    songs: Sequence[StemSong],
    material: Material,
    found: Dissection,
    *,
    null: Trained | None = None,
    wanted: Settings = Settings(),
    parts: Path | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Scores every way back, of every feature that is above all controls and all simple descriptors.

    Args:
      trained: the network.
      songs, material: what it was dissected with.
      found: its dissection with these.
      null: the network trained on shuffled labels, one control more; the others are the first of each kind.
      wanted: see `Settings`.
      parts: as in `deconv_jax.results.dissection.dissect`.
      progress: show a bar.

    Returns:
      A row for each feature and way: the mean share of energy, that of the best control, of the input and of the cells,
      by how much the feature is ahead of each, with intervals over songs; `named` where it falls without the stem too.
      No row if there is no such feature.

    Raises:
      InputError: a song cannot be read any more.
    """
    cases = list(_cases(trained, songs, material, found, wanted))
    if not cases:
        return []
    networks = [dissection.own(trained), *dissection.controls(trained, material.seen, 1, null)]
    silence = np.asarray(blocks.analyse(trained.front_end, np.zeros(trained.front_end.clip_samples, np.float32)).seen)

    def measure(name: str, network: Network, variables: Any) -> dict[str, np.ndarray]:  # case/way → (clips, features)
        shares: dict[str, np.ndarray] = {}
        for number, case in enumerate(cases):
            chosen = case.features if name == networks[0][0] else [_best(found, case, name)]
            drawn = images(network, variables, case.seen, silence, case.layer, chosen, wanted)
            shares |= {f"{number}/{way}": share(image, case.masks[:, None]) for way, image in drawn.items()}
        return shares

    asked = [[case.layer, case.concept, case.features, case.clips] for case in cases]
    about = found.about | {"ways": [dataclasses.asdict(wanted), asked]}
    shares = dict(zip(dict(networks), dissection.each(networks, measure, about, parts, progress), strict=True))
    rows: list[dict[str, Any]] = []
    for number, case in enumerate(cases):
        of = {name: {way: some[f"{number}/{way}"] for way in WAYS} for name, some in shares.items()}
        rows += _rows(case, of, material.concepts[case.concept], found, wanted)
    return sorted(rows, key=lambda row: (row["layer"], row["feature"], WAYS.index(row["way"])))


def _cases(
    trained: Trained, songs: Sequence[StemSong], material: Material, found: Dissection, wanted: Settings
) -> Iterator[_Case]:
    for layer, about in found.layers.items():
        for concept in np.unique(about.names.described[about.names.described >= 0]):
            cells = (material.grids[layer].labels == concept).sum(axis=(1, 2))
            best = [_most(cells, material.songs == song) for song in range(1, len(material.names), 2)]
            there = [clip for clip in best if clip is not None]
            clips = [there[int(n)] for n in np.unique(np.linspace(0, len(there) - 1, wanted.songs).round())]
            masks = np.stack([_mask(trained, songs, material, clip, int(concept)) for clip in clips])
            features = np.flatnonzero(about.names.described == concept).tolist()
            yield _Case(layer, int(concept), features, clips, material.seen[clips], masks)


def _most(cells: np.ndarray, here: np.ndarray) -> int | None:
    """Of the clips here that with most cells; None without any."""
    clip = int(np.where(here, cells, -1).argmax())
    return clip if here[clip] and cells[clip] else None


def _mask(trained: Trained, songs: Sequence[StemSong], material: Material, clip: int, concept: int) -> np.ndarray:
    """Where a stem dominates in a clip, in the rows and frames of the network's input, bool, (freq, time)."""
    front = trained.front_end
    start = round(float(material.starts[clip]) * front.sample_rate)
    waves = np.zeros((len(material.concepts), front.clip_samples), np.float32)
    for name, sound in stems.read(songs[int(material.songs[clip])], front.sample_rate).items():
        waves[material.concepts.index(name)] = audio.cut(sound, start, front.clip_samples)
    rows = np.asarray(heard(front, waves)[1])[1 : 1 + len(waves)]
    return np.asarray(rule.dominant(rows if front.power == 2 else rows**2) == concept)


def _best(found: Dissection, case: _Case, control: str) -> int:
    """The feature of a control that tells the stem best on the songs by which names are chosen."""
    scores = found.layers[case.layer].others[found.controls.index(control)].chosen_on[:, case.concept]
    return int(np.where(np.isfinite(scores), scores, -np.inf).argmax())


def share(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The share of the energy of images (…, freq, time) in masks that are broadcast to them; 0 of an empty image."""
    power = np.square(image, dtype=np.float64)
    whole = power.sum(axis=(-2, -1))
    return np.asarray((power * mask).sum(axis=(-2, -1)) / np.where(whole > 0, whole, 1))


def images(
    network: Network,
    variables: Any,
    seen: np.ndarray,
    silence: np.ndarray,
    layer: int,
    features: Sequence[int],
    wanted: Settings = Settings(),
) -> dict[str, np.ndarray]:
    """Images of features by every way back.

    Args:
      network, variables: as in `network.apply`.
      seen: what it sees of clips, shape (clips, freq, time).
      silence: what it sees of silence, shape (freq, time).
      layer: 1-based layer.
      features: 0-based features.
      wanted: see `Settings`.

    Returns:
      Way → shape (clips, features, freq, time). "deconvnet", "guided" and "gradient" as `deconvolve` has them; the
      last times the input; its mean over the inputs from silence to the clip, times the difference (integrated
      gradients of half the energy of the feature's map, Sundararajan et al. 2017); and by how much this energy falls
      where a patch is silent.
    """

    def back(method: str, batch: np.ndarray) -> np.ndarray:
        return np.asarray(deconvolve(network, variables, batch, layer, features, rule=Rule(method)))

    found = {method: back(method, seen) for method in ("deconvnet", "guided", "gradient")}
    found["gradient_x_input"] = found["gradient"] * seen[:, None]
    places, weights = np.polynomial.legendre.leggauss(wanted.steps)
    mean = sum(
        w / 2 * back("gradient", silence + (p + 1) / 2 * (seen - silence)) for p, w in zip(places, weights, strict=True)
    )
    found["integrated_gradients"] = np.asarray(mean * (seen - silence)[:, None], np.float32)

    def energies(batch: np.ndarray) -> np.ndarray:  # half of every map's, (clips, features)
        maps = np.asarray(pooled_maps(network, variables, batch, layer))[..., np.asarray(features)]
        return np.asarray(np.square(maps).sum(axis=(1, 2)) / 2)

    found["occlusion"] = _occluded(energies, seen, silence, wanted.patch)
    return found


def _occluded(
    energies: Callable[[np.ndarray], Any], seen: np.ndarray, silence: np.ndarray, patch: tuple[int, int]
) -> np.ndarray:
    """By how much energies fall where each patch of a clip is silent: (clips, features, freq, time)."""
    clips, rows, columns = seen.shape
    corners = [(f, t) for f in range(0, rows, patch[0]) for t in range(0, columns, patch[1])]
    tasks = [(clip, corner) for clip in range(clips) for corner in (None, *corners)]
    values = []
    for first in range(0, len(tasks), TOGETHER):
        some = tasks[first : first + TOGETHER]
        batch = np.stack([seen[clip] for clip, _ in [*some, *[some[-1]] * (TOGETHER - len(some))]])
        for n, (_, corner) in enumerate(some):
            if corner:
                where = np.s_[corner[0] : corner[0] + patch[0], corner[1] : corner[1] + patch[1]]
                batch[n][where] = silence[where]
        values.append(np.asarray(energies(batch))[: len(some)])
    found = np.concatenate(values).reshape(clips, 1 + len(corners), -1)
    fall = found[:, :1] - found[:, 1:]
    drawn = np.empty((clips, fall.shape[-1], rows, columns), np.float32)
    for n, (f, t) in enumerate(corners):
        drawn[:, :, f : f + patch[0], t : t + patch[1]] = fall[:, n, :, None, None]
    return drawn


# --- the table ------------------------------------------------------------------------------


def _rows(
    case: _Case, shares: Mapping[str, Mapping[str, np.ndarray]], concept: str, found: Dissection, wanted: Settings
) -> Iterator[dict[str, Any]]:
    (_, mine), *others = shares.items()
    named = found.layers[case.layer].names.named
    heard_there, even = share(case.seen, case.masks), case.masks.mean(axis=(1, 2))
    for place, feature in enumerate(case.features):
        about = {"layer": case.layer, "feature": feature, "concept": concept, "named": int(named[feature] >= 0)}
        for way in WAYS:
            controls = {name: of[way][:, 0] for name, of in others}
            yield about | {"way": way} | beside(mine[way][:, place], controls, heard_there, even, wanted.draws)


def beside(
    own: np.ndarray, controls: Mapping[str, np.ndarray], there: np.ndarray, even: np.ndarray, draws: int
) -> dict[str, Any]:
    """One feature's share of energy by one way, beside what it has to be ahead of.

    Args:
      own: of each clip, shape (clips,).
      controls: the same of each control; the best on average counts.
      there, even: the input's own share, and that of the cells.
      draws: of the bootstrap over clips.

    Returns:
      The columns from "songs" on of `COLUMNS`.
    """
    control, best = max(controls.items(), key=lambda one: one[1].mean())
    drawn = np.random.default_rng(0).multinomial(len(own), np.full(len(own), 1 / len(own)), draws) / len(own)
    row: dict[str, Any] = {"songs": len(own), "energy": float(own.mean())}
    row |= {"control": control, "control_energy": float(best.mean())}
    row |= {"input_energy": float(there.mean()), "cells": float(even.mean())}
    for name, other in (("control", best), ("input", there), ("cells", even)):
        low, high = interval(drawn @ (own - other))
        row |= {f"ahead_of_{name}": float((own - other).mean()), f"{name}_low": low, f"{name}_high": high}
    return row


_SHARES = ("energy", "control_energy", "input_energy", "cells")


def said(
    rows: Sequence[Mapping[str, Any]],
    what: str = "feature(s) above all controls and simple descriptors; energy of the image where the stem dominates",
) -> list[str]:
    """What was found, in sentences; `what` is there of each way, and whose energy is meant."""
    if not rows:
        return ["No feature is above all controls and simple descriptors, so no way back was tried."]
    count = len(rows) // len(WAYS)
    lines = [f"Ways back, {count} {what}, the best control's, the input's own, an even image's:"]
    for way in WAYS:
        some = [row for row in rows if row["way"] == way]
        shares = ", ".join(f"{np.mean([row[k] for row in some]):.2f}" for k in _SHARES)
        ahead = sum(row["control_low"] > 0 for row in some)
        every = sum(min(row["control_low"], row["input_low"], row["cells_low"]) > 0 for row in some)
        lines.append(
            f"{way.replace('_', ' ')} {shares}; surely ahead of every control {ahead} of {len(some)}, of the others as "
            f"well {every}."
        )
    return lines
