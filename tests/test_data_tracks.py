import collections
import csv
import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deconv_jax.data.store import Store, load_clips
from deconv_jax.data.tracks import PARTS, Track, index_folder, index_table, shuffle_labels, split
from deconv_jax.errors import InputError
from deconv_jax.sound.front_end import FrontEnd

FRONT = FrontEnd(clip_seconds=0.5)


def make(root, songs, seconds=2.0, rng=None):
    rng = rng or np.random.default_rng(0)
    for genre, count in songs.items():
        for number in range(count):
            path = root / genre / f"{number}.wav"
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


def store_in(tmp_path, per_song):
    return Store(tmp_path / "store", FRONT.sample_rate, FRONT.clip_samples, per_song)


def test_clips_know_their_song_and_bad_songs_are_named(tmp_path):
    make(tmp_path, {"rock": 5, "jazz": 5})
    (tmp_path / "rock" / "broken.wav").write_text("no sound")
    soundfile.write(tmp_path / "jazz" / "silent.wav", np.zeros(20000), 11025)
    parts = split(index_folder(tmp_path), (0.6, 0.2, 0.2), seed=0)
    clips, skipped = load_clips(
        parts, ["jazz", "rock"], Store(tmp_path / "store", FRONT.sample_rate, FRONT.clip_samples, 4)
    )
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
    with pytest.raises(InputError, match=rf"^root .*{message}"):
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
        load_clips(parts, ["a", "b"], store_in(tmp_path, 2), failed_share=1)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def artists_of_two_parts(parts):
    held = [{t.group for t in tracks if t.group} for tracks in parts.values()]
    return [(a & b) for n, a in enumerate(held) for b in held[:n] if a & b]


def song(number, label, group="", part=""):
    return Track(Path(f"{number}.wav"), f"{number}.wav", label, group, part)


def summary(parts):
    """Part → genre → number of songs."""
    return {part: dict(collections.Counter(t.label for t in tracks)) for part, tracks in parts.items()}


def test_without_artists_the_split_is_what_it_was():
    """The built-in demo's network was trained on this split, so a seed must go on giving it."""
    tracks = [song(n, "ab"[n % 2]) for n in range(20)]
    parts = split(tracks, (0.6, 0.2, 0.2), seed=3)
    assert {part: [int(t.path.stem) for t in ts] for part, ts in parts.items()} == {
        "train": [0, 2, 4, 8, 12, 18, 1, 3, 5, 9, 11, 17],
        "validation": [10, 14, 15, 19],
        "test": [6, 16, 7, 13],
    }


def test_a_second_level_of_folders_is_the_artist(tmp_path):
    touch(tmp_path, "rock/a.wav", "rock/ann/b.wav", "rock/ann/live/c.wav", "jazz/ann/d.ogg", "jazz/.x/e.wav", "f.wav")
    assert [(t.name, t.label, t.group, t.part) for t in index_folder(tmp_path)] == [
        ("jazz/ann/d.ogg", "jazz", "ann", ""),
        ("rock/a.wav", "rock", "", ""),
        ("rock/ann/b.wav", "rock", "ann", ""),
        ("rock/ann/live/c.wav", "rock", "ann", ""),
    ]


def test_links_in_a_circle_neither_hang_nor_add_songs(tmp_path):
    touch(tmp_path, "rock/ann/a.wav", "jazz/b.wav", "elsewhere/c.wav")
    music = tmp_path / "music"
    music.mkdir()
    for name in ("rock", "jazz"):
        (tmp_path / name).rename(music / name)
    (music / "again").symlink_to(music)
    (music / "above").symlink_to(tmp_path)
    (music / "round").symlink_to(music / "round")
    (music / "rock" / "ann" / "up").symlink_to(music / "rock")
    (music / "soul").symlink_to(tmp_path / "elsewhere")
    assert [t.name for t in index_folder(music)] == ["jazz/b.wav", "rock/ann/a.wav", "soul/c.wav"]


def table(path, rows, **kwargs):
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as handle:
        csv.writer(handle, **kwargs).writerows(rows)
    return path


def test_a_manifest_as_it_is(tmp_path):
    """The header that a collection made from Debian's game music has, tab by tab."""
    touch(tmp_path, "rock/ann/a.ogg", "jazz/bob/b.ogg")
    header = ["path", "genre", "artist", "package", "licence", "bytes"]
    rows = [["rock/ann/a.ogg", "rock", "ann", "x", "GPL", 1], ["jazz/bob/b.ogg", "jazz", "bob", "y", "GPL", 1]]
    tracks, skipped = index_table(table(tmp_path / "manifest.tsv", [header, *rows], delimiter="\t"))
    assert skipped == []
    by_name = {t.name: t for t in index_folder(tmp_path)}
    assert {t.name: t for t in tracks} == by_name


