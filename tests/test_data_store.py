"""The clip store: what comes out of it, what it remembers, and what kills, full disks and torn files do to it."""

import csv
import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
import soxr

from deconv_jax.data import store
from deconv_jax.data.store import Store, Stored, StoredWaveforms, load_clips, store_clips, store_file
from deconv_jax.data.tracks import Track
from deconv_jax.errors import InputError
from deconv_jax.music import builtin
from deconv_jax.sound import audio
from deconv_jax.system import workers

RATE, CLIP, PER_SONG = 11025, 2000, 4


def songs(folder, count, rate=22050, seconds=1.0, channels=2):
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{n}.wav" for n in range(count)]
    for path in paths:
        soundfile.write(path, rng.uniform(-0.9, 0.9, (round(seconds * rate), channels)), rate)
    return [Track(path, path.name, "ab"[n % 2]) for n, path in enumerate(paths)]


def place(folder):
    return folder / f"{RATE}hz-{CLIP}x{PER_SONG}-v{store.FORMAT}"


def contents(folder):
    return {path.name: path.read_bytes() for path in place(folder).glob("*/*.npy")}


def at_once(path, rate, clip, per_song):
    """The clips of a file that is decoded, mixed and resampled whole."""
    samples, own = soundfile.read(path, dtype="float32", always_2d=True)
    waveform = samples.mean(axis=1, dtype=np.float32)
    if own != rate:
        waveform = soxr.resample(waveform, own, rate, quality="HQ")
    pieces = np.stack([audio.cut(waveform, s, clip) for s in audio.clip_starts(len(waveform), clip, per_song)])
    return np.round(np.clip(pieces, -1, 1 - 2**-15) * 32768).astype(np.int16)


@pytest.fixture
def asked(monkeypatch):
    """Names of the files that workers are asked to read."""
    names, run = [], workers.run

    def noting(function, tasks, *args):
        def noted():
            for number, task in tasks:
                names.append(os.path.basename(task["path"]))
                yield number, task

        return run(function, noted(), *args)

    monkeypatch.setattr(workers, "run", noting)
    return names


# --- what is stored --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "rate", "channels", "seconds"),
    [
        ("wav", 44100, 2, 7.3),
        ("flac", 48000, 1, 3.1),
        ("ogg", 22050, 2, 4.0),
        ("mp3", 44100, 2, 5.0),
        ("wav", 11025, 1, 9),
    ],
)
def test_clips_are_those_of_the_file_decoded_and_resampled_at_once(tmp_path, ending, rate, channels, seconds):
    """Bit for bit, over several blocks."""
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, np.random.default_rng(1).uniform(-1, 1, (round(seconds * rate), channels)), rate)
    entry = store_file(str(path), str(store_folder(tmp_path)), RATE, CLIP, PER_SONG)
    stored = np.load(tmp_path / "store" / entry["sha"][:2] / f"{entry['sha']}.npy")
    np.testing.assert_array_equal(stored, at_once(path, RATE, CLIP, PER_SONG))
    assert entry["clips"] == len(stored) == PER_SONG
    again = store_file(str(path), str(tmp_path / "store"), RATE, CLIP, PER_SONG)  # from the file in the store
    assert again == entry
    assert entry["samples"] == len(audio.read(path, RATE))


def store_folder(tmp_path):
    folder = tmp_path / "store"
    (folder / ".partial").mkdir(parents=True)
    return folder


def test_a_song_of_the_built_in_music_is_stored_as_it_was_heard_before_there_was_a_store(tmp_path):
    path = builtin.files(tmp_path / "music", songs_per_genre=1)[0]
    path.parent.mkdir(parents=True)
    builtin._write_song(path)
    entry = store_file(str(path), str(store_folder(tmp_path)), RATE, 44100, 10)
    stored = np.load(tmp_path / "store" / entry["sha"][:2] / f"{entry['sha']}.npy")
    np.testing.assert_array_equal(stored, at_once(path, RATE, 44100, 10))


