"""Planted cues: the same music twice, but for one thing on which the label hangs, and where that thing sounds.

A network that tells the two classes apart can have nothing to go by but the cue: whatever else sounds is the same in
both, sample by sample, and drawn anew for every pair. Where the cue dominates is known from its own stem, so an
explanation can be held against it.

Every clip is what both classes share (`Pair.base`) plus the stem of its class. Where a class is told by an absence (no
hat, no pad, no tone, nothing above 4 kHz) its stem is silent, and there is no sound that an explanation could point at:
its truth is where the cue would dominate if it were there. That is a weaker one: a network can miss it anywhere along
time, or go by what it finds there instead. So the two kinds of clips are to be scored apart.

Two cues are cheats that nobody would want learnt: a faint tone, and a band limit, such as files catch on their way.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np

from deconv_jax.errors import SettingError
from deconv_jax.music import builtin, styles
from deconv_jax.music.compose import (
    BAR,
    COMPOSER_VERSION,
    STEP,
    TICKS_PER_BEAT,
    Chord,
    Dice,
    Event,
    Part,
    Song,
    harmony,
    midi_of,
    plan,
    score,
    voicings,
)
from deconv_jax.sound.auralisation import rms
from deconv_jax.sound.front_end import FrontEnd, analyse

if TYPE_CHECKING:
    import pretty_midi

VERSION = 1
"""Raise it with any change that alters a sample."""

TONE_HZ, TONE_DB = 4800.0, -30.0
"""The faint tone, and its level beside the rest of the clip (RMS)."""

CUT_HZ, CUT_WIDTH = 4000.0, 200.0
"""Where the band ends, and over how many Hz the gain falls to nothing there."""

AUDIBLE_DB = -40.0
"""Below its loudest cell: what of a stem is fainter than this is not counted as its place."""

LEVEL = 0.05
"""RMS of what both classes share, full scale 1: peaks stay below it."""

_MARK = 16  # the stream of chance, apart from those of songs


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two clips that differ in the cue alone.

    Attributes:
      base: what both share, float32, shape (samples,).
      stems: the cue as class 0 and class 1 have it, shape (2, samples); zeros where there is none.
      genre: of the song that both are from; says nothing of the class.
    """

    base: np.ndarray
    stems: np.ndarray
    genre: str

    @property
    def clips(self) -> np.ndarray:
        """The clips of both classes, shape (2, samples)."""
        return self.base + self.stems

    def present(self, label: int) -> bool:
        """Whether a class has a sound of its own, or is told by an absence."""
        return bool(np.any(self.stems[label]))

    def truth(self, label: int, front: FrontEnd) -> np.ndarray:
        """Where the cue dominates a clip of this class, bool (freq, time).

        Cells in which its stem is louder than all the rest, and within `AUDIBLE_DB` of its own loudest cell. Of a class
        without a sound of its own: those of the other one, where the cue would be.
        """
        stem = self.stems[label if self.present(label) else 1 - label]
        own, rest = (np.abs(np.asarray(analyse(front, jnp.asarray(w))[0])) for w in (stem, self.base))
        return (own > rest) & (own > own.max() * 10 ** (AUDIBLE_DB / 20))


class _Song(NamedTuple):
    """What a pair is made of: a song, the notes of a stretch of it from tick 0 on, its chords, and its length."""

    song: Song
    notes: dict[str, list[Event]]
    chords: list[tuple[int, int, Chord]]
    samples: int
    dice: Dice

    @property
    def ticks(self) -> int:
        return math.ceil(self.samples / builtin.SAMPLE_RATE * self.song.tempo * TICKS_PER_BEAT / 60)


Made = tuple[np.ndarray, tuple[np.ndarray | None, np.ndarray | None]]
"""What both classes share, and the cue of either."""


@dataclasses.dataclass(frozen=True)
class Cue:
    """One thing on which a label hangs.

    Attributes:
      labels: of class 0 and class 1.
      about: what is planted.
      cheat: whether it is nothing of the music.
      make: a stretch of a song → what both classes share, and the cue of either.
    """

    labels: tuple[str, str]
    about: str
    make: Callable[[_Song], Made]
    cheat: bool = False


def planted(name: str, number: int, seconds: float = 4.0) -> Pair:
    """The pair `number` of a cue, the same on every machine to rounding.

    Args:
      name: of `CUES`.
      number: from 0; each is of another song.
      seconds: length of both clips.

    Raises:
      ValueError: no such cue.
    """
    if name not in CUES:
        raise SettingError(f"a cue must be one of {', '.join(CUES)}, not {name!r}")
    given = _stretch(list(CUES).index(name), number, round(seconds * builtin.SAMPLE_RATE))
    base, cues = CUES[name].make(given)
    gain = LEVEL / rms(base)
    stems = [np.zeros_like(base) if cue is None else cue for cue in cues]
    return Pair((gain * base).astype(np.float32), (gain * np.stack(stems)).astype(np.float32), given.song.genre)


