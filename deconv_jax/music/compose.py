"""Composes the songs of the built-in corpus by rule: facts first, then notes.

`plan` draws a song's facts (tempo, key, chords, form, instruments, groove) and `compose` writes
the notes they call for. Both are pure functions of the genre and the seed. Sound is made
elsewhere (`builtin`); what is typical of a genre is in `styles`.

Everything is reckoned in whole numbers, and chance comes from `Dice`, because a song has to be
the same on every machine and with every version of NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from deconv_jax.errors import SettingError
from deconv_jax.music import styles
from deconv_jax.music.styles import CHORDS, GENRES, SCALES, STYLES

if TYPE_CHECKING:
    import pretty_midi

COMPOSER_VERSION = 1  # raise it with any change that alters a note
TICKS_PER_BEAT = 480
STEP = TICKS_PER_BEAT // 4  # one sixteenth note
BAR_STEPS = 16
BAR = STEP * BAR_STEPS
EQ_BANDS = (62.5, 125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0)  # Hz

_TAIL_SECONDS = 1.5  # time for the last notes to die away
_ROLES = ("comp", "bass", "pad", "lead", "figure", "drums")
_PLAN = len(_ROLES)  # the stream of chance that the plan draws from

T = TypeVar("T")


class Dice:
    """Whole numbers by chance, the same from everywhere for the same words.

    NumPy promises that a bit generator's raw words never change, but not the numbers that
    `Generator.integers` or `choice` make of them, so those are made here.
    """

    def __init__(self, *words: int) -> None:
        self._bits = np.random.PCG64(list(words))

    def below(self, n: int) -> int:
        """Returns a number in 0 … n - 1."""
        return (int(self._bits.random_raw()) * n) >> 64

    def between(self, low: int, high: int) -> int:
        """Returns a number in low … high, both included."""
        return low + self.below(high - low + 1)

    def chance(self, percent: int) -> bool:
        """Returns True in `percent` of a hundred cases."""
        return self.below(100) < percent

    def pick(self, items: Sequence[T]) -> T:
        """Returns one of the items."""
        return items[self.below(len(items))]


class Chord(NamedTuple):
    """A chord of the song's key: its name in roman numerals and its pitch classes, root first."""

    name: str
    tones: tuple[int, ...]


class Section(NamedTuple):
    """A stretch of the form: what it is called, its length in bars, and who plays."""

    name: str
    bars: int
    players: tuple[str, ...]


class Part(NamedTuple):
    """One player: General MIDI program (for drums: kit), channel volume 0-127, and material."""

    program: int
    volume: int
    material: str


class Span(NamedTuple):
    """A chord in time: sounds from tick `start` up to tick `end`."""

    start: int
    end: int
    chord: Chord


class Event(NamedTuple):
    """A note: start and length in ticks, MIDI pitch, velocity."""

    start: int
    length: int
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Song:
    """The facts of a song, drawn before any note is written.

    Attributes:
        genre: one of `GENRES`.
        seed: the song's number; with the genre it settles everything below.
        tempo: beats per minute.
        tonic: pitch class of the key, 0 (C) … 11 (B).
        mode: "major" or "minor".
        swing: where the second sixteenth of a pair falls, in percent of the pair (50: straight).
        chords_per_bar: 1 or 2.
        verse, chorus: the two chord progressions, each repeated through its sections.
        form: the sections in order.
        parts: the players by role: comp, bass, pad, lead, figure, drums.
        groove: name of the drum pattern.
        phrase: which motif each bar of a four-bar melody takes.
        pentatonic: whether the melody keeps to five tones.
        fill: what the drums do before a new section.
        pump: whether pads duck under every beat.
        ring: whether the song ends on a held tonic chord.
        reverb: reverberation send of every player, 0-127.
        eq: gains in dB at `EQ_BANDS`, the song's own mastering.
    """

    genre: str
    seed: int
    tempo: int
    tonic: int
    mode: str
    swing: int
    chords_per_bar: int
    verse: tuple[Chord, ...]
    chorus: tuple[Chord, ...]
    form: tuple[Section, ...]
    parts: dict[str, Part]
    groove: str
    phrase: str
    pentatonic: bool
    fill: str
    pump: bool
    ring: bool
    reverb: int
    eq: tuple[float, ...]

    @property
    def bars(self) -> int:
        """Number of bars, the held last one included."""
        return sum(section.bars for section in self.form)

    @property
    def duration(self) -> float:
        """Length in seconds, with the time in which the last notes die away."""
        return self.bars * 240 / self.tempo + _TAIL_SECONDS


