"""Model signals: they hold what the recipe says, at the right time and pitch."""

import dataclasses

import numpy as np
import pytest

from deconv_jax.music import stimuli
from deconv_jax.music.stimuli import Chord, Instrument, Key, Stimulus

RATE = 11025
CENTS = 10


@pytest.fixture(scope="module")
def paper():
    """The 224 signals with their sound."""
    return [(s, stimuli.synthesise(s)) for s in stimuli.paper_stimuli()]


def spectrum(waveform, size=2**17):
    return np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), size)), np.fft.rfftfreq(size, 1 / RATE)


def peak(waveform, near, cents=70):
    """Frequency and level (dB below the spectrum's maximum) of the highest peak within so many cents of `near`."""
    level, frequency = spectrum(waveform)
    inside = np.flatnonzero(np.abs(1200 * np.log2(np.maximum(frequency, 1) / near)) < cents)
    best = inside[np.argmax(level[inside])]
    return frequency[best], 20 * np.log10(level[best] / level.max())


def test_there_are_224_distinct_signals(paper):
    assert len(paper) == 224
    assert len({tuple(s.attributes.values()) for s, _ in paper}) == 224
    assert len({w.tobytes() for _, w in paper}) == 224
    for stimulus, waveform in paper:
        assert waveform.dtype == np.float32
        assert len(waveform) == (4 if stimulus.chord.name == "intervals" else 2) * RATE
        assert 20 * np.log10(stimuli.rms(waveform)) == pytest.approx(-23, abs=0.01)


def test_chords_and_keys_are_the_papers():
    chords = {c.name: c.hits for c in stimuli.CHORDS}
    assert chords["intervals"] == tuple((0, k) for k in range(1, 13))
    assert chords["major"] == ((0, 4, 7), (4, 7, 12), (7, 12, 16), (0, 7, 16), (4, 12, 19), (0, 7, 12, 16, 19, 24))
    assert chords["minor"] == ((0, 3, 7), (3, 7, 12), (7, 12, 15), (0, 7, 15), (3, 12, 19), (0, 7, 12, 15, 19, 24))
    assert chords["sus4"][0] == (0, 5, 7)
    assert chords["dominant7"] == (
        *((0, 4, 7, 10), (4, 7, 10, 12), (7, 10, 12, 16), (10, 12, 16, 19), (0, 7, 10, 16), (7, 12, 16, 22)),
    )
    assert chords["major7"][0] == (0, 4, 7, 11)
    assert chords["minor7"][0] == (0, 3, 7, 10)
    assert chords["diminished"][0] == (0, 3, 6, 9)
    assert chords["diminished"][-1] == (0, 9, 15, 18)
    np.testing.assert_allclose(stimuli.hertz([k.midi for k in stimuli.KEYS]), [155.56, 233.08, 440, 783.99], rtol=1e-4)


@pytest.mark.parametrize("instrument", stimuli.INSTRUMENTS, ids=lambda i: i.name)
def test_every_note_and_its_partials_are_in_tune(instrument):
    """Each pitch that any signal uses, alone and as long as in a hit: within 10 cents, with the partials that carry it.

    Those are the first eight, but for what is more than 20 dB below the strongest. A piano's strings are stiff: from
    the fifth on its partials are sharp, as they should be, by up to 20 cents.
    """
    pitches = sorted({p for s in stimuli.paper_stimuli() for hit in s.pitches for p in hit})
    assert pitches[0] == 51
    order = [p for rest in range(7) for p in pitches[rest::7]]  # neighbours in time are no neighbours in pitch
    signal = Stimulus(instrument, Chord("all", tuple((int(p),) for p in order)), Key("zero", 0))
    waveform = stimuli.synthesise(signal)
    for begin, pitch in zip(signal.onsets, order, strict=False):
        piece = waveform[round(begin * RATE) :][: round(stimuli.LEGATO * RATE / 3)]
        wanted = stimuli.hertz(pitch) * np.arange(1, 9)
        for number, frequency in enumerate(wanted[wanted < 0.47 * RATE], 1):
            found, level = peak(piece, frequency)
            assert number > 1 or level > -20, f"pitch {pitch} has no fundamental"
            if level > -20:
                stretched = 20 if instrument.name == "piano" and number > 4 else CENTS
                assert -CENTS < 1200 * np.log2(found / frequency) < stretched, f"pitch {pitch}, partial {number}"


def test_every_signal_is_in_tune(paper):
    """All fundamentals and second partials of a signal's hits, moved together, fit its spectra best within 10 cents."""
    shifts = np.arange(-40, 41)
    for stimulus, waveform in paper:
        power = np.zeros(len(shifts))
        for begin, end, pitches in zip(stimulus.onsets, stimulus.onsets[1:], stimulus.pitches, strict=False):
            level, frequency = spectrum(waveform[round(begin * RATE) : round(end * RATE)], 2**16)
            partials = (stimuli.hertz(pitches)[:, None] * [1, 2]).ravel()
            partials = partials[partials < 0.47 * RATE]
            power += np.interp(partials[:, None] * 2 ** (shifts / 1200), frequency, level**2).sum(axis=0)
        assert abs(shifts[np.argmax(power)]) < CENTS, stimulus.attributes


