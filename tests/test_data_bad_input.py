"""Broken and hostile files through the clip store: each is used or listed with a reason, and nothing else happens.

BAD_INPUT_VARIANTS=2000 BAD_INPUT_SEED=1 pytest tests/test_data_bad_input.py       a longer run, with other files
"""

import csv
import io
import os
import random
import struct

import numpy as np
import pytest
import soundfile

from deconv_jax.data import store
from deconv_jax.data.tracks import Track
from deconv_jax.errors import InputError
from deconv_jax.sound import audio
from deconv_jax.system import files, workers

VARIANTS = int(os.environ.get("BAD_INPUT_VARIANTS", "200"))
SEED = int(os.environ.get("BAD_INPUT_SEED", "0"))
RATE, CLIP, PER_SONG = 11025, 2000, 4
LIMITS = workers.Limits(seconds=20.0, memory=1 << 30)

NAMES = [
    b"new\nline.wav",
    b"two\r\nlines \t tab.wav",
    b"'quotes\" and, commas;.wav",
    b"-rf.wav",
    b"--config.data.root=x.wav",
    b"=HYPERLINK(1).wav",
    b"@a.wav",
    b"not utf-8 \xff\xfe\x80.wav",
    b"\x1b[31mred\x07.wav",
    "ünï🎵 \u202egnp.wav".encode(),
    b"%s %d {0} $HOME `id`.wav",
    b" .wav",
    b"\\back\\slash.wav",
    b"n" * 251 + b".wav",
    b"deep/" * 30 + b"d" * 200 + b"/x.wav",
]


def originals() -> dict[str, bytes]:
    """A second of music-like sound in each format."""
    t = np.arange(22050) / 22050
    left = 0.4 * np.sin(2 * np.pi * 440 * t) + 0.1 * np.random.default_rng(0).standard_normal(len(t))
    waveform = np.stack([left, 0.5 * left[::-1]], axis=1)
    files = {}
    for name, settings in {
        "wav": {"format": "WAV", "subtype": "PCM_16"},
        "float.wav": {"format": "WAV", "subtype": "FLOAT"},
        "flac": {"format": "FLAC"},
        "ogg": {"format": "OGG"},
        "mp3": {"format": "MP3"},
    }.items():
        data = io.BytesIO()
        soundfile.write(data, waveform, 22050, **settings)
        files[name] = data.getvalue()
    return files


def truncated(data, kind, dice):
    return data[: int(len(data) * dice.random() ** 2)]


def flipped(data, kind, dice):
    broken = bytearray(data)
    reach = dice.choice([64, 512, len(data)])
    for _ in range(dice.choice([1, 5, 50, 500])):
        broken[dice.randrange(min(reach, len(data)))] ^= 1 << dice.randrange(8)
    return bytes(broken)


def another_header(data, kind, dice):
    """Tags of another format before this one's data, or no order at all."""
    tag = dice.choice([b"RIFF", b"RF64", b"RIFX", b"fLaC", b"OggS", b"ID3\x04", b"FORM", b".snd", b"caff", b"\xff\xfb"])
    return dice.choice([tag + data[len(tag) :], tag + data, tag + dice.randbytes(3000), data[1000:] + data[:1000]])


def absurd(data, kind, dice):
    """A WAV header's numbers: rate, channels, bits, block, format; or those of FLAC's stream information, or Ogg's."""
    broken = bytearray(data)
    if kind.endswith("wav"):
        place, layout, values = dice.choice(
            [
                (24, "<I", [0, 1, 7, 999, 10**6 + 1, 2**31 - 1, 2**31, 2**32 - 1, 4 * 10**9]),
                (22, "<H", [0, 3, 255, 1024, 1025, 65535]),
                (34, "<H", [0, 1, 7, 24, 33, 64, 65535]),
                (32, "<H", [0, 1, 3, 65535]),
                (20, "<H", [0, 2, 3, 6, 7, 17, 49, 85, 0xFFFE, 0xFFFF]),
            ]
        )
        struct.pack_into(layout, broken, place, dice.choice(values))
    elif kind == "flac":  # rate, channels, bits and number of samples lie in these eight bytes
        broken[18:26] = dice.choice([bytes(8), b"\xff" * 8, dice.randbytes(8), b"\x00\x00\x1f" + broken[21:26]])
    else:
        place = dice.randrange(60)
        broken[place : place + 4] = dice.choice([bytes(4), b"\xff" * 4, dice.randbytes(4)])
    return bytes(broken)


