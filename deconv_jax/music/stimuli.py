"""Model signals: one instrument plays the chords of one type in one key, hit after hit (paper, section 4.2).

A `Stimulus` is plain data. Any instrument, chord, key and rhythm can be written down, and tempo, loudness and
detuning varied; `factorial` combines them, `paper_stimuli` gives the paper's 224, `synthesise` makes them sound.
The paper does not print its recipe; this one was read off the authors' recordings and is in twelve-tone equal
temperament with A = 440 Hz.
"""

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np

from deconv_jax.errors import SettingError
from deconv_jax.sound.auralisation import rms

RECIPE = 1
"""Raised whenever `synthesise` makes another sound of the same stimulus: files made before are then made anew."""

LEGATO = 0.95
"""Share of the time to the next hit during which a hit is held."""

VELOCITY = 96
"""MIDI velocity of every note; the signal's loudness is set afterwards."""


@dataclasses.dataclass(frozen=True)
class Instrument:
    """What plays.

    Attributes:
      name: for tables.
      programs: General MIDI programs, from 0, that play in unison; none for one sine per note.
      drive: overdrive: the sum of all notes, at a peak of 1, goes through tanh(drive · x). 0 for none.
    """

    name: str
    programs: tuple[int, ...] = ()
    drive: float = 0.0


@dataclasses.dataclass(frozen=True)
class Chord:
    """Hits of one chord type, each a tuple of semitones above the key."""

    name: str
    hits: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class Key:
    """The note that a chord's zero stands for, as a MIDI number (69 is A = 440 Hz)."""

    name: str
    midi: float


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """Times between successive hits in beats, repeated for as many hits as there are."""

    name: str
    beats: tuple[float, ...]


EVEN = Rhythm("even", (1.0,))
SWUNG = Rhythm("swung", (4 / 3, 2 / 3))

# The string ensembles of the SoundFont (programs 48 and 49) stray by up to 20 and 37 cents within a hit, because their
# samples are of many players; three solo strings in unison stay within 6.
INSTRUMENTS = (
    Instrument("pure sine"),
    Instrument("strings", (40, 41, 42)),
    Instrument("acoustic guitar", (24,)),
    Instrument("saxophone", (66,)),
    Instrument("piano", (0,)),
    Instrument("electric piano", (4,)),
    Instrument("electric guitar", (29,), drive=6.0),
)
"""The paper's seven; it lists six and counts seven: the electric piano is the seventh."""

KEYS = (Key("Eb2", 51), Key("Bb2", 58), Key("A3", 69), Key("G4", 79))
"""The paper's four, with middle C as C3: 155.6, 233.1, 440 and 784 Hz."""


def intervals(largest: int = 12) -> Chord:
    """Two notes at once, 1 to `largest` semitones apart."""
    return Chord("intervals", tuple((0, k) for k in range(1, largest + 1)))


def triad(name: str, third: int, fifth: int = 7) -> Chord:
    """Six positions of a triad."""
    t, f = third, fifth
    hits = ((0, t, f), (t, f, 12), (f, 12, 12 + t), (0, f, 12 + t), (t, 12, 12 + f), (0, f, 12, 12 + t, 12 + f, 24))
    return Chord(name, hits)


def seventh(name: str, third: int, fifth: int, top: int, last: tuple[int, ...] | None = None) -> Chord:
    """Six positions of a seventh chord; `last` replaces the last one."""
    t, f, s = third, fifth, top
    hits = ((0, t, f, s), (t, f, s, 12), (f, s, 12, 12 + t), (s, 12, 12 + t, 12 + f), (0, f, s, 12 + t))
    return Chord(name, (*hits, last or (f, 12, 12 + t, 12 + s)))


CHORDS = (
    intervals(),
    triad("major", 4),
    triad("minor", 3),
    triad("sus4", 5),
    seventh("dominant7", 4, 7, 10),
    seventh("major7", 4, 7, 11),
    seventh("minor7", 3, 7, 10),
    seventh("diminished", 3, 6, 9, last=(0, 9, 15, 18)),
)
"""The paper's eight chord types."""


