"""The built-in music: its facts against its notes, its notes against its sound, and its files."""

import hashlib
import os
import re
import time
from itertools import pairwise

import librosa
import numpy as np
import pytest
import soundfile

from deconv_jax.errors import InputError
from deconv_jax.music import builtin, stems
from deconv_jax.music import compose as composing
from deconv_jax.music.builtin import GENRES, build, compose, files, normalise_loudness, plan
from deconv_jax.music.compose import BAR, STEP, Dice, harmony, score, voicings
from deconv_jax.music.styles import SCALES, STYLES
from deconv_jax.system import runtime, workers

SEEDS = range(12)
SOUNDING = (("ballad", 0), ("dance", 0), ("dance", 2), ("hiphop", 0))

# Digests of tempo, mastering, instruments and notes in ticks. They may change only together with COMPOSER_VERSION.
DIGESTS = {
    ("ballad", 0): "e5dbf1604d013f7f",
    ("ballad", 7): "4b40d79b49471fea",
    ("ballad", 123456): "bf3e568cb898ca69",
    ("dance", 0): "66660ffcc2cd35ca",
    ("dance", 7): "d199dcb3f025b1e5",
    ("dance", 123456): "77e9577c65c017ad",
    ("hiphop", 0): "75f73a192e67105c",
    ("hiphop", 7): "ee07b7e3ec37ca6d",
    ("hiphop", 123456): "3af187fc9a15d7b2",
}


@pytest.fixture(scope="module")
def plans():
    return {genre: [plan(genre, seed) for seed in range(60)] for genre in GENRES}


@pytest.fixture(scope="module")
def sounds():
    return {(genre, seed): builtin.make_song(genre, seed) for genre, seed in SOUNDING}


def digest(genre: str, seed: int) -> str:
    song = plan(genre, seed)
    facts = (song.tempo, song.eq, sorted(song.parts.items()), sorted(score(song).items()))
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def midi_bytes(genre: str, seed: int, path) -> bytes:
    compose(genre, seed).write(str(path))
    return path.read_bytes()


# --- determinism ----------------------------------------------------------------------------


@pytest.mark.parametrize("genre", GENRES)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_song(genre, tmp_path):
    first = midi_bytes(genre, 3, tmp_path / "a.mid")
    assert midi_bytes(genre, 3, tmp_path / "b.mid") == first
    assert midi_bytes(genre, 4, tmp_path / "c.mid") != first


@pytest.mark.parametrize(("genre", "seed"), list(DIGESTS))
def test_notes_are_those_of_every_other_machine(genre, seed):
    assert digest(genre, seed) == DIGESTS[genre, seed]


def test_dice_are_fair_enough_and_stay_within_their_bounds():
    dice = Dice(7)
    throws = [dice.between(1, 6) for _ in range(6000)]
    counts = np.bincount(throws, minlength=7)[1:]
    assert set(throws) == {1, 2, 3, 4, 5, 6}
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)  # five standard deviations


def test_unknown_genres_and_negative_seeds_are_refused():
    with pytest.raises(ValueError, match=r"polka.*ballad, dance, hiphop"):
        plan("polka", 0)
    with pytest.raises(ValueError, match="-1"):
        compose("dance", -1)


# --- facts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("genre", GENRES)
def test_songs_of_a_genre_differ(genre, plans):
    songs = plans[genre]
    assert len({song.tempo for song in songs}) > 15
    assert len({song.tonic for song in songs}) == 12
    assert {song.mode for song in songs} == {"major", "minor"}
    assert len({tuple(chord.name for chord in song.verse) for song in songs}) > 7
    assert len({song.groove for song in songs}) == len(STYLES[genre].grooves)
    assert len({tuple(section.name for section in song.form) for song in songs}) > 4


def test_durations_are_between_half_a_minute_and_a_minute(plans):
    for songs in plans.values():
        assert all(30 <= song.duration <= 60 for song in songs)


def test_tempi_overlap_between_every_two_genres(plans):
    for one in GENRES:
        for other in GENRES:
            low = max(min(song.tempo for song in plans[genre]) for genre in (one, other))
            high = min(max(song.tempo for song in plans[genre]) for genre in (one, other))
            shared = [song for song in plans[one] if low <= song.tempo <= high]
            assert len(shared) >= 5, (one, other)


@pytest.mark.parametrize(("role", "shared"), [("comp", 6), ("bass", 4), ("pad", 5), ("lead", 8),
                                          ("figure", 5), ("drums", 4)])  # fmt: skip
def test_instruments_are_shared_by_all_genres(role, shared, plans):
    programs = [{song.parts[role].program for song in plans[genre]} for genre in GENRES]
    assert len(set.intersection(*programs)) >= shared