def gigantic(data, kind, dice):
    """Lengths of chunks, tags and files far beyond what is there."""
    broken = bytearray(data)
    length = dice.choice([2**31 - 1, 2**32 - 1, 2**32 - 9, 10**9, 0])
    if kind.endswith("wav"):
        struct.pack_into("<I", broken, dice.choice([4, 16, broken.index(b"data") + 4]), length)
    elif kind == "flac":
        place, size = dice.choice([(5, 3), (22, 4), (12, 6)])  # of the first block, the samples, the frames
        broken[place : place + size] = b"\xff" * size
    elif kind == "ogg":
        struct.pack_into("<Q", broken, broken.rindex(b"OggS") + 6, dice.choice([2**63 - 1, 2**64 - 1, 2**40]))
    else:
        return b"ID3\x04\x00\x00" + b"\x7f" * 4 + data
    return bytes(broken)


def no_numbers(data, kind, dice):
    """NaN, infinity and absurd values among the samples of a WAV of floating-point numbers, whatever was asked for."""
    waveform = np.random.default_rng(dice.randrange(2**32)).uniform(-1, 1, (11025, 2)).astype(np.float32)
    bad = dice.choice([np.nan, np.inf, -np.inf, 3e38, 1e9, -1e20, 1e-44])
    waveform[dice.choice([0, 5000, slice(None), slice(None, None, 2)]), dice.choice([0, slice(None)])] = bad
    file = io.BytesIO()
    soundfile.write(file, waveform, dice.choice([11025, 44100]), format="WAV", subtype="FLOAT")
    return file.getvalue()


def zeros(data, kind, dice):
    start = dice.randrange(len(data))
    return dice.choice(
        [b"", bytes(len(data)), data[:start] + bytes(500) + data[start + 500 :], data[:100] + bytes(10**6)]
    )


def spliced(data, kind, dice):
    return data[: dice.randrange(len(data))] + data[dice.randrange(len(data)) :]


BREAKING = [truncated, flipped, another_header, absurd, gigantic, no_numbers, zeros, spliced]


