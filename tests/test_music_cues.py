"""Planted cues: two clips that differ in one thing, and where that is."""

import numpy as np
import pytest

from deconv_jax.errors import SettingError
from deconv_jax.music import cues
from deconv_jax.music.cues import CUES, planted
from deconv_jax.sound.front_end import FrontEnd

SECONDS = 0.75
FRONT = FrontEnd(clip_seconds=SECONDS)
HERTZ = FRONT.frequencies()


@pytest.fixture(scope="module")
def pairs():
    return {name: planted(name, 3, SECONDS) for name in CUES}


def levels(clips):
    """Power spectra (clips, freq), dB."""
    return 10 * np.log10(np.abs(np.fft.rfft(clips * np.hanning(clips.shape[-1]))) ** 2 + 1e-12)


@pytest.mark.parametrize("name", list(CUES))
def test_clips_of_a_pair_differ_in_the_cue_alone(name, pairs):
    pair = pairs[name]
    assert pair.clips.shape == (2, round(SECONDS * 11025))
    assert pair.clips.dtype == np.float32
    assert np.abs(pair.clips).max() < 1
    assert np.sqrt(np.mean(pair.base.astype(float) ** 2)) == pytest.approx(cues.LEVEL, rel=1e-5)
    assert pair.present(0) or pair.present(1)
    assert not np.array_equal(*pair.clips)
    one, other = pair.clips
    np.testing.assert_allclose(one - other, pair.stems[0] - pair.stems[1], atol=1e-6)  # float32 sums below 1


@pytest.mark.parametrize("name", list(CUES))
def test_a_pair_is_the_same_again_and_another_number_is_another_song(name, pairs):
    np.testing.assert_array_equal(planted(name, 3, SECONDS).clips, pairs[name].clips)
    assert np.corrcoef(planted(name, 4, SECONDS).base, pairs[name].base)[0, 1] < 0.9


@pytest.mark.parametrize("name", list(CUES))
def test_the_truth_is_where_the_stem_is_louder_than_the_rest(name, pairs):
    pair = pairs[name]
    for label in (0, 1):
        mask = pair.truth(label, FRONT)
        assert mask.shape == (FRONT.bins, FRONT.clip_frames)
        assert 0 < mask.mean() < 0.6
    if not (pair.present(0) and pair.present(1)):
        np.testing.assert_array_equal(pair.truth(0, FRONT), pair.truth(1, FRONT))


def test_the_cheats_are_where_they_are_said_to_be(pairs):
    tone = pairs["tone"]
    mask = tone.truth(1, FRONT)
    assert mask.any(axis=0).all()
    whole = mask[:, 1:-1]  # where the clip begins and ends the tone is a click too
    assert set(np.flatnonzero(whole.any(axis=1))) <= set(np.flatnonzero(np.abs(HERTZ - 4800) < 65))
    level = 20 * np.log10(np.std(tone.stems[1]) / np.std(tone.base))
    assert level == pytest.approx(cues.TONE_DB, abs=0.1)
    band = pairs["low-pass"]
    assert HERTZ[band.truth(0, FRONT).any(axis=1)].min() > cues.CUT_HZ - 65  # three bins: the window is as wide
    full, cut = levels(band.clips)
    high = np.linspace(0, 11025 / 2, len(full)) > 4300
    assert full[high].mean() - cut[high].mean() > 30


def test_hats_are_high_and_thirds_are_all_that_is_between_major_and_minor(pairs):
    assert np.median(HERTZ[np.nonzero(pairs["hat"].truth(1, FRONT))[0]]) > 2500
    major, minor = levels(pairs["mode"].stems)
    hertz = np.linspace(0, 11025 / 2, len(major))

    def pitch_classes(level):
        """Those of the loudest partials between 300 and 1,100 Hz."""
        inside = (hertz > 300) & (hertz < 1100)
        top = hertz[inside][np.argsort(level[inside])[-8:]]
        return set(np.round(12 * np.log2(top / 440) + 69).astype(int) % 12)

    assert pitch_classes(major) <= {4, 9, 11}  # E, A and B
    assert pitch_classes(minor) <= {3, 8, 10}


def test_vibrato_moves_and_what_is_straight_does_not(pairs):
    straight, shaken = pairs["vibrato"].stems
    assert np.corrcoef(straight, shaken)[0, 1] < 0.9
    assert np.std(straight) == pytest.approx(np.std(shaken), rel=1e-3)


def test_an_unknown_cue_is_refused():
    with pytest.raises(SettingError, match=r"hat, bass.*'cowbell'"):
        planted("cowbell", 0)