# --- the plan -------------------------------------------------------------------------------


def plan(genre: str, seed: int) -> Song:
    """Draws the facts of song number `seed` of a genre.

    Args:
        genre: one of `GENRES`.
        seed: any whole number from 0.

    Returns:
        The song's facts, the same on every machine.

    Raises:
        ValueError: if the genre is unknown or the seed is negative.
    """
    if genre not in GENRES:
        raise SettingError(f"genre {genre!r} is not one of {', '.join(GENRES)}")
    if seed < 0:
        raise SettingError(f"seed {seed} is negative; songs are numbered from 0")
    style = STYLES[genre]
    dice = _dice(genre, seed, _PLAN)
    tempo = dice.between(*dice.pick(style.tempi))
    tonic = dice.below(12)
    mode = "minor" if dice.chance(style.minor_percent) else "major"
    sevenths = dice.chance(style.sevenths_percent)
    progressions = style.progressions[mode]
    first = dice.below(len(progressions))
    # The chorus moves to another progression in two songs of three.
    second = (first + dice.between(1, len(progressions) - 1)) % len(progressions)
    second = second if dice.chance(66) else first
    groove = dice.pick(tuple(style.grooves))
    material = {
        "comp": (style.comps, style.comp_patterns),
        "bass": (style.basses, style.bass_lines),
        "pad": (style.pads, ("",)),
        "lead": (style.leads, ("",)),
        "figure": (style.figures, style.figure_patterns),
        "drums": (style.kits, (groove,)),
    }
    parts = {
        role: Part(dice.pick(programs), dice.between(*style.mix[role]), dice.pick(patterns))
        for role, (programs, patterns) in material.items()
    }
    ring = dice.chance(style.ring_percent)
    return Song(
        genre=genre,
        seed=seed,
        tempo=tempo,
        tonic=tonic,
        mode=mode,
        swing=dice.pick(style.swings),
        chords_per_bar=2 if dice.chance(style.two_chords_percent) else 1,
        verse=_progression(progressions[first], tonic, mode, sevenths),
        chorus=_progression(progressions[second], tonic, mode, sevenths),
        form=_form(style, tempo, ring, dice),
        parts=parts,
        groove=groove,
        phrase=dice.pick(style.phrases),
        pentatonic=dice.chance(style.pentatonic_percent),
        fill=dice.pick(style.fills),
        pump=dice.chance(style.pump_percent),
        ring=ring,
        reverb=dice.between(15, 80),
        eq=_mastering(dice),
    )


def _dice(genre: str, seed: int, stream: int) -> Dice:
    # A stream per role: a change to one player leaves the others' notes alone.
    return Dice(COMPOSER_VERSION, GENRES.index(genre), seed, stream)


def _progression(numerals: str, tonic: int, mode: str, sevenths: bool) -> tuple[Chord, ...]:
    chords = []
    for numeral in numerals.split():
        degree, triad, seventh = CHORDS[mode][numeral]
        intervals = (*triad, seventh) if sevenths else triad
        name = f"{numeral}7" if sevenths else numeral
        chords.append(Chord(name, tuple((tonic + degree + i) % 12 for i in intervals)))
    return tuple(chords)