def make(folder, count, seed):
    """Writes `count` broken files; returns the paths, and those that must be used and must not be."""
    dice, files = random.Random(seed), originals()
    paths, good, bad = [], set(), set()
    root = os.fsencode(folder)
    for name, data in zip(NAMES, list(files.values()) * len(NAMES), strict=False):
        path = os.path.join(root, b"names", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        good.add(path)
    special = os.path.join(root, b"special")
    os.mkdir(special)
    os.symlink(b"circle.wav", os.path.join(special, b"circle.wav"))
    os.symlink(b"nowhere", os.path.join(special, b"dangling.wav"))
    os.symlink(b".", os.path.join(special, b"round"))
    os.symlink(b"..", os.path.join(special, b"up.wav"))
    os.symlink(b"/dev/zero", os.path.join(special, b"device.wav"))
    os.mkfifo(os.path.join(special, b"pipe.wav"))
    bad |= {os.path.join(special, n) for n in (b"circle.wav", b"dangling.wav", b"up.wav", b"device.wav", b"pipe.wav")}
    bad |= {os.path.join(special, b"missing.wav"), os.path.join(special, b"x" * 300 + b".wav"), b"/".join([root] * 200)}
    os.mkdir(os.path.join(special, b"folder.wav"))
    bad.add(os.path.join(special, b"folder.wav"))
    for name in (b"link.wav", b"forbidden.wav"):
        path = os.path.join(special, name)
        with open(path + b".target", "wb") as file:
            file.write(files["wav"])
        os.symlink(path + b".target", path)
    good.add(os.path.join(special, b"link.wav"))
    hidden = os.path.join(special, b"forbidden.wav")
    os.chmod(hidden, 0)
    (good if os.access(hidden, os.R_OK) else bad).add(hidden)  # nothing is forbidden to root
    paths += [*sorted(good), *sorted(bad)]
    for number in range(count - len(paths)):
        kind = dice.choice(list(files))
        path = os.path.join(root, b"%05d.%s" % (number, kind.encode()))
        with open(path, "wb") as file:
            file.write(BREAKING[number % len(BREAKING)](files[kind], kind, dice))
        paths.append(path)
    return paths, good, bad


def test_every_broken_file_is_used_or_listed_with_a_reason(tmp_path, monkeypatch):
    music = tmp_path / "music"
    music.mkdir()
    paths, good, bad = make(music, VARIANTS, SEED)
    assert len(paths) == VARIANTS
    tracks = [Track(os.fsdecode(p), f"{n}/{files.shown(p)}", "a") for n, p in enumerate(paths)]
    arguments = (tracks, store.Store(tmp_path / "clips", RATE, CLIP, PER_SONG))
    first = store.store_clips(*arguments, limits=LIMITS)
    stored, skipped = first
    reasons = dict(skipped)
    assert len(stored) == len(paths)
    used = 0
    for path, track, song in zip(paths, tracks, stored, strict=True):
        assert (song is None) == (track.name in reasons)
        assert song or path not in good, reasons[track.name]
        assert not song or path not in bad
        if song:
            used += 1
            clips = store.StoredWaveforms([song], CLIP)[:]
            assert clips.shape == (song.clips, CLIP)
            assert clips.any()
    assert 0.1 * len(paths) < used < 0.9 * len(paths)
    for reason in reasons.values():
        assert reason.isprintable()
        assert 5 < len(reason) < 300
        assert "Error: " not in reason  # none that was not thought of
    if VARIANTS > 200:
        print(f"{used} of {len(paths)} used; skipped:", *sorted(set(reasons.values())), sep="\n  ")

    store.write_skipped(tmp_path / "skipped.csv", skipped)
    with open(tmp_path / "skipped.csv", newline="", encoding="utf-8") as file:
        assert [row[1] for row in csv.reader(file)][1:] == [reason for _, reason in skipped]
    assert len((tmp_path / "skipped.csv").read_bytes().splitlines()) == len(skipped) + 1

    asked, run = [], workers.run

    def noting(function, tasks, *args):
        tasks = list(tasks)
        asked.extend(os.fsencode(task["path"]) for _, task in tasks)
        return run(function, tasks, *args)

    monkeypatch.setattr(workers, "run", noting)
    assert store.store_clips(*arguments, limits=LIMITS) == first
    again = {os.path.normpath(path) for path in bad} | {
        p for p in paths if os.path.exists(p) and not os.path.getsize(p)
    }
    assert set(asked) <= again  # what was not opened, or not even a file: decoded is none


def test_a_folder_of_hostile_names_is_searched_to_its_end(tmp_path):
    paths, good, _ = make(tmp_path, 150, SEED)
    found = {os.fsencode(p) for p in audio.find([tmp_path])}
    expected = {p for p in paths if os.path.lexists(p) and not os.path.isdir(p)}
    assert found == expected
    assert good <= found


def test_a_folder_that_cannot_be_searched_is_told_of(tmp_path, monkeypatch, caplog):
    def walk(top, onerror):
        onerror(PermissionError(13, "Permission denied", "a\nb"))
        return iter(())

    monkeypatch.setattr(os, "walk", walk)
    assert audio.find([tmp_path]) == []
    assert "a\\nb: cannot be searched (Permission denied)" in caplog.text


def test_a_file_that_lasts_for_ever_is_used_in_part_and_refused_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "LONGEST", 2)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 4 * 22050), 22050)
    with pytest.raises(InputError, match=r"a\.wav: lasts more than .* hours.*by offset and duration"):
        audio.read(path, RATE)
    with pytest.raises(InputError, match="lasts more than"):
        audio.read(path, RATE, duration=3)
    assert len(audio.read(path, RATE, duration=1.5)) == pytest.approx(1.5 * RATE, abs=1)
    assert len(audio.read(path, RATE, offset=2.5)) == pytest.approx(1.5 * RATE, abs=1)
    (tmp_path / "store" / ".partial").mkdir(parents=True)
    entry = store.store_file(str(path), str(tmp_path / "store"), RATE, 11025, 2)
    clips = np.load(tmp_path / "store" / entry["sha"][:2] / f"{entry['sha']}.npy")
    soundfile.write(path, soundfile.read(path)[0][: 2 * 22050], 22050)
    half = store.store_file(str(path), str(tmp_path / "store"), RATE, 11025, 2)
    np.testing.assert_array_equal(clips, np.load(tmp_path / "store" / half["sha"][:2] / f"{half['sha']}.npy"))


@pytest.mark.parametrize("channels", [1, 2, 64, 1000])
def test_channels_do_not_decide_how_much_is_read_at_once(tmp_path, channels, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full((9000, channels), 0.25), RATE, subtype="PCM_16")
    sizes, read = [], soundfile.SoundFile.read

    def noting(self, frames, **settings):
        sizes.append(frames * self.channels)
        return read(self, frames, **settings)

    monkeypatch.setattr(soundfile.SoundFile, "read", noting)
    np.testing.assert_array_equal(audio.read(path, RATE), np.full(9000, 0.25, np.float32))
    assert max(sizes) <= 2**22
