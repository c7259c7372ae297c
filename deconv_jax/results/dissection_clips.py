"""Dissection by what whole clips are: tags of a table, or folders of sound that somebody made of a concept.

Where nothing is known of stems, a feature can still tell clips with a tag from those without, as an AUROC of its mean
over the clip. The rule and the controls are those of `deconv_jax.results.dissection`; nothing can be taken out. One
control more is the same features with the tags dealt out anew among the artists, where these are known, else among the
songs (as TCAV's random concepts are): of many features some tell any few artists from the rest.
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
    content_of,
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

MOST_TAGS = 255
"""More would be names for everything."""


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
      tracks: with their `tags`, or `label` where none has tags; none that it was trained on. Those of one group
        (artist) stay in one half.
      settings: see `Settings`.
      null, parts, progress: as in `deconv_jax.results.dissection.dissect`.

    Raises:
      InputError: no tag has clips with and without it in both halves, or there are too many. SettingError: as there.
    """
    layers, front = check(trained, settings, null), trained.front_end
    clips, failed = _clips(front, tracks, settings.clips, progress)
    halves, given = _halves(tracks), _tags(tracks)
    concepts = sorted({tag for some in given for tag in some})
    if len(concepts) > MOST_TAGS:
        raise InputError(
            f"{len(concepts)} tags; at most {MOST_TAGS} may be compared: name columns with fewer values", "tags"
        )
    tagged = np.array([[concept in some for some in given] for concept in concepts])
    tags, half = tagged[:, clips.tracks], halves[clips.tracks]
    told = [tags[:, half == n].any(axis=1) & ~tags[:, half == n].all(axis=1) for n in (0, 1)]
    if not np.any(told[0] & told[1]):
        raise InputError(
            "a tag at least must have songs with and without it (of two artists each, if known) in both halves"
        )
    heard = content_of(clips.waveforms, clips.tracks)
    about = about_run(trained, settings, null, [track.name for track in tracks], len(clips.tracks), heard)
    seen = np.stack([blocks.analyse(front, clip).seen for clip in clips.waveforms[:: max(1, len(half) // 32)][:32]])
    networks = [own(trained), *controls(trained, seen, settings.seeds, null)]

    def measure(_: str, network: Network, variables: Any) -> Measured:
        return _means(dataclasses.replace(trained, network=network, variables=variables), clips.waveforms, layers)

    measured = each(networks, measure, about, parts, progress)
    simple = _scores(clips.simple, tags, half)
    drawn = [tagged[:, _dealt(tracks, halves, seed)][:, clips.tracks] for seed in range(DRAWS)]
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
        heard = audio.sounding(sound, front.clip_samples, count)
        if not heard:
            failed.append(f"{track.name}: is silent where its clips are")
        for clip in heard.values():
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
    """Which half each track is in, 0 or 1: artists in turns within each label (or first tag), in the tracks' order."""
    seen: dict[str, int] = {}
    counts: dict[str, int] = {}
    for number, track in enumerate(tracks):
        if (who := _artist(tracks, number)) not in seen:
            kind = track.label or next(iter(track.tags), "")
            seen[who] = counts.get(kind, 0) % 2
            counts[kind] = counts.get(kind, 0) + 1
    return np.array([seen[_artist(tracks, number)] for number in range(len(tracks))])


def _dealt(tracks: Sequence[Track], halves: np.ndarray, seed: int) -> np.ndarray:
    """The number of the track whose tags each track gets: in turns those of one artist, drawn anew within each half.

    Artists and not songs are mixed: songs of one are alike, so their tags are told by whatever tells the artist.
    """
    of, rng = np.arange(len(tracks)), np.random.default_rng(seed)
    for half in (0, 1):
        artists: dict[str, list[int]] = {}
        for number in np.flatnonzero(halves == half):
            artists.setdefault(_artist(tracks, int(number)), []).append(int(number))
        songs = list(artists.values())
        for mine, place in zip(songs, rng.permutation(len(songs)), strict=True):
            of[mine] = np.resize(songs[place], len(mine))
    return of


def _tags(tracks: Sequence[Track]) -> list[tuple[str, ...]]:
    """The tags of each track, or where none has any, its label."""
    tagged = any(track.tags for track in tracks)
    return [track.tags if tagged else (track.label,) for track in tracks]


def _artist(tracks: Sequence[Track], number: int) -> str:
    return tracks[number].group or f"\0{number}"


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
