"""Tracks → clips, decoded once and kept on disk, and read back a batch at a time.

    FOLDER/11025hz-44100x10-v2/         the settings: rate, samples in a clip, clips of a song, version of the format
        3f/3f5c….npy                    the clips of the song with this SHA-256, int16 (clips, samples); after them
                                        how long the song is, from which follows where in it they begin
        journal.jsonl                   which file has which content, one line for each that was read

A song's file is written whole (a temporary name, fsync, rename), and opening it checks its header and its size, so
that a torn file is made anew, never used. The journal is only appended to, each line by one write, and a torn line is
ignored: what it said is found out again. So any number of processes may fill one store, killed at any moment.

Why plain arrays in files of songs, and no ArrayRecord through Grain. Batches are random clips of 88 KB: one read each
from a place that arithmetic gives, with no index to load and no memory that grows with the collection. A song's file
depends on the song and the settings alone, so it can be written in any order by any process, shared by runs and
collections, replaced by itself, and opened with `numpy.load`. An ArrayRecord is written in order by one process; one
that was killed leaves a file without its index to be begun again, and a song that is added or repaired means another
file. The order of training is a permutation from seed and epoch (`deconv_jax.training.loop`), so its position is the
step, and Grain's iterator state would say the same with a dependency more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import io
import json
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from deconv_jax.data.tracks import Track
from deconv_jax.errors import InputError, SettingError
from deconv_jax.sound import audio
from deconv_jax.system import files, runtime, workers

FORMAT = 2
"""Of the store, with all that the clips depend on beside the settings. A change of either begins another store."""

SHORTEST = 1 / 8
"""Of a clip: a shorter song (half a second where clips take 4 s) would be padding for the most part, and is skipped."""

FAILED_SHARE = 0.5
"""Of the songs: if more cannot be used, something else than the songs is wrong. `config.data.failed_share`."""

_HEADER, _TAIL = 128, 8  # bytes of a song's file before its clips and after them; numpy.load stops before the latter
_log = logging.getLogger(__name__)


# --- writing --------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Store:
    """Where clips are kept, and how songs are cut into them.

    Attributes:
      folder: of all stores, such as CACHE_DIR/clips; made where it does not exist.
      sample_rate: Hz.
      clip_samples: length of a clip.
      per_song: clips of a song, at most; see `audio.clip_starts`.
    """

    folder: str | Path
    sample_rate: int
    clip_samples: int
    per_song: int

    @property
    def path(self) -> Path:
        """Folder of the clips that are cut so."""
        return Path(self.folder).absolute() / f"{self.sample_rate}hz-{self.clip_samples}x{self.per_song}-v{FORMAT}"


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """A song's file in the store, how many clips it holds, and how many samples the song has.

    The clips begin at `audio.clip_starts(samples, clip_samples, per_song)`.
    """

    path: Path
    clips: int
    samples: int


def store_clips(
    tracks: list[Track], store: Store, share: tuple[int, int] = (0, 1), limits: workers.Limits | None = None
) -> tuple[list[Stored | None], list[tuple[str, str]]]:
    """Makes sure that every track's clips are in the store; only what is new is read, in parallel processes.

    Of a song longer than `audio.LONGEST`, the beginning is used. Songs that cannot be used are skipped: what no
    process can decode, or what takes longer or more memory than the limits; what is silent; what is shorter than an
    eighth of a clip. These are remembered too, as long as size and time of the file stay; what may be different the
    next time (rights, a file that is not there) is tried again.

    Args:
      tracks: sound files.
      store: where, and how they are cut.
      share: (i, n): see to every n-th track from i only, where other processes do the others.
      limits: of one file.

    Returns:
      For every track its file, None where it was skipped or is of another share; and (name, reason) of the skipped.

    Raises:
      InputError: the folder cannot be written or the disk is full. What was stored is kept.
    """
    folder = store.path
    first, step = share
    mine = range(first, len(tracks), step)
    found: dict[int, Stored] = {}
    reasons: dict[int, str] = {}
    new: list[int] = []
    try:
        (folder / ".partial").mkdir(parents=True, exist_ok=True)
        files.remove_leftovers(folder / ".partial", files.STALE)
        known = _remembered(folder / "journal.jsonl")
        for number in mine:
            path = os.path.abspath(tracks[number].path)
            entry = known.get((path, *_stamp(path)), {})
            song = _stored(folder, entry) if "clips" in entry else None
            if "reason" in entry:
                reasons[number] = entry["reason"]
            elif song and _fits(song, store.clip_samples):
                found[number] = song
            else:
                new.append(number)
        if new:
            _store_new(tracks, new, store, limits, found, reasons)
    except OSError as error:
        left = len(mine) - len(found) - len(reasons)
        raise _unwritable(error, folder, left * store.per_song * store.clip_samples * 2) from None
    return [found.get(n) for n in range(len(tracks))], [(tracks[n].name, reasons[n]) for n in mine if n in reasons]


def contents(tracks: list[Track], store: Store) -> list[str]:
    """What every track's file holds: its SHA-256, "" where it cannot be read.

    Args as in `store_clips`, after which nothing is read anew, but for files that crashed their decoder.
    """
    known = _remembered(store.path / "journal.jsonl")

    def content(track: Track) -> str:
        path = os.path.abspath(track.path)
        if digest := known.get((path, *_stamp(path)), {}).get("sha"):
            return digest
        try:
            with audio.open_plain(path) as handle:
                return hashlib.file_digest(handle, "sha256").hexdigest()
        except (InputError, OSError):
            return ""

    with ThreadPoolExecutor(runtime.cores()) as pool:
        return list(pool.map(content, tracks))


def _store_new(tracks, new: list[int], store: Store, limits, found: dict, reasons: dict) -> None:
    """Reads tracks in worker processes; adds to `found`, to `reasons` and to the journal."""
    folder, settings = store.path, dataclasses.asdict(store) | {"folder": str(store.path)}

    def task(number: int) -> tuple[int, dict]:
        return number, {"path": os.path.abspath(tracks[number].path), **settings}

    count = min(runtime.cores(), len(new))
    bar = tqdm(total=len(new), desc="storing clips", unit="file")
    results = workers.run(f"{__name__}:store_file", map(task, new), count, limits)
    with bar, _journal(folder / "journal.jsonl") as remember, contextlib.closing(results):
        for number, result in results:
            path = os.path.abspath(tracks[number].path)
            if isinstance(result, workers.Lost):
                entry: dict[str, Any] = {"reason": files.shown(result.reason)}
                if result.certain:
                    size, mtime_ns = _stamp(path)
                    entry |= {"path": path, "size": size, "mtime_ns": mtime_ns}
            elif "unwritable" in result:
                raise OSError(*result["unwritable"])
            else:
                entry = result
            if "path" in entry:
                remember(entry)
            if "reason" in entry:
                reasons[number] = entry["reason"]
            else:
                found[number] = _stored(folder, entry)
            bar.set_postfix(skipped=len(reasons), refresh=False)
            bar.update()


def store_file(path: str, folder: str, sample_rate: int, clip_samples: int, per_song: int) -> dict:
    """Puts one sound file's clips into the store, where its content is not there yet; called in a worker process.

    Returns:
      An entry of the journal: path, size, mtime_ns and sha, with the numbers of clips and of the song's samples,
      or the reason why there are none. Without a path where it is not to be remembered. {"unwritable":
      [errno, message]} if the store is at fault.
    """
    name = files.shown(path)
    try:
        with audio.open_plain(path) as handle:
            before = os.fstat(handle.fileno())
            sha = hashlib.file_digest(handle, "sha256").hexdigest()
            entry: dict[str, Any] = {"path": path, "size": before.st_size, "mtime_ns": before.st_mtime_ns, "sha": sha}
            target = _place(Path(folder), sha)
            found = _whole(target, clip_samples)
            if found is not None:
                return entry | dict(zip(("clips", "samples"), found, strict=True))
            handle.seek(0)
            pieces, samples, reason = _clips(handle, name, sample_rate, clip_samples, per_song)
            after = os.fstat(handle.fileno())
    except InputError as error:  # of opening it: rights change, files appear
        return {"reason": str(error).removeprefix(f"{name}: ")}
    except OSError as error:
        return {"reason": f"cannot be read ({error.strerror or error}); check its disk"}
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        return {"reason": "changed while it was read; run the same command again"}
    if reason:
        return entry | {"reason": reason}
    try:
        target.parent.mkdir(exist_ok=True)
        with files.replacing(target, folder=target.parents[1] / ".partial") as temporary, open(temporary, "wb") as file:
            file.write(_header(len(pieces), clip_samples))
            file.write(pieces.data)
            file.write(samples.to_bytes(_TAIL, "little"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return {"unwritable": [error.errno, error.strerror]}
    return entry | {"clips": len(pieces), "samples": samples}


def _clips(handle, name: str, sample_rate: int, clip: int, per_song: int) -> tuple[np.ndarray, int, str]:
    """A song's clips, int16 (clips, samples), how many samples it has itself, and why there are no clips."""
    try:
        # As int16 from the first, of which two hours are 160 MB at 11,025 Hz.
        blocks = [_int16(block) for block in audio.decode(handle, name, sample_rate, duration=audio.LONGEST)]
    except InputError as error:
        return np.zeros((0, clip), np.int16), 0, str(error).removeprefix(f"{name}: ")
    waveform = np.concatenate(blocks)
    if len(waveform) < clip * SHORTEST:
        least = clip * SHORTEST / sample_rate
        reason = f"is too short: it lasts {len(waveform) / sample_rate:.3g} s, and {least:.3g} s are needed"
    elif not waveform.any():
        reason = "is silent throughout"
    else:
        starts = audio.clip_starts(len(waveform), clip, per_song)
        return np.stack([audio.cut(waveform, start, clip) for start in starts]), len(waveform), ""
    return np.zeros((0, clip), np.int16), len(waveform), reason