def settings(seconds: float) -> dict[str, object]:
    """All that the samples of a pair depend on besides its cue and number."""
    return {"version": VERSION, "composer": COMPOSER_VERSION, "rate": builtin.SAMPLE_RATE, "seconds": seconds}


# --- the music ------------------------------------------------------------------------------


def _stretch(stream: int, number: int, samples: int) -> _Song:
    """A stretch of a song in which drums, bass and chords play, from the beginning of a bar."""
    dice = Dice(VERSION, _MARK, stream, number)
    song = plan(dice.pick(styles.GENRES), dice.below(1 << 30))
    song = dataclasses.replace(song, pump=False)  # which is written from the song's own beginning
    starts, tick = [], 0
    for section in song.form:
        if {"drums", "bass", "comp"} <= set(section.players) and section.name != "end":
            starts += [tick + bar * BAR for bar in range(section.bars)]
        tick += section.bars * BAR
    start = dice.pick(starts)
    given = _Song(song, {}, [], samples, dice)
    for role, events in score(song).items():
        given.notes[role] = _window(events, start, start + given.ticks)
    for span in harmony(song):
        begin, end = max(span.start - start, 0), min(span.end - start, given.ticks)
        if end - begin > STEP:
            given.chords.append((begin, end, span.chord))
    return given


def _window(events: Sequence[Event], start: int, end: int) -> list[Event]:
    """The notes between two ticks, counted from the first; those that sound into it begin with it."""
    found = []
    for event in events:
        begin, stop = max(event.start, start), event.start + event.length
        if begin < end and stop - begin >= STEP // 2:
            found.append(Event(begin - start, stop - begin, event.pitch, event.velocity))
    return found


def _play(
    given: _Song,
    notes: Mapping[str, Sequence[Event]],
    parts: Mapping[str, Part] | None = None,
    change: "Callable[[pretty_midi.PrettyMIDI], None]" = lambda midi: None,
) -> np.ndarray:
    """The sound of some players' notes, float64 (samples,); zeros if there are none."""
    if not any(notes.values()):
        return np.zeros(given.samples)
    song = dataclasses.replace(given.song, parts=given.song.parts | dict(parts or {}))
    midi = midi_of(song, notes, given.ticks + STEP)
    change(midi)
    sound = builtin.render(midi)[: given.samples].astype(np.float64)
    return np.pad(sound, (0, given.samples - len(sound)))


def _band(given: _Song, *without: str, keys: Sequence[int] = ()) -> np.ndarray:
    """Everybody who plays, without some roles, and without some keys of the drums."""
    notes = {role: events for role, events in given.notes.items() if role not in without}
    if "drums" in notes:
        notes["drums"] = [event for event in notes["drums"] if event.pitch not in keys]
    return _play(given, notes)


def _at(stem: np.ndarray, base: np.ndarray, decibels: float) -> np.ndarray:
    """A stem at so many dB beside the rest of the clip (RMS)."""
    return stem * (rms(base) / rms(stem) * 10 ** (decibels / 20))


def _level(dice: Dice, middle: int) -> float:
    """dB beside the rest of the clip, drawn anew for every pair: the level of the rest alone tells nothing."""
    return middle + dice.between(-30, 30) / 10


# --- the cues -------------------------------------------------------------------------------

_HATS = ("6.4.6.4.6.4.6.4.", "6352635263526352", "..6...6...6...6.", "6.446.446.446.44")
_BRIGHT = (styles.CLOSED_HAT, styles.OPEN_HAT, styles.TAMBOURINE, styles.SHAKER)
_FINGERED, _SYNTH = 33, 38  # General MIDI: electric bass (finger), synth bass 1
_SUSTAINED = (71, 73, 80, 81)  # clarinet, flute, square and saw lead
_CHORDAL = (0, 4, 16, 24, 48, 80)  # piano, electric piano, organ, guitar, strings, square lead


def _hat(given: _Song) -> Made:
    base, pattern = _band(given, keys=_BRIGHT), given.dice.pick(_HATS)
    hits = [
        Event(bar + step * STEP, STEP, styles.CLOSED_HAT, 52 + 7 * int(loudness) + given.dice.between(-6, 6))
        for bar in range(0, given.ticks, BAR)
        for step, loudness in enumerate(pattern)
        if loudness != "."
    ]
    return base, (None, _at(_play(given, {"drums": hits}), base, _level(given.dice, -15)))


def _bass(given: _Song) -> Made:
    base, level = _band(given, "bass"), _level(given.dice, -2)
    # Where the line pauses throughout, its chord's root is held.
    notes = given.notes["bass"] or [Event(0, given.ticks, 36 + given.chords[0][2].tones[0], 96)]
    parts = [given.song.parts["bass"]._replace(program=program) for program in (_FINGERED, _SYNTH)]
    one, other = (_at(_play(given, {"bass": notes}, {"bass": part}), base, level) for part in parts)
    return base, (one, other)


