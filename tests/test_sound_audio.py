import contextlib
import os

import numpy as np
import pytest
import soundfile

from deconv_jax.errors import InputError
from deconv_jax.sound import audio
from deconv_jax.system import files

RATE = 11025


def tone(seconds=1.0, rate=RATE, frequency=440.0):
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "aiff"])
@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (48000, 1)])
def test_any_format_rate_and_channel_count_becomes_mono_at_the_rate_wanted(tmp_path, ending, rate, channels):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, np.stack([tone(1.0, rate)] * channels, axis=1), rate)
    wave = audio.read(path, RATE)
    assert wave.dtype == np.float32
    assert wave.ndim == 1
    assert abs(len(wave) - RATE) < 0.1 * RATE  # lossy formats pad
    spectrum = np.abs(np.fft.rfft(wave[:RATE]))
    assert abs(spectrum.argmax() * RATE / min(RATE, len(wave)) - 440) < 2
    assert 0.45 < np.abs(wave[1000:8000]).max() < 0.56


def test_192_khz_and_8_channels(tmp_path):
    path = tmp_path / "a.wav"
    channels = np.stack([tone(0.5, 192000) * (k == 3) for k in range(8)], axis=1)
    soundfile.write(path, channels, 192000)
    wave = audio.read(path, RATE)
    assert len(wave) == round(0.5 * RATE + 0.5) or len(wave) == round(0.5 * RATE)
    np.testing.assert_allclose(np.abs(wave[500:5000]).max(), 0.5 / 8, rtol=0.02)


def test_offset_and_duration_are_in_seconds(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.arange(4 * RATE) / (4 * RATE), RATE, subtype="FLOAT")
    wave = audio.read(path, RATE, offset=1.5, duration=1.0)
    assert len(wave) == RATE
    assert wave[0] == pytest.approx(1.5 / 4, abs=1e-4)


def broken_files(folder):
    """Name → what is wrong with it."""
    good = folder / "good.wav"
    soundfile.write(good, tone(), RATE)
    data = good.read_bytes()
    files = {
        "empty.wav": b"",
        "text.wav": b"this is no sound\n" * 50,
        "header.wav": data[:20],
        "nosamples.wav": data[:44].replace(data[40:44], b"\0\0\0\0"),
        "flipped.flac": b"fLaC" + bytes(range(256)) * 8,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    soundfile.write(folder / "nan.wav", np.full(RATE, np.nan), RATE, subtype="FLOAT")
    soundfile.write(folder / "zero.wav", np.zeros(0), RATE)
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    return ["missing.wav", *files, "nan.wav", "zero.wav", "folder.wav", "pipe.wav"]


def test_what_is_no_sound_is_refused_in_one_line_that_names_it(tmp_path):
    for name in broken_files(tmp_path):
        with pytest.raises(InputError) as error:
            audio.read(tmp_path / name, RATE)
        message = str(error.value)
        assert name in message
        assert "\n" not in message
        assert len(message) < 400


def test_a_truncated_file_gives_what_it_holds_or_is_refused(tmp_path):
    good = tmp_path / "good.wav"
    soundfile.write(good, tone(), RATE)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(good.read_bytes()[:10000])
    np.testing.assert_array_equal(audio.read(cut, RATE), audio.read(good, RATE)[: (10000 - 44) // 2])


def test_an_offset_beyond_the_end_says_how_long_the_file_is(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(2.0), RATE)
    with pytest.raises(InputError, match=r"a\.wav: lasts 2\.00 s.*offset=5"):
        audio.read(tmp_path / "a.wav", RATE, offset=5)


def test_folders_are_searched_and_hidden_files_left_out(tmp_path):
    for name in ("b.wav", "a.FLAC", "notes.txt", ".hidden.wav", "sub/c.mp3", ".cache/d.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = audio.find([tmp_path, tmp_path / "notes.txt"])
    assert [str(f.relative_to(tmp_path)) for f in found] == ["a.FLAC", "b.wav", "sub/c.mp3", "notes.txt"]


def test_folders_that_a_command_filled_are_left_out_unless_they_are_named(tmp_path, caplog):
    made = [
        *("out/song/original.wav", "out/song/features.csv", "out/song/manifest.json", "out/song/layer1/f000.wav"),
        *("swept/top/index.html", "swept/top/top.json", "swept/top/layer1/f000-01.flac"),
        *("experiments/signals/signals.csv", "experiments/signals/hits.csv", "experiments/signals/recipe.json"),
        "experiments/signals/000_sine.wav",
    ]
    mine = ["song.wav", "out/mine.wav", "swept/other/a.flac", "manifest.json", "signals.csv", "original.wav"]
    for name in (*made, *mine):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    caplog.set_level("INFO", "deconv_jax")
    found = audio.find([tmp_path])
    assert [str(f.relative_to(tmp_path)) for f in found] == [
        "original.wav",
        "out/mine.wav",
        "song.wav",
        "swept/other/a.flac",
    ]
    (said,) = caplog.messages
    assert said.startswith(f"{tmp_path}/experiments/signals and 2 more: left out")
    named = audio.find([tmp_path / "out" / "song"])
    assert [f.name for f in named] == ["f000.wav", "original.wav"]


def test_names_are_shown_on_one_line_whatever_they_hold():
    assert files.shown("a\nb\x1b[31m.wav") == "a\\nb\\x1b[31m.wav"
    assert files.shown(b"\xff.wav") == "\\xff.wav"


def test_writing_fails_without_a_trace(tmp_path):
    path = tmp_path / "a.wav"
    audio.write(path, tone(0.1), RATE)
    before = path.read_bytes()
    with contextlib.suppress(RuntimeError), files.replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize(
    ("samples", "count", "starts"), [(100, 3, [0]), (400, 3, [0, 150, 300]), (130, 10, [0]), (150, 10, [0, 50])]
)
def test_clips_are_spread_over_a_song(samples, count, starts):
    np.testing.assert_array_equal(audio.clip_starts(samples, 100, count), starts)
    assert len(audio.cut(np.ones(samples), starts[-1], 100)) == 100
