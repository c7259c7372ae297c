"""The built-in corpus: three genres of composed music, played by a General MIDI SoundFont.

It lets everything be tried without any music of one's own. `compose` writes the notes, `render`
makes them sound, `normalise_loudness` evens them out and `build` keeps the songs as files in
folders named after the genres, so that training reads them like any other collection.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deconv_jax.errors import SettingError
from deconv_jax.music.compose import COMPOSER_VERSION, EQ_BANDS, Song, compose, plan
from deconv_jax.music.styles import GENRES
from deconv_jax.system import locks, runtime, workers
from deconv_jax.system.files import STALE, digest, remove_leftovers, write_bytes
from deconv_jax.system.runtime import cores

if TYPE_CHECKING:
    import pretty_midi

__all__ = [
    "GENRES",
    "LOUDNESS_DBFS",
    "PEAK_CEILING",
    "SAMPLE_RATE",
    "Song",
    "build",
    "compose",
    "equalise",
    "excerpts",
    "files",
    "make_song",
    "normalise_loudness",
    "plan",
    "render",
]

SAMPLE_RATE = 11025  # Hz, the paper's
LOUDNESS_DBFS = -23.0  # RMS of a whole song, relative to full scale; leaves room for drums
PEAK_CEILING = 0.95  # of full scale
SONGS_PER_SEED = 10_000  # song numbers kept apart for each corpus seed
EXCERPT_SEED = 999  # the corpus of songs to explain


# --- sound ----------------------------------------------------------------------------------


@functools.cache
def _soundfont() -> bytes:
    import pretty_midi

    return Path(pretty_midi.__file__).with_name("TimGM6mb.sf2").read_bytes()


def render(midi: pretty_midi.PrettyMIDI, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Plays MIDI with pretty_midi's General MIDI SoundFont.

    The only function that knows the two packages behind the sound. The renderer works at 48 kHz
    and its output is filtered down from there: rendering at a low rate would fold the samples'
    high partials back into hearing.

    Args:
        midi: the music; it sounds up to its last event.
        sample_rate: of the result, in Hz.

    Returns:
        Waveform, float32 [shape=(samples,)], the mean of left and right, full scale 1.
    """
    import midirenderer
    import soundfile
    import soxr

    data = io.BytesIO()
    midi.write(data)
    wave = midirenderer.render_wave_from(_soundfont(), data.getvalue())
    stereo, rate = soundfile.read(io.BytesIO(wave), dtype="float32", always_2d=True)
    mono = soxr.resample(stereo.mean(axis=1), rate, sample_rate, quality="HQ")
    return np.asarray(mono, np.float32)


