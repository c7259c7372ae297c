"""A collection of songs → one table: numbers of every feature in every clip.

The songs are cut into parts of a fixed number of songs. A part is measured as a whole and written whole, so a run that
was killed goes on with the parts that are missing, and several processes or machines share the parts out (`share`).
Whoever finds all of them present joins them into `statistics.parquet`, in the songs' order. What stands in a part
depends on its songs and the settings alone, so the table is the same however the work was cut.

Clips are those of the store (`deconv_jax.data.store`), which a run fills with its songs before it measures: a file
that crashes or hangs its decoder costs a worker process there and is skipped, and what is decoded serves the next
layer, the next network and `bin/train`. It takes twice as many bytes as its clips have samples (88 kB for 4 s at
11,025 Hz, so 9 GB for 10,000 songs of ten clips), and may be removed when no run is at work.

sweep.json            settings, the network's fingerprint, and the songs' (a folder never holds two sweeps)
songs.csv             the songs: song, label, group, bytes
parts/00012.parquet   rows of the songs of a part, and in its metadata what each holds and those that could not be used
statistics.parquet    all rows; then the parts are removed
skipped.csv           path and reason of the songs that could not be used
"""

import csv
import dataclasses
import functools
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from deconv_jax.data import tracks
from deconv_jax.data.store import Store, Stored, StoredWaveforms, contents, store_clips, write_skipped
from deconv_jax.data.tracks import Track
from deconv_jax.deconvolution.rule import Rule
from deconv_jax.errors import InputError, SettingError
from deconv_jax.measures import features, randomised
from deconv_jax.music import builtin
from deconv_jax.network.trained import Trained
from deconv_jax.results import explain, statistics
from deconv_jax.sound import audio
from deconv_jax.system import files, hosts, locks, runtime

FORMAT = 3
PART_CLIPS = 64
"""Clips of a part, more or less: what a killed run does again at most."""
PARTS = 4096
"""Parts of a collection at most; those of a large one are larger."""

SETTINGS, SONGS, TABLE, SKIPPED, PARTS_FOLDER = "sweep.json", "songs.csv", "statistics.parquet", "skipped.csv", "parts"
LISTED = ("song", "label", "group", "bytes")
"""Columns of `SONGS`."""
DIGITS = 16
"""Of the SHA-256 by which the tables know what a song held."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
      layers: 1-based layers.
      clips_per_song: clips spread evenly over a song; a short song gives fewer.
      method, norm_back: see `deconv_jax.deconvolution.deconvolve`.
    """

    layers: tuple[int, ...]
    clips_per_song: int = 10
    method: str = "deconvnet"
    norm_back: str = "transpose"


@dataclasses.dataclass(frozen=True)
class Work:
    """What is measured of which songs, by which network.

    Attributes:
      trained: the network.
      songs: in the order that the table will have. One that cannot be used is left out and listed.
      folder: of the store of clips, such as CACHE_DIR/clips; made if it is not there.
      settings: what to measure.
      left_out: (name, reason) of what an index named and is no song, to be listed with those that cannot be used.
    """

    trained: Trained
    songs: Sequence[Track]
    folder: str | Path
    settings: Settings
    left_out: Sequence[tuple[str, str]] = ()

    @property
    def store(self) -> Store:
        """The store of the clips, cut as the network hears them."""
        front = self.trained.front_end
        return Store(self.folder, front.sample_rate, front.clip_samples, self.settings.clips_per_song)

    @property
    def maps(self) -> list[int]:
        """Features of each layer that is measured."""
        return [self.trained.network.blocks[layer - 1].maps for layer in self.settings.layers]


@dataclasses.dataclass(frozen=True)
class Swept:
    """What a run left.

    Attributes:
      table: `statistics.parquet`; None while parts of other shares are missing.
      skipped: name and reason of the songs that could not be used, of this share, or of all if there is a table.
      songs: how many songs there are, those of this share or all.
      clips: clips that this run measured itself.
      missing: parts that are not there yet.
    """

    table: Path | None
    skipped: list[tuple[str, str]]
    songs: int
    clips: int
    missing: int

    @property
    def used(self) -> int:
        """How many of the songs could be used."""
        return self.songs - len(self.skipped)

    def said(self) -> list[str]:
        """What there is now, in lines."""
        if self.table is None:
            return [f"This share is done; {self.missing} part(s) of others are missing. Whoever comes last joins them."]
        return [f"{self.used:,} song(s), a row for every clip and feature:", str(self.table.absolute())]