def test_a_store_is_filled_once_and_found_again(tmp_path, asked):
    tracks = songs(tmp_path / "music", 5)
    (tmp_path / "music" / "copy.wav").write_bytes(tracks[0].path.read_bytes())
    (tmp_path / "music" / "broken.wav").write_bytes(b"no sound")
    soundfile.write(tmp_path / "music" / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "music" / "short.wav", np.ones(CLIP // 8 - 1), RATE)
    for name in ("copy", "broken", "silent", "short", "missing"):
        tracks.append(Track(tmp_path / "music" / f"{name}.wav", f"{name}.wav", "a"))
    first = store_clips(tracks, Store(tmp_path / "clips", RATE, CLIP, PER_SONG))
    stored, skipped = first
    assert sorted(asked) == sorted(t.name for t in tracks)
    assert stored[0] == stored[5]  # the same content
    assert [s is None for s in stored] == [False] * 6 + [True] * 4
    reasons = dict(skipped)
    assert list(reasons) == ["broken.wav", "silent.wav", "short.wav", "missing.wav"]
    for name, part in zip(
        reasons, ("no readable sound", "silent throughout", "too short", "No such file"), strict=True
    ):
        assert part in reasons[name]
        assert str(tmp_path) not in reasons[name]
    for track, song in zip(tracks, stored, strict=True):
        if song:
            np.testing.assert_array_equal(np.load(song.path), at_once(track.path, RATE, CLIP, PER_SONG))
    asked.clear()
    assert store_clips(tracks, Store(tmp_path / "clips", RATE, CLIP, PER_SONG)) == first
    assert asked == ["missing.wav"]  # it might have come
    # A file that is touched is hashed and found; one that changed is decoded; others are left alone.
    os.utime(tracks[1].path)
    tracks[2].path.write_bytes(tracks[3].path.read_bytes())
    asked.clear()
    again = store_clips(tracks, Store(tmp_path / "clips", RATE, CLIP, PER_SONG))[0]
    assert sorted(asked) == ["1.wav", "2.wav", "missing.wav"]
    assert again[1] == stored[1]
    assert again[2] == stored[3]
    other = store_clips(tracks[:1], Store(tmp_path / "clips", RATE, CLIP, PER_SONG + 1))[0]
    assert other[0].clips == PER_SONG + 1


def test_shares_fill_one_store(tmp_path, asked):
    tracks = songs(tmp_path / "music", 5)
    for share in range(2):
        stored, skipped = store_clips(tracks, Store(tmp_path / "clips", RATE, CLIP, PER_SONG), share=(share, 2))
        assert [s is not None for s in stored] == [n % 2 == share for n in range(5)]
        assert not skipped
    assert len(asked) == 5
    assert all(store_clips(tracks, Store(tmp_path / "clips", RATE, CLIP, PER_SONG))[0])
    assert len(asked) == 5


# --- processes that die ----------------------------------------------------------------------


def test_what_ends_a_worker_costs_its_own_input_only(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 1000)
    ways = ["crash", "spin", "hoard", "leave", "raise", "print", "killed once", "killed", "fine"]
    tasks = [(way, {"how": way, "path": str(tmp_path / "mark")}) for way in ways]
    limits = workers.Limits(seconds=0.5, memory=2 << 30)
    results = dict(workers.run("misbehaving:behave", tasks, 2, limits))
    assert results["fine"] == "fine"
    assert results["print"] == "print"
    assert results["killed once"] == "survived"
    lost = {way: (r.reason, r.certain) for way, r in results.items() if isinstance(r, workers.Lost)}
    assert lost == {
        "crash": ("crashed the process that read it (SIGSEGV)", True),
        "spin": ("takes more than 0.5 s of processor time", True),
        "hoard": ("needs more than 2 GiB of memory", True),
        "leave": ("was being read by a process that was ended (exit status 3), twice", False),
        "raise": ("KeyError: 'no\\nsuch'", False),
        "killed": ("was being read by a process that was ended (SIGKILL), twice", False),
    }


def test_waiting_for_ever_is_ended_too(monkeypatch):
    monkeypatch.setattr(workers, "PATIENCE", 1)
    tasks = [(way, {"how": way}) for way in ("sleep", "fine")]
    results = dict(workers.run("misbehaving:behave", tasks, 1, workers.Limits(seconds=5.0)))
    assert results == {"sleep": workers.Lost("took longer than 5 s", False), "fine": "fine"}


def test_stopping_early_leaves_no_process(monkeypatch):
    started, popen = [], subprocess.Popen

    def noting(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(workers.subprocess, "Popen", noting)
    results = workers.run("misbehaving:behave", ((n, {"how": "sleep" if n else "fine"}) for n in range(9)), 2)
    assert next(results) == (0, "fine")
    results.close()
    assert started
    assert all(process.poll() is not None for process in started)


def test_a_worker_that_cannot_start_is_no_fault_of_the_files(capfd):
    with pytest.raises(RuntimeError, match="could not be started"):
        list(workers.run("misbehaving:nothing", [(0, {})], 1))
    assert "AttributeError" in capfd.readouterr().err


def test_a_crash_is_remembered_and_a_kill_is_not(tmp_path, monkeypatch):
    tracks = songs(tmp_path / "music", 3)

    def run(function, tasks, *args):
        for number, _ in tasks:
            yield number, workers.Lost(f"reason {number}", number == 0)

    with monkeypatch.context() as patch:
        patch.setattr(workers, "run", run)
        _, skipped = store_clips(tracks, Store(tmp_path / "clips", RATE, CLIP, PER_SONG))
        assert skipped == [(f"{n}.wav", f"reason {n}") for n in range(3)]
    stored, skipped = store_clips(tracks, Store(tmp_path / "clips", RATE, CLIP, PER_SONG))
    assert skipped == [("0.wav", "reason 0")]
    assert all(stored[1:])


KILLED = """
import sys
from pathlib import Path
from deconv_jax.data import store
from deconv_jax.data.tracks import Track
tracks = [Track(Path(p), p, "a") for p in sys.argv[2:]]
print(store.store_clips(tracks, store.Store(sys.argv[1], {}, {}, {})))
"""


def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path):
    tracks = songs(tmp_path / "music", 30)
    whole = store_clips(tracks, Store(tmp_path / "whole", RATE, CLIP, PER_SONG))
    assert all(whole[0])
    code = KILLED.format(RATE, CLIP, PER_SONG)
    command = [sys.executable, "-c", code, str(tmp_path / "killed"), *(str(t.path) for t in tracks)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    dice = random.Random(0)
    for done in sorted(dice.sample(range(28), 5)):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(contents(tmp_path / "killed")) < done:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.02))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        for name, data in contents(tmp_path / "killed").items():
            assert data == (place(tmp_path / "whole") / name[:2] / name).read_bytes()
    journal = place(tmp_path / "killed") / "journal.jsonl"
    with open(journal, "r+b") as file:  # the moment that is too short to be met by chance
        file.truncate(journal.stat().st_size - 7)
    stored, skipped = store_clips(tracks, Store(tmp_path / "killed", RATE, CLIP, PER_SONG))
    assert not skipped
    assert [s.path.name for s in stored] == [s.path.name for s in whole[0]]
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    broken = 0
    for line in journal.read_text().splitlines():
        try:
            json.loads(line)
        except ValueError:
            broken += 1
    assert broken == 1


def test_a_torn_file_is_made_anew_and_one_of_another_kind_is_found_out(tmp_path):
    tracks = songs(tmp_path / "music", 3)
    stored, _ = store_clips(tracks, Store(tmp_path / "clips", RATE, CLIP, PER_SONG))
    before = contents(tmp_path / "clips")
    with open(stored[0].path, "r+b") as file:
        file.truncate(5000)
    stored[1].path.unlink()
    assert store_clips(tracks, Store(tmp_path / "clips", RATE, CLIP, PER_SONG))[0] == stored
    assert contents(tmp_path / "clips") == before
    with open(stored[2].path, "r+b") as file:
        file.write(bytes(200))
    waveforms = StoredWaveforms(stored, CLIP)
    with pytest.raises(InputError, match=r"not as they were written; run the same command again"):
        waveforms[2 * PER_SONG]
    with pytest.raises(InputError, match="if they are gone, run the same command again"):
        waveforms[2 * PER_SONG]
    assert store_clips(tracks, Store(tmp_path / "clips", RATE, CLIP, PER_SONG))[0] == stored
    assert contents(tmp_path / "clips") == before


def test_what_killed_runs_left_is_removed_once_it_is_old(tmp_path):
    tracks = songs(tmp_path / "music", 1)
    partial = place(tmp_path / "clips") / ".partial"
    partial.mkdir(parents=True)
    for name, age in ((".1-0123abcd.partial", 2 * 3600), (".2-0123abcd.partial", 60)):
        (partial / name).touch()
        os.utime(partial / name, (time.time() - age,) * 2)
    store_clips(tracks, Store(tmp_path / "clips", RATE, CLIP, PER_SONG))
    assert [p.name for p in partial.iterdir()] == [".2-0123abcd.partial"]


def test_a_file_that_changes_while_it_is_read_is_not_stored(tmp_path, monkeypatch):
    track = songs(tmp_path / "music", 1)[0]
    decode = audio.decode

    def changing(*args, **kwargs):
        yield from decode(*args, **kwargs)
        with open(track.path, "ab") as file:
            file.write(b"more")

    monkeypatch.setattr(audio, "decode", changing)
    entry = store_file(str(track.path), str(store_folder(tmp_path)), RATE, CLIP, PER_SONG)
    assert entry == {"reason": "changed while it was read; run the same command again"}
    assert not list((tmp_path / "store").glob("*/*"))


# --- a full disk -----------------------------------------------------------------------------


def test_a_full_disk_is_told_of_and_the_store_goes_on_afterwards(tmp_path, monkeypatch):
    """Without workers, whose writing cannot be made to fail from here."""
    tracks = songs(tmp_path / "music", 6)
    fsync, left = os.fsync, [3]

    def full(descriptor):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(workers, "run", lambda function, tasks, *args: ((n, store_file(**task)) for n, task in tasks))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(InputError) as error:
            store_clips(tracks, Store(tmp_path / "clips", RATE, CLIP, PER_SONG))
    for part in (str(place(tmp_path / "clips")), "No space left", "MB are needed", "MB are free", "another cache_dir"):
        assert part in str(error.value)
    assert len(contents(tmp_path / "clips")) == 3
    assert not list((place(tmp_path / "clips") / ".partial").iterdir())
    stored, skipped = store_clips(tracks, Store(tmp_path / "clips", RATE, CLIP, PER_SONG))
    assert all(stored)
    assert not skipped


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = shutil.which("mount") and not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode  # fmt: skip
    if not made:
        pytest.skip("mounting a small file system takes rights that are not there")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(tmp_path, small_disk):
    tracks = songs(tmp_path / "music", 40)
    with pytest.raises(InputError, match="No space left on device"):
        store_clips(tracks, Store(small_disk, RATE, CLIP, PER_SONG))
    kept = contents(small_disk)
    assert 5 < len(kept) < 40
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    stored, skipped = store_clips(tracks, Store(small_disk, RATE, CLIP, PER_SONG))
    assert all(stored)
    assert not skipped
    assert kept.items() <= contents(small_disk).items()
    for track, song in zip(tracks, stored, strict=True):
        np.testing.assert_array_equal(np.load(song.path), at_once(track.path, RATE, CLIP, PER_SONG))


def test_a_folder_that_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "clips").write_text("a file")
    with pytest.raises(InputError, match=r"clips cannot be stored here.*another cache_dir"):
        store_clips(songs(tmp_path / "music", 1), Store(tmp_path / "clips", RATE, CLIP, PER_SONG))


