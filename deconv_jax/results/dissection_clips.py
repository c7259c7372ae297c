"""Dissection by what whole clips are: tags of a table, or folders of sound that somebody made of a concept.

Where nothing is known of stems, a feature can still tell clips with a tag from those without, as an AUROC of its mean
over the clip. The rule and the controls are those of `deconv_jax.results.dissection`; nothing can be taken out. One
control more is the same features with the tags dealt out anew among the songs (as TCAV's random concepts are): of many
features some tell any few songs from the rest.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from deconv_jax.data.tracks import Track
from deconv_jax.errors import InputError
from deconv_jax.measures import descriptors, dissection
from deconv_jax.measures.dissection import Scores
from deconv_jax.network.model import Network
from deconv_jax.network.trained import Trained
from deconv_jax.results import statistics
from deconv_jax.results.dissection import (
    STANDARD,
    Dissection,
    Layer,
    Measured,
    Settings,
    about_run,
    check,
    controls,
    each,
    own,
)
from deconv_jax.sound import audio, blocks
from deconv_jax.sound.front_end import FrontEnd

TOGETHER = 16
"""Clips that go through a network at once."""

DRAWS = 5
"""Times that tags are dealt out anew."""


@dataclasses.dataclass(frozen=True)
class _Clips:
    """Clips of tracks: waveforms (clips, samples), the number of each one's track, descriptors (descriptors, clips)."""

    waveforms: np.ndarray
    tracks: np.ndarray
    simple: np.ndarray


def dissect_clips(
    trained: Trained,
    tracks: Sequence[Track],
    settings: Settings = STANDARD,
    *,
    null: Trained | None = None,
    parts: Path | None = None,
    progress: bool = True,
) -> Dissection:
    """Finds out which features tell which tags.

    Args:
      trained: the network.
      tracks: with their tags in `label`; none that it was trained on. Those of one group (artist) stay in one half.
      settings: see `Settings`.
      null, parts, progress: as in `deconv_jax.results.dissection.dissect`.

    Raises:
      InputError: fewer than two tags are left in either half. SettingError: as there.
    """
    layers, front = check(trained, settings, null), trained.front_end
    clips, failed = _clips(front, tracks, settings.clips, progress)
    halves, concepts = _halves(tracks), sorted({track.label for track in tracks})
    tags = np.array([[tracks[n].label == concept for n in clips.tracks] for concept in concepts])
    half = halves[clips.tracks]
    if any((tags[:, half == n].any(axis=1)).sum() < 2 for n in (0, 1)):
        raise InputError("two tags at least must have songs (of two artists, where these are known) in both halves")
    about = about_run(trained, settings, null, [track.name for track in tracks], len(clips.tracks))
    seen = np.stack([blocks.analyse(front, clip).seen for clip in clips.waveforms[:: max(1, len(half) // 32)][:32]])
    networks = [own(trained), *controls(trained, seen, settings.seeds, null)]

    def measure(network: Network, variables: Any) -> Measured:
        return _means(dataclasses.replace(trained, network=network, variables=variables), clips.waveforms, layers)

    measured = each(networks, measure, about | {"labels": [track.label for track in tracks]}, parts, progress)
    simple = _scores(clips.simple, tags, half)
    drawn = [_dealt(tracks, halves, concepts, seed)[:, clips.tracks] for seed in range(DRAWS)]
    found = {}
    for layer in layers:
        values = [one[str(layer)] for one in measured]
        nulls = [_scores(value, tags, half) for value in values[1:]]
        nulls += [_scores(values[0], random, half) for random in drawn]
        mine = _scores(values[0], tags, half)
        nothing = np.zeros((*mine.chosen_on.shape, 2), int)
        names = dissection.names(mine, nulls, simple)
        found[layer] = Layer(names, mine, nothing, dissection.false_names(nulls, simple), nulls)
    others = [name for name, _ in networks[1:]] + [f"tags shuffled {n + 1}" for n in range(DRAWS)]
    return Dissection(concepts, found, others, _names(), about, failed)


def _clips(front: FrontEnd, tracks: Sequence[Track], count: int, progress: bool) -> tuple[_Clips, list[str]]:
    waveforms, numbers, simple, failed = [], [], [], []
    for number, track in enumerate(tqdm(tracks, desc="listening", unit="song", disable=not progress)):
        try:
            sound = audio.read(track.path, front.sample_rate)
        except InputError as error:
            failed.append(str(error))
            continue
        for start in audio.clip_starts(len(sound), front.clip_samples, count):
            clip = audio.cut(sound, int(start), front.clip_samples)
            if np.any(clip):
                waveforms.append(clip)
                numbers.append(number)
                simple.append(_described(front, clip))
    if not waveforms:
        raise InputError(f"no song can be used; first reason: {[*failed, 'all are silent'][0]}")
    return _Clips(np.stack(waveforms), np.array(numbers), np.stack(simple, axis=1)), failed


def _described(front: FrontEnd, clip: np.ndarray) -> np.ndarray:
    """Mean and deviation over the clip of every series of `descriptors.describe`, (descriptors,)."""
    heard = blocks.analyse(front, clip)
    series = np.stack(list(descriptors.describe(np.abs(heard.spectrum) / heard.level, front).values()))
    return np.concatenate([series.mean(axis=1), series.std(axis=1)])


def _names() -> list[str]:
    series = descriptors.describe(np.zeros((FrontEnd().bins, 2)), FrontEnd())
    return [f"{what} of {name}" for what in ("mean", "deviation") for name in series]


def _halves(tracks: Sequence[Track]) -> np.ndarray:
    """Which half each track is in, 0 or 1: artists in turns within each tag, whole, in the order of the tracks."""
    seen: dict[str, int] = {}
    counts: dict[str, int] = {}
    for number, track in enumerate(tracks):
        who = track.group or f"\0{number}"
        if who not in seen:
            seen[who] = counts.get(track.label, 0) % 2
            counts[track.label] = counts.get(track.label, 0) + 1
    return np.array([seen[track.group or f"\0{number}"] for number, track in enumerate(tracks)])


def _dealt(tracks: Sequence[Track], halves: np.ndarray, concepts: Sequence[str], seed: int) -> np.ndarray:
    """Tags (concepts, tracks) dealt out anew among the tracks of each half."""
    labels, rng = np.array([concepts.index(track.label) for track in tracks]), np.random.default_rng(seed)
    for half in (0, 1):
        labels[halves == half] = rng.permutation(labels[halves == half])
    return labels == np.arange(len(concepts))[:, None]


def _means(trained: Trained, waveforms: np.ndarray, layers: Sequence[int]) -> Measured:
    """Mean of every feature's map in each clip, by layer, (features, clips)."""
    found: dict[str, list[np.ndarray]] = {str(layer): [] for layer in layers}
    for first in range(0, len(waveforms), TOGETHER):
        some = waveforms[first : first + TOGETHER]
        whole = np.pad(some, ((0, TOGETHER - len(some)), (0, 0)))
        for layer, (_, mean) in statistics.activations(trained, whole, layers).items():
            found[str(layer)].append(mean[: len(some)].T)
    return {layer: np.concatenate(means, axis=1) for layer, means in found.items()}


def _scores(values: np.ndarray, tags: np.ndarray, half: np.ndarray) -> Scores:
    """AUROCs of features (features, clips) for tags (tags, clips) on either half."""
    return Scores(*(dissection.clip_auroc(values[:, half == n], tags[:, half == n]) for n in (0, 1)))
