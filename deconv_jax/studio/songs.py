"""Songs that the studio can hear: the built-in excerpts, those that were named, a folder of music, what was dropped.

What is dropped is kept in a folder of the studio's own, by its content, so that a link finds it again; of that the
oldest goes when there is too much. A browser names a song by a key that was given to it, never by a path. Every file is
decoded in a process with limits, as a collection's are.
"""

import contextlib
import dataclasses
import hashlib
import re
import shutil
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deconv_jax.errors import InputError
from deconv_jax.music import builtin
from deconv_jax.sound import audio
from deconv_jax.system import files, workers

LARGEST = 300_000_000
"""Bytes of a file that is dropped, at most: twenty minutes of a CD are 212 million."""

KEPT = 2_000_000_000
"""Bytes of dropped files that are kept, at most."""

LONGEST = 1200.0
"""Seconds of a song that are heard, at most."""

SHOWN = 5000
"""Songs of a folder that are listed, at most."""

LIMITS = workers.Limits(seconds=120.0)
"""Of decoding one song."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A song that can be chosen: its key, its name, where it comes from, and its file."""

    key: str
    name: str
    group: str
    path: Path


class Library:
    """All songs that can be chosen, by key.

    Args:
      folder: of the studio's own, for what is dropped and what is decoded; made if it is not there.
      named: files that can always be chosen.
      music: a folder of more.
      cache_dir: where the built-in excerpts are, which are made when the first is read; None for none of them.

    Raises:
      InputError: the folder cannot be made, or that of music is none or holds no songs.
    """

    def __init__(self, folder: Path, named: Sequence[Path] = (), music: Any = None, cache_dir: Path | None = None):
        self._cache_dir = cache_dir
        self.dropped, self.scratch, self.pages = folder / "dropped", folder / "scratch", folder / "pages"
        for own in (self.dropped, self.scratch, self.pages):
            try:
                own.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(
                    f"{files.shown(folder)}: cannot be written ({error.strerror or error}); name another", "cache_dir"
                ) from None
            files.remove_leftovers(own, files.STALE)
        self.sources: dict[str, Source] = {}
        if music and not Path(music).is_dir():
            raise InputError(f"{files.shown(music)}: is no folder; name one that holds songs", "music")
        found = audio.find([music])[:SHOWN] if music else []
        if music and not found:
            raise InputError(f"{files.shown(music)}: holds no sound files; name another folder", "music")
        excerpts = builtin.files(cache_dir, 1, builtin.EXCERPT_SEED) if cache_dir else []
        for group, paths in (("named", named), ("music", found), ("built in", excerpts)):
            for path in paths:
                name = path.relative_to(music) if group == "music" else path.name
                self._add(Source(f"{group.replace(' ', '-')}/{_short(str(path))}", files.shown(name), group, path))
        for path in sorted(self.dropped.glob("*/*")):
            self._add(Source(f"dropped/{path.parent.name}", files.shown(path.name), "dropped", path))

    def _add(self, source: Source) -> Source:
        self.sources[source.key] = source
        return source

    def find(self, key: str) -> Source:
        """The song of a key; InputError if there is none."""
        if key not in self.sources:
            raise InputError("this song is not here any more: choose another, or drop it again")
        return self.sources[key]

    def listing(self) -> list[dict[str, str]]:
        """What the page may offer."""
        return [{"key": s.key, "name": s.name, "group": s.group} for s in self.sources.values()]

    def searched(self) -> list[Source]:
        """The songs in which moments are looked for: of the folder of music, or all, where there is none."""
        every = list(self.sources.values())
        return [source for source in every if source.group == "music"] or every

    @contextlib.contextmanager
    def receiving(self, name: str) -> Iterator["Incoming"]:
        """Takes a file that is dropped, whole or not at all; `Incoming.source` is it afterwards.

        Raises:
          InputError: it is empty or too large, or the disk is full.
        """
        partial = files.temporary(self.dropped)
        said = name_of(name)
        incoming = Incoming(said)
        try:
            with open(partial, "wb") as handle:
                incoming.handle = handle
                yield incoming
            if not incoming.size:
                raise InputError(f"{said}: is empty (0 bytes); drop a sound file")
            incoming.source = self._keep(partial, incoming)
        except OSError as error:
            raise InputError(
                f"{said}: cannot be kept ({error.strerror or error}); free some space and drop it again"
            ) from None
        finally:
            partial.unlink(missing_ok=True)

    def _keep(self, partial: Path, incoming: "Incoming") -> Source:
        digest = incoming.digest.hexdigest()[:32]
        folder = self.dropped / digest
        folder.mkdir(exist_ok=True)
        there = sorted(folder.iterdir())
        path = there[0] if there else folder / incoming.name
        if path.parent != folder or path.name in ("", ".", ".."):
            raise InputError(f"{incoming.name}: is no name for a file; rename it and drop it again")
        partial.replace(path)
        self._trim(path)
        return self._add(Source(f"dropped/{digest}", files.shown(path.name), "dropped", path))

    def _trim(self, newest: Path) -> None:
        """Removes what was dropped first, where there is more than is kept."""
        held = sorted(self.dropped.glob("*/*"), key=lambda path: path.stat().st_mtime)
        total = sum(path.stat().st_size for path in held)
        for path in held:
            if total <= KEPT or path == newest:
                continue
            total -= path.stat().st_size
            self.sources.pop(f"dropped/{path.parent.name}", None)
            shutil.rmtree(path.parent, ignore_errors=True)

    def read(
        self, source: Source, sample_rate: int, beginning: float | None = None
    ) -> Generator[tuple[np.ndarray, bool], None, None]:
        """Decodes a song, its beginning first; ending the generator ends the process that decodes.

        Args:
          source: the song.
          sample_rate: wanted, Hz.
          beginning: seconds that come first; nothing before the whole song if left out.

        Yields:
          A waveform (samples,) and whether that is the whole song, or the first `LONGEST` seconds of it.

        Raises:
          InputError: it cannot be decoded, takes too long or too much memory, or is silent.
        """
        if self._cache_dir and source.group == "built in" and not source.path.exists():
            builtin.excerpts(self._cache_dir, progress=False)
        lengths = [LONGEST] if beginning is None else [beginning, LONGEST]
        parts = [files.temporary(self.scratch) for _ in lengths]
        how = {"path": str(source.path), "name": source.name, "sample_rate": sample_rate}
        tasks = [(p, how | {"out": str(p), "seconds": s}) for p, s in zip(parts, lengths, strict=True)]
        try:
            with contextlib.closing(workers.run(f"{__name__}:decode", tasks, 1, LIMITS)) as done:
                for part, found in done:
                    if isinstance(found, workers.Lost):
                        raise InputError(f"{source.name}: {found.reason}; drop another file, or a shorter one")
                    if found["wrong"]:
                        raise InputError(found["wrong"])
                    waveform, whole = np.fromfile(part, np.float32), part == parts[-1]
                    if whole and not waveform.any():
                        raise InputError(f"{source.name}: is silent throughout; there is nothing to explain")
                    yield waveform, whole
        finally:
            for part in parts:
                part.unlink(missing_ok=True)


