"""Songs with stems → what a dissection needs of them: what the network sees of clips, and which stem dominates where.

Everything stands on the grid of each layer's pooled map. Of layers with very many cells only some columns are taken,
evenly spaced: neighbours in time say nearly the same.
"""

import dataclasses
import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from deconv_jax.data import stems
from deconv_jax.data.stems import StemSong
from deconv_jax.errors import InputError, SettingError
from deconv_jax.measures import descriptors, dissection
from deconv_jax.network.spec import layer_sizes
from deconv_jax.network.trained import Trained
from deconv_jax.sound import audio
from deconv_jax.sound.front_end import FrontEnd, constant_q, in_rows, level_of, peak_of, scaled
from deconv_jax.sound.spectrogram import stft

log = logging.getLogger(__name__)

MOST_CELLS = 2**20
"""Cells of a layer, over all clips, of which no more are compared for each feature."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """One layer's cells in all clips, at the columns that are compared.

    Attributes:
      columns: numbers of these columns of the pooled map.
      bins: loudness bin of each cell, -1 for a silent one, shape (clips, freq, columns).
      labels: number of the stem that dominates it, -1 for none, same shape.
      simple: `descriptors` of it, shape (descriptors, clips, freq, columns).
    """

    columns: np.ndarray
    bins: np.ndarray
    labels: np.ndarray
    simple: np.ndarray


@dataclasses.dataclass(frozen=True)
class Material:
    """What a dissection needs of the music; a trial is one clip without one of its stems.

    Attributes:
      concepts: names of the stems.
      names: of the songs.
      songs: number of each clip's song, shape (clips,).
      seen: what the network sees of the clips, shape (clips, freq, time).
      without: what it sees in the trials, shape (trials, freq, time), at the level that the mix was heard at.
      clip, concept: number of each trial's clip and of the stem it lacks, shape (trials,).
      grids: by layer.
      descriptors: names of the simple descriptors.
      starts: second at which each clip begins, shape (clips,).
    """

    concepts: list[str]
    names: list[str]
    songs: np.ndarray
    seen: np.ndarray
    without: np.ndarray
    clip: np.ndarray
    concept: np.ndarray
    grids: dict[int, Grid]
    descriptors: list[str]
    starts: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Clip:
    """One clip: what is seen of it, and without each stem if that is wanted; by layer, power, labels, descriptors."""

    seen: np.ndarray
    without: np.ndarray
    descriptors: list[str]
    power: dict[int, np.ndarray]
    labels: dict[int, np.ndarray]
    simple: dict[int, np.ndarray]


def gather(
    trained: Trained, songs: Sequence[StemSong], clips: int, removed: int, layers: Sequence[int], progress: bool = True
) -> tuple[Material, list[str]]:
    """Reads the songs and makes the material.

    Args:
      trained: the network, whose front end and layers it is for.
      songs: with their stems; those at even places are those by which names are chosen.
      clips: of every song, spread evenly over it.
      removed: in how many of these stems are taken out, one after the other.
      layers: 1-based.
      progress: show a bar.

    Returns:
      The material, and a line for every song that cannot be used.

    Raises:
      InputError: fewer than two songs can be used. SettingError: more than 255 stems.
    """
    front = trained.front_end
    concepts = stems.concepts(list(songs))
    if len(concepts) > dissection.MOST_CONCEPTS:
        raise SettingError(f"{len(concepts)} stems have names of their own; at most {dissection.MOST_CONCEPTS} may")
    places = _places(trained, layers, len(songs) * clips)
    found: list[_Clip] = []
    about: list[tuple[int, float, bool]] = []  # of each clip: its song, where it begins, whether stems are taken out
    failed: list[str] = []
    for number, song in enumerate(tqdm(songs, desc="listening", unit="song", disable=not progress)):
        try:
            sounds = stems.read(song, front.sample_rate)
        except InputError as error:
            failed.append(str(error))
            continue
        for start, tried in _starts(next(iter(sounds.values())).size, front, clips, removed):
            waves = np.zeros((len(concepts), front.clip_samples), np.float32)
            for name, sound in sounds.items():
                waves[concepts.index(name)] = audio.cut(sound, start, front.clip_samples)
            if np.any(waves.sum(axis=0)):
                found.append(_clip(front, waves, places, tried))
                about.append((number, start / front.sample_rate, tried))
        if not about or about[-1][0] != number:
            failed.append(f"{song.name}: is silent where its clips are")
    if len({number for number, _, _ in about}) < 2:
        raise InputError(f"fewer than two songs can be used; first reason: {[*failed, 'all are silent'][0]}", "stems")
    return _joined(found, about, concepts, [song.name for song in songs], places), failed


def _starts(samples: int, front: FrontEnd, clips: int, removed: int) -> Iterator[tuple[int, bool]]:
    """First sample of each clip of a song, and whether stems are taken out in it: in `removed`, spread evenly."""
    starts = audio.clip_starts(samples, front.clip_samples, clips)
    tried = {int((n + 0.5) * len(starts) / removed) for n in range(min(removed, len(starts)))}
    yield from ((int(start), number in tried) for number, start in enumerate(starts))


Places = dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]
"""By layer: `footprints`, the columns wanted of the second, and the numbers of these."""


def _places(trained: Trained, layers: Sequence[int], clips: int) -> Places:
    front, blocks = trained.front_end, trained.network.blocks
    size = (front.bins, front.clip_frames)
    found = {}
    for layer in layers:
        rows, columns = layer_sizes(blocks, size)[layer]
        step = max(1, round(rows * columns * clips / MOST_CELLS + 0.499))
        chosen = np.arange(min(step // 2, columns - 1), columns, step)
        along_frequency, along_time = dissection.footprints(blocks, size, layer)
        found[layer] = (along_frequency, along_time[chosen], chosen)
    return found


def _clip(front: FrontEnd, waves: np.ndarray, places: Places, tried: bool) -> _Clip:
    """One clip of its stems' waveforms (stems, samples)."""
    mix, rows, seen = (np.asarray(a) for a in heard(front, waves))
    count = len(waves)
    power = rows if front.power == 2 else np.square(rows)
    magnitude = np.sqrt(power[0])
    parts = descriptors.harmonic_percussive(magnitude)
    harmonic = np.square(parts[0])
    series = descriptors.describe(mix, front, parts if front.kind == "stft" else None)
    curves, names = np.stack(list(series.values())), [*descriptors.CELLS, *series]
    powers, labels, simple = {}, {}, {}
    for layer, (f, t, _) in places.items():
        pooled = np.einsum("ij,njk,lk->nil", f, power[: count + 1], t, optimize=True)
        powers[layer] = pooled[0].astype(np.float32)
        labels[layer] = dissection.dominant(pooled[1:])
        local = descriptors.cells(pooled[0], f @ harmonic @ t.T)
        over = np.broadcast_to((curves @ t.T)[:, None], (len(curves), *pooled[0].shape))
        simple[layer] = np.concatenate([local, over]).astype(np.float32)
    return _Clip(seen[0], seen[1:] if tried else seen[:0], names, powers, labels, simple)