def test_an_export_of_mirdata_has_absolute_paths(tmp_path):
    touch(tmp_path / "data", "genres/blues/blues.00000.wav", "genres/rock/rock.00000.wav")
    (tmp_path / "export").mkdir()
    rows = [["track_id", "audio_path", "genre", "tempo"]]
    for genre in ("blues", "rock"):
        rows.append([f"{genre}.00000", tmp_path / "data" / "genres" / genre / f"{genre}.00000.wav", genre, "120.5"])
    file = table(tmp_path / "export" / "tracks.csv", rows)
    tracks, skipped = index_table(file, tmp_path / "data")
    assert [(t.name, t.label, t.group) for t in tracks] == [
        ("genres/blues/blues.00000.wav", "blues", ""),
        ("genres/rock/rock.00000.wav", "rock", ""),
    ]
    assert skipped == []
    assert index_table(file)[0][0].name == str(tmp_path / "data" / "genres" / "blues" / "blues.00000.wav")


def test_the_features_of_gtzan_name_files_without_their_folder(tmp_path):
    touch(tmp_path / "genres_original", "blues/blues.00000.wav", "rock/rock.00001.wav")
    rows = [["filename", "length", "tempo", "label"], ["blues.00000.wav", 661794, 123.0, "blues"]]
    file = table(tmp_path / "features_30_sec.csv", [*rows, ["rock.00001.wav", 661794, 99.0, "rock"]])
    tracks, _ = index_table(file, tmp_path / "genres_original")
    assert [t.name for t in tracks] == ["blues/blues.00000.wav", "rock/rock.00001.wav"]


def test_the_tracks_of_fma_as_they_are(tmp_path):
    """Three header rows; the table lists tracks that are not there, and tracks without a genre."""
    touch(tmp_path / "fma_small", "000/000002.mp3", "000/000005.mp3", "001/001040.mp3", "123/123456.mp3")
    groups = ["", "album", "artist", "artist", "set", "set", "track", "track", "track"]
    fields = ["", "title", "id", "name", "split", "subset", "genre_top", "genres", "title"]
    rows = [groups, fields, ["track_id"] + [""] * 8]
    rows += [
        [2, "AWOL - A\nWay Of Life", 1, "AWOL", "training", "small", "Hip-Hop", "[21]", "Food"],
        [3, "AWOL", 1, "AWOL", "training", "medium", "Hip-Hop", "[21]", "Not there"],
        [5, "AWOL", 1, "AWOL", "training", "small", "", "[21]", "No genre"],
        [1040, "x", 7, "y", "validation", "small", "Rock", "[]", "z"],
        [123456, "x", 8, "y", "test", "large", "Rock", "[]", "z"],
    ]
    tracks, skipped = index_table(table(tmp_path / "tracks.csv", rows), tmp_path / "fma_small")
    assert [(t.name, t.label, t.group, t.part) for t in tracks] == [
        ("000/000002.mp3", "Hip-Hop", "1", "train"),
        ("001/001040.mp3", "Rock", "7", "validation"),
        ("123/123456.mp3", "Rock", "8", "test"),
    ]
    assert [name for name, _ in skipped] == ["tracks.csv", "tracks.csv"]
    assert skipped[0][1].startswith("1 of its 5 tracks are not below")
    assert "1 of its 5 tracks have no genre_top" in skipped[1][1]
    with pytest.raises(InputError, match=r"5 of its 5 tracks are not below .*name by root=DIR"):
        index_table(tmp_path / "tracks.csv")


