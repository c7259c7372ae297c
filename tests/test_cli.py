"""The commands as a user types them, each in a process of its own, on a tiny network that this file makes."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import soundfile
from compiling import QUICK
from test_sound_audio import broken_files, tone

from deconv_jax.cli import values
from deconv_jax.deconvolution.deconvolve import deconvolve
from deconv_jax.importers import named
from deconv_jax.sound import audio
from deconv_jax.sound.auralisation import rms
from deconv_jax.sound.spectrogram import stft
from deconv_jax.system import files, locks
from deconv_jax.training import workdir

ROOT = Path(__file__).resolve().parents[1]
RATE = 11025


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with the paper's front end and a small network with random weights; feature 2 of layer 1 is dead."""
    folder = tmp_path_factory.mktemp("run")
    config = {
        "name": "tiny",
        "front_end": {"sample_rate": RATE, "n_fft": 512, "hop": 256, "clip_seconds": 4.0},
        "network": {"block1": {"maps": 4}, "block2": {"maps": 3}, "dense": [8], "dropout": 0.5, "log": False},
    }
    files.write_json(folder / "config.json", config)
    files.write_json(folder / "corpus.json", {"labels": ["ballad", "dance"], "songs": {}})
    network = workdir.network(config, 2)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((257, 173)))["params"]
    params["conv1"]["bias"] = jnp.asarray([0.0, 0.0, -1e6, 0.0])
    variables = {"params": params, "input": {"mean": jnp.zeros((1, 1)), "scale": jnp.ones((1, 1))}}
    with ocp.CheckpointManager(folder / "checkpoints" / "best") as manager:
        manager.save(7, args=ocp.args.StandardSave({**variables, "step": np.int32(7)}))
    return folder


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    chord = sum(tone(6.0, 22050, f) for f in (220, 277, 330)) / 3
    soundfile.write(folder / "chord.wav", np.stack([chord, 0.5 * chord], axis=1), 22050)
    (folder / "more").mkdir()
    soundfile.write(folder / "more" / "chord.flac", tone(1.0, RATE, 1000), RATE)
    return folder


def test_the_whole_way_in_python_explains_the_whole_clip(run, tmp_path, monkeypatch):
    code = (ROOT / "docs" / "pages" / "face.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    code = code.replace('"real3"', repr(str(run)))
    soundfile.write(tmp_path / "song.mp3", tone(5.0, RATE, 220), RATE, format="MP3")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code.replace("layer=5", "layer=2"), names)  # the small network has two
    assert names["sounds"].shape == (3, len(names["waveform"])) == (3, 44100)
    assert np.isfinite(names["sounds"]).all()


def command(name, *arguments, cwd=None, env=None):
    return subprocess.run(
        [sys.executable, ROOT / "bin" / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICK} | (env or {}),
        timeout=300,
    )


def fails(process, status, *words):
    """One line on stderr's end that says what is wrong, and no traceback."""
    assert process.returncode == status, process.stderr
    assert "Traceback" not in process.stderr
    last = process.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last, last


@pytest.mark.parametrize("name", ["train", "auralise", "sweep", "dissect", "experiments", "studio"])
def test_help_comes_at_once_and_shows_every_flag(name):
    begin = time.monotonic()
    process = command(name, "--help")
    seconds = time.monotonic() - begin
    assert process.returncode == 0
    assert "--workdir" in process.stdout
    assert "bin/" + name in process.stdout
    assert seconds < 10  # on a machine that does much else; it takes about 0.3 s