# --- reading ---------------------------------------------------------------------------------


def test_a_header_is_the_same_bytes_from_every_numpy():
    """It is compared, not parsed: with other bytes, stores that are there would be taken for damaged."""
    text = b"{'descr': '<i2', 'fortran_order': False, 'shape': (10, 44100), }"
    assert store._header(10, 44100) == b"\x93NUMPY\x01\x00v\x00" + text.ljust(117) + b"\n"
    sizes = ((1, 1), (1, 10**7), (10**18, 44100))
    assert {len(store._header(*size)) for size in sizes} == {store._HEADER}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Songs of different numbers of clips, in the store's form, and all clips as an array."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    stored, arrays = [], []
    for number in range(150):
        clips = rng.integers(-32768, 32767, (int(rng.integers(1, 5)), 30), np.int16)
        path = folder / f"{number}.npy"
        path.write_bytes(store._header(*clips.shape) + clips.tobytes() + bytes(store._TAIL))
        np.testing.assert_array_equal(np.load(path), clips)
        stored.append(Stored(path, len(clips), clips.size))
        arrays.append(clips)
    return StoredWaveforms(stored, 30), np.concatenate(arrays)


def test_clips_are_read_as_from_an_array(many):
    waveforms, array = many
    assert len(waveforms) == len(array)
    assert (waveforms.shape, waveforms.dtype) == (array.shape, array.dtype)
    rng = np.random.default_rng(0)
    some = rng.integers(-len(array), len(array), 50)
    for which in (3, -1, np.int64(7), slice(5, 60), slice(None, None, -7), slice(10, 10), some, list(some), [],
                  rng.random(len(array)) < 0.3):  # fmt: skip
        read = waveforms[which]
        np.testing.assert_array_equal(read, array[np.asarray(which, int)] if isinstance(which, list) else array[which])
        assert read.dtype == np.int16
    for clip, own in zip(waveforms, array, strict=True):
        np.testing.assert_array_equal(clip, own)
    for wrong in (len(array), -len(array) - 1, [0, len(array)], 1.5, np.ones(3, bool)):
        with pytest.raises(IndexError):
            waveforms[wrong]