@dataclasses.dataclass
class Incoming:
    """A file that is being dropped; `write` takes its bytes."""

    name: str
    size: int = 0
    handle: Any = None
    source: Source | None = None
    digest: Any = dataclasses.field(default_factory=hashlib.sha256)

    def write(self, some: bytes) -> None:
        """Takes more of it; InputError where that is too much."""
        self.size += len(some)
        if self.size > LARGEST:
            raise InputError(
                f"{self.name}: is larger than {LARGEST / 1e6:.0f} MB, the most that is taken; drop a shorter or a "
                "compressed one"
            )
        self.digest.update(some)
        self.handle.write(some)


def name_of(given: str) -> str:
    """What a dropped file is called here: a bare name without any folder, whatever a browser says."""
    bare = re.split(r"[/\\]", given.encode("utf-8", "replace").decode())[-1].strip()
    return files.folder_names([bare or "song"])[0]


def decode(path: str, name: str, out: str, sample_rate: int, seconds: float) -> dict[str, str]:
    """Decodes the first seconds of a file into another, plain float32; called in a worker process.

    Returns:
      {"wrong": why it cannot be decoded, or ""}.
    """
    try:
        with audio.open_plain(path) as handle:
            waveform = np.concatenate(list(audio.decode(handle, name, sample_rate, 0.0, seconds)))
        if not waveform.size:
            return {"wrong": f"{name}: holds less than one sample at {sample_rate} Hz; use a longer file"}
        waveform.astype("<f4").tofile(out)
    except InputError as error:
        return {"wrong": str(error).replace(files.shown(path), name)}
    except OSError as error:
        return {"wrong": f"{name}: cannot be decoded ({error.strerror or error}); free some space and try again"}
    return {"wrong": ""}


def _short(path: str) -> str:
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:16]