def test_hits_lie_on_the_grid_of_a_third_of_a_second(paper):
    """Every hit begins with a rise of energy at its time; all hits together place it to within 40 ms.

    Single hits are not placed so closely: two notes a few semitones apart beat, and each beat is a rise as well.
    """
    hop, ahead = 110, 1100  # 10 ms; silence put before the first hit
    for stimulus, waveform in paper:
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(waveform, (256 + ahead, 256)), 512)[::hop]
        level = np.abs(np.fft.rfft(frames * np.hanning(512), axis=1))
        rise = np.maximum(level[1:] - level[:-1], 0).sum(axis=1)
        time = (np.arange(len(rise)) + 0.5) * hop / RATE - ahead / RATE
        hits = np.arange(len(stimulus.chord.hits)) / 3
        offsets = np.arange(-0.15, 0.18, 0.01)
        folded = np.mean([np.interp(hit + offsets, time, rise) for hit in hits], axis=0)
        assert abs(offsets[np.argmax(folded)]) < 0.04, stimulus.attributes
        strength = [rise[np.abs(time - hit) < 0.04].max() / np.median(rise) for hit in hits]
        assert min(strength) > 1.5, (stimulus.attributes, strength)


def test_a_chord_is_the_sum_of_its_notes_and_overdrive_acts_on_the_sum():
    def note(instrument, *hit):
        return stimuli.synthesise(Stimulus(instrument, Chord("one", (hit,)), stimuli.KEYS[1])).astype(np.float64)

    for instrument in stimuli.INSTRUMENTS:
        notes = np.stack([note(instrument, k) for k in (0, 4, 7)], axis=1)
        chord = note(instrument, 0, 4, 7)
        gains, *_ = np.linalg.lstsq(notes, chord, rcond=None)
        rest = stimuli.rms(chord - notes @ gains) / stimuli.rms(chord)
        if instrument.drive:
            assert rest > 0.2  # intermodulation: partials that no note has alone
        else:
            assert rest < 0.01
    clean = dataclasses.replace(stimuli.INSTRUMENTS[-1], drive=0.0)
    high = Stimulus(clean, stimuli.CHORDS[1], stimuli.KEYS[0])
    driven = dataclasses.replace(high, instrument=stimuli.INSTRUMENTS[-1])
    crests = [np.abs(w).max() / stimuli.rms(w) for w in map(stimuli.synthesise, (high, driven))]
    assert crests[1] < 0.7 * crests[0]


@pytest.mark.parametrize("instrument", [stimuli.INSTRUMENTS[0], stimuli.INSTRUMENTS[3]], ids=lambda i: i.name)
def test_tempo_rhythm_loudness_and_detuning_are_heard(instrument):
    one = Stimulus(instrument, Chord("one", ((0,), (12,))), Key("A3", 69), stimuli.SWUNG, 60.0, -30.0, 35.0)
    waveform = stimuli.synthesise(one)
    np.testing.assert_allclose(one.onsets, [0, 4 / 3, 2])
    assert len(waveform) == 2 * RATE
    assert 20 * np.log10(stimuli.rms(waveform)) == pytest.approx(-30, abs=0.01)
    for begin, end, base in ((0.0, 1.25, 440.0), (1.4, 1.95, 880.0)):
        found, level = peak(waveform[round(begin * RATE) : round(end * RATE)], base)
        assert level == pytest.approx(0, abs=12)
        assert 1200 * np.log2(found / base) == pytest.approx(35, abs=CENTS)


def test_attributes_combine_and_describe_what_is_played():
    some = stimuli.factorial(
        stimuli.INSTRUMENTS[:2], stimuli.CHORDS[1:3], [Key("C4", 60)], tempi=(120.0, 180.0), detunings=(0.0, 50.0)
    )
    assert len(some) == 16
    assert {s.attributes["detuning"] for s in some} == {"0", "50"}
    rows = stimuli.describe(some[1])  # detuned
    assert len(rows) == 6
    assert rows[1] == {
        "hit": 1,
        "onset_s": 0.5,
        "held_s": 0.475,
        "midi": "64.5 67.5 72.5",
        "hertz": " ".join(f"{440 * 2 ** ((m - 69) / 12):.3f}" for m in (64.5, 67.5, 72.5)),
    }


def test_what_cannot_be_played_is_refused():
    sine, key = Instrument("pure sine"), Key("A3", 69)
    with pytest.raises(ValueError, match=r"MIDI number 117 .* below half"):
        stimuli.synthesise(Stimulus(sine, Chord("high", ((48,),)), key))
    with pytest.raises(ValueError, match="MIDI number -1"):
        stimuli.synthesise(Stimulus(sine, Chord("low", ((-70, 0),)), key))
    with pytest.raises(ValueError, match="at least one hit"):
        Stimulus(sine, Chord("none", ()), key)
    with pytest.raises(ValueError, match="tempo"):
        Stimulus(sine, stimuli.CHORDS[0], key, tempo=0)
    with pytest.raises(ValueError, match="rhythm"):
        Stimulus(sine, stimuli.CHORDS[0], key, stimuli.Rhythm("still", (0.0,)))
