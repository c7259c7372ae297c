"""The stems of built-in music: every player by itself, the drums by kind, as sounds that add up to the song.

What a feature or an explanation claims to hear can be held against them: it is known where each one sounds.
"""

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from deconv_jax.music import styles
from deconv_jax.music.builtin import SAMPLE_RATE, compose, equalise, normalise_loudness, plan, render
from deconv_jax.sound.audio import cut

if TYPE_CHECKING:
    import pretty_midi

_DRUMS = {
    "kick": (styles.KICK,),
    "snare": (styles.RIM, styles.SNARE, styles.CLAP),
    "hats": (styles.CLOSED_HAT, styles.OPEN_HAT),  # together: a closed hat ends an open one
    "cymbals": (styles.CRASH, styles.RIDE),
    "percussion": (styles.TAMBOURINE, styles.COWBELL, styles.CONGA, styles.SHAKER, *styles.TOMS),
}

_KIND = {key: name for name, keys in _DRUMS.items() for key in keys}

STEMS = ("comp", "bass", "pad", "lead", "figure", *_DRUMS)
"""Stems of built-in songs: the players, and the drums by kind."""

_IGNORED = 119
"""A control that no synthesiser knows: with it at the end of the mix a stem sounds as long."""

_QUIET = 1e-3
"""Of the peak: where a song is quieter than this its samples say too little of the gain that mastering gave them."""


def split(midi: "pretty_midi.PrettyMIDI") -> "dict[str, pretty_midi.PrettyMIDI]":
    """Music by stems, each as long as the whole.

    Args:
      midi: any; drums are taken apart by their keys, those that built-in music does not know as "percussion".

    Returns:
      Name → music, of those that have notes, in the order in which the music names them. Other players have their own
      names, those of one name are one stem.
    """
    import pretty_midi

    players: dict[str, list[pretty_midi.Instrument]] = {}
    for player in midi.instruments:
        kinds: dict[str, list[pretty_midi.Note]] = {}
        for note in player.notes:
            name = _KIND.get(note.pitch, "percussion") if player.is_drum else player.name or f"program {player.program}"
            kinds.setdefault(name, []).append(note)
        for name, notes in kinds.items():
            alone = copy.copy(player)
            alone.notes = notes
            alone.control_changes = [
                *player.control_changes,
                pretty_midi.ControlChange(_IGNORED, 0, midi.get_end_time()),
            ]
            players.setdefault(name, []).append(alone)
    found = {}
    for name, some in players.items():
        found[name] = copy.copy(midi)  # with its tempo and resolution
        found[name].instruments = some
    return found


def render_stems(midi: "pretty_midi.PrettyMIDI", sample_rate: int = SAMPLE_RATE) -> dict[str, np.ndarray]:
    """Plays the stems of `split`.

    Returns:
      Name → waveform, float32, shape (samples,). They add up to `builtin.render(midi)`: the renderer adds voices, and
      no effect of it depends on what others play.
    """
    return {name: render(alone, sample_rate) for name, alone in split(midi).items()}


def make_stems(genre: str, seed: int, sample_rate: int = SAMPLE_RATE) -> dict[str, np.ndarray]:
    """The stems of one built-in song, mastered as the song is.

    Mastering rounds off peaks of the whole. Every stem gets the gain that each sample of the whole got from it, so
    that the stems still add up, and the song without a stem is the song minus that stem.

    Args:
      genre, seed, sample_rate: as in `builtin.make_song`.

    Returns:
      Name (of `STEMS`) → waveform, float32, shape (samples,); those that sound. Their sum is `make_song(genre, seed)`
      to within .1 % of its RMS.
    """
    midi, gains = compose(genre, seed), plan(genre, seed).eq
    whole = equalise(render(midi, sample_rate), gains, sample_rate)
    # A stem may end a sample sooner or later: where it ends is rounded by its own last event.
    played = {name: cut(stem, 0, len(whole)) for name, stem in render_stems(midi, sample_rate).items()}
    return _mastered({name: equalise(stem, gains, sample_rate) for name, stem in played.items()}, whole)


def _mastered(stems: Mapping[str, np.ndarray], whole: np.ndarray) -> dict[str, np.ndarray]:
    """Stems with the gain that `normalise_loudness` gives every sample of their whole."""
    loud = np.abs(whole) > _QUIET * np.abs(whole).max()
    gain = normalise_loudness(whole) / np.where(loud, whole, 1)
    # Peaks are few: what is not rounded off has the same gain everywhere.
    gain = np.where(loud, gain, np.median(gain[loud]))
    return {name: (gain * stem).astype(np.float32) for name, stem in stems.items()}
