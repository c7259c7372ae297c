"""What is typical of a ballad, a dance track and a hip-hop track, as tables.

These tables are the musical knowledge of the built-in corpus and hold no code: `compose` draws
from them. The genres differ in groove, bass line, phrasing and form; their instruments, kits,
keys and tempi overlap on purpose, so that neither the timbre nor any single number tells the
genre. A choice that is listed twice is drawn twice as often.

Patterns are strings of 16 characters, one bar in sixteenth notes:

* drums: `1`-`9` is a hit of that loudness, `.` is none;
* bass: `R` root, `O` its octave, `F` fifth, `T` third, `A` a step towards the next root,
  `-` hold, `.` rest;
* chords: `X` the whole chord, `x` its upper voices, `S` a strum, a digit that voice of it (counted
  from the lowest, going on an octave higher), `-` hold, `.` rest;
* melody: `n` a note, `-` hold, `.` rest.
"""

from __future__ import annotations

from typing import NamedTuple

GENRES = ("ballad", "dance", "hiphop")

SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}

# Roman numeral -> (semitones above the tonic, triad, what turns it into a seventh chord).
_MAJOR, _MINOR, _DIMINISHED = (0, 4, 7), (0, 3, 7), (0, 3, 6)
CHORDS = {
    "major": {
        "I": (0, _MAJOR, 11), "ii": (2, _MINOR, 10), "iii": (4, _MINOR, 10),
        "IV": (5, _MAJOR, 11), "iv": (5, _MINOR, 10), "V": (7, _MAJOR, 10),
        "vi": (9, _MINOR, 10), "bVII": (10, _MAJOR, 10),
    },
    "minor": {
        "i": (0, _MINOR, 10), "iio": (2, _DIMINISHED, 10), "III": (3, _MAJOR, 11),
        "iv": (5, _MINOR, 10), "v": (7, _MINOR, 10), "V": (7, _MAJOR, 10),
        "VI": (8, _MAJOR, 11), "VII": (10, _MAJOR, 10),
    },
}  # fmt: skip

# General MIDI percussion keys.
KICK, RIM, SNARE, CLAP, CLOSED_HAT, OPEN_HAT, CRASH, RIDE = 36, 37, 38, 39, 42, 46, 49, 51
TAMBOURINE, COWBELL, CONGA, SHAKER = 54, 56, 63, 70
TOMS = (48, 45, 41)

Kit = dict[int, tuple[str, ...]]


class Style(NamedTuple):
    """The material of one genre; every field is drawn from once per song."""

    tempi: tuple[tuple[int, int], ...]  # ranges in beats per minute, both ends included
    minor_percent: int
    progressions: dict[str, tuple[str, ...]]  # by mode
    sevenths_percent: int
    two_chords_percent: int  # two chords to the bar
    swings: tuple[int, ...]  # where the second sixteenth of a pair falls, in percent of the pair
    jitter: int  # timing spread of the players, in ticks
    grooves: dict[str, Kit]
    kits: tuple[int, ...]
    basses: tuple[int, ...]
    bass_lines: tuple[str, ...]
    comps: tuple[int, ...]
    comp_patterns: tuple[str, ...]
    pads: tuple[int, ...]
    leads: tuple[int, ...]
    figures: tuple[int, ...]
    figure_patterns: tuple[str, ...]
    rhythms: tuple[str, ...]
    phrases: tuple[str, ...]  # which motif each bar of a four-bar phrase takes; "c" is a cadence
    pentatonic_percent: int
    forms: tuple[tuple[str, ...], ...]
    players: dict[str, tuple[str, ...]]  # who plays in each section; ":" marks "perhaps"
    fills: tuple[str, ...]
    pump_percent: int  # pads that duck under every beat
    ring_percent: int  # songs that end on a held tonic chord
    mix: dict[str, tuple[int, int]]  # ranges of channel volume by role, both ends included
    bass_floor: int  # lowest MIDI pitch of the bass's roots
    centre: int  # MIDI pitch about which chords are set


_HATS_8 = "6.4.6.4.6.4.6.4."
_HATS_16 = "6352635263526352"