def _int16(waveform: np.ndarray) -> np.ndarray:
    return np.round(np.clip(waveform, -1, 1 - 2**-15) * 32768).astype("<i2")


# --- files of the store ---------------------------------------------------------------------


def _place(folder: Path, sha: str) -> Path:
    return Path(f"{folder}/{sha[:2]}/{sha}.npy")


def _stored(folder: Path, entry: dict) -> Stored:
    return Stored(_place(folder, entry["sha"]), entry["clips"], entry["samples"])


@functools.lru_cache  # NumPy takes 13 µs for it, and reading a clip 130
def _header(clips: int, clip_samples: int) -> bytes:
    """Of a .npy file, as NumPy writes it: for a shape always the same bytes, so that a comparison checks it."""
    shape = {"descr": "<i2", "fortran_order": False, "shape": (clips, clip_samples)}
    np.lib.format.write_array_header_1_0(header := io.BytesIO(), shape)
    return header.getvalue()


def _fits(song: Stored, clip_samples: int) -> bool:
    """Whether a song's file has the size that its clips need."""
    try:
        return os.stat(song.path).st_size == _HEADER + 2 * song.clips * clip_samples + _TAIL
    except OSError:
        return False


def _whole(path: Path, clip_samples: int) -> tuple[int, int] | None:
    """Numbers of clips in a file and of samples of its song, None if it is not there or not whole."""
    try:
        with open(path, "rb") as file:
            clips, rest = divmod(os.fstat(file.fileno()).st_size - _HEADER - _TAIL, 2 * clip_samples)
            if clips < 1 or rest or file.read(_HEADER) != _header(clips, clip_samples):
                return None
            file.seek(-_TAIL, os.SEEK_END)
            return clips, int.from_bytes(file.read(_TAIL), "little")
    except OSError:
        return None