def equalise(waveform: np.ndarray, gains_db: tuple[float, ...], sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Applies a smooth spectral curve without shifting phase.

    Args:
        waveform: [shape=(samples,)].
        gains_db: gains in dB at `EQ_BANDS`, joined by straight lines over log frequency and kept
            beyond the outer bands.
        sample_rate: in Hz.

    Returns:
        The waveform through that curve, float32 [shape=(samples,)].
    """
    # A length of many small factors, or the transform of a prime one takes ten times as long;
    # the added silence also keeps the end from ringing into the beginning.
    length = -(-(len(waveform) + sample_rate // 4) // 6750) * 6750
    spectrum = np.fft.rfft(waveform, length)
    frequencies = np.fft.rfftfreq(length, 1 / sample_rate)
    octaves = np.log2(np.maximum(frequencies, EQ_BANDS[0]))
    gain = 10 ** (np.interp(octaves, np.log2(EQ_BANDS), gains_db) / 20)
    return np.fft.irfft(spectrum * gain, length)[: len(waveform)].astype(np.float32)


def normalise_loudness(
    waveform: np.ndarray, level_dbfs: float = LOUDNESS_DBFS, ceiling: float = PEAK_CEILING
) -> np.ndarray:
    """Brings a waveform to a fixed RMS level below a fixed peak.

    Where plain gain would push peaks over the ceiling, they are rounded off above half of it
    with a tanh, and the gain is taken anew until both hold: RMS within 0.1 dB, no sample above
    the ceiling.

    Args:
        waveform: [shape=(samples,)].
        level_dbfs: wanted RMS in dB relative to full scale 1.
        ceiling: largest magnitude allowed.

    Returns:
        float32 [shape=(samples,)].

    Raises:
        ValueError: if the waveform is silent, or so sparse that the level cannot be reached
            under the ceiling.
    """
    wanted = 10 ** (level_dbfs / 20)
    signal = np.array(waveform, np.float64)
    knee = ceiling / 2
    for _ in range(20):
        rms = float(np.sqrt(signal @ signal / signal.size)) if signal.size else 0.0
        if not rms > 0:
            raise SettingError("a silent waveform cannot be brought to a loudness")
        peak = max(signal.max(), -signal.min())
        if abs(20 * np.log10(rms / wanted)) < 0.1 and peak <= ceiling:
            return signal.astype(np.float32)
        signal *= wanted / rms
        if peak * wanted / rms > ceiling:
            above = np.flatnonzero(np.abs(signal) > knee)
            size = np.abs(signal[above])
            rounded = knee + (ceiling - knee) * np.tanh((size - knee) / (ceiling - knee))
            signal[above] = np.copysign(rounded, signal[above])
    raise SettingError(f"the waveform does not reach {level_dbfs} dBFS under a peak of {ceiling}")


def make_song(genre: str, seed: int, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Composes, plays and masters one song.

    The notes are the same everywhere; the samples are too up to rounding, for the renderer and
    the filters reckon in floating point.

    Args:
        genre: one of `GENRES`.
        seed: any whole number from 0.
        sample_rate: in Hz.

    Returns:
        Waveform, float32 [shape=(samples,)], at `LOUDNESS_DBFS` and below `PEAK_CEILING`.
    """
    waveform = render(compose(genre, seed), sample_rate)
    return normalise_loudness(equalise(waveform, plan(genre, seed).eq, sample_rate))


# --- files ----------------------------------------------------------------------------------


def files(cache_dir: str | Path, songs_per_genre: int = 60, seed: int = 0) -> list[Path]:
    """Names the files of a corpus, whether they exist or not.

    The folder carries a digest of all that the sound depends on, so that songs of another
    version are never mixed in. The number of songs is no part of it: asking for more later keeps
    those already made. Corpora of different seeds have no song in common.

    Args:
        cache_dir: folder in which the corpus's own folder lies.
        songs_per_genre: how many of each genre.
        seed: number of the corpus, from 0.

    Returns:
        Paths `<cache_dir>/builtin-v…-<digest>/<genre>/<genre>_<song>.flac`, sorted.

    Raises:
        ValueError: if a number is out of range.
    """
    if not 1 <= songs_per_genre <= SONGS_PER_SEED:
        raise SettingError(f"songs_per_genre is {songs_per_genre}; give 1 to {SONGS_PER_SEED}")
    if seed < 0:
        raise SettingError(f"seed is {seed}; give a whole number from 0")
    settings = {
        "composer": COMPOSER_VERSION,
        "sample_rate": SAMPLE_RATE,
        "loudness_dbfs": LOUDNESS_DBFS,
        "peak_ceiling": PEAK_CEILING,
        # Either package may change the sound.
        "packages": {p: importlib.metadata.version(p) for p in ("midirenderer", "pretty_midi")},
    }
    root = Path(cache_dir) / f"builtin-v{COMPOSER_VERSION}-{digest(settings)[:10]}"
    numbers = range(seed * SONGS_PER_SEED, seed * SONGS_PER_SEED + songs_per_genre)
    return sorted(root / genre / f"{genre}_{n:04d}.flac" for genre in GENRES for n in numbers)


def build(cache_dir: str | Path, songs_per_genre: int = 60, seed: int = 0, progress: bool = True) -> list[Path]:
    """Makes the built-in corpus where it is not there yet.

    Songs that exist are kept. Every file is written whole: under a temporary name, then renamed,
    so a run that is killed leaves no half song. All cores that the process may use take part.

    Args:
        cache_dir: folder for the corpus, such as `runtime.cache_dir()`.
        songs_per_genre: how many of each genre.
        seed: number of the corpus, from 0; see `files`.
        progress: whether to show a progress bar.

    Returns:
        The files of exactly this request, sorted: mono 16-bit FLAC at `SAMPLE_RATE`. Their
        grandparent is a data root with one folder per genre.

    Raises:
        ValueError: if a number is out of range.
        InputError: if the folder cannot be written.
    """
    wanted = files(cache_dir, songs_per_genre, seed)
    missing = [path for path in wanted if not path.exists()]
    if not missing:
        return wanted
    try:
        for folder in sorted({path.parent for path in missing}):
            folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder, STALE)  # other processes may be writing there
        _write_all(missing, progress)
    except OSError as error:
        raise locks.unwritable(cache_dir, error, "cache_dir") from None
    return wanted


def excerpts(cache_dir: str | Path | None = None, progress: bool = True) -> list[Path]:
    """One song of each genre that no corpus trains on, made where it is not there yet; errors as in `build`.

    They are kept in `cache_dir`, or in the platform's cache.
    """
    return build(cache_dir or runtime.cache_dir(), songs_per_genre=1, seed=EXCERPT_SEED, progress=progress)


def _write_all(paths: list[Path], progress: bool) -> None:
    from tqdm import tqdm

    with tqdm(total=len(paths), unit="song", desc="built-in music", disable=not progress) as bar:
        # A worker takes about a second to start, so it should have several songs to make.
        for _ in _written(paths, min(cores(), len(paths) // 4)):
            bar.update()


def _written(paths: list[Path], count: int) -> Iterator[None]:
    """Writes songs, yielding once for each as it is done; in so many processes, or in this one if count < 2."""
    if count < 2:
        for path in paths:
            _write_song(path)
            yield
        return
    # Spread the genres, or the slowest would all come last.
    order = sorted(paths, key=lambda path: path.stem.rsplit("_")[-1])
    tasks = ((path, {"path": str(path)}) for path in order)
    with contextlib.closing(workers.run(f"{__name__}:_write_song", tasks, count)) as done:
        for path, result in done:
            if isinstance(result, workers.Lost):
                _write_song(path)  # once more, here, where an error says by itself what is wrong
            yield


def _write_song(path: str | Path) -> None:
    import soundfile

    genre, number = Path(path).stem.rsplit("_", 1)
    data = io.BytesIO()
    waveform = make_song(genre, int(number))
    soundfile.write(data, waveform, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    write_bytes(path, data.getvalue())