_BALLAD_GROOVES: dict[str, Kit] = {
    "soft eights": {
        KICK: ("9.......8.......", "9.......8.6....."),
        SNARE: ("....7.......7...",),
        CLOSED_HAT: (_HATS_8,),
    },
    "half time": {
        KICK: ("9.........6.....", "9.....5...6....."),
        SNARE: ("........9.......",),
        CLOSED_HAT: ("6.4.5.4.6.4.5.4.",),
    },
    "side stick": {
        KICK: ("9.....6.8.......", "9.....6.8.....5."),
        RIM: ("....7.......7...",),
        SHAKER: ("5353535353535353",),
    },
    "four build": {
        KICK: ("8...7...8...7...",),
        SNARE: ("....8.......8...",),
        CLOSED_HAT: ("..5...5...5...5.", "5.5.5.5.5.5.5.5."),
    },
    "brushes": {
        KICK: ("7.......6.......",),
        SNARE: ("4.4.6.4.4.4.6.4.", "4.4.6.4.4.446.4."),
    },
    "rock": {
        KICK: ("9.......9.8.....", "9.....7.9.8....."),
        SNARE: ("....9.......9...",),
        CLOSED_HAT: ("7.5.7.5.7.5.7.5.", "7.5.7.5.7.5.7..."),
        OPEN_HAT: ("................", "..............6."),
    },
    "sixteenths": {
        KICK: ("9.......8.......", "9.....5.8.5....."),
        SNARE: ("....8.......8...",),
        CLOSED_HAT: ("6354635463546354",),
    },
    "tambourine": {
        KICK: ("8.......7.......",),
        TAMBOURINE: ("....6.......6...", "....6.......6.3."),
        SHAKER: ("4.3.4.3.4.3.4.3.",),
    },
}

_DANCE_GROOVES: dict[str, Kit] = {
    "house": {
        KICK: ("9...9...9...9...",),
        CLAP: ("....8.......8...",),
        OPEN_HAT: ("..7...7...7...7.",),
        CLOSED_HAT: ("5.3.5.3.5.3.5.3.", "5.335.335.335.33"),
    },
    "trance": {
        KICK: ("9...9...9...9...",),
        SNARE: ("....8.......8...", "....8.......8..4"),
        CLOSED_HAT: ("4364436443644364",),
    },
    "disco": {
        KICK: ("9...9...9...9...",),
        SNARE: ("....8.......8...",),
        CLOSED_HAT: ("6.3.6.3.6.3.6.3.",),
        OPEN_HAT: ("..6...6...6...6.",),
        TAMBOURINE: ("................", "..4...4...4...4."),
    },
    "latin house": {
        KICK: ("9...9...9...9...",),
        RIM: ("7..7..7...7.7...",),
        CONGA: ("..5...5...55..5.", "..5..5.5..5.5.5."),
        SHAKER: ("3.5.3.5.3.5.3.5.",),
    },
    "tribal": {
        KICK: ("9...9...9...9...", "9...9...9...9..7"),
        CONGA: ("..6.46..6.46..64",),
        CLAP: ("................", "............7..."),
    },
    "deep": {
        KICK: ("9...9...9...9...",),
        RIM: ("....6..4....6...",),
        CLOSED_HAT: ("..5...5...5...5.",),
    },
    "pop": {
        KICK: ("9...8...9...8...", "9...8...9...8.6."),
        SNARE: ("....9.......9...",),
        CLOSED_HAT: (_HATS_8,),
    },
}

_HIPHOP_GROOVES: dict[str, Kit] = {
    "boom bap": {
        KICK: ("9......7..8.....", "9......7..8..6.."),
        SNARE: ("....9.......9...", "....9..2....9..2"),
        CLOSED_HAT: ("6.5.6.5.6.5.6.5.",),
    },
    "east": {
        KICK: ("9..7......8.....", "9..7....6.8....."),
        SNARE: ("....9.......9...", "....9....2..9..3"),
        CLOSED_HAT: ("6.4.6.456.4.6.4.",),
    },
    "west": {
        KICK: ("9.8....7..7.....", "9.8....7..7....6"),
        CLAP: ("....8.......8...",),
        TAMBOURINE: ("4.4.4.4.4.4.4.4.",),
    },
    "trap": {
        KICK: ("9.....7...8.....", "9..6..7...8..6.."),
        SNARE: ("....9.......9...",),
        CLOSED_HAT: (_HATS_16, "6352635263566666"),
    },
    "lazy": {
        KICK: ("9.....6..7.8....", "9.....6..7.8..5."),
        SNARE: ("....8.......8..2", "....8..2....8..."),
        CLOSED_HAT: ("5.6.5.655.6.5.6.",),
    },
    "bare": {
        KICK: ("9..6..8...7.....", "9..6..8...7..7.."),
        SNARE: ("....9.......9...",),
    },
    "rim": {
        KICK: ("9......6.8......", "9......6.8...6.."),
        RIM: ("....8.......8...", "....8..3....8..."),
        SHAKER: ("5.3.5.3.5.3.5.3.",),
    },
}