def test_auralise_writes_sounds_pictures_numbers_and_how_to_make_them_again(run, songs, tmp_path):
    as_users = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}  # with their emitters
    process = command("auralise", "--layer=all", f"--workdir={run}", "--out=out", songs, cwd=tmp_path, env=as_users)
    assert process.returncode == 0, process.stderr
    *folders, said, page = process.stdout.splitlines()
    assert folders == [str(tmp_path / "out" / name) for name in ("chord", "chord-2")]
    assert page == str(tmp_path / "out" / "index.html")
    assert "beside its folders" in said  # the default for all layers
    folder = tmp_path / "out" / "chord"
    assert sorted(p.name for p in folder.iterdir()) == [
        *(
            "features.csv",
            "layer1",
            "layer1.npz",
            "layer1.png",
            "layer2",
            "layer2.npz",
            "layer2.png",
            "manifest.json",
            "original.png",
            "original.wav",
            "page",
            "why",
            "why.npz",
        )
    ]
    names = [f"f{f:03d}.{ending}" for f in range(4) for ending in ("png", "wav")]
    assert sorted(p.name for p in (folder / "layer1").iterdir()) == names
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in folder.glob("**/*.png"))

    original, rate = soundfile.read(folder / "original.wav")
    assert (len(original), rate) == (4 * RATE, RATE)
    np.testing.assert_allclose(original, audio.read(songs / "chord.wav", RATE, duration=4.0), atol=1e-7)
    trained = workdir.load(run)
    magnitude = np.abs(stft(jnp.asarray(original, jnp.float32)))
    with (folder / "features.csv").open() as handle:
        table = list(csv.DictReader(handle))
    assert [(row["layer"], row["feature"]) for row in table] == [
        *[("1", str(f)) for f in range(4)],
        *[("2", str(f)) for f in range(3)],
    ]
    for layer in (1, 2):
        want = deconvolve(trained.network, trained.variables, magnitude, layer)
        with np.load(folder / f"layer{layer}.npz") as stored:
            np.testing.assert_allclose(stored["images"], want, atol=1e-5 * float(jnp.abs(want).max()))
            assert stored["images"].dtype == np.float32
    for row in table:
        sound, _ = soundfile.read(folder / f"layer{row['layer']}" / f"f{int(row['feature']):03d}.wav")
        assert len(sound) == 4 * RATE
        dead = (row["layer"], row["feature"]) == ("1", "2")
        assert row["inactive"] == str(int(dead))
        assert sound.any() != dead
        if dead:
            assert (row["gain"], row["energy"], row["centroid_hz"]) == ("1", "0", "nan")
        else:
            level, peak = rms(sound) / rms(original), np.abs(sound).max() / np.abs(original).max()
            assert max(level, peak) == pytest.approx(1, abs=1e-3)  # as loud as the original, in RMS or at its peak
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["sample_rate"] == RATE
    assert manifest["source"] == str(songs / "chord.wav")
    assert manifest["checkpoint"] == str(run / "checkpoints" / "best" / "7")
    assert manifest["inactive"] == {"1": [2], "2": []}
    assert set(manifest["versions"]) >= {"python", "jax", "flax", "deconv_jax"}
    assert sum(manifest["prediction"].values()) == pytest.approx(1)
    assert not list(tmp_path.glob("out/.*"))


def test_short_clips_are_padded_with_samples_and_whole_songs_keep_their_length(run, songs, tmp_path):
    short = songs / "more" / "chord.flac"
    assert command("auralise", "--nowhy", f"--workdir={run}", "--layer=2", f"--out={tmp_path}/a", short).returncode == 0
    padded, _ = soundfile.read(tmp_path / "a" / "chord" / "original.wav")
    assert len(padded) == 4 * RATE
    assert not padded[RATE + 1 :].any()
    flags = ["--duration=full", "--features=top:1", "--reading=mask", "--rectify", "--gain=none", "--layer=2"]
    process = command("auralise", "--nowhy", f"--workdir={run}", *flags, f"--out={tmp_path}/b", songs / "chord.wav")
    assert process.returncode == 0, process.stderr
    (sound,) = (tmp_path / "b" / "chord" / "layer2").glob("*.wav")
    assert soundfile.info(sound).frames == 6 * RATE
    with np.load(tmp_path / "b" / "chord" / "layer2.npz") as stored:
        assert f"f{stored['features'][0]:03d}" == sound.stem