# --- notes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("genre", GENRES)
def test_chords_are_of_the_planned_harmony(genre):
    for seed in SEEDS:
        song = plan(genre, seed)
        written = score(song)
        for span in harmony(song):
            for role in ("comp", "pad", "figure"):
                for event in written[role]:
                    # The middle of the overlap: timing jitter may cross a chord's edges.
                    begin, end = event.start, event.start + event.length
                    if min(end, span.end) - max(begin, span.start) > STEP // 2:
                        assert event.pitch % 12 in span.chord.tones, (seed, role, event, span)


@pytest.mark.parametrize("genre", GENRES)
def test_bass_plays_roots_on_the_beat_and_keeps_to_scale_and_chord(genre):
    for seed in SEEDS:
        song = plan(genre, seed)
        spans = harmony(song)
        scale = {(song.tonic + step) % 12 for step in SCALES[song.mode]}
        for event in score(song)["bass"]:
            span = next(s for s in spans if s.start <= event.start + STEP // 4 < s.end)
            if abs(event.start - span.start) < STEP // 4:
                assert event.pitch % 12 == span.chord.tones[0]
            assert event.pitch % 12 in scale | set(span.chord.tones)


def test_melody_rests_on_chord_tones_and_repeats_its_motif():
    repeated = 0
    for genre in GENRES:
        for seed in SEEDS:
            song = plan(genre, seed)
            spans = harmony(song)
            bars: dict[int, list[int]] = {}
            for event in score(song)["lead"]:
                middle = event.start + event.length // 2
                span = next(s for s in spans if s.start <= event.start + STEP // 2 < s.end)
                bars.setdefault(middle // BAR, []).append(round(event.start % BAR / STEP))
                if event.length > 4 * STEP:
                    assert event.pitch % 12 in span.chord.tones
            rhythms = [tuple(rhythm) for rhythm in bars.values()]
            repeated += any(rhythms.count(rhythm) > 1 for rhythm in rhythms)
    assert repeated > 0.8 * len(GENRES) * len(SEEDS)


def test_voices_move_little_and_do_not_cross():
    chords = [span.chord for span in harmony(plan("ballad", 1))]
    settings = voicings(chords, 3, 60)
    for before, after in pairwise(settings):
        assert list(after) == sorted(set(after))
        # Root position throughout would leap by a fourth or more in each voice.
        assert sum(abs(a - b) for a, b in zip(before, after, strict=True)) <= 9


@pytest.mark.parametrize("genre", GENRES)
def test_no_key_is_struck_while_it_sounds_and_every_note_is_playable(genre):
    for seed in SEEDS:
        song = plan(genre, seed)
        for events in score(song).values():
            sounding: dict[int, int] = {}
            for event in events:
                assert 0 <= event.start < event.start + event.length <= song.bars * BAR + STEP
                assert 21 <= event.pitch <= 108
                assert 1 <= event.velocity <= 127
                assert sounding.get(event.pitch, 0) <= event.start
                sounding[event.pitch] = event.start + event.length


def test_kicks_fall_on_every_beat_in_dance_and_off_it_in_hiphop():
    def on_beat(genre: str) -> float:
        kicks = [e for seed in SEEDS for e in score(plan(genre, seed))["drums"] if e.pitch == 36]
        return float(np.mean([round(e.start / STEP) % 4 == 0 for e in kicks]))

    assert on_beat("dance") > 0.9
    assert on_beat("hiphop") < 0.75


# --- sound ----------------------------------------------------------------------------------


def test_songs_are_as_long_as_planned_equally_loud_and_below_full_scale(sounds):
    for (genre, seed), waveform in sounds.items():
        assert waveform.dtype == np.float32
        assert waveform.ndim == 1
        assert len(waveform) / builtin.SAMPLE_RATE == pytest.approx(plan(genre, seed).duration, abs=0.1)
        level = 20 * np.log10(np.sqrt(np.mean(waveform.astype(np.float64) ** 2)))
        assert level == pytest.approx(builtin.LOUDNESS_DBFS, abs=0.1)
        assert np.abs(waveform).max() <= builtin.PEAK_CEILING


def test_sound_dies_away_at_the_end(sounds):
    for waveform in sounds.values():
        assert np.abs(waveform[-200:]).max() < 0.1 * np.abs(waveform).max()


@pytest.mark.parametrize("seed", [0, 2])
def test_dance_tempo_is_heard(seed, sounds):
    onsets = librosa.onset.onset_strength(y=sounds["dance", seed], sr=11025, hop_length=128)
    heard = librosa.feature.tempo(onset_envelope=onsets, sr=11025, hop_length=128)[0]
    # Allow the octave, which tempo trackers cannot tell, and 4 % for their coarse lags.
    ratio = heard / plan("dance", seed).tempo
    assert min(abs(ratio / octave - 1) for octave in (0.5, 1, 2)) < 0.04


# Krumhansl and Kessler's (1982) ratings of the twelve tones in a major and in a minor key.
PROFILES = {
    "major": [6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88],
    "minor": [6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17],
}


def heard_key(waveform: np.ndarray) -> tuple[int, str]:
    chroma = librosa.feature.chroma_stft(y=waveform, sr=11025, n_fft=4096, tuning=0.0).mean(axis=1)
    scores = {
        (tonic, mode): np.corrcoef(np.roll(profile, tonic), chroma)[0, 1]
        for mode, profile in PROFILES.items()
        for tonic in range(12)
    }
    return max(scores, key=lambda key: scores[key])


def related(key: tuple[int, str]) -> set[tuple[int, str]]:
    """A key itself, its relative and parallel keys, and the keys a fifth up and down."""
    tonic, mode = key
    other = "minor" if mode == "major" else "major"
    relative = (tonic + (9 if mode == "major" else 3)) % 12
    return {key, (relative, other), (tonic, other), ((tonic + 7) % 12, mode),
            ((tonic + 5) % 12, mode)}  # fmt: skip


def test_key_is_heard(sounds):
    for (genre, seed), waveform in sounds.items():
        song = plan(genre, seed)
        assert heard_key(waveform) in related((song.tonic, song.mode)), (genre, seed)


def test_normalising_refuses_silence_and_rounds_off_peaks():
    with pytest.raises(ValueError, match="silent"):
        normalise_loudness(np.zeros(100, np.float32))
    sparse = np.full(11025, 1e-3, np.float32)
    sparse[::500] = 1
    even = normalise_loudness(sparse)
    assert np.abs(even).max() <= builtin.PEAK_CEILING
    rms = np.sqrt(np.mean(even.astype(np.float64) ** 2))
    assert 20 * np.log10(rms) == pytest.approx(builtin.LOUDNESS_DBFS, abs=0.1)
    click = np.zeros(11025, np.float32)
    click[0] = 1
    with pytest.raises(ValueError, match="does not reach"):
        normalise_loudness(click)


def test_equaliser_follows_its_curve():
    tone = np.sin(2 * np.pi * 1000 * np.arange(11025) / 11025).astype(np.float32)
    gains = tuple(6.0 if band == 1000.0 else 0.0 for band in composing.EQ_BANDS)
    shaped = builtin.equalise(tone, gains)
    assert shaped.shape == tone.shape
    middle = slice(2000, 9000)
    gain = 20 * np.log10(shaped[middle].std() / tone[middle].std())
    assert gain == pytest.approx(6.0, abs=0.05)


# --- files ----------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """A song that takes no time, so that the handling of files is tested alone."""
    made = []

    def make_song(genre: str, seed: int) -> np.ndarray:
        made.append((genre, seed))
        return np.full(1000, 0.1, np.float32)

    monkeypatch.setattr(builtin, "make_song", make_song)
    monkeypatch.setattr(builtin, "cores", lambda: 1)
    return made


def test_build_writes_songs_in_folders_named_after_genres(tmp_path, quick):
    wanted = build(tmp_path, songs_per_genre=2, progress=False)
    assert wanted == sorted(wanted) == files(tmp_path, 2)
    assert sorted(path.relative_to(path.parent.parent).as_posix() for path in wanted) == [
        f"{genre}/{genre}_{number:04d}.flac" for genre in GENRES for number in range(2)
    ]
    info = soundfile.info(str(wanted[0]))
    assert (info.samplerate, info.channels, info.format, info.subtype) == (
        11025, 1, "FLAC", "PCM_16",
    )  # fmt: skip
    assert [p for p in wanted[0].parent.iterdir() if p.suffix != ".flac"] == []


def test_build_makes_only_what_is_missing_and_keeps_the_rest(tmp_path, quick):
    two = build(tmp_path, songs_per_genre=2, progress=False)
    stamps = {path: path.stat().st_mtime_ns for path in two}
    two[3].unlink()
    quick.clear()
    three = build(tmp_path, songs_per_genre=3, progress=False)
    assert sorted(quick) == sorted([(g, 2) for g in GENRES] + [("dance", 1)])
    assert set(two) < set(three)
    assert all(path.stat().st_mtime_ns == stamps[path] for path in two if path != two[3])
    # A smaller request is exactly the smaller set, though more songs lie there.
    assert build(tmp_path, songs_per_genre=2, progress=False) == two


def test_a_second_build_is_instant_and_makes_no_folder(tmp_path, quick):
    build(tmp_path, songs_per_genre=60, progress=False)
    quick.clear()
    start = time.perf_counter()
    build(tmp_path, songs_per_genre=60, progress=False)
    assert not quick
    assert time.perf_counter() - start < 1


def test_a_leftover_temporary_file_is_no_song(tmp_path, quick):
    target = files(tmp_path, 1)[0]
    target.parent.mkdir(parents=True)
    leftover = target.with_name(f".{target.stem}.1.partial")
    leftover.write_bytes(b"fLaC half a so")
    wanted = build(tmp_path, songs_per_genre=1, progress=False)
    assert leftover not in wanted
    assert all(soundfile.info(str(p)).frames == 1000 for p in wanted)
    assert leftover.suffix != ".flac"
    assert leftover.name.startswith(".")


def test_a_song_that_fails_leaves_nothing_behind(tmp_path, quick, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="No space left"):
        build(tmp_path, songs_per_genre=1, progress=False)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    with pytest.raises(InputError, match=re.escape(str(blocked / "music"))):
        build(blocked / "music", songs_per_genre=1, progress=False)


def test_corpora_of_different_seeds_share_no_song_and_one_root(tmp_path):
    first, second = files(tmp_path, 5, seed=0), files(tmp_path, 5, seed=1)
    assert not set(first) & set(second)
    assert first[0].parent.parent == second[0].parent.parent
    with pytest.raises(ValueError, match="songs_per_genre is 0"):
        files(tmp_path, 0)
    with pytest.raises(ValueError, match="seed is -1"):
        files(tmp_path, 1, seed=-1)


def test_worker_processes_write_the_same_songs(tmp_path, sounds):
    paths = {genre: tmp_path / f"{genre}_0000.flac" for genre in ("ballad", "hiphop")}
    assert len(list(builtin._written(list(paths.values()), 2))) == 2
    for genre, path in paths.items():
        written, rate = soundfile.read(path, dtype="float32")
        assert rate == builtin.SAMPLE_RATE
        # One step of 16 bits.
        np.testing.assert_allclose(written, sounds[genre, 0], rtol=0, atol=2**-15)


def test_songs_that_a_worker_lost_are_made_here(tmp_path, quick, monkeypatch):
    lost = workers.Lost("crashed the process", True)
    monkeypatch.setattr(workers, "run", lambda function, tasks, count: ((path, lost) for path, _ in tasks))
    paths = [tmp_path / f"dance_{number:04d}.flac" for number in range(3)]
    assert len(list(builtin._written(paths, 2))) == 3
    assert all(path.exists() for path in paths)


def test_cache_folder_is_the_platforms():
    assert "deconv_jax" in str(runtime.cache_dir())


# --- stems ----------------------------------------------------------------------------------


def test_stems_add_up_to_the_song(sounds):
    song = sounds["dance", 2]
    found = stems.make_stems("dance", 2)
    assert set(found) <= set(stems.STEMS)
    assert {"kick", "bass", "comp", "lead"} <= set(found)
    assert all(np.any(stem) and stem.shape == song.shape for stem in found.values())
    # Rounding of the renderer's 16 bits and of its own sums.
    assert np.std(sum(found.values()) - song) < 1e-3 * np.std(song)


def test_stems_that_end_a_sample_sooner_or_later_add_up_as_well(monkeypatch, rng):
    bass, lead = rng.normal(0, 0.1, (2, 20_000)).astype(np.float32)
    bass[-1] = 0
    monkeypatch.setattr(stems, "render", lambda *_: bass + lead)
    monkeypatch.setattr(stems, "render_stems", lambda *_: {"bass": bass[:-1], "lead": np.append(lead, 0)})
    found = stems.make_stems("dance", 2)
    assert {len(stem) for stem in found.values()} == {20_000}
    whole = normalise_loudness(builtin.equalise(bass + lead, plan("dance", 2).eq))
    assert np.std(sum(found.values()) - whole) < 1e-3 * np.std(whole)


def test_drums_are_taken_apart_by_kind_and_last_as_long_as_the_song():
    midi = compose("hiphop", 0)
    parts = stems.split(midi)
    drums = next(player for player in midi.instruments if player.is_drum)
    kinds = [part for part in parts.values() if part.instruments[0].is_drum]
    assert sum(len(part.instruments[0].notes) for part in kinds) == len(drums.notes)
    assert {note.pitch for note in parts["kick"].instruments[0].notes} == {36}
    assert {part.get_end_time() for part in parts.values()} == {midi.get_end_time()}
    assert not any(control.number == 119 for player in midi.instruments for control in player.control_changes)