@dataclasses.dataclass(frozen=True)
class Stimulus:
    """One model signal.

    Attributes:
      instrument, chord, key, rhythm: see their types.
      tempo: beats per minute; the paper's hits come every 1/3 s.
      loudness: RMS level of the whole signal, dB relative to full scale.
      detuning: of every note, in cents.
    """

    instrument: Instrument
    chord: Chord
    key: Key
    rhythm: Rhythm = EVEN
    tempo: float = 180.0
    loudness: float = -23.0
    detuning: float = 0.0

    def __post_init__(self):
        if not self.chord.hits or not all(self.chord.hits):
            raise SettingError(f"chord {self.chord.name!r} must have at least one hit, and each at least one note")
        if not self.rhythm.beats or min(self.rhythm.beats) <= 0:
            raise SettingError(f"rhythm {self.rhythm.name!r} must be beats above 0, not {self.rhythm.beats}")
        if not self.tempo > 0:
            raise SettingError(f"tempo must be above 0 beats per minute, not {self.tempo}")

    @property
    def onsets(self) -> np.ndarray:
        """Time of every hit in seconds, and of the signal's end, shape (hits + 1,)."""
        beats = itertools.islice(itertools.cycle(self.rhythm.beats), len(self.chord.hits))
        return 60 / self.tempo * np.cumsum([0.0, *beats])

    @property
    def seconds(self) -> float:
        return float(self.onsets[-1])

    @property
    def pitches(self) -> list[np.ndarray]:
        """For every hit, the MIDI numbers of its notes, detuning included."""
        return [self.key.midi + np.asarray(hit) + self.detuning / 100 for hit in self.chord.hits]

    @property
    def attributes(self) -> dict[str, str]:
        """What signals can differ in, as text: the columns of a table of signals."""
        return {
            "key": self.key.name,
            "chord": self.chord.name,
            "instrument": self.instrument.name,
            "rhythm": self.rhythm.name,
            "tempo": f"{self.tempo:g}",
            "loudness": f"{self.loudness:g}",
            "detuning": f"{self.detuning:g}",
        }


def factorial(
    instruments: Iterable[Instrument],
    chords: Iterable[Chord],
    keys: Iterable[Key],
    rhythms: Iterable[Rhythm] = (EVEN,),
    tempi: Iterable[float] = (180.0,),
    loudnesses: Iterable[float] = (-23.0,),
    detunings: Iterable[float] = (0.0,),
) -> list[Stimulus]:
    """All combinations, the last argument's varying fastest."""
    factors = (instruments, chords, keys, rhythms, tempi, loudnesses, detunings)
    return [Stimulus(*levels) for levels in itertools.product(*factors)]


def paper_stimuli() -> list[Stimulus]:
    """The paper's 7 instruments × 8 chord types × 4 keys = 224 model signals."""
    return factorial(INSTRUMENTS, CHORDS, KEYS)


def hertz(midi) -> np.ndarray:
    """Frequency of MIDI numbers, equal temperament, A = 440 Hz."""
    return 440.0 * 2.0 ** ((np.asarray(midi, np.float64) - 69) / 12)