def test_rows_that_cannot_be_used_are_listed_with_their_reason(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav", "e.wav")
    rows = [
        ["Label", "File Path", "Split", "notes" * 1000],  # a NUL further up would say that this is no text
        ["rock", "a.wav", "Training"],
        ["jazz", "b.wav", "valid"],
        ["rock"],
        [],
        ["", "c.wav", "test"],
        ["rock", "c.wav", "eval"],
        ["rock", "./c.wav", "test"],
        ["rock", "d.wav", "bonus"],
        ["rock", "e.wav"],
        ["rock", "gone\n\x1b[2J.wav", "test"],
        ["rock", "nul\0.wav", "test"],
    ]
    tracks, skipped = index_table(table(tmp_path / "t.csv", rows))
    assert [(t.name, t.part) for t in tracks] == [("a.wav", "train"), ("b.wav", "validation"), ("c.wav", "test")]
    reasons = [reason for _, reason in skipped]
    wanted = ["no path", "no label", "the same file as in line 7", "'bonus' is none of train", "no part", "no file"]
    for reason, part in zip(reasons, [*wanted, "no file"], strict=True):
        assert part in reason
        assert reason.startswith("line ")
        assert reason.isprintable()
    assert all(name.isprintable() for name, _ in skipped)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_tables_in_the_dialects_of_spreadsheets(tmp_path, delimiter, encoding):
    touch(tmp_path, "a.wav")
    (tmp_path / os.fsdecode("é.wav".encode("latin-1" if encoding == "latin-1" else "utf-8"))).write_bytes(b"x")
    text = delimiter.join(("PATH", "Genre", "Artist Name")) + "\r\n"
    text += delimiter.join(("a.wav", '"a, b; c"', "x")) + "\r\n" + delimiter.join(("é.wav", "rock", "y")) + "\r\n"
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    tracks, skipped = index_table(tmp_path / "t.csv")
    assert skipped == []
    assert [(t.label, t.group) for t in tracks] == [("a, b; c", "x"), ("rock", "y")]
    assert all(t.path.exists() and t.name.isprintable() for t in tracks)


def test_a_column_of_sizes_is_no_split_and_paths_may_lead_out(tmp_path):
    touch(tmp_path, "here/a.wav", "b.wav")
    rows = [["path", "tag", "subset"], ["a.wav", "x", "small"], ["../b.wav", "y", "large"]]
    tracks, _ = index_table(table(tmp_path / "here" / "t.csv", rows))
    assert [(t.name, t.part) for t in tracks] == [("a.wav", ""), ("../b.wav", "")]
    assert tracks[1].path == tmp_path / "b.wav"


def test_a_table_without_labels_serves_where_none_are_needed(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    file = table(tmp_path / "t.csv", [["file"], ["a.wav"], ["b.wav"]])
    assert [t.label for t in index_table(file, labelled=False)[0]] == ["", ""]
    with pytest.raises(InputError, match=r"no column for the label: its first row is file; accepted is label, genre"):
        index_table(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"no column for the path: its first row is nothing; accepted is path"),
        (b"title,genre\nx,rock\n", r"no column for the path: its first row is title, genre"),
        (b"path,genre\n", r"no track that can be used \(it has no rows\)"),
        (b"path,genre\nx.wav,rock\n", r"first reason: line 2 of t\.csv: there is no file.*name by root=DIR"),
        (b"path,genre\nt.csv,rock\n", r"one genre only, 'rock'"),
        (b"RIFF\0\0\0\0WAVE", r"is no text"),
        (b"\xff\xfe\0\xd8\0", r"is no text in UTF-16"),
        (b'path,genre\nx,"' + b"y" * (1 << 24) + b"\n", r"after line 1: field larger.*quotation marks"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"^index .*t\.csv: .*{message}") as caught:
        index_table(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)


def test_missing_tables_folders_and_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("none.csv", "No such file"), (".", "no plain file"), ("pipe", "no plain file")):
        with pytest.raises(InputError, match=message):
            index_table(tmp_path / name)
    with pytest.raises(InputError, match=r"^root .*is no folder"):
        index_table(tmp_path / "none.csv", tmp_path / "none")


artists = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2), st.booleans()), min_size=9, max_size=40)


def collection(artists, mixed):
    """Songs of artists (how many songs, genre, whether a third of them are of the next genre)."""
    tracks = []
    for number, (songs, genre, second) in enumerate(artists):
        for n in range(songs):
            label = "abc"[(genre + (mixed and second and n % 3 == 2)) % 3]
            tracks.append(song(len(tracks), label, f"artist {number}" if number % 5 or mixed else ""))
    return tracks


@settings(max_examples=60, deadline=None)
@given(artists=artists, mixed=st.booleans(), seed=st.integers(0, 5), fold=st.sampled_from(["", "1/3", "4/4", "2/5"]))
def test_no_artist_stands_on_two_sides_and_every_part_has_every_genre(artists, mixed, seed, fold):
    tracks = collection(artists, mixed)
    needed = int(fold[-1]) if fold else 3
    held = collections.defaultdict(set)
    for track in tracks:
        held[track.label].add(track.group or track.name)
    assume(any(t.group for t in tracks))
    if any(len(groups) < needed for groups in held.values()):
        with pytest.raises(InputError, match=rf"genre '[abc]' has \d artist\(s\): at least {needed} are needed"):
            split(tracks, (0.6, 0.2, 0.2), seed, fold)
        return
    try:
        parts = split(tracks, (0.6, 0.2, 0.2), seed, fold)
    except InputError as error:
        if not mixed or "no way was found" not in str(error):
            raise
        return
    assert not artists_of_two_parts(parts)
    assert sorted(t.name for ts in parts.values() for t in ts) == sorted(t.name for t in tracks)
    for part in PARTS:
        assert {t.label for t in parts[part]} == set(held)
    assert split(tracks, (0.6, 0.2, 0.2), seed, fold) == parts