def _form(style: styles.Style, tempo: int, ring: bool, dice: Dice) -> tuple[Section, ...]:
    # Sections are counted in pairs of bars: as few as reach the length drawn. A longer song would
    # teach no more and takes longer to make.
    seconds = dice.between(30, 38)
    pairs = max(4, math.ceil((seconds * tempo / 240 - ring) / 2))
    names = dice.pick([form for form in style.forms if len(form) <= pairs])
    lengths = [1] * len(names)
    # What is left over goes to verses and choruses in turn, so that intros stay short.
    growing = [i for i, name in enumerate(names) if name in ("verse", "chorus")]
    turn = dice.below(len(growing))
    for extra in range(pairs - len(names)):
        lengths[growing[(turn + extra) % len(growing)]] += 1
    players: dict[str, tuple[str, ...]] = {}
    for name in names:  # a section that comes back is played by the same people
        if name not in players:
            players[name] = tuple(
                role.rstrip(":") for role in style.players[name] if not role.endswith(":") or dice.chance(50)
            )
    sections = [Section(n, 2 * length, players[n]) for n, length in zip(names, lengths, strict=True)]
    if ring:
        # Whoever played last holds the chord, with the chordal player in any case.
        last = set(sections[-1].players) & {"bass", "pad", "drums"}
        sections.append(Section("end", 1, ("comp", *sorted(last))))
    return tuple(sections)


def _mastering(dice: Dice) -> tuple[float, ...]:
    # Real masters differ: a tilt of up to 0.8 dB per octave, up to 1.5 dB either way per band.
    tilt = dice.between(-8, 8)
    middle = len(EQ_BANDS) // 2
    return tuple((tilt * (i - middle) + dice.between(-15, 15)) / 10 for i in range(len(EQ_BANDS)))


# --- time and harmony -----------------------------------------------------------------------


def harmony(song: Song) -> list[Span]:
    """Returns the chords of the whole song in order, without gaps, in ticks.

    Sections named chorus and build take the chorus's progression, all others the verse's; each
    section starts its progression anew, and a held last bar is the tonic chord.
    """
    spans = []
    length = BAR // song.chords_per_bar
    for section, start in _sections(song):
        if section.name == "end":
            tonic = _progression("i" if song.mode == "minor" else "I", song.tonic, song.mode, False)
            spans.append(Span(start, start + BAR, tonic[0]))
            continue
        chords = song.chorus if section.name in ("chorus", "build") else song.verse
        for i in range(section.bars * song.chords_per_bar):
            begin = start + i * length
            spans.append(Span(begin, begin + length, chords[i % len(chords)]))
    return spans


def _sections(song: Song) -> list[tuple[Section, int]]:
    placed, tick = [], 0
    for section in song.form:
        placed.append((section, tick))
        tick += section.bars * BAR
    return placed


