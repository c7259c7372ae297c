"""Files ↔ waveforms: read any format that soundfile reads, mix to mono, resample, write whole."""

import io
import logging
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from deconv_jax.errors import InputError
from deconv_jax.system.files import replacing, shown

EXTENSIONS = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".caf", ".w64"}
)
"""Endings that a folder is searched for. A file that is named itself may end as it likes."""

LONGEST = 2 * 3600
"""Seconds of a file that are read at most."""

RATES = (1000, 1_000_000)
"""Sample rates that are read, Hz: no music has others, and resampling from 2 GHz takes minutes."""

LOUDEST = 1e4
"""Largest sample that is read, where full scale is 1: more comes from a wrong scale or a wrong format."""

_log = logging.getLogger(__name__)
_ACCEPTED = "accepted is a sound file that libsndfile reads: WAV, FLAC, Ogg, Opus, MP3, AIFF and others"


def read(path: str | Path, sample_rate: int, offset: float = 0.0, duration: float | None = None) -> np.ndarray:
    """Reads part of a sound file as mono at the rate wanted.

    Args:
      path: any file that libsndfile reads, of any rate from 1 kHz to 1 MHz and any number of channels (they are
        averaged).
      sample_rate: rate wanted, Hz; resampled by soxr at high quality.
      offset: seconds to skip.
      duration: seconds to read at most; None for all, which may be `LONGEST` seconds.

    Returns:
      Waveform, float32, shape (samples,), at least one sample.

    Raises:
      InputError: missing, no plain file, no sound file, empty, damaged, too long, or holds values that are no numbers.
    """
    name = shown(path)
    with open_plain(path) as handle:
        if duration is None or duration > LONGEST:
            waveform = np.concatenate(list(decode(handle, name, sample_rate, offset, LONGEST + 1)))
            if len(waveform) > LONGEST * sample_rate:
                raise InputError(
                    f"{name}: lasts more than {LONGEST / 3600:g} hours, which is more than is read at once; "
                    "choose a part of it by offset and duration"
                )
        else:
            waveform = np.concatenate(list(decode(handle, name, sample_rate, offset, duration)))
    if not waveform.size:
        raise InputError(f"{name}: holds less than one sample at {sample_rate} Hz; use a longer file")
    return waveform


def open_plain(path: str | Path) -> io.FileIO:
    """Opens a file that is one: no folder, pipe or device, whose reading might never end.

    Raises:
      InputError: it is none, is empty, or cannot be opened.
    """
    name = shown(path)
    try:
        _check_kind(os.stat(path).st_mode, name)
        # Another may have come into its place since: a pipe would wait for a writer.
        handle = io.FileIO(path, opener=lambda p, flags: os.open(p, flags | getattr(os, "O_NONBLOCK", 0)))
        try:
            status = os.fstat(handle.fileno())
            _check_kind(status.st_mode, name)
            if not status.st_size:
                raise InputError(f"{name}: is empty (0 bytes); {_ACCEPTED}")
        except BaseException:
            handle.close()
            raise
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the path and its rights") from None
    except ValueError as error:  # a zero byte in the name
        raise InputError(f"{name}: cannot be the name of a file ({error})") from None
    return handle