def test_bad_files_are_listed_and_the_good_ones_are_done(run, songs, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    names = broken_files(bad)
    soundfile.write(bad / "one.wav", np.array([0.5]), RATE)
    soundfile.write(bad / "silent.wav", np.zeros(RATE * 5), RATE)
    (bad / "denied.wav").write_bytes((bad / "good.wav").read_bytes())
    (bad / "denied.wav").chmod(0)
    names += ["one.wav", "silent.wav"] + (["denied.wav"] if os.geteuid() else [])
    files = [bad / name for name in names if name != "folder.wav"] + [bad / "good.wav"]
    process = command(
        "auralise", "--nowhy", f"--workdir={run}", "--layer=1", "--features=0", f"--out={tmp_path}/out", *files
    )
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    for name in names:
        if name != "folder.wav":
            assert str(bad / name) in process.stderr
    assert f"{len(files) - 1} of {len(files)} file(s) could not be used" in process.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["good", "index.html"]


def test_an_existing_folder_is_replaced_only_if_auralise_made_it(run, songs, tmp_path):
    song = songs / "chord.wav"
    flags = [f"--workdir={run}", f"--out={tmp_path}"]
    assert command("auralise", "--nowhy", *flags, "--layer=1", song).returncode == 0
    assert command("auralise", "--nowhy", *flags, "--layer=2", "--features=1", song).returncode == 0
    assert (tmp_path / "chord" / "layer2" / "f001.wav").exists()
    assert not (tmp_path / "chord" / "layer1").exists()
    (tmp_path / "chord" / "manifest.json").unlink()
    fails(command("auralise", *flags, "--layer=1", song), 1)
    assert (tmp_path / "chord" / "layer2" / "f001.wav").exists()


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        (["--layer=9"], 2, ["layer 9", "1 to 2"]),
        (["--layer=two"], 2, ["--layer=two"]),
        (["--layer=2", "--features=3"], 2, ["feature 3", "0 to 2"]),
        (["--features=top:0"], 2, ["top:12"]),
        (["--duration=-1"], 2, ["--duration=-1", "full"]),
        (["--offset=nan"], 2, ["--offset=nan", "0 to 1e+06"]),
        (["--reading=loud"], 2, ["reading", "phase|mask"]),
        (["--layr=1"], 2, ["layr", "layer"]),
        (["--layer=1", "--workdir=/nowhere"], 1, ["--workdir=/nowhere", "bin/train", "network's name"]),
        (["--layer=1", "--checkpoint=/nowhere/3"], 1, ["--checkpoint=/nowhere/3: holds no training run"]),
        (["--layer=1", "--out=/proc/none"], 1, ["--out=/proc/none"]),
        (["--layer=1", "EMPTY"], 1, ["no sound files"]),
    ],
)
def test_wrong_flags_and_places_end_in_one_line(run, songs, tmp_path, flags, status, words):
    flags = [str(tmp_path) if f == "EMPTY" else f for f in flags]
    given = " ".join(flags)
    if "--workdir" not in given and "--checkpoint" not in given:
        flags.append(f"--workdir={run}")
    if str(tmp_path) not in given:
        flags.append(songs / "chord.wav")
    fails(command("auralise", *flags, cwd=tmp_path), status, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        (["--config.train.epoch=3"], 2, ["--config.train.epoch=3", "epochs"]),
        (["--config", "nowhere.py"], 2, ["--config=nowhere.py", "no such file"]),
        (["--config.train.epochs=many"], 2, ["epochs"]),
        (["--config.train.epochs=0"], 2, ["config.train.epochs", "at least 1"]),
        (["--config=nowhere.py"], 2, ["nowhere.py"]),
        (["--config=configs/genre3.py:jazz"], 2, ["jazz"]),
        (["music"], 2, ["'music'", "--config.data.root"]),
        (["--config.data.root=/nowhere"], 1, ["--config.data.root=/nowhere", "genre"]),
        (["--workdir=/proc/none"], 1, ["--workdir=/proc/none"]),
    ],
)
def test_wrong_settings_of_a_training_end_in_one_line(tmp_path, flags, status, words):
    if "--workdir" not in flags[0]:
        flags = [*flags, f"--workdir={tmp_path}/run"]
    fails(command("train", *flags, cwd=tmp_path), status, *words)