def _chord_at(spans: list[Span], tick: int) -> Span:
    # Spans have equal lengths but for the last bar, so a guess and a step on find the right one.
    i = min(tick // (spans[0].end - spans[0].start), len(spans) - 1)
    while spans[i].start > tick:
        i -= 1
    return spans[i]


def _scale(song: Song, chord: Chord, pentatonic: bool = False) -> list[int]:
    """Pitch classes to be played over a chord: the key's, bent to the chord's own tones."""
    scale = {(song.tonic + i) % 12 for i in SCALES[song.mode]}
    if pentatonic:
        avoided = (5, 11) if song.mode == "major" else (2, 8)
        scale -= {(song.tonic + i) % 12 for i in avoided}
    for tone in chord.tones:
        if tone not in scale:
            scale -= {(tone + 1) % 12, (tone - 1) % 12} - set(chord.tones)
            scale.add(tone)
    return sorted(scale)


def _nearest(pitch: int, classes: Sequence[int]) -> int:
    """The pitch of one of the classes that lies nearest; of two as near, the lower."""
    return min(
        (p for p in range(pitch - 6, pitch + 7) if p % 12 in classes),
        key=lambda p: (abs(p - pitch), p),
    )


def _step_scale(pitch: int, steps: int, scale: Sequence[int]) -> int:
    direction = 1 if steps > 0 else -1
    for _ in range(abs(steps)):
        pitch += direction
        while pitch % 12 not in scale:
            pitch += direction
    return pitch


def voicings(chords: Sequence[Chord], voices: int, centre: int) -> list[tuple[int, ...]]:
    """Sets chords for several voices so that each moves as little as it can.

    Args:
        chords: chords in order of playing.
        voices: number of voices, 3 or 4; a triad in four voices doubles its root, a seventh
            chord in three leaves out its fifth.
        centre: MIDI pitch around which the voicing stays.

    Returns:
        For each chord its pitches from low to high.
    """
    found: list[tuple[int, ...]] = []
    last: tuple[int, ...] | None = None
    for chord in chords:
        tones = list(chord.tones)
        if len(tones) > voices:
            tones.remove(tones[2])
        while len(tones) < voices:
            tones.append(tones[0])
        best = None
        for rotation in range(voices):
            order = tones[rotation:] + tones[:rotation]
            for low in range(centre - 12, centre + 3):
                if low % 12 != order[0]:
                    continue
                pitches = [low]
                for tone in order[1:]:
                    gap = (tone - pitches[-1]) % 12
                    pitches.append(pitches[-1] + (gap or 12))
                middle = abs(2 * (pitches[0] + pitches[-1]) - 4 * centre) // 4
                moved = sum(abs(a - b) for a, b in zip(pitches, last, strict=True)) if last else 0
                cost = (2 * moved + middle + (pitches[-1] - pitches[0]) // 4, tuple(pitches))
                best = cost if best is None else min(best, cost)
        assert best is not None
        last = best[1]
        found.append(last)
    return found


# --- the players ----------------------------------------------------------------------------


def _playing(song: Song, role: str) -> list[tuple[Section, int, int]]:
    """(section, bar within it, start tick) of every bar in which a role plays."""
    return [
        (section, bar, start + bar * BAR)
        for section, start in _sections(song)
        if role in section.players
        for bar in range(section.bars)
    ]


def _pattern_notes(pattern: str) -> list[tuple[int, int, str]]:
    """(step, length in steps, symbol) of every symbol of a bar's pattern."""
    notes, step = [], 0
    while step < len(pattern):
        symbol, end = pattern[step], step + 1
        if symbol in ".-":
            step = end
            continue
        while end < len(pattern) and pattern[end] == "-":
            end += 1
        notes.append((step, end - step, symbol))
        step = end
    return notes


def _split_at_chords(
    notes: list[tuple[int, int, str]], bar: int, spans: list[Span]
) -> list[tuple[int, int, str, Span]]:
    """Strikes a held note again where the chord changes under it."""
    split = []
    for step, length, symbol in notes:
        while length > 0:
            span = _chord_at(spans, bar + step * STEP)
            held = min(length, (span.end - bar) // STEP - step)
            split.append((step, held, symbol, span))
            step, length = step + held, length - held
    return split


_HELD = "X---------------"


def _comp(song: Song, spans: list[Span], role: str, dice: Dice) -> list[Event]:
    """The chordal player: struck, strummed or broken chords; as "figure", an octave higher."""
    high = role == "figure"
    voices = 3 if high or len(song.verse[0].tones) == 3 else 4
    centre = STYLES[song.genre].centre + (9 if high else 0)
    settings = voicings([span.chord for span in spans], voices, centre)
    chord_number = {span.start: i for i, span in enumerate(spans)}
    events = []
    for section, number, bar in _playing(song, role):
        pattern = _HELD if section.name == "end" else song.parts[role].material
        # Soft in the verse, fuller in the chorus; the last bar of four breathes out.
        force = {"chorus": 88, "build": 84, "end": 76}.get(section.name, 76) - 4 * (number % 4 == 3)
        for step, length, symbol, span in _split_at_chords(_pattern_notes(pattern), bar, spans):
            setting = settings[chord_number[span.start]]
            start = bar + step * STEP
            accent = force + (6 if step == 0 else 0) + dice.between(-7, 7)
            if symbol.isdigit():
                octave, voice = divmod(int(symbol), voices)
                # Broken chords ring on under the next tone, as with the pedal down.
                ring = max(length, 2) * STEP + STEP * (0 if high else 1)
                ring = min(ring, span.end - start)
                events.append(Event(start, ring, setting[voice] + 12 * octave, accent))
                continue
            chosen = setting[1:] if symbol == "x" else setting
            spread = 10 if symbol == "S" else 1
            struck = length * STEP - (0 if length > 1 else STEP // 4)
            for i, pitch in enumerate(chosen):
                events.append(Event(start + i * spread, struck - i * spread, pitch, accent - 3 * (i % 2)))
    return events


def _pad(song: Song, spans: list[Span], dice: Dice) -> list[Event]:
    """Sustained chords in three voices; a tone common to two chords is tied over."""
    settings = voicings([span.chord for span in spans], 3, STYLES[song.genre].centre + 4)
    bars = {bar for _, _, bar in _playing(song, "pad")}
    sounding: dict[int, Event] = {}
    events = []
    for span, setting in zip(spans, settings, strict=True):
        playing = span.start // BAR * BAR in bars
        kept: dict[int, Event] = {}
        for pitch in setting if playing else ():
            tied = sounding.pop(pitch, None)
            # A tone is struck afresh after four bars, or a fading sound would be lost.
            if tied and span.end - tied.start <= 4 * BAR:
                kept[pitch] = tied._replace(length=span.end - tied.start)
            else:
                if tied:
                    events.append(tied)
                kept[pitch] = Event(span.start, span.end - span.start, pitch, 74 + dice.between(-6, 6))
        events.extend(sounding.values())
        sounding = kept
    events.extend(sounding.values())
    return events


def _bass_root(song: Song, chord: Chord) -> int:
    floor = STYLES[song.genre].bass_floor
    return floor + (chord.tones[0] - floor) % 12


def _bass(song: Song, spans: list[Span], dice: Dice) -> list[Event]:
    """The bass line: the groove's rhythm on roots, fifths, thirds and steps to the next root."""
    events = []
    for section, _, bar in _playing(song, "bass"):
        pattern = "R---------------" if section.name == "end" else song.parts["bass"].material
        for step, length, symbol, span in _split_at_chords(_pattern_notes(pattern), bar, spans):
            start = bar + step * STEP
            root = _bass_root(song, span.chord)
            pitch = root
            if symbol == "O":
                pitch = root + 12
            elif start == span.start:
                pass  # a new chord is told by its root, whatever the line would have here
            elif symbol in "FT":
                pitch = root + (span.chord.tones["_TF".index(symbol)] - root) % 12
            elif symbol == "A":
                target = _bass_root(song, _chord_at(spans, span.end).chord)
                scale = _scale(song, span.chord)
                if target == root:  # nowhere to lead: fall to the root from the fifth
                    pitch = root + (span.chord.tones[2] - root) % 12
                else:
                    pitch = _step_scale(_nearest(target, scale), 1 if target < root else -1, scale)
            velocity = 96 + (8 if step % 8 == 0 else 0) + dice.between(-6, 6)
            sounding = length * STEP - STEP // 6
            events.append(Event(start, sounding, pitch, velocity))
    return events


def _lead(song: Song, spans: list[Span], dice: Dice) -> list[Event]:
    """A melody of two motifs: rhythm and contour recur, the tones follow the chords.

    Strong beats and long notes take the nearest chord tone, weak ones pass along the scale.
    """
    rhythms = STYLES[song.genre].rhythms
    motifs: dict[str, tuple[str, list[int]]] = {}
    for name in "ab":
        rhythm = dice.pick(rhythms)
        count = rhythm.count("n")
        motifs[name] = (rhythm, [dice.pick((-2, -1, -1, 0, 1, 1, 2, 3)) for _ in range(count)])
    low, high = (64, 86) if song.parts["lead"].program in (73, 75, 40, 11) else (60, 82)
    home = dice.between(low + 6, high - 8)
    events = []
    for section, number, bar in _playing(song, "lead"):
        name = song.phrase[number % 4]
        rhythm, contour = motifs["a"] if name == "c" else motifs[name]
        if name == "c":  # a cadence: the motif's beginning, then a long chord tone
            rhythm = "n---n---n-------"
            contour = (contour * 3)[:3]
        if number % 4 == 3 and section.name == "verse":
            rhythm = rhythm[:10] + "......"  # a breath at the end of a verse's phrase
        wanted = home + (3 if section.name == "chorus" else 0) + (2 if name == "b" else 0)
        place = wanted
        for i, (step, length, _) in enumerate(_pattern_notes(rhythm)):
            start = bar + step * STEP
            chord = _chord_at(spans, start).chord
            scale = _scale(song, chord, song.pentatonic)
            if i > 0:
                place = _step_scale(_nearest(place, scale), contour[i % len(contour)], scale)
            strong = step % 4 == 0 or length >= 4
            pitch = _nearest(place, chord.tones if strong else scale)
            while pitch > high:
                pitch -= 12
            while pitch < low:
                pitch += 12
            place = pitch
            force = 92 if section.name == "chorus" else 84
            velocity = force + (6 if strong else 0) + dice.between(-7, 7)
            events.append(Event(start, length * STEP - STEP // 8, pitch, velocity))
    return events


def _drums(song: Song, dice: Dice) -> list[Event]:
    """The groove with its variations, crashes on new sections and fills before them."""
    groove = STYLES[song.genre].grooves[song.groove]
    events = []
    placed = _sections(song)
    for section, number, bar in _playing(song, "drums"):
        if section.name == "end":
            events += [Event(bar, BAR, styles.CRASH, 84), Event(bar, STEP, styles.KICK, 100)]
            continue
        if number == 0 and section.name == "chorus" and bar > 0:
            events.append(Event(bar, BAR, styles.CRASH, 88))
        last = number == section.bars - 1 and placed[-1][0] is not section
        fill = song.fill if last else "none"
        if section.name == "build" and song.genre == "dance":
            fill = "rise" if number >= section.bars - 2 else fill
        silent = {"drop": 8, "toms": 8, "roll": 12}.get(fill, BAR_STEPS)
        for key, bars in groove.items():
            if fill == "rise" and key not in (styles.KICK, styles.CLOSED_HAT):
                continue
            # The first variation carries the groove, the others answer it.
            line = bars[0] if number % 2 == 0 else bars[-1]
            if fill == "hats" and key == styles.CLOSED_HAT:
                line = line[:12]
            for step, loudness in enumerate(line):
                if loudness == "." or (step >= silent and not (fill == "drop" and step == 8)):
                    continue
                # Intros and verses hold back a little.
                force = 52 + 7 * int(loudness) - (0 if section.name == "chorus" else 6)
                # Hip-hop's backbeat leans back behind the beat.
                late = 8 if song.genre == "hiphop" and key in (styles.SNARE, styles.CLAP) else 0
                events.append(Event(bar + step * STEP + late, STEP, key, force + dice.between(-6, 6)))
        events += _fill(fill, bar, number, dice)
    return events


def _fill(fill: str, bar: int, number: int, dice: Dice) -> list[Event]:
    if fill == "toms":
        steps = [s for s in range(8, 16) if s % 2 == 0 or dice.chance(45)]
        return [Event(bar + s * STEP, STEP, styles.TOMS[(s - 8) * 3 // 8], 84 + 3 * (s - 8)) for s in steps]
    if fill == "roll":
        return [Event(bar + s * STEP, STEP, styles.SNARE, 70 + 8 * (s - 12)) for s in range(12, 16)]
    if fill == "rise":  # two bars of snare: eighths, then sixteenths, growing
        pace = 2 if number % 2 == 0 else 1
        grown = 16 * (number % 2)
        return [Event(bar + s * STEP, STEP, styles.SNARE, 56 + grown + s) for s in range(0, 16, pace)]
    if fill == "hats":  # thirty-seconds that run into the next section
        half = STEP // 2
        return [Event(bar + 12 * STEP + i * half, half, styles.CLOSED_HAT, 66 + 4 * i) for i in range(8)]
    if fill == "swell":
        return [Event(bar + s * STEP, STEP, styles.RIDE, 50 + 10 * i) for i, s in enumerate((8, 10, 12, 14))]
    return []


# --- the performance ------------------------------------------------------------------------


def score(song: Song) -> dict[str, list[Event]]:
    """Writes every player's notes.

    Returns:
        By role, the notes as played: swung, with small deviations of timing, in order.
    """
    spans = harmony(song)
    written: dict[str, list[Event]] = {}
    for i, role in enumerate(_ROLES):
        dice = _dice(song.genre, song.seed, i)
        if role == "drums":
            events = _drums(song, dice)
        elif role == "pad":
            events = _pad(song, spans, dice)
        elif role == "bass":
            events = _bass(song, spans, dice)
        elif role == "lead":
            events = _lead(song, spans, dice)
        else:
            events = _comp(song, spans, role, dice)
        written[role] = _perform(song, events, role, dice)
    return written


def _perform(song: Song, events: list[Event], role: str, dice: Dice) -> list[Event]:
    jitter = STYLES[song.genre].jitter
    # Together on the first beat; the kick and the bass keep time for the others.
    loose = jitter if role not in ("bass", "drums") else jitter // 2
    played = []
    for event in sorted(events):
        start = event.start
        if start // STEP % 2:
            start += (song.swing - 50) * 2 * STEP // 100
        if start % BAR:
            start = max(start + dice.between(-loose, loose), 0)
        stop = min(event.start + event.length, song.bars * BAR)
        velocity = min(max(event.velocity, 1), 127)
        played.append(Event(start, max(stop - start, STEP // 8), event.pitch, velocity))
    # A key struck again while it sounds ends first: MIDI cannot hold one key twice.
    sounding: dict[int, Event] = {}
    done = []
    for event in sorted(played):
        before = sounding.get(event.pitch)
        if before:
            done.append(before._replace(length=min(before.length, event.start - before.start)))
        sounding[event.pitch] = event
    done.extend(sounding.values())
    return sorted(event for event in done if event.length > 0)


def compose(genre: str, seed: int) -> pretty_midi.PrettyMIDI:
    """Composes song number `seed` of a genre.

    Args:
        genre: one of `GENRES`.
        seed: any whole number from 0.

    Returns:
        The song as MIDI, as `midi_of` has it. A pure function of its arguments.

    Raises:
        ValueError: if the genre is unknown or the seed is negative.
    """
    song = plan(genre, seed)
    # The renderer stops at the last event, so one after the last note lets the sound die away.
    tail = int(_TAIL_SECONDS * song.tempo * TICKS_PER_BEAT) // 60
    return midi_of(song, score(song), song.bars * BAR + tail)


def midi_of(song: Song, written: Mapping[str, Sequence[Event]], end: int) -> pretty_midi.PrettyMIDI:
    """Hands notes to the players.

    Args:
        song: has the tempo and the players, by role.
        written: by role, its notes, at least one in all.
        end: tick up to which the music sounds.

    Returns:
        One instrument per player that has notes, named after its role, with volume, reverberation and, for pumping
        pads, expression.
    """
    import pretty_midi

    midi = pretty_midi.PrettyMIDI(resolution=TICKS_PER_BEAT, initial_tempo=song.tempo)

    def seconds(tick: int) -> float:
        return tick * 60 / (song.tempo * TICKS_PER_BEAT)

    def control(number: int, value: int, tick: int) -> pretty_midi.ControlChange:
        return pretty_midi.ControlChange(number, value, seconds(tick))

    for role, events in written.items():
        if not events:
            continue
        part = song.parts[role]
        player = pretty_midi.Instrument(part.program, is_drum=role == "drums", name=role)
        player.control_changes = [control(7, part.volume, 0), control(91, song.reverb, 0)]
        if role == "pad" and song.pump:
            player.control_changes += [
                control(11, value, tick + i * STEP)
                for tick in range(0, song.bars * BAR, TICKS_PER_BEAT)
                for i, value in enumerate((40, 80, 112, 127))
            ]
        player.notes = [
            pretty_midi.Note(e.velocity, e.pitch, seconds(e.start), seconds(e.start + e.length)) for e in events
        ]
        midi.instruments.append(player)
    midi.instruments[0].control_changes.append(control(91, song.reverb, end))
    return midi
