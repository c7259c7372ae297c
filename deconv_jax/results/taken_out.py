"""A clip's mix with and without the stems that features are named after, where its stems are known.

What is heard is the sum of the stems, and the same without one of them: whoever reads that a feature is named after the
hats can hear what hats there are in this clip.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from deconv_jax.data import stems
from deconv_jax.data.stems import StemSong
from deconv_jax.music import stem_files
from deconv_jax.sound import audio
from deconv_jax.system import files

log = logging.getLogger(__name__)

QUIET = 1e-3
"""A stem whose RMS in the clip is below this share of the mix's does not sound in it."""

ALIKE = 0.7
"""How the sum of the stems has to correlate with the clip, or they are taken to be another song's."""

_LAG = 0.1
"""Seconds by which they may be out of step: coders put some silence before a song."""


def song_of(path: Path, root: str | None) -> StemSong | None:
    """The stems of a song: of a built-in one, or those below a folder (`deconv_jax.data.stems.of_file`); or None.

    Raises:
      InputError: the folder is none.
    """
    if built_in := stem_files.of_song(path):
        return StemSong(path.stem, built_in)
    found = stems.of_file(path, root) if root else None
    if root and not found:
        log.warning(
            "%s: no stems of it are below %s, neither in its own folder nor in one of its name",
            files.shown(path),
            files.shown(root),
        )
    return found


def mixes(
    song: StemSong, waveform: np.ndarray, sample_rate: int, offset: float, wanted: Iterable[str]
) -> tuple[np.ndarray, dict[str, np.ndarray | None]] | None:
    """The mix with and without some stems.

    Args:
      song: with its stems.
      waveform: the clip that these are heard beside, shape (samples,), which may be padded with silence.
      sample_rate: of the clip, in Hz.
      offset: second of the song at which it begins.
      wanted: names of stems; those that the song does not have are left out.

    Returns:
      The sum of all stems, and for each one wanted the sum without it, or None if it does not sound in the clip; all of
      the clip's length, as loud as the clip where the sum is. None if the stems do not add up to the clip.

    Raises:
      InputError: a stem cannot be read.
    """
    start = round(offset * sample_rate)
    sounds = {name: audio.cut(s, start, len(waveform)) for name, s in stems.read(song, sample_rate).items()}
    mix = np.sum(list(sounds.values()), axis=0)
    alike = likeness(waveform, mix, round(_LAG * sample_rate))
    if alike < ALIKE:
        log.warning(
            "stems of %s: left out, since they do not add up to the clip (r = %.2f); wanted are stems from the song's "
            "beginning on, of which every sound is in one",
            song.name,
            alike,
        )
        return None
    gain = np.float32(_rms(waveform) / _rms(mix))
    without = {
        name: gain * (mix - sounds[name]) if _rms(sounds[name]) > QUIET * _rms(mix) else None
        for name in dict.fromkeys(wanted)
        if name in sounds
    }
    return gain * mix, without


def likeness(one: np.ndarray, other: np.ndarray, lag: int) -> float:
    """The highest correlation (by size) of two waveforms of one length, out of step by up to `lag` samples."""
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    if not size:
        return 0.0
    length = len(one) + lag
    found = np.fft.irfft(np.fft.rfft(one, length) * np.conj(np.fft.rfft(other, length)), length)
    return float(np.abs(np.concatenate([found[: lag + 1], found[-lag:]])).max()) / size


def _rms(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