STYLES = {
    "ballad": Style(
        tempi=((60, 92), (66, 92), (70, 90)),
        minor_percent=40,
        progressions={
            "major": (
                "I V vi IV", "I vi IV V", "I iii IV V", "vi IV I V", "I IV vi V", "I V IV iv",
                "I vi ii V", "IV V iii vi",
            ),
            "minor": ("i VI III VII", "i iv VII III", "i VII VI V", "i v VI iv", "VI VII i i"),
        },
        sevenths_percent=35,
        two_chords_percent=35,
        swings=(50, 50, 52, 56),
        jitter=6,
        grooves=_BALLAD_GROOVES,
        kits=(0, 0, 8, 16, 24, 32, 40, 40),
        basses=(32, 32, 33, 33, 33, 34, 35, 35, 38, 39),
        bass_lines=(
            "R-------R-------", "R-----R-F-----F-", "R-----------R-A-", "R-----F-O---F-A-",
            "R-------F-----A-", "R---------------", "R-----R-R-----A-", "R---F---O---F---",
        ),
        comps=(0, 0, 0, 1, 4, 4, 5, 24, 24, 25, 27, 46, 88),
        comp_patterns=(
            "0-1-2-3-2-1-2-1-", "0-2-1-2-3-2-1-2-", "X---x---X---x---", "X-----x-X---x-x-",
            "S-----S-..S-S-S-", "X---x---X-x-x-x-", "0123210123210121", "0-2-4-3-2-3-4-2-",
            "0121012101210121", "0-1232121-123212",
        ),
        pads=(48, 48, 49, 49, 50, 51, 52, 52, 89, 91),
        leads=(73, 73, 40, 40, 66, 53, 71, 75, 26, 0, 56, 11, 80, 4),
        figures=(0, 46, 11, 10, 24, 48, 98, 5, 27),
        figure_patterns=(
            "3-..2-..4-..3-..", "0-2-4-5-4-2-....", "..4-3-2-..4-5-..", "2---3---4---3---",
        ),
        rhythms=(
            "n-----n-n-------", "..n-n-n-n-------", "n---n---n-----n-", "n-------..n-n-n-",
            "n-----------n-n-", "n-----n-n---n---", "....n-n-n---n---", "n---n-n-n-----n-",
        ),
        phrases=("abac", "aabc", "abcc", "abab"),
        pentatonic_percent=25,
        forms=(
            ("intro", "verse", "chorus"),
            ("verse", "chorus"),
            ("intro", "verse", "chorus", "outro"),
            ("verse", "build", "chorus"),
            ("verse", "chorus", "verse", "chorus"),
            ("intro", "verse", "build", "chorus", "outro"),
        ),
        players={
            "intro": ("comp", "lead:", "pad:", "drums:"),
            "verse": ("comp", "bass", "lead", "drums:", "pad:"),
            "build": ("comp", "bass", "pad", "drums", "lead:"),
            "chorus": ("comp", "bass", "pad", "lead", "drums", "figure:"),
            "outro": ("comp", "pad", "lead:", "bass:"),
        },
        fills=("toms", "toms", "swell", "none"),
        pump_percent=0,
        ring_percent=80,
        mix={
            "comp": (75, 110), "bass": (62, 100), "pad": (52, 92), "lead": (78, 110),
            "figure": (50, 80), "drums": (48, 98),
        },
        bass_floor=33,
        centre=60,
    ),
    "dance": Style(
        tempi=((84, 132), (84, 112), (88, 132)),
        minor_percent=55,
        progressions={
            "major": (
                "vi IV I V", "I V vi IV", "IV I V vi", "I IV vi V", "IV V vi vi", "I bVII IV I",
            ),
            "minor": (
                "i VI III VII", "i III VII VI", "i VII VI VII", "i iv VI VII", "VI VII i i",
                "i i VI VII",
            ),
        },
        sevenths_percent=30,
        two_chords_percent=15,
        swings=(50, 50, 50, 54),
        jitter=2,
        grooves=_DANCE_GROOVES,
        kits=(0, 8, 16, 16, 24, 24, 24, 25),
        basses=(38, 38, 39, 39, 33, 33, 34, 35),
        bass_lines=(
            "..R-..R-..R-..R-", "R-O-R-O-R-O-R-O-", "R--R--R-R--R--A-", "R--R--R---R-O-A-",
            "R.R.R.R.R.R.R.R.", ".RRR.RRR.RRR.RRR", "..R-..R-..R-F-A-", "R--O--R-R--O--F-",
        ),
        comps=(0, 1, 1, 4, 5, 25, 27, 62, 62, 81, 81, 90, 90, 16, 88),
        comp_patterns=(
            "..X...X...X...X.", "X--X--X---X--X--", "X..X..X...X.X...", "0.2.3.2.0.2.3.2.",
            "0.1.3.2.0.1.3.2.", "X--..X-...X-X-..", "..X-..X-..X-..X-", "0-2-4-3-2-3-4-2-",
        ),
        pads=(48, 50, 50, 51, 52, 89, 90, 90, 91),
        leads=(80, 80, 81, 81, 62, 62, 53, 0, 11, 73, 56, 40, 66, 5),
        figures=(80, 81, 81, 11, 0, 10, 98, 48, 27, 5),
        figure_patterns=(
            "0.2.4.2.3.2.4.2.", "0123012301230123", "4..3..2.4..3..2.", "..4...3...5...3.",
        ),
        rhythms=(
            "n..n..n...n.n...", "n-n-.n-n..n-n---", "n---..n---..n---", "n.n.n-.n.n--....",
            "..n-..n-..n-n-n-", "n--n--n-n--n--n-", "n-----n-----n---", "..n-n-n-n-..n-n-",
        ),
        phrases=("abab", "aaab", "abac", "aabb"),
        pentatonic_percent=40,
        forms=(
            ("intro", "verse", "chorus", "break", "chorus"),
            ("intro", "verse", "build", "chorus"),
            ("verse", "build", "chorus", "outro"),
            ("intro", "chorus", "break", "build", "chorus"),
            ("chorus", "verse", "break", "chorus"),
            ("break", "build", "chorus", "verse", "chorus"),
        ),
        players={
            "intro": ("drums", "comp:", "figure:", "bass:"),
            "verse": ("drums", "bass", "comp", "lead:", "pad:"),
            "break": ("pad", "comp", "lead:", "figure:"),
            "build": ("drums", "pad", "comp", "bass:"),
            "chorus": ("drums", "bass", "comp", "lead", "pad:", "figure:"),
            "outro": ("drums", "bass", "figure:"),
        },
        fills=("roll", "roll", "drop", "toms"),
        pump_percent=50,
        ring_percent=40,
        mix={
            "comp": (70, 105), "bass": (78, 112), "pad": (48, 85), "lead": (72, 105),
            "figure": (52, 84), "drums": (78, 118),
        },
        bass_floor=31,
        centre=64,
    ),
    "hiphop": Style(
        tempi=((72, 104), (76, 100), (80, 98)),
        minor_percent=65,
        progressions={
            "major": ("ii V I vi", "IV iii ii I", "I vi", "I IV", "vi IV", "I iii IV iv"),
            "minor": ("i VI", "i iv", "i VI iv V", "i VII VI VII", "i iv VII III", "i i VI V"),
        },
        sevenths_percent=55,
        two_chords_percent=15,
        swings=(50, 54, 58, 62),
        jitter=5,
        grooves=_HIPHOP_GROOVES,
        kits=(0, 0, 8, 8, 16, 25, 25, 24, 32),
        basses=(33, 33, 35, 35, 38, 39, 39, 32),
        bass_lines=(
            "R-----.R--R-....", "R--R------R---A-", "R---------.R.O..", "R------R--F-....",
            "R-----------....", "R-.R..O-..R-F-A-", "R-------.R--..R-", "R-..R.R-....R-A-",
        ),
        comps=(0, 0, 4, 4, 5, 5, 24, 25, 27, 1, 46, 16, 90),
        comp_patterns=(
            "X-----------....", "X-----X---......", "X--x..X-........", "x.x.x.x.x.x.x.x.",
            "0-1-2-..3-2-1-..", "X-------..x-x---", "0..2..1...3.2...", "X---x---X---x---",
        ),
        pads=(48, 49, 50, 51, 52, 89, 91),
        leads=(73, 75, 11, 11, 80, 56, 66, 53, 26, 26, 40, 81, 0),
        figures=(11, 0, 46, 10, 24, 48, 80, 5, 27),
        figure_patterns=(
            "4-..3-....2-....", "0-2-..4-..3-....", "5.5.4.4.3.3.2...", "..4.4...3.....2.",
        ),
        rhythms=(
            "n-.n-.n---......", "....n-n--n--....", "n--n--n-........", "n-nn-.n-....n---",
            "..n...n.n-..n---", "n-----......n-n-", "...n-.n--n--....", "n-..n--n----....",
        ),
        phrases=("aaab", "abab", "aaaa", "aabc"),
        pentatonic_percent=75,
        forms=(
            ("intro", "verse", "chorus"),
            ("intro", "chorus", "verse", "chorus"),
            ("chorus", "verse", "break", "chorus"),
            ("verse", "chorus", "verse"),
            ("intro", "verse", "break", "chorus", "outro"),
        ),
        players={
            "intro": ("comp", "lead:", "pad:"),
            "verse": ("drums", "bass", "comp", "figure:"),
            "chorus": ("drums", "bass", "comp", "lead", "pad:", "figure:"),
            "break": ("comp", "bass", "lead:", "pad:"),
            "outro": ("comp", "drums", "lead:"),
        },
        fills=("drop", "drop", "hats", "none"),
        pump_percent=10,
        ring_percent=40,
        mix={
            "comp": (60, 98), "bass": (88, 124), "pad": (42, 80), "lead": (64, 98),
            "figure": (46, 78), "drums": (80, 118),
        },
        bass_floor=28,
        centre=58,
    ),
}  # fmt: skip