def _stamp(path: str) -> tuple[int, int]:
    """Size and time of change of a plain file; (-1, -1), which no entry has, of what is none or cannot be seen."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return -1, -1
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else (-1, -1)


def _remembered(journal: Path) -> dict[tuple[str, int, int], dict[str, Any]]:
    """(path, size, mtime_ns) → entry, the last one where there are several; what is no entry is ignored."""
    known: dict[tuple[str, int, int], dict[str, Any]] = {}
    if journal.exists():
        with open(journal, "rb") as lines:
            for line in lines:
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    entry = json.loads(line)
                    key = entry["path"], int(entry["size"]), int(entry["mtime_ns"])
                    if "reason" in entry:
                        known[key] = {"reason": str(entry["reason"]), "sha": str(entry.get("sha", ""))}
                    else:
                        numbers = {name: int(entry[name]) for name in ("clips", "samples")}
                        known[key] = {"sha": str(entry["sha"]), **numbers}
    return known


@contextlib.contextmanager
def _journal(path: Path) -> Iterator:
    """Opens the journal; gives a function that appends an entry."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        if size:
            os.lseek(descriptor, size - 1, os.SEEK_SET)
            if os.read(descriptor, 1) != b"\n":  # the last line of a process that was killed
                os.write(descriptor, b"\n")

        def remember(entry: dict) -> None:
            line = json.dumps(entry).encode() + b"\n"
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        yield remember
    finally:
        os.close(descriptor)