def find_tracks(paths: Sequence) -> list[Track]:
    """Sound files among the paths, folders searched through, as tracks.

    The name of a file is its path below the folder that was named; its first sub-folder there is the label and the
    second one the group, where there are any.
    """
    found: list[Track] = []
    names: set[str] = set()
    for given in map(Path, paths):
        for path in audio.find([given]):
            inside = path.relative_to(given) if given.is_dir() else Path(path.name)
            name, number = files.shown(inside), 1
            while name in names:
                number += 1
                name = f"{files.shown(inside)} ({number})"
            names.add(name)
            label, group = [*map(files.shown, inside.parts[:-1]), "", ""][:2]
            found.append(Track(path, name, label, group))
    return found


def find_songs(paths: Sequence, index=None, root=None, cache_dir=None) -> tuple[list[Track], list[tuple[str, str]]]:
    """The songs that a command names: those of an index, of files and folders, or the built-in excerpts.

    Args:
      paths: files and folders.
      index: a table (`deconv_jax.data.tracks.index_table`) in their place.
      root: what its paths are relative to.
      cache_dir: where the built-in music is kept.

    Returns:
      The songs, and (name, reason) of the rows of an index that name none.

    Raises:
      InputError: there are none, or the table cannot be used. ValueError: an index and files, or a root alone.
    """
    if index and paths:
        raise SettingError("an index names the songs by itself: leave out files and folders")
    if root and not index:
        raise SettingError("root goes with an index: name a folder as a path")
    if index:
        return tracks.index_table(index, root, labelled=False)
    if not paths:
        return find_tracks(builtin.excerpts(cache_dir or runtime.cache_dir())), []
    found = find_tracks(paths)
    if not found:
        raise audio.none_in(paths)
    return found, []


def sweep(work: Work, out, share: tuple[int, int] = (0, 1), devices: Sequence[jax.Device] | None = None) -> Swept:
    """Measures a collection, or goes on with it.

    Args:
      work: what is measured.
      out: folder for what is written; made if it is not there.
      share: (i, n): measure only every n-th part from part i on; other processes measure the others.
      devices: share clips out among these; all local devices if left out.

    Raises:
      InputError: `out` or the store cannot be written, or `out` holds another sweep or is being written by another run.
      ValueError: layer does not exist, or the method has no rule for an activation.
    """
    out = Path(out)
    check(work.trained, work.settings)
    if not work.songs:
        raise InputError("there are no songs to measure; name a sound file or a folder that holds some")
    with locks.writing(out, "out", [PARTS_FOLDER], share):
        try:
            return _Run(work, out, share, devices).run()
        except pa.ArrowException as error:
            raise OSError(str(error)) from error


def sweep_together(work: Work, out, share: tuple[int, int] | None = None) -> Swept:
    """`sweep` by all processes of `hosts`, if there are several: what is left when the last of them is done.

    Raises:
      ValueError: a share is named, and processes that share the work out themselves.
    """
    if share and hosts.joined():
        raise SettingError(
            f"{share[0] + 1}/{share[1]}: leave it out with several processes, which share by themselves", "share"
        )
    swept = sweep(work, out, share or hosts.share())
    if hosts.joined():
        hosts.barrier("swept")
        swept = sweep(work, out, hosts.share())  # nothing is left to measure: who came last has joined the table
        hosts.barrier("seen")  # what process 0 writes into the folder next keeps the others out
    return swept


def check(trained: Trained, settings: Settings) -> None:
    """Compares the settings with the network; raises ValueError as `sweep` does."""
    explain.check(trained, settings.layers, reading="mask", method=settings.method)