def test_few_files_are_open_at_a_time(many):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waveforms, array = many
    highest = max(map(int, os.listdir("/proc/self/fd")))
    used = [os.open(os.devnull, os.O_RDONLY)]
    while used[-1] <= highest:  # until no lower number is free: earlier tests may have left files open
        used.append(os.dup(used[0]))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used[-1] + 4, hard))  # at most a few more may be taken
        np.testing.assert_array_equal(waveforms[:], array)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in used:
            os.close(number)


# --- the parts of a corpus -------------------------------------------------------------------


def test_too_many_skipped_songs_stop_the_run_and_say_where_they_are_listed(tmp_path):
    tracks = songs(tmp_path / "music", 8)
    for track in tracks[:3]:
        track.path.write_text("no sound")
    parts = {"train": tracks[:6], "test": tracks[6:]}
    listing = tmp_path / "skipped.csv"
    arguments = (parts, ["a", "b"], Store(tmp_path / "clips", RATE, CLIP, PER_SONG))
    with pytest.raises(InputError, match=r"3 of 8 songs.*failed_share=0\.3.*0\.wav: is no.*listed in .*skipped\.csv"):
        load_clips(*arguments, failed_share=0.3, listing=listing)
    assert [line.partition(",")[0] for line in listing.read_text().splitlines()] == ["path", "0.wav", "1.wav", "2.wav"]
    clips, skipped = load_clips(*arguments, failed_share=0.4, share=(1, 2))
    assert len(skipped) == 3
    np.testing.assert_array_equal(clips["train"].songs, np.repeat([3, 4, 5], PER_SONG))
    np.testing.assert_array_equal(clips["train"].labels, np.repeat([1, 0, 1], PER_SONG))
    np.testing.assert_array_equal(clips["test"].waveforms[:4], at_once(tracks[6].path, RATE, CLIP, PER_SONG))
    with pytest.raises(ValueError, match=r"config\.data\.failed_share must be 0 to 1, not 2"):
        load_clips(*arguments, failed_share=2)
    tracks[4].path.write_text("no sound")
    with pytest.raises(InputError, match="no song of genre 'a' could be used for the train part; the first"):
        load_clips(*arguments)


