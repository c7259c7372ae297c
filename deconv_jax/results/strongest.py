"""The table of a collection → the clips that excite every feature most, to be heard on one page.

Strength is the maximum or the mean of the pooled map in the clip. A song stands in a feature's list once, unless more
clips of it are asked for. The untrained twin's features have lists too, from the same clips: what the trained lists
share with them, and how much of one label both hold, says how little of such a list training had to bring about.
"""

import dataclasses
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from deconv_jax.data.store import StoredWaveforms, store_clips
from deconv_jax.deconvolution import deconvolve
from deconv_jax.deconvolution.rule import Rule
from deconv_jax.errors import InputError, SettingError
from deconv_jax.network.trained import Trained
from deconv_jax.page import listening
from deconv_jax.page import strongest as page
from deconv_jax.pictures import spectrograms
from deconv_jax.results import explain
from deconv_jax.results.collection import ACTIVATIONS, SKIPPED, TABLE, Settings, Work
from deconv_jax.sound import auralisation, blocks
from deconv_jax.system import files, locks

log = logging.getLogger(__name__)

FOLDER = "top"
TOGETHER = 16
"""Features of a clip are explained in multiples of this number, so that few shapes are compiled."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to make of the strongest clips.

    Attributes:
      count: clips of each feature.
      by: one of `ACTIVATIONS`, the column that orders them.
      per_song: clips of one song among them at most; 0 for any number.
      reading: see `deconv_jax.sound.auralisation`.
    """

    count: int = 20
    by: str = "activation_maximum"
    per_song: int = 1
    reading: str = "phase"


@dataclasses.dataclass(frozen=True)
class Lists:
    """The strongest clips of each feature, strongest first; arrays of shape (features, count).

    Attributes:
      values: activation; 0 where a feature has fewer clips that activate it.
      songs: number of the song; -1 there.
      clips: number of the clip within its song.
    """

    values: np.ndarray
    songs: np.ndarray
    clips: np.ndarray


class Found(NamedTuple):
    """What a table says.

    Attributes:
      own: the lists of all layers' features one after the other.
      twin: those of the untrained twin.
      present: numbers of the songs that are in the table, shape (songs,).
    """

    own: Lists
    twin: Lists
    present: np.ndarray


def strongest(table: Path, maps: Sequence[int], options: Options) -> Found:
    """Reads the table once, one row group at a time.

    Args:
      table: `statistics.parquet`.
      maps: features of each layer in it, in its order.
      options: count, by and per_song.
    """
    own, twin = _Best(sum(maps), options.count), _Best(sum(maps), options.count)
    present = []
    with pq.ParquetFile(table) as file:
        for group in range(file.num_row_groups):
            wanted = ["song_number", "clip", options.by, f"untrained_{options.by}"]
            rows = {name: file.read_row_group(group, [name])[name].to_numpy() for name in wanted}
            songs, clips, values, chance = (rows[name].reshape(-1, sum(maps)) for name in wanted)
            for best, strength in ((own, values), (twin, chance)):
                best.add(strength, songs[:, 0], clips[:, 0], options.per_song)
            present.append(np.unique(songs[:, 0]))
    return Found(own.lists(), twin.lists(), np.concatenate([*present, np.zeros(0, int)]))


class _Best:
    """The strongest so far; arrays of shape (count, features)."""

    def __init__(self, features: int, count: int):
        self.count = count
        self.values = np.zeros((0, features), np.float32)
        self.songs, self.clips = np.zeros((2, 0, features), np.int64)

    def add(self, values: np.ndarray, songs: np.ndarray, clips: np.ndarray, per_song: int) -> None:
        """Clips of whole songs: values (clips, features), songs and clips (clips,)."""
        wide = [np.broadcast_to(a[:, None], values.shape) for a in (songs, clips)]
        pieces: list = [(values, *wide)]
        if per_song:
            edges = np.flatnonzero(np.diff(songs)) + 1
            each = zip(*(np.split(a, edges) for a in (values, *wide)), strict=True)
            pieces = [_first(piece, per_song) for piece in each]
        found = zip((self.values, self.songs, self.clips), *pieces, strict=True)
        self.values, self.songs, self.clips = _first([np.concatenate(arrays) for arrays in found], self.count)

    def lists(self) -> Lists:
        active = self.values > 0
        parts = np.where(active, self.values, 0), np.where(active, self.songs, -1), np.where(active, self.clips, -1)
        return Lists(*(part.T for part in parts))