def _check_kind(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise InputError(f"{name}: is a folder; {_ACCEPTED}")
    if not stat.S_ISREG(mode):
        raise InputError(f"{name}: is no plain file; {_ACCEPTED}")


def decode(
    handle: io.FileIO, name: str, sample_rate: int, offset: float = 0.0, duration: float | None = None
) -> Iterator[np.ndarray]:
    """Decodes an open sound file block by block, so that no header decides how much memory is taken.

    Args:
      handle: at its beginning.
      name: of the file in messages.
      sample_rate, offset, duration: as in `read`.

    Yields:
      Blocks of the mono waveform at the rate wanted, float32, shape (samples,), some of them empty. Resampled as a
      stream, which gives the same bits as resampling at once.

    Raises:
      InputError: as `read`, once the blocks are asked for.
    """
    try:
        # By its descriptor: seeking to where a false header says would raise in a callback, which prints a traceback.
        source = handle.fileno() if os.name == "posix" else handle
        with soundfile.SoundFile(source, closefd=False) as sound:
            rate = sound.samplerate
            if not RATES[0] <= rate <= RATES[1]:
                raise InputError(f"{name}: has a sample rate of {rate} Hz; accepted is {RATES[0]} to {RATES[1]} Hz")
            skip = round(offset * rate)
            wanted = sys.maxsize if duration is None else round(duration * rate)
            if skip:
                if 0 <= sound.frames <= skip:
                    seconds = sound.frames / rate
                    raise InputError(f"{name}: lasts {seconds:.2f} s, so nothing is left after offset={offset:g}")
                sound.seek(skip)
            stream = None
            if rate != sample_rate:
                stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
            size, got = max(1, min(65536, 2**22 // sound.channels)), 0
            while got < wanted:
                block = sound.read(min(size, wanted - got), dtype="float32", always_2d=True)
                if not len(block):
                    break
                got += len(block)
                mono = _mono(block, name)
                yield mono if stream is None else stream.resample_chunk(mono)
            if not got:
                raise InputError(f"{name}: holds no samples; use a file with sound in it")
            if stream is not None:
                yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
    except (soundfile.SoundFileError, ValueError, OverflowError) as error:
        reason = shown(str(error).rstrip(".").split("': ")[-1].split(": ")[-1])
        raise InputError(f"{name}: is no readable sound file ({reason}); {_ACCEPTED}") from None


def _mono(block: np.ndarray, name: str) -> np.ndarray:
    """The mean of the channels of (samples, channels)."""
    with np.errstate(over="ignore", invalid="ignore"):
        mono = block.mean(axis=1, dtype=np.float32)
    largest = np.abs(mono).max()
    if not np.isfinite(largest):
        raise InputError(f"{name}: holds samples that are no numbers (NaN or infinity); export it again")
    if largest > LOUDEST:
        raise InputError(f"{name}: holds samples of up to {largest:.3g}, where full scale is 1; export it again")
    return mono


MADE = (
    frozenset({"original.wav", "features.csv", "manifest.json"}),
    frozenset({"index.html", "top.json"}),
    frozenset({"signals.csv", "hits.csv", "recipe.json"}),
)
"""Files by which a folder is known that bin/auralise, bin/sweep or bin/experiments filled with sounds of theirs."""


def find(paths: Iterable[str | Path]) -> list[Path]:
    """Sound files among the paths, folders searched through, sorted within a folder; hidden ones are left out.

    Links to folders below a folder are not followed, so that none is searched twice. A folder that cannot be read is
    told of as a warning. Folders that the commands of this library filled (`MADE`) are left out, which is told of too,
    unless they are named themselves.
    """
    files: list[Path] = []
    made: list[str] = []
    for path in map(Path, paths):
        if not os.path.isdir(path):
            files.append(path)
            continue
        inside = []
        for folder, folders, names in os.walk(path, onerror=_unsearched):
            if folder != os.fspath(path) and any(known <= set(names) for known in MADE):
                folders.clear()
                made.append(folder)
                continue
            folders[:] = sorted(f for f in folders if not f.startswith("."))
            inside += [Path(folder, n) for n in names if not n.startswith(".") and Path(n).suffix.lower() in EXTENSIONS]
        files += sorted(inside)
    if made:
        more = f" and {len(made) - 1} more" if made[1:] else ""
        _log.info("%s%s: left out, made by this library; name one itself to use its sounds", shown(min(made)), more)
    return files


def none_in(paths: Iterable[str | Path]) -> InputError:
    """The error that says that `find` found nothing."""
    return InputError(f"{', '.join(map(shown, paths))}: holds no sound files; name a file or another folder")


def _unsearched(error: OSError) -> None:
    _log.warning("%s: cannot be searched (%s)", shown(error.filename), error.strerror)


def write(path: str | Path, waveform: np.ndarray, sample_rate: int) -> None:
    """Writes a mono 32-bit float WAV, whole or not at all."""
    with replacing(path) as temporary:
        soundfile.write(temporary, np.asarray(waveform, np.float32), sample_rate, subtype="FLOAT", format="WAV")


def flac(waveform: np.ndarray, sample_rate: int) -> bytes:
    """A waveform of at most full scale as 16-bit FLAC: small, exactly as long as it is, and played by browsers."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, sample_rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


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


def sounding(waveform: np.ndarray, clip: int, count: int) -> dict[int, np.ndarray]:
    """Of a song's clips (`clip_starts`) those in which there is any sound, by number, from 1."""
    parts = (cut(waveform, int(start), clip) for start in clip_starts(len(waveform), clip, count))
    return {number: part for number, part in enumerate(parts, 1) if np.any(part)}