@pytest.mark.parametrize(("flag", "words"), [("--seconds=inf", ["0.1 to 3600"]), ("--offset=nan", ["0 to 1e+06"])])
def test_numbers_that_are_none_are_refused(flag, words):
    fails(command("experiments", flag), 2, flag, *words)


def test_every_command_that_writes_finds_a_folder_taken(run, tmp_path):
    """bin/train and bin/sweep: test_system_kill.py, test_results_collection.py."""
    out = f"--out={tmp_path}"
    with locks.writing(tmp_path, "out"):
        for name, *flags in (
            ("experiments", f"--workdir={run}", "--experiment=table1"),
            ("import_network", "--model=MTT_vgg", "none.whl"),
            ("auralise", f"--workdir={run}", "--layer=1", "none.wav"),
        ):
            fails(command(name, out, *flags, cwd=tmp_path), 1, f"{out}: process {os.getpid()} on ", "is at work there")


def test_where_no_network_is_named_one_of_the_package_explains_and_says_what_it_is(songs, tmp_path):
    flags = ["--layer=1", "--features=0", "--duration=1", "--page=none", f"--out={tmp_path}"]
    process = command("auralise", *flags, songs / "chord.wav", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    manifest = json.loads((tmp_path / "chord" / "manifest.json").read_text())
    assert set(manifest["prediction"]) == {"electronic", "orchestral", "rock"}
    assert f"The network is real3: {named.card('real3')['what']}." in process.stderr
    assert command("experiments", "--experiment=table1", f"--out={tmp_path}/table").returncode == 0
    made_with = json.loads((tmp_path / "table" / "table1.json").read_text())["checkpoint"]
    assert Path(made_with).name == "builtin3"  # no sounds of anybody's: the network of the built-in music


def test_layers_and_features_count_once():
    assert values.numbers("5,3,5") == [5, 3]
    with pytest.raises(ValueError, match="nor numbers with commas"):
        values.numbers("5,x")


def test_train_ends_with_its_report_and_auralise_explains_what_it_trained(tmp_path, rng):
    for genre in ("noise", "tone"):
        (tmp_path / "music" / genre).mkdir(parents=True)
        for number in range(4):
            wave = tone(4.0, RATE, 500 + 100 * number) if genre == "tone" else rng.uniform(-0.3, 0.3, 4 * RATE)
            soundfile.write(tmp_path / "music" / genre / f"{number}.wav", wave, RATE)
    flags = [f"--config.network.block{n}.maps=2" for n in range(1, 6)]
    flags += ["--config.train.epochs=1", "--config.data.root=music", "--workdir=run"]
    process = command("train", "--config=configs/genre3.py", *flags, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    for name in ("network", "majority", "mean log-mel"):
        assert f"\n  {name} " in process.stdout
    assert str(tmp_path / "run" / "report.json") in process.stdout
    process = command("auralise", "--workdir=run", "--features=top:1", "music/tone/0.wav", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert len(list((tmp_path / "auralised" / "0" / "layer5").iterdir())) == 2
    manifest = json.loads((tmp_path / "auralised" / "0" / "manifest.json").read_text())
    flags = ["--network=run/network", "--features=top:1", "--out=again", "--nowhy", "--page=none"]
    process = command("auralise", *flags, "music/tone/0.wav", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    again = json.loads((tmp_path / "again" / "0" / "manifest.json").read_text())
    assert again["prediction"] == manifest["prediction"]  # the run's network file holds the same network


def test_commands_say_how_to_install_where_the_package_is_missing(tmp_path):
    """The launcher, copied to where no environment is, with an interpreter that sees no packages."""
    for name in ("train", "launcher.py"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_bytes((ROOT / "bin" / name).read_bytes())
    process = subprocess.run(
        [sys.executable, "-S", tmp_path / "bin" / "train"], capture_output=True, text=True, env={"PATH": "/usr/bin"}
    )
    assert process.returncode == 1
    assert "make install" in process.stderr
    assert "Traceback" not in process.stderr