def test_folds_test_every_song_once_and_validate_on_the_next():
    tracks = collection([(n % 4 + 1, n % 3, False) for n in range(30)], mixed=False)
    folds = [split(tracks, (0.6, 0.2, 0.2), 0, f"{n}/5") for n in range(1, 6)]
    assert sorted(t.name for f in folds for t in f["test"]) == sorted(t.name for t in tracks)
    for this, following in zip(folds, folds[1:] + folds[:1], strict=True):
        assert this["validation"] == following["test"]
    assert split(tracks, (0.6, 0.2, 0.2), 1, "1/5") != folds[0]
    plain = [dataclasses.replace(t, group="") for t in tracks]
    counts = [summary(split(plain, (0.6, 0.2, 0.2), 0, f"{n}/5"))["test"] for n in range(1, 6)]
    for label in "abc":
        assert max(c[label] for c in counts) - min(c[label] for c in counts) <= 1


def test_large_artists_go_where_there_is_room_and_small_ones_by_chance():
    """Ten tracks of 100 belong into the test part: an artist of 30 never does, each of the small ones sometimes."""
    tracks = [song(n, "x", "big" if n < 30 else f"small {n % 35}") for n in range(100)]
    tracks += [song(100 + n, "y", f"other {n}") for n in range(10)]
    tested = set()
    for seed in range(60):
        parts = split(tracks, (0.8, 0.1, 0.1), seed)
        assert summary(parts)["test"] == {"x": 10, "y": 1}
        tested |= {t.group for t in parts["test"]}
    assert "big" not in tested
    assert len(tested) == 45


def test_artists_of_all_genres_that_leave_no_way_are_refused():
    """Seven genres of three artists each, like the lines of the Fano plane: two parts cannot both have every genre."""
    lines = [(n % 7, (n + 1) % 7, (n + 3) % 7) for n in range(7)]
    tracks = [song(10 * g + a, f"genre {g}", f"artist {a}") for g, line in enumerate(lines) for a in line]
    with pytest.raises(
        InputError, match=r"no way was found.*artists of 'genre 0' play other genres too.*split_by=song"
    ):
        split(tracks, (0.6, 0.2, 0.2), 0)


def test_parts_of_the_index_are_kept_and_missing_ones_come_out_of_training():
    given_parts = [song(n, "ab"[n % 2], f"artist {n // 4}", "test" if n >= 32 else "train") for n in range(40)]
    parts = split(given_parts, (0.6, 0.2, 0.2), 0)
    assert parts["test"] == given_parts[32:]
    assert summary(parts)["validation"] == {"a": 4, "b": 4}
    assert not artists_of_two_parts(parts)
    with pytest.raises(InputError, match=r"^fold 1/3: the index says itself"):
        split(given_parts, (0.6, 0.2, 0.2), 0, "1/3")
    divided = [song(n, "ab"[n % 2], "ann", PARTS[n % 3]) for n in range(12)]
    with pytest.raises(InputError, match=r"1 artist\(s\) into more than one part, such as 'ann'.*split_by=song"):
        split(divided, (0.6, 0.2, 0.2), 0)
    anybodys = [dataclasses.replace(t, group="") for t in divided]  # what split_by=song makes of them
    assert [len(ts) for ts in split(anybodys, (0.6, 0.2, 0.2), 0).values()] == [4, 4, 4]
    with pytest.raises(InputError, match="no track of genre 'b' into the training part"):
        split([song(0, "a", "", "train"), song(1, "b", "", "test"), song(2, "a", "", "validation")], (0.6, 0.2, 0.2), 0)
    with pytest.raises(InputError, match="no track that can be used into the training part"):
        split([song(0, "a", "", "test")], (0.6, 0.2, 0.2), 0)
    with pytest.raises(InputError, match=r"'a' has 1 song.*at least 2.*no track for validation"):
        split([song(0, "a", "", "train"), song(1, "a", "", "test")], (0.6, 0.2, 0.2), 0)


@pytest.mark.parametrize("fold", ["2", "0/5", "6/5", "1/2", "a/b", "1/5/6", "-1/5", "1.0/5"])
def test_what_is_no_fold_is_refused(fold):
    with pytest.raises(ValueError, match=r"config\.data\.fold must be empty or .* 2/5"):
        split([song(n, "ab"[n % 2]) for n in range(20)], (0.6, 0.2, 0.2), 0, fold)