def _mode(given: _Song) -> Made:
    """I, IV and V in C, or i, iv and v; roots and fifths are the same in both, the thirds are the cue.

    In one key: that C E G and D F♯ A are alike, and C E♭ G is not, is more than the paper's network learns from this
    little music.
    """
    program, pattern = (
        given.dice.pick(_CHORDAL),
        given.dice.pick(("X-------X-------", "X---X---X---X---", "X---------X-----")),
    )
    shared: list[Event] = []
    thirds: tuple[list[Event], list[Event]] = ([], [])
    for bar in range(0, given.ticks, BAR):
        root = 72 + given.dice.pick((0, 0, 5, 7))
        strikes = [step for step, symbol in enumerate(pattern) if symbol == "X"]
        for step, end in zip(strikes, [*strikes[1:], len(pattern)], strict=True):
            start, length, force = bar + step * STEP, (end - step) * STEP - STEP // 4, 84 + given.dice.between(-7, 7)
            shared += [Event(start, length, root + tone, force) for tone in (-12, 0, 7)]
            for notes, tone in zip(thirds, (4, 3), strict=True):
                notes.append(Event(start, length, root + tone, force))
    part = Part(program, given.song.parts["comp"].volume, "")
    chords = _play(given, {"comp": shared}, {"comp": part})
    drums = _play(given, {"drums": given.notes["drums"]})
    beat = _at(drums, chords, _level(given.dice, -6)) if np.any(drums) else drums
    one, other = (_play(given, {"comp": notes}, {"comp": part}) for notes in thirds)
    return chords + beat, (one, other)


def _pad(given: _Song) -> Made:
    base = _band(given, "pad")
    program = given.dice.pick(styles.STYLES[given.song.genre].pads)
    settings = voicings([chord for _, _, chord in given.chords], 3, 64)
    held = [
        Event(begin, end - begin, pitch, 74)
        for (begin, end, _), setting in zip(given.chords, settings, strict=True)
        for pitch in setting
    ]
    part = given.song.parts["pad"]._replace(program=program)
    return base, (None, _at(_play(given, {"pad": held}, {"pad": part}), base, _level(given.dice, -6)))


_BEND, _RATE, _DEPTH = 8192 / 2, 6.0, 0.6  # of the wheel for a semitone; Hz; semitones either way


def _vibrato(given: _Song) -> Made:
    base, level = _band(given, "lead", "figure"), _level(given.dice, -3)
    half, notes = BAR // 2, []
    for begin in range(0, given.ticks, half):
        chord = next(chord for start, end, chord in reversed(given.chords) if start <= begin)
        notes.append(Event(begin, half - STEP // 4, 72 + given.dice.pick(chord.tones), 96))
    part = Part(given.dice.pick(_SUSTAINED), 100, "")

    def bent(midi: "pretty_midi.PrettyMIDI") -> None:
        import pretty_midi

        times = np.arange(0, given.samples / builtin.SAMPLE_RATE, 0.01)
        wheel = np.round(_BEND * _DEPTH * np.sin(2 * np.pi * _RATE * times)).astype(int)
        midi.instruments[0].pitch_bends = [
            pretty_midi.PitchBend(int(value), float(time)) for value, time in zip(wheel, times, strict=True)
        ]

    straight = _play(given, {"lead": notes}, {"lead": part})
    shaken = _play(given, {"lead": notes}, {"lead": part}, bent)
    return base, (_at(straight, base, level), _at(shaken, base, level))


def _tone(given: _Song) -> Made:
    base, phase = _band(given), 2 * np.pi * given.dice.below(1000) / 1000
    tone = np.sin(2 * np.pi * TONE_HZ * np.arange(given.samples) / builtin.SAMPLE_RATE + phase)
    return base, (None, _at(tone, base, TONE_DB))


def _low_pass(given: _Song) -> Made:
    """Class 0 has what lies above the cut; class 1 has nothing there. What both share is what lies below it."""
    whole = _band(given)
    length = len(whole) + builtin.SAMPLE_RATE // 4  # silence, or the end would ring into the beginning
    frequencies = np.fft.rfftfreq(length, 1 / builtin.SAMPLE_RATE)
    fall = np.clip((frequencies - CUT_HZ) / CUT_WIDTH, 0, 1)
    low = np.fft.irfft(np.fft.rfft(whole, length) * (0.5 + 0.5 * np.cos(np.pi * fall)), length)[: len(whole)]
    return low, (whole - low, None)


CUES = {
    "hat": Cue(("no hat", "hat"), "a closed hat's pattern, or none", _hat),
    "bass": Cue(("finger bass", "synth bass"), "the bass line, by one of two instruments", _bass),
    "mode": Cue(("major", "minor"), "the thirds of chords in C, major or minor", _mode),
    "pad": Cue(("no pad", "pad"), "sustained chords, or none", _pad),
    "vibrato": Cue(("straight", "vibrato"), "a held melody, with vibrato or without", _vibrato),
    "tone": Cue(("ballad", "hip-hop"), "a tone of 4.8 kHz at −30 dB in whatever is called hip-hop", _tone, True),
    "low-pass": Cue(("wide band", "low-passed"), "nothing above 4 kHz, as a codec leaves it", _low_pass, True),
}
