import numpy as np
import pytest
import soundfile

from deconv_jax.corpus.store import load_clips
from deconv_jax.corpus.tracks import index_folder, shuffle_labels, split
from deconv_jax.errors import InputError
from deconv_jax.spectrogram import FrontEnd

FRONT = FrontEnd(clip_seconds=0.5)


def make(root, songs, seconds=2.0, rng=None):
    rng = rng or np.random.default_rng(0)
    for genre, count in songs.items():
        for number in range(count):
            path = root / genre / f"artist{number % 2}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, rng.uniform(-0.5, 0.5, round(seconds * 11025)), 11025)


def test_songs_are_split_whole_and_in_proportion(tmp_path):
    make(tmp_path, {"rock": 20, "jazz": 40, ".cache": 2})
    tracks = index_folder(tmp_path)
    assert len(tracks) == 60
    parts = split(tracks, (0.825, 0.0875, 0.0875), seed=0)
    names = [t.name for ts in parts.values() for t in ts]
    assert sorted(names) == sorted(t.name for t in tracks)
    counts = {p: [sum(t.label == g for t in ts) for g in ("rock", "jazz")] for p, ts in parts.items()}
    assert counts == {"train": [16, 32], "validation": [2, 4], "test": [2, 4]}
    assert split(tracks, (0.825, 0.0875, 0.0875), seed=0) == parts
    assert split(tracks, (0.825, 0.0875, 0.0875), seed=1) != parts


def test_shuffled_labels_are_dealt_out_by_song_and_spare_the_test_part(tmp_path):
    make(tmp_path, {"rock": 20, "jazz": 40})
    parts = split(index_folder(tmp_path), (0.6, 0.2, 0.2), seed=0)
    shuffled = shuffle_labels(parts, seed=0)
    assert shuffled["test"] == parts["test"]
    for part in ("train", "validation"):
        before, after = parts[part], shuffled[part]
        assert [t.path for t in after] == [t.path for t in before]
        assert sorted(t.label for t in after) == sorted(t.label for t in before)
        assert any(a.label != b.label for a, b in zip(after, before, strict=True))
    assert shuffle_labels(parts, seed=0) == shuffled
    assert shuffle_labels(parts, seed=1) != shuffled
    assert parts == split(index_folder(tmp_path), (0.6, 0.2, 0.2), seed=0)


def test_clips_know_their_song_and_bad_songs_are_named(tmp_path):
    make(tmp_path, {"rock": 5, "jazz": 5})
    (tmp_path / "rock" / "broken.wav").write_text("no sound")
    soundfile.write(tmp_path / "jazz" / "silent.wav", np.zeros(20000), 11025)
    parts = split(index_folder(tmp_path), (0.6, 0.2, 0.2), seed=0)
    clips, skipped = load_clips(parts, ["jazz", "rock"], FRONT, 4, tmp_path / "store")
    assert sorted(name for name, _ in skipped) == ["jazz/silent.wav", "rock/broken.wav"]
    assert sum(len(c.labels) for c in clips.values()) == 40
    for part, some in clips.items():
        assert some.waveforms.shape == (len(some.labels), FRONT.clip_samples)
        assert some.waveforms.dtype == np.int16
        for song, label in zip(some.songs, some.labels, strict=True):
            assert parts[part][song].label == ["jazz", "rock"][label]


@pytest.mark.parametrize(("songs", "message"), [({}, "0 genre"), ({"rock": 3}, "1 genre")])
def test_folders_without_two_genres_are_refused(tmp_path, songs, message):
    make(tmp_path, songs)
    with pytest.raises(InputError, match=rf"--config\.data\.root.*{message}"):
        index_folder(tmp_path)


def test_too_few_songs_or_wrong_shares_are_refused(tmp_path):
    make(tmp_path, {"rock": 3, "jazz": 2})
    with pytest.raises(InputError, match=r"'jazz' has 2 song"):
        split(index_folder(tmp_path), (0.8, 0.1, 0.1), seed=0)
    with pytest.raises(ValueError, match=r"config\.data\.split"):
        split(index_folder(tmp_path), (0.8, 0.1, 0.2), seed=0)
    with pytest.raises(InputError, match="no folder"):
        index_folder(tmp_path / "missing")


def test_nothing_readable_is_an_error(tmp_path):
    for genre in ("a", "b"):
        (tmp_path / genre).mkdir()
        for number in range(3):
            (tmp_path / genre / f"{number}.wav").write_text("no")
    parts = split(index_folder(tmp_path), (0.4, 0.3, 0.3), seed=0)
    with pytest.raises(InputError, match=r"could be used for the train part; the first: "):
        load_clips(parts, ["a", "b"], FRONT, 2, tmp_path / "store", failed_share=1)