class _Run:
    """One run of `sweep`: its arguments, and what follows from them."""

    def __init__(self, work: Work, out: Path, share: tuple[int, int], devices: Sequence[jax.Device] | None):
        self.work, self.out, self.share = work, out, share
        trained, songs, settings = work.trained, work.songs, work.settings
        self.trained, self.songs, self.settings = trained, songs, settings
        self.devices = jax.local_devices() if devices is None else list(devices)
        per_part = max(1, PART_CLIPS // settings.clips_per_song, -(-len(songs) // PARTS))
        self.parts = [range(i, min(i + per_part, len(songs))) for i in range(0, len(songs), per_part)]
        clips = min(per_part, len(songs)) * settings.clips_per_song
        self.batch = statistics.batch_size(
            trained.network, trained.front_end, settings.layers, clips, len(self.devices)
        )
        self.schema = schema()

    @functools.cached_property
    def twin(self) -> Trained:
        net, front = self.trained.network, self.trained.front_end
        size = (front.bins, front.clip_frames)
        variables = randomised.twin(net, self.trained.variables, size, randomised.SEEDS[0])
        return dataclasses.replace(self.trained, variables=variables)

    def run(self) -> Swept:
        wanted = self._describe()
        self.key = files.digest(wanted)
        with locks.turn(self.out / ".join.lock"):  # shares begin at the same moment
            self._bind(wanted)
        mine = range(self.share[0], len(self.parts), self.share[1])
        joined = self._is_whole(self.out / TABLE)
        missing = [] if joined else [i for i in mine if not self._is_whole(self._part(i))]
        stored = self._stored(missing)
        self._check_contents(mine, [self.out / TABLE] if joined else [self._part(i) for i in mine if i not in missing])
        clips = self._measure_parts(missing, stored)
        with locks.turn(self.out / ".join.lock"):
            if not self._is_whole(self.out / TABLE):
                missing = [i for i in range(len(self.parts)) if not self._is_whole(self._part(i))]
                if missing:
                    skipped = [s for i in mine for s in self._skipped(self._part(i))]
                    songs = sum(len(self.parts[i]) for i in mine)
                    return Swept(None, skipped, songs, clips, len(missing))
                self._join()
        shutil.rmtree(self.out / PARTS_FOLDER, ignore_errors=True)
        skipped = self._skipped(self.out / TABLE)
        return Swept(self.out / TABLE, skipped, len(self.songs) + len(self.work.left_out), clips, 0)

    def _describe(self) -> dict:
        digest = hashlib.sha256()
        for row in self._listed():
            digest.update(json.dumps(row).encode())
        return files.plain(
            {
                "format": FORMAT,
                "settings": dataclasses.asdict(self.settings),
                "network": self.trained.fingerprint,
                "untrained_seed": randomised.SEEDS[0],
                "songs": {"count": len(self.songs), "sha256": digest.hexdigest()},
            }
        )

    def _listed(self) -> Iterator[list]:
        for track in self.songs:
            try:
                size = track.path.stat().st_size
            except OSError:
                size = -1
            yield [track.name, track.label, track.group, size]

    def _bind(self, wanted: dict) -> None:
        """Writes `sweep.json`, or compares with the one that is there."""
        path = self.out / SETTINGS
        found = None
        if path.exists():
            try:
                found = json.loads(path.read_text("utf-8"))
                found["settings"].items()
            except (ValueError, KeyError, TypeError, AttributeError):
                raise InputError(
                    f"{files.shown(path)}: is not what bin/sweep wrote; name another folder, or remove this one"
                ) from None
        if found is None:
            for name in (TABLE, SKIPPED, SONGS, PARTS_FOLDER):
                if (self.out / name).exists():
                    raise InputError(
                        f"{files.shown(self.out / name)}: is there already and was not made by bin/sweep; "
                        "name another folder"
                    )
            files.write_json(path, wanted | {"checkpoint": self.trained.checkpoint})
        elif any(found.get(name) != wanted[name] for name in ("format", "untrained_seed")):
            raise InputError(
                f"{files.shown(self.out)}: holds a sweep that another version of this program made; its table can be "
                "read, but not gone on with: name another folder",
                "out",
            )
        elif differences := self._differences(found, wanted):
            raise InputError(
                f"{files.shown(self.out)}: holds another sweep: {'; '.join(differences)}; "
                "give the same settings and songs to go on with it, or name another folder",
                "out",
            )
        if not (self.out / SONGS).exists():
            files.write_csv(self.out / SONGS, (dict(zip(LISTED, row, strict=True)) for row in self._listed()), LISTED)

    def _differences(self, found: dict, wanted: dict) -> list[str]:
        told = []
        for name, value in wanted["settings"].items():
            if (had := found["settings"].get(name)) != value:
                told.append(f"{name} was {had} and now is {value}")
        if found.get("network") != wanted["network"]:
            told.append(f"it is of another network ({found.get('checkpoint')})")
        if found.get("songs") != wanted["songs"]:
            told.append(f"the songs differ{self._first_difference()}")
        return told

    def _first_difference(self) -> str:
        try:
            with open(self.out / SONGS, newline="", encoding="utf-8") as handle:
                rows = itertools.islice(csv.reader(handle), 1, None)
                for number, (had, now) in enumerate(itertools.zip_longest(rows, self._listed()), 1):
                    if had is None or now is None or had != [str(files.cell(v)) for v in now]:
                        return f" (song {number} was {had and had[0]} and now is {now and now[0]})"
        except (OSError, ValueError, csv.Error):
            pass
        return ""

    def _part(self, number: int) -> Path:
        return self.out / PARTS_FOLDER / f"{number:05d}.parquet"

    def _is_whole(self, path: Path) -> bool:
        """Whether a table of this sweep lies there; one that is damaged does not count."""
        try:
            return (pq.read_schema(path).metadata or {}).get(b"sweep") == self.key.encode()
        except (OSError, pa.ArrowException):
            return False

    def _skipped(self, path: Path) -> list[tuple[str, str]]:
        return [(name, reason) for name, reason in _metadata(path, "skipped")]

    def _stored(self, numbers: list[int]) -> dict[int, Stored | tuple[str, str]]:
        """Stores the songs of some parts: the file of each song, or its name and why there is none."""
        songs = [song for number in numbers for song in self.parts[number]]
        found, skipped = store_clips([self.songs[song] for song in songs], self.work.store)
        lost = iter(skipped)
        return {song: one or next(lost) for song, one in zip(songs, found, strict=True)}

    def _check_contents(self, mine: Sequence[int], made: list[Path]) -> None:
        """Compares what this share's songs hold now with what they held when the tables `made` were measured."""
        songs = [song for number in mine for song in self.parts[number]]
        held = contents([self.songs[song] for song in songs], self.work.store)
        self.contents = {song: digest[:DIGITS] for song, digest in zip(songs, held, strict=True)}
        for path in made:
            had = {int(song): digest for song, digest in _metadata(path, "contents").items()}
            for song in sorted(had.keys() & self.contents.keys()):
                if had[song] != self.contents[song]:
                    raise InputError(
                        f"{files.shown(self.out)}: holds another sweep: song {song + 1}, "
                        f"{self.songs[song].name}, is another than it was when it was measured; give the same songs "
                        "to go on with it, or name another folder",
                        "out",
                    )

    def _measure_parts(self, numbers: list[int], stored: dict[int, Stored | tuple[str, str]]) -> int:
        """Measures and writes one part after the other; returns their clips."""
        clips = sum(one.clips for one in stored.values() if isinstance(one, Stored))
        with tqdm(total=clips, desc="measuring", unit="clip", disable=None) as bar:
            for number in numbers:
                self._measure_part(number, stored, bar)
        return clips

    def _measure_part(self, number: int, stored: dict[int, Stored | tuple[str, str]], bar: tqdm) -> None:
        """Measures and writes a part; `stored` as `_stored` gives it."""
        given = {song: stored[song] for song in self.parts[number]}
        used = {song: one for song, one in given.items() if isinstance(one, Stored)}
        skipped = [one for one in given.values() if not isinstance(one, Stored)]
        held = {song: self.contents[song] for song in given}
        held |= {song: one.path.stem[:DIGITS] for song, one in used.items()}  # what is measured, whatever came since
        waveforms = StoredWaveforms(list(used.values()), self.trained.front_end.clip_samples)
        results = []
        for first in range(0, len(waveforms), self.batch):
            clips = waveforms[first : first + self.batch]
            results.append(self._measure_batch(clips.astype(np.float32) / 32768))
            bar.update(len(clips))
        table = self._table(used, results)
        self._part(number).parent.mkdir(exist_ok=True)
        _write_table(self._part(number), self._with(table.schema, skipped, held), [table])

    def _measure_batch(self, waveforms: np.ndarray) -> dict[int, dict[str, np.ndarray]]:
        """Layer → columns of shape (clips, features)."""
        settings = self.settings
        clips = len(waveforms)
        # Whole batches only: one shape to compile, and a clip's numbers do not depend on where a run was cut.
        waveforms = np.pad(waveforms, ((0, self.batch - clips), (0, 0)))
        chance = statistics.activations(self.twin, waveforms, settings.layers, self.devices)
        found = {}
        for layer in settings.layers:
            rule = Rule(settings.method, settings.norm_back)
            measures, moments = statistics.measure_clips(
                self.trained, waveforms, layer, rule=rule, devices=self.devices
            )
            columns = features.columns(measures) | {"inactive": measures.inactive}
            columns |= {f"moment_{i + 1}_s": moments[..., i] for i in range(statistics.MOMENTS)}
            columns |= {f"untrained_{name}": values for name, values in zip(ACTIVATIONS, chance[layer], strict=True)}
            found[layer] = {name: values[:clips] for name, values in columns.items()}
        return found

    def _table(self, used: dict[int, Stored], results: list[dict]) -> pa.Table:
        """Rows by song, clip, layer and feature."""
        if not used:
            return self.schema.empty_table()
        front, layers = self.trained.front_end, self.settings.layers
        maps = self.work.maps
        per_clip = sum(maps)
        counts = [one.clips for one in used.values()]
        clips = sum(counts)
        starts = np.concatenate(
            [audio.clip_starts(s.samples, front.clip_samples, self.settings.clips_per_song) for s in used.values()]
        )

        def by_song(values) -> np.ndarray:
            return np.repeat(np.repeat(values, counts), per_clip)

        def names(kind: str) -> pa.Array:
            values = [getattr(self.songs[song], kind) for song in used]
            return pa.array(values).dictionary_encode().take(pa.array(by_song(np.arange(len(used)))))

        columns = {
            "song": names("name"),
            "label": names("label"),
            "group": names("group"),
            "song_number": by_song(list(used)),
            "clip": np.repeat(np.concatenate([np.arange(n) for n in counts]), per_clip),
            "start_s": np.repeat(starts / front.sample_rate, per_clip),
            "layer": np.tile(np.repeat(layers, maps), clips),
            "feature": np.tile(np.concatenate([np.arange(n) for n in maps]), clips),
        }
        for name in results[0][layers[0]]:
            by_layer = [np.concatenate([result[layer][name] for result in results]) for layer in layers]
            columns[name] = np.concatenate(by_layer, axis=1).ravel()
        arrays = [
            columns[field.name] if isinstance(columns[field.name], pa.Array) else pa.array(columns[field.name])
            for field in self.schema
        ]
        return pa.table([a.cast(field.type) for a, field in zip(arrays, self.schema, strict=True)], schema=self.schema)

    def _join(self) -> None:
        """Part by part, so that memory does not grow with the collection."""
        paths = [self._part(number) for number in range(len(self.parts))]
        skipped = [*self.work.left_out] + [s for path in paths for s in self._skipped(path)]
        write_skipped(self.out / SKIPPED, skipped)
        held = {song: digest for path in paths for song, digest in _metadata(path, "contents").items()}
        first = pq.read_table(paths[0]).schema
        _write_table(self.out / TABLE, self._with(first, skipped, held), map(pq.read_table, paths))

    def _with(self, given: pa.Schema, skipped, held: dict) -> pa.Schema:
        about = {"sweep": self.key, "skipped": json.dumps(skipped), "contents": json.dumps(held)}
        return given.with_metadata(about)


def _metadata(path: Path, name: str):
    """What a table's metadata hold under a name."""
    return json.loads(pq.read_schema(path).metadata[name.encode()])


ACTIVATIONS = ("activation_maximum", "activation_mean")
"""Columns that the untrained twin has as well, as `untrained_activation_maximum` and so on. Its features do not
correspond to the trained ones of the same number."""


def schema() -> pa.Schema:
    """Columns of the table, one row for every clip and feature."""
    text = pa.dictionary(pa.int32(), pa.string())
    fields = [("song", text), ("label", text), ("group", text), ("song_number", pa.int32()), ("clip", pa.int32())]
    fields += [("start_s", pa.float64()), ("layer", pa.int16()), ("feature", pa.int32())]
    fields += [(name, pa.float64() if name == "energy" else pa.float32()) for name in features.COLUMNS]
    fields += [("inactive", pa.bool_())]
    fields += [(f"moment_{i + 1}_s", pa.float32()) for i in range(statistics.MOMENTS)]
    fields += [(f"untrained_{name}", pa.float32()) for name in ACTIVATIONS]
    return pa.schema(fields)


def _write_table(path: Path, to: pa.Schema, tables) -> None:
    """Writes tables one after the other, each as one row group, whole or not at all."""
    with files.replacing(path) as partial, pq.ParquetWriter(partial, to, compression="zstd") as writer:
        for table in tables:
            if len(table):
                writer.write_table(table.replace_schema_metadata(to.metadata), row_group_size=len(table))