def synthesise(stimulus: Stimulus, sample_rate: int = 11025) -> np.ndarray:
    """Makes a model signal sound.

    Args:
      stimulus: the recipe.
      sample_rate: Hz.

    Returns:
      Waveform, float32, shape (round(seconds · sample_rate),), at the stimulus's RMS level.

    Raises:
      ValueError: a note lies beyond MIDI's range or at or above half of the sample rate.
    """
    pitches = np.concatenate(stimulus.pitches)
    if pitches.min() < 0 or pitches.max() > 127 or hertz(pitches.max()) >= sample_rate / 2:
        wrong = pitches.max() if pitches.min() >= 0 else pitches.min()
        raise SettingError(
            f"a note of MIDI number {wrong:g} ({hertz(wrong):.0f} Hz) cannot be played at {sample_rate} Hz: "
            "notes go from 0 to 127 and below half of the sample rate"
        )
    samples = round(stimulus.seconds * sample_rate)
    if stimulus.instrument.programs:
        waveform = _sampled(stimulus, sample_rate)
    else:
        waveform = _sines(stimulus, sample_rate)
    waveform = waveform[:samples].astype(np.float64)
    waveform = np.pad(waveform, (0, samples - len(waveform)))
    return (waveform * 10 ** (stimulus.loudness / 20) / rms(waveform)).astype(np.float32)


def _sines(stimulus: Stimulus, sample_rate: int, fade: float = 0.01) -> np.ndarray:
    """One sine for every note, faded in and out over `fade` seconds."""
    onsets = stimulus.onsets
    waveform = np.zeros(round(onsets[-1] * sample_rate))
    for begin, end, pitches in zip(onsets, onsets[1:], stimulus.pitches, strict=False):
        start, held = round(begin * sample_rate), LEGATO * (end - begin)
        time = np.arange(round(held * sample_rate)) / sample_rate
        tone = np.sin(2 * np.pi * hertz(pitches)[:, None] * time).sum(axis=0)
        edge = np.clip(np.minimum(time, held - time) / fade, 0, 1)
        waveform[start : start + len(time)] += tone * np.sin(np.pi / 2 * edge) ** 2
    return _driven(waveform, stimulus.instrument.drive)


def _sampled(stimulus: Stimulus, sample_rate: int) -> np.ndarray:
    """The General MIDI SoundFont's instruments, detuned by pitch bend."""
    import pretty_midi
    import soxr

    from deconv_jax.music import builtin

    midi = pretty_midi.PrettyMIDI(resolution=960)
    bent = stimulus.key.midi + stimulus.detuning / 100
    base = round(bent)
    bend = round((bent - base) / 2 * 8192)  # a wheel of two semitones either way
    onsets = stimulus.onsets
    for program in stimulus.instrument.programs:
        part = pretty_midi.Instrument(program)
        if bend:
            part.pitch_bends.append(pretty_midi.PitchBend(bend, 0.0))
        for begin, end, hit in zip(onsets, onsets[1:], stimulus.chord.hits, strict=False):
            for semitones in hit:
                held = begin + LEGATO * (end - begin)
                part.notes.append(pretty_midi.Note(VELOCITY, base + semitones, begin, held))
        # The renderer stops at the last event: this one lets the last notes die away.
        part.control_changes.append(pretty_midi.ControlChange(7, 100, onsets[-1]))
        midi.instruments.append(part)
    if not stimulus.instrument.drive:
        return builtin.render(midi, sample_rate)
    # Distortion makes partials far above the sample rate wanted: they are made, and filtered off, at a high one.
    waveform = _driven(builtin.render(midi, 48000), stimulus.instrument.drive)
    return soxr.resample(waveform, 48000, sample_rate, quality="HQ")


def _driven(waveform: np.ndarray, drive: float) -> np.ndarray:
    return np.tanh(drive * waveform / np.abs(waveform).max()) if drive else waveform


def describe(stimulus: Stimulus) -> list[dict]:
    """One row per hit: its number from 0, onset and length in seconds, and the notes' MIDI numbers and Hz."""
    rows = []
    for number, (begin, end, pitches) in enumerate(
        zip(stimulus.onsets, stimulus.onsets[1:], stimulus.pitches, strict=False)
    ):
        rows.append(
            {
                "hit": number,
                "onset_s": round(float(begin), 6),
                "held_s": round(float(LEGATO * (end - begin)), 6),
                "midi": " ".join(f"{p:g}" for p in pitches),
                "hertz": " ".join(f"{f:.3f}" for f in hertz(pitches)),
            }
        )
    return rows