def _first(arrays: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of values, songs and clips the `count` rows of largest value in each column; of equal ones the first."""
    order = np.argsort(-arrays[0], axis=0, kind="stable")[:count]
    values, songs, clips = (np.take_along_axis(a, order, axis=0) for a in arrays)
    return values, songs, clips


def most_shared(songs: np.ndarray, others: np.ndarray, but_itself: bool = False) -> np.ndarray:
    """How many songs each list has in common with that of the others which shares most, shape (features,).

    Args:
      songs, others: numbers of songs, shape (features, count), -1 for none.
      but_itself: the others are the same lists; a list is not compared with itself.
    """
    known = np.unique(np.concatenate([songs[songs >= 0], others[others >= 0]]))

    def held(lists: np.ndarray) -> np.ndarray:
        inside = np.zeros((len(lists), len(known) + 1), np.float32)
        place = np.where(lists >= 0, np.searchsorted(known, lists), len(known))
        np.put_along_axis(inside, place, 1, axis=1)
        return inside[:, :-1]

    shared = held(songs) @ held(others).T
    if but_itself:
        np.fill_diagonal(shared, 0)
    return shared.max(axis=1, initial=0).astype(int)


def commonest(songs: np.ndarray, labels: Sequence[str]) -> list[tuple[str, int, int]]:
    """Of each list: the label that most of its clips have, how many have it, and how many there are."""
    found = []
    for row in songs:
        counts = Counter(labels[song] for song in row if song >= 0)
        label, count = counts.most_common(1)[0] if counts else ("", 0)
        found.append((label, count, sum(counts.values())))
    return found


def check(trained: Trained, settings: Settings, options: Options) -> None:
    """Compares settings and options with the network before any work is done; raises ValueError as `make` does."""
    if options.by not in ACTIVATIONS:
        raise SettingError(f"by must be one of {', '.join(ACTIVATIONS)}, not {options.by!r}")
    reading = options.reading if options.count else "mask"
    explain.check(trained, settings.layers, reading=reading, method=settings.method)


def make(work: Work, out, options: Options) -> Path:
    """Finds and auralises the strongest clips of every feature, into `top/` below `out`.

    Args:
      work, out: as they were given to `collection.sweep`, which has made the table.
      options: what to make.

    Returns:
      The page. One that was made with the same table and options is left as it is.

    Raises:
      InputError: `out` or the store cannot be written, or `out` holds a folder `top` that was not made here.
      ValueError: phase reading of a network with log input.
    """
    check(work.trained, work.settings, options)
    out = Path(out)
    folder, table = out / FOLDER, out / TABLE
    wanted = {"sweep": (pq.read_schema(table).metadata or {})[b"sweep"].decode()} | dataclasses.asdict(options)
    with locks.writing(out, "out", wait=True):
        if folder.exists():
            try:
                found = json.loads((folder / "top.json").read_text("utf-8"))
            except (OSError, ValueError):
                raise InputError(
                    f"{files.shown(folder)}: is there already and was not made by bin/sweep; name another folder"
                ) from None
            if found == wanted and (folder / "index.html").is_file():
                return folder / "index.html"
        try:
            with files.replacing_folder(folder) as partial:
                found = strongest(table, work.maps, options)
                gone = _auralise(work, partial, options, found.own)
                _write_page(work, partial, options, found, gone)
                files.write_json(partial / "top.json", wanted)
        except pa.ArrowException as error:
            raise OSError(str(error)) from error
    return folder / "index.html"


def _auralise(work: Work, folder: Path, options: Options, own: Lists) -> set[int]:
    """Writes sounds and pictures, song by song; returns the songs that can no longer be read."""
    wanted: dict[int, dict[int, list[tuple[int, int]]]] = defaultdict(lambda: defaultdict(list))
    for (row, rank), song in np.ndenumerate(own.songs):
        if song >= 0:
            wanted[int(song)][int(own.clips[row, rank])].append((row, rank))
    songs, tracks = sorted(wanted), work.songs
    found, skipped = store_clips([tracks[song] for song in songs], work.store)
    for name, reason in skipped:
        log.error("%s: %s", name, reason)
    gone = set()
    for song, stored in zip(tqdm(songs, desc="strongest clips", unit="song", disable=None), found, strict=True):
        if stored is None or stored.clips <= max(wanted[song]):
            if stored:
                log.error("%s: is shorter than it was when it was measured", tracks[song].name)
            gone.add(song)
            continue
        waveforms = StoredWaveforms([stored], work.store.clip_samples)
        for clip, places in sorted(wanted[song].items()):
            waveform = waveforms[clip].astype(np.float32) / 32768
            _auralise_clip(work, waveform, folder, f"{song:07d}-{clip:03d}", options.reading, places)
    return gone


def _auralise_clip(work: Work, waveform: np.ndarray, folder: Path, name: str, reading: str, places) -> None:
    """All that is wanted of one clip: each layer is explained once, for the features in whose lists the clip stands."""
    trained, settings, front = work.trained, work.settings, work.trained.front_end
    heard = blocks.analyse(front, waveform)
    full = max(1.0, float(np.abs(waveform).max()))
    listening.Files(folder, "", False).sound(f"clips/{name}", waveform / full, front.sample_rate)
    edges = np.cumsum([0, *work.maps])
    for layer, begin, end in zip(settings.layers, edges, edges[1:], strict=False):
        here = [(row - begin, rank) for row, rank in places if begin <= row < end]
        for first in range(0, len(here), TOGETHER):
            some = here[first : first + TOGETHER]
            chosen = np.resize([feature for feature, _ in some], TOGETHER).tolist()
            found = deconvolve.deconvolve(
                trained.network,
                trained.variables,
                heard.seen,
                layer,
                chosen,
                rule=Rule(settings.method, settings.norm_back),
            )
            images = heard.in_unit(front, found)
            sounds = blocks.auralise(front, images, heard, len(waveform), reading)
            for (feature, rank), image, sound in zip(some, images, sounds, strict=False):
                gained = auralisation.match_gain(sound, waveform).waveform / full
                stem = _stem(layer, feature, rank)
                listening.Files(folder, "", False).sound(stem, gained, front.sample_rate)
                (folder / f"{stem}.png").write_bytes(spectrograms.coloured_picture(image))


def _stem(layer: int, feature: int, rank: int) -> str:
    return f"layer{layer}/f{feature:03d}-{rank + 1:02d}"


def _write_page(work: Work, folder: Path, options: Options, found: Found, gone: set[int]) -> None:
    (own, twin, present), tracks, settings = found, work.songs, work.settings
    labels = [track.label for track in tracks]
    base = Counter(labels[song] for song in present)
    table = folder.parent / TABLE
    starts = _starts(table, own)
    skipped = len(json.loads(pq.read_schema(table).metadata[b"skipped"])) if (folder.parent / SKIPPED).exists() else 0

    def entry(layer: int, feature: int, row: int, rank: int) -> dict:
        song, clip = int(own.songs[row, rank]), own.clips[row, rank]
        return {
            "stem": _stem(layer, feature, rank),
            "clip": f"clips/{song:07d}-{clip:03d}",
            "name": tracks[song].name,
            "label": tracks[song].label,
            "at": _clock(starts[song, clip]),
            "value": f"{own.values[row, rank]:.3g}",
            "gone": song in gone,
        }

    layers, edge = [], 0
    for layer, maps in zip(settings.layers, work.maps, strict=True):
        rows = slice(edge, edge := edge + maps)
        summary = summarised(own.songs[rows], twin.songs[rows], labels, present, options.count)
        for feature, about in enumerate(summary["features"]):
            row = rows.start + feature
            ranks = np.flatnonzero(own.songs[row] >= 0).tolist()
            about |= {"number": feature, "entries": [entry(layer, feature, row, rank) for rank in ranks]}
            about["base"] = round(100 * base[about["label"]] / max(1, len(present)))
        layers.append(summary | {"number": layer})
    known = len(base) > 1
    page.write(
        folder / "index.html",
        work.trained,
        layers=layers,
        songs=len(present),
        skipped=skipped,
        settings=settings,
        options=options,
        known=known,
        base=[(label, count) for label, count in base.most_common(12)] if known else [],
        few=options.count * 4 > len(present),
        by={"activation_maximum": "maximum", "activation_mean": "mean"}[options.by],
    )


def summarised(songs: np.ndarray, twins: np.ndarray, labels: Sequence[str], present: np.ndarray, count: int) -> dict:
    """What the lists of a layer's features share with an untrained twin's, and how much of one label they hold.

    Args:
      songs, twins: numbers of songs, strongest first, of the features and of the twin's, shape (features, count).
      labels: of all songs.
      present: numbers of the songs that are in the table.
      count: clips that a list was to have.

    Returns:
      features: of each: label (the commonest), most (clips that have it), of (clips), shared (songs in that list of the
      twin's which shares most), purity (share of the commonest label; below 0 for a short list), reach (lists of the
      twin's that are as pure; None for a short list). And of the layer: active (features with a list), twins (the
      twin's), compared (whole lists of the twin's), and medians: shared, chance (a list of the twin's with its next),
      purity and twin_purity, in percent.
    """
    labelled, others = commonest(songs, labels), commonest(twins, labels)
    shared = most_shared(songs, twins)
    purity = np.array([most / max(1, of) for _, most, of in labelled])
    # A list of two clips is pure easily: only whole lists are compared.
    whole = np.array([of in (count, len(present)) for _, _, of in labelled])
    twin_purity = np.array([most / of for _, most, of in others if of in (count, len(present))])
    active, excited = (np.array([of > 0 for _, _, of in found]) for found in (labelled, others))
    return {
        "features": [
            {
                "label": label,
                "most": most,
                "of": of,
                "reach": int(np.sum(twin_purity >= pure)) if is_whole else None,
                "shared": int(common),
                "purity": float(pure - (not is_whole)),
            }
            for (label, most, of), pure, is_whole, common in zip(labelled, purity, whole, shared, strict=True)
        ],
        "active": int(active.sum()),
        "twins": int(excited.sum()),
        "compared": len(twin_purity),
        "shared": _median(shared[active]),
        "chance": _median(most_shared(twins, twins, but_itself=True)[excited]),
        "purity": _median(100 * purity[active & whole]),
        "twin_purity": _median(100 * twin_purity),
    }


def _starts(table: Path, own: Lists) -> dict[tuple[int, int], float]:
    """Seconds at which the clips of the lists begin."""
    wanted = {(int(s), int(c)) for s, c in zip(own.songs.ravel(), own.clips.ravel(), strict=True) if s >= 0}
    found = {}
    with pq.ParquetFile(table) as file:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, ["song_number", "clip", "start_s"])
            songs, clips, starts = (rows[name].to_numpy() for name in rows.column_names)
            first = np.flatnonzero(np.diff(songs, prepend=-1) | np.diff(clips, prepend=-1))
            for place in first:
                key = (int(songs[place]), int(clips[place]))
                if key in wanted:
                    found[key] = float(starts[place])
    return found


def _clock(seconds: float) -> str:
    seconds = round(seconds, 1)  # 59.96 is 1:00.0
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else 0.0