def heard(front: FrontEnd, waves: np.ndarray) -> tuple[Any, Any, Any]:
    """Stems (stems, samples) → the mix's magnitude; rows; and what the network sees.

    Returns:
      |STFT| of the mix over its level; the network's rows of the mix, of every stem, and of the mix without every stem,
      over the mix's level, shape (2 stems + 1, freq, time); and what the network sees of the mix and of the mix without
      every stem, shape (stems + 1, freq, time). The level is the mix's throughout: what is left stays as it was.
    """
    if front.kind != "cqt":
        return _heard(front, waves, None)
    mix = waves.sum(axis=0, keepdims=True)
    return _heard(front, waves, constant_q(front, np.concatenate([mix, waves, mix - waves])))


@functools.partial(jax.jit, static_argnums=0)
def _heard(front, waves, rows):
    spectra = stft(waves, front.n_fft, front.hop, front.window, front.pad)
    mix = spectra.sum(axis=0, keepdims=True)
    rows = in_rows(front, jnp.concatenate([mix, spectra, mix - spectra])) if rows is None else rows
    frames = min(mix.shape[-1], rows.shape[-1])
    mix, rows = mix[..., :frames], rows[..., :frames]
    level = jnp.ones((1, frames)) if front.level == "none" else level_of(front, rows[0].mean(axis=0))
    rows = rows / level[None]
    chosen = jnp.concatenate([rows[:1], rows[1 + len(waves) :]])
    return jnp.abs(mix[0]) / level, rows, scaled(front, chosen, peak_of(front, rows[0].max(axis=0))[None])


def _joined(
    found: Sequence[_Clip],
    about: Sequence[tuple[int, float, bool]],
    concepts: list[str],
    names: list[str],
    places: Places,
) -> Material:
    grids = {}
    for layer, (_, _, columns) in places.items():
        bins = dissection.loudness_bins(np.stack([clip.power[layer] for clip in found]))
        labels = np.stack([clip.labels[layer] for clip in found])
        simple = np.stack([clip.simple[layer] for clip in found], axis=1)
        grids[layer] = Grid(columns, bins, np.where(bins >= 0, labels, -1).astype(np.int8), simple)
    trials = list(_trials(grids, [tried for _, _, tried in about], len(concepts)))
    without = [found[clip].without[concept] for clip, concept in trials]
    pairs = np.array(trials, int).reshape(-1, 2)
    return Material(
        concepts=concepts,
        names=names,
        songs=np.array([song for song, _, _ in about]),
        seen=np.stack([clip.seen for clip in found]),
        without=np.stack(without) if without else np.zeros((0, *found[0].seen.shape), np.float32),
        clip=pairs[:, 0],
        concept=pairs[:, 1],
        grids=grids,
        descriptors=found[0].descriptors,
        starts=np.array([start for _, start, _ in about]),
    )


def _trials(grids: dict[int, Grid], tried: Sequence[bool], concepts: int) -> Iterable[tuple[int, int]]:
    """(clip, stem) where the stem dominates a cell of any layer."""
    for clip in np.flatnonzero(tried):
        there = {int(label) for grid in grids.values() for label in np.unique(grid.labels[clip])}
        yield from ((int(clip), concept) for concept in range(concepts) if concept in there)