def _unwritable(error: OSError, folder: Path, need: int) -> InputError:
    name = files.shown(folder)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.is_dir())).free
        return InputError(
            f"{name}: {error.strerror}: up to {need / 1e6:,.0f} MB are needed for the clips that are left, and "
            f"{free / 1e6:,.0f} MB are free. Free some, or name another cache_dir; what is stored is kept, and the "
            "same command goes on"
        )
    return InputError(f"{name}: clips cannot be stored here ({error.strerror or error}); name another cache_dir")


# --- reading --------------------------------------------------------------------------------


class StoredWaveforms:
    """Clips in the store as if they were one array, int16 (clips, samples), of which only what is asked for is read.

    Nothing is kept in memory or open between two reads: memory is that of the batch, and of a few numbers for each
    song. Reading, not mapping: pages of a map would count as this process's memory until the system wants them back.
    Any number of threads and processes may read.
    """

    def __init__(self, songs: list[Stored], clip_samples: int):
        self._songs = songs
        self._edges = np.concatenate([[0], np.cumsum([s.clips for s in songs], dtype=np.int64)])
        self.shape = (int(self._edges[-1]), clip_samples)
        self.dtype = np.dtype(np.int16)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which) -> np.ndarray:
        """One clip (samples,) of an integer; clips (n, samples) of a slice, of integers or of truth values.

        Raises:
          IndexError: there is no such clip.
          InputError: a file is not there any more, or not as it was written.
        """
        count, samples = self.shape
        if isinstance(which, slice):
            index = np.arange(*which.indices(count))
        else:
            index = np.asarray(which)
            if index.dtype == bool:
                if index.shape != (count,):
                    raise IndexError(f"{index.shape} truth values for {count} clips")
                index = np.flatnonzero(index)
        if index.ndim == 0:
            return self[index[None]][0]
        if index.size and not np.issubdtype(index.dtype, np.integer):
            raise IndexError(f"a clip's number is an integer, not {index.dtype}")
        index = index.astype(np.int64)
        if index.size and not (-count <= index.min() and index.max() < count):
            raise IndexError(f"clips {index.min()} to {index.max()} of {count}")
        index = np.where(index < 0, index + count, index)
        song = np.searchsorted(self._edges, index, side="right") - 1
        clips = np.empty((len(index), samples), "<i2")
        order = np.argsort(song, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(song[order])) + 1):
            if len(rows):
                number = song[rows[0]]
                self._read(self._songs[number], index[rows] - self._edges[number], clips, rows)
        return clips.astype(self.dtype, copy=False)

    def __iter__(self) -> Iterator[np.ndarray]:
        for first in range(0, len(self), 64):
            yield from self[first : first + 64]

    def _read(self, song: Stored, numbers, clips: np.ndarray, rows) -> None:
        name, samples = files.shown(song.path), self.shape[1]
        try:
            with open(song.path, "rb", buffering=0) as file:
                whole = file.read(_HEADER) == _header(song.clips, samples)
                for number, row in zip(numbers, rows, strict=True):
                    file.seek(_HEADER + int(number) * 2 * samples)
                    whole = whole and file.readinto(clips[row].data) == 2 * samples
        except OSError as error:
            raise InputError(
                f"{name}: stored clips cannot be read ({error.strerror or error}); if they are gone, run the same "
                "command again, which stores them anew and goes on"
            ) from None
        if not whole:
            with contextlib.suppress(OSError):  # or the next run would trust its size
                song.path.unlink()
            raise InputError(
                f"{name}: stored clips are not as they were written; run the same command again, which stores them "
                "anew and goes on"
            )


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips of the songs of one part.

    Attributes:
      waveforms: int16 (full scale 32,768), shape (clips, samples).
      labels: class of every clip, shape (clips,).
      songs: index of its song among the part's tracks, shape (clips,).
    """

    waveforms: np.ndarray | StoredWaveforms
    labels: np.ndarray
    songs: np.ndarray


def load_clips(
    parts: dict[str, list[Track]],
    labels: list[str],
    store: Store,
    failed_share: float = FAILED_SHARE,
    share: tuple[int, int] = (0, 1),
    listing: Path | None = None,
) -> tuple[dict[str, Clips], list[tuple[str, str]]]:
    """Stores the clips of every song that are not there yet, evenly spread over it, and opens the store.

    Songs whose files are the same byte for byte count as one: that of the first name stays, in its part.

    Args:
      parts: part → tracks.
      labels: classes, in order.
      store: where, and how songs are cut.
      failed_share: of the songs that may be skipped, 0 to 1.
      share: (i, n): begin with every n-th song from i, where n processes fill one store. Afterwards each sees to
        what is not there yet, so that none waits for one that died.
      listing: CSV file for the skipped songs; see `write_skipped`.

    Returns:
      Part → clips, and (name, reason) of every song that was skipped.

    Raises:
      InputError: too many songs were skipped, a part or a genre of the training part has nothing left, or the store
        cannot be written.
    """
    if not 0 <= failed_share <= 1:
        raise SettingError(f"config.data.failed_share must be 0 to 1, not {failed_share}")
    flat = [track for tracks in parts.values() for track in tracks]
    if share[1] > 1:
        store_clips(flat, store, share)
    stored, skipped = store_clips(flat, store)
    if listing:
        write_skipped(listing, skipped)
    first = f"; the first: {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
    more = f"; all are listed in {files.shown(listing)}" if listing and skipped else ""
    if len(skipped) > failed_share * len(flat):
        raise InputError(
            f"{len(skipped)} of {len(flat)} songs cannot be used, and config.data.failed_share={failed_share:g} "
            f"of them may: mend them, take them out, or allow more{first}{more}"
        )
    stored, twice = _once(parts, stored)
    skipped = skipped + twice
    if listing and twice:
        write_skipped(listing, skipped)
    clips, done = {}, 0
    for part, tracks in parts.items():
        own = stored[done : done + len(tracks)]
        done += len(tracks)
        used = [(s, labels.index(t.label), n) for n, (t, s) in enumerate(zip(tracks, own, strict=True)) if s]
        missing = set(range(len(labels))) - {label for _, label, _ in used}
        if not used or (part == "train" and missing):
            what = "any genre" if not used else f"genre {labels[min(missing)]!r}"
            raise InputError(f"no song of {what} could be used for the {part} part{first}{more}")
        songs = [s for s, _, _ in used]
        counts = [s.clips for s in songs]
        clips[part] = Clips(
            StoredWaveforms(songs, store.clip_samples),
            np.repeat([label for _, label, _ in used], counts).astype(np.int32),
            np.repeat([number for _, _, number in used], counts).astype(np.int32),
        )
    return clips, skipped


def _once(
    parts: dict[str, list[Track]], stored: list[Stored | None]
) -> tuple[list[Stored | None], list[tuple[str, str]]]:
    """None in the place of songs that stand here under another name too; and (name, reason) of these."""
    places = [(track, part) for part, tracks in parts.items() for track in tracks]
    copies: dict[Path, list[int]] = {}
    for number, song in enumerate(stored):
        if song:
            copies.setdefault(song.path, []).append(number)
    once, twice, apart = list(stored), [], 0
    for numbers in copies.values():
        first, *others = sorted(numbers, key=lambda number: places[number][0].name)
        apart += len({places[number][1] for number in numbers}) > 1
        for number in others:
            (track, part), (kept, there) = places[number], places[first]
            once[number] = None
            reason = f"is the same file as {kept.name}, which counts in its place"
            reason += f"; they were in two parts, {part} and {there}" if part != there else ""
            reason += f"; their labels differ: {track.label} and {kept.label}" if track.label != kept.label else ""
            twice.append((track.name, reason))
    if apart:
        _log.warning("%d file(s) stand in more than one part under several names; each counts once", apart)
    return once, twice


def write_skipped(path, skipped: list[tuple[str, str]]) -> None:
    """Writes a CSV file of path and reason, whole; with a header only if nothing was skipped."""
    files.write_csv(path, [{"path": name, "reason": reason} for name, reason in skipped], ["path", "reason"])
