"""Files ↔ waveforms: read any format that soundfile reads, mix to mono, resample, write whole."""

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from deconv_jax.errors import InputError

EXTENSIONS = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".caf", ".w64"}
)
"""Endings that a folder is searched for. A file that is named itself may end as it likes."""

_ACCEPTED = "accepted is a sound file that libsndfile reads: WAV, FLAC, Ogg, Opus, MP3, AIFF and others"


def shown(path) -> str:
    """A file name on one printable line, whatever bytes it holds."""
    text = os.fspath(path)
    if isinstance(text, str) and text.isprintable():  # nearly all are, and collections have many
        return text
    text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def read(path, sample_rate: int, offset: float = 0.0, duration: float | None = None) -> np.ndarray:
    """Reads part of a sound file as mono at the rate wanted.

    Args:
      path: any file that libsndfile reads, of any rate and number of channels (they are averaged).
      sample_rate: rate wanted, Hz; resampled by soxr at high quality.
      offset: seconds to skip.
      duration: seconds to read at most; None for all.

    Returns:
      Waveform, float32, shape (samples,), at least one sample.

    Raises:
      InputError: missing, no plain file, no sound file, empty, damaged, or holds values that are no numbers.
    """
    name = shown(path)
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            raise InputError(f"{name}: is a folder; {_ACCEPTED}")
        if not stat.S_ISREG(kind):
            raise InputError(f"{name}: is no plain file; {_ACCEPTED}")
        with open(path, "rb") as handle:
            if not handle.read(1):
                raise InputError(f"{name}: is empty (0 bytes); {_ACCEPTED}")
            handle.seek(0)
            waveform, rate = _decode(handle, name, offset, duration)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the path and its rights") from None
    except (soundfile.SoundFileError, ValueError, OverflowError) as error:
        reason = str(error).rstrip(".").split("': ")[-1].split(": ")[-1]
        raise InputError(f"{name}: is no readable sound file ({reason}); {_ACCEPTED}") from None
    if not np.isfinite(waveform).all():
        raise InputError(f"{name}: holds samples that are no numbers (NaN or infinity); export it again")
    if rate != sample_rate:
        waveform = soxr.resample(waveform, rate, sample_rate, quality="HQ").astype(np.float32)
    if not waveform.size:
        raise InputError(f"{name}: holds less than one sample at {sample_rate} Hz; use a longer file")
    return waveform


def _decode(handle, name: str, offset: float, duration: float | None) -> tuple[np.ndarray, int]:
    """Block by block, so that neither channels nor a false length in the header decide how much memory is taken."""
    with soundfile.SoundFile(handle) as sound:
        rate = sound.samplerate
        skip = round(offset * rate)
        wanted = None if duration is None else round(duration * rate)
        if skip:
            if 0 <= sound.frames <= skip:
                seconds = sound.frames / rate
                raise InputError(f"{name}: lasts {seconds:.2f} s, so nothing is left after --offset={offset:g}")
            sound.seek(skip)
        blocks, got = [], 0
        while wanted is None or got < wanted:
            size = 65536 if wanted is None else min(65536, wanted - got)
            block = sound.read(size, dtype="float32", always_2d=True)
            if not len(block):
                break
            blocks.append(block.mean(axis=1, dtype=np.float32))
            got += len(block)
    if not got:
        raise InputError(f"{name}: holds no samples; use a file with sound in it")
    return np.concatenate(blocks), rate


def find(paths) -> list[Path]:
    """Sound files among the paths, folders searched through, sorted within a folder; hidden ones are left out."""
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            files.append(path)
            continue
        inside = []
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            inside += [Path(folder, n) for n in names if not n.startswith(".") and Path(n).suffix.lower() in EXTENSIONS]
        files += sorted(inside)
    return files


def write(path, waveform: np.ndarray, sample_rate: int) -> None:
    """Writes a mono 32-bit float WAV, whole or not at all."""
    with replacing(path) as temporary:
        soundfile.write(temporary, np.asarray(waveform, np.float32), sample_rate, subtype="FLOAT", format="WAV")


@contextlib.contextmanager
def replacing(path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to `path` on success, removed on failure."""
    path = Path(path)
    temporary = path.parent / f".{os.getpid()}-{uuid.uuid4().hex[:8]}.partial"
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def clip_starts(samples: int, clip: int, count: int) -> np.ndarray:
    """First samples of up to `count` clips spread evenly over a song, shape (n,).

    A song shorter than a clip gives one (to be padded); clips overlap by half at most, so a short song gives fewer.
    """
    room = max(0, samples - clip)
    count = max(1, min(count, 1 + room // max(1, clip // 2)))
    return np.round(np.linspace(0, room, count)).astype(np.int64)


def cut(waveform: np.ndarray, start: int, clip: int) -> np.ndarray:
    """`clip` samples from `start`, padded with zeros at the end if the song is over."""
    piece = waveform[start : start + clip]
    return np.pad(piece, (0, clip - len(piece)))