def test_the_list_of_skipped_songs_is_no_program(tmp_path):
    rows = [("=HYPERLINK(1)", "a, b"), ("-x.wav", 'is "quoted"'), ("@a", "+b"), ("ü.wav", "c")]
    store.write_skipped(tmp_path / "skipped.csv", rows)
    with open(tmp_path / "skipped.csv", newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["path", "reason"],
            ["'=HYPERLINK(1)", "a, b"],
            ["'-x.wav", 'is "quoted"'],
            ["'@a", "'+b"],
            ["ü.wav", "c"],
        ]


def test_a_file_under_two_names_counts_once_and_is_told_of_where_it_stands_in_two_parts(tmp_path, caplog):
    """That of the first name stays, whichever part it is in; copies within one part go without a warning."""
    tracks = songs(tmp_path / "music", 6)
    for number, source in ((6, 0), (7, 2)):
        path = tmp_path / "music" / f"{number}.wav"
        path.write_bytes(tracks[source].path.read_bytes())
        tracks.append(Track(path, path.name, "ab"[number % 2]))
    parts = {"train": [tracks[6], *tracks[2:4], tracks[7]], "validation": tracks[4:6], "test": tracks[:2]}
    clips, skipped = load_clips(
        parts, ["a", "b"], Store(tmp_path / "store", RATE, CLIP, PER_SONG), listing=tmp_path / "skipped.csv"
    )
    assert {part: np.unique(some.songs).tolist() for part, some in clips.items()} == {
        "train": [1, 2], "validation": [0, 1], "test": [0, 1],
    }  # fmt: skip
    reasons = dict(skipped)
    assert reasons["6.wav"] == (
        "is the same file as 0.wav, which counts in its place; they were in two parts, train and test"
    )
    assert reasons["7.wav"] == ("is the same file as 2.wav, which counts in its place; their labels differ: b and a")
    assert "7.wav" in (tmp_path / "skipped.csv").read_text()
    assert [r.message for r in caplog.records] == [
        "1 file(s) stand in more than one part under several names; each counts once"
    ]
