"""One device, several, and several processes see the same batches and end with the same network, to rounding."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import killing
import numpy as np
import pytest
from compiling import QUICK

from deconv_jax.data.store import Clips
from deconv_jax.errors import InputError
from deconv_jax.system import devices
from deconv_jax.training import loop, workdir

ROOT = Path(__file__).resolve().parents[1]
CONFIG = {
    "name": "tiny",
    "seed": 0,
    "front_end": {"sample_rate": 11025, "n_fft": 128, "hop": 64, "clip_seconds": 0.25},
    "network": {
        "block1": {"maps": 16, "dropout": 0.1},  # enough for the rules that layers.py has for a CPU
        "block2": {"maps": 16, "dropout": 0.1},
        "dense": [8],
        "dropout": 0.25,
        "log": False,
    },
    "data": {"root": "", "songs_per_genre": 1, "clips_per_song": 6, "split": [0.5, 0.25, 0.25]},
    # Six clips cannot be dealt out evenly over four devices.
    "train": {"epochs": 3, "batch_size": 6, "learning_rate": 0.001, "checkpoint_steps": 2},
}

# Sums in another order. Adam divides a gradient by its own size, so where it is nearly nothing rounding decides which
# way a weight goes: after 18 steps of 0.001 a few weights may be some steps apart, their root mean square far less.
LOSS, WEIGHT, RMS = 1e-4, 5e-3, 5e-5


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    settings = copy.deepcopy(CONFIG)
    settings["data"]["root"] = str(killing.make_music(tmp_path_factory.mktemp("several") / "music"))
    return settings


def row_of(count):
    return devices.Devices(jax.sharding.Mesh(np.array(jax.devices()[:count]), ("clips",)))


@pytest.fixture(scope="module")
def alone(settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "all_devices", lambda: row_of(1))
        loop.train(settings, folder / "run", folder / "cache")
    return folder


def same(one, other):
    """Losses and weights of two workdirs are equal to rounding."""
    lines = [[json.loads(line) for line in (f / "metrics.jsonl").read_text().splitlines()] for f in (one, other)]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose([l[name] for l in lines[0]], [l[name] for l in lines[1]], rtol=LOSS)
    weights = []
    for folder in (one, other):
        step = next((folder / "checkpoints" / "last").glob("[0-9]*"))
        weights.append(workdir.load(None, step).variables["params"])
    apart = np.concatenate([np.ravel(d) for d in jax.tree.leaves(jax.tree.map(np.subtract, *weights))])
    assert np.abs(apart).max() < WEIGHT
    assert np.sqrt(np.mean(apart**2)) < RMS


@pytest.mark.parametrize("count", [4])  # two are in the next test
def test_several_devices_train_what_one_does(settings, alone, tmp_path, monkeypatch, count):
    monkeypatch.setattr(loop, "all_devices", lambda: row_of(count))
    loop.train(settings, tmp_path / "run", alone / "cache")
    same(alone / "run", tmp_path / "run")


def test_the_recipe_is_the_same_on_several_devices(settings, alone, tmp_path, monkeypatch):
    """The silent clips that fill up four devices count in no batch norm, mix with nothing, and move no draw."""
    some = copy.deepcopy(settings)
    some["front_end"]["level"] = "clip"
    some["network"] |= {"head": "average", "dense": [], "dropout": 0.0}
    for name in ("block1", "block2"):
        # A bias before batch norm has a gradient of rounding alone, of which Adam makes whole steps.
        some["network"][name] |= {"norm": "before", "dropout": 0.0, "use_bias": False}
    some["train"] |= {"steps": 8, "validation_steps": 4, "optimiser": "adamw", "weight_decay": 0.01, "average": 0.9}
    some["train"] |= {"schedule": "cosine", "warmup_steps": 2, "sampling": "artists", "crop_seconds": 0.2}
    some["augment"] = {"speed": 0.1, "mix": 0.5, "eq_db": 6.0, "time_mask": 0.2, "frequency_mask": 0.1}
    for count in (1, 4):
        monkeypatch.setattr(loop, "all_devices", lambda count=count: row_of(count))
        loop.train(some, tmp_path / f"run{count}", alone / "cache")
    same(tmp_path / "run1", tmp_path / "run4")


def test_all_devices_take_part_and_a_run_goes_on_with_others(settings, alone, tmp_path, monkeypatch):
    assert devices.all_devices().mesh.size == jax.device_count() == 4
    monkeypatch.setattr(loop, "all_devices", lambda: row_of(2))
    make = loop.make_train_step

    def dying(*args, **kwargs):
        step, left = make(*args, **kwargs), iter(range(7))
        return lambda *given: step(*given) if next(left, None) is not None else sys.exit()

    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_train_step", dying)
        with pytest.raises(SystemExit):
            loop.train(settings, tmp_path / "run", alone / "cache")
    monkeypatch.setattr(loop, "all_devices", lambda: row_of(1))
    loop.train(settings, tmp_path / "run", alone / "cache")
    same(alone / "run", tmp_path / "run")


def test_batches_are_dealt_out_whole_in_order_and_padded_with_silence(rng):
    waveforms = rng.integers(-9, 9, (10, 5)).astype(np.int16)
    clips = Clips(waveforms, np.arange(10, dtype=np.int32), np.arange(10))
    batches = [np.array([1, 4, 9, 2, 0, 3]), np.array([7])]
    for count in (1, 4):
        fed = list(devices.feed(row_of(count), clips, 5, batches))
        for (sound, labels), batch in zip(fed, batches, strict=True):
            assert len(sound) % count == 0
            assert len(sound.addressable_shards) == count
            np.testing.assert_array_equal(sound[: len(batch)], waveforms[batch])
            np.testing.assert_array_equal(labels[: len(batch)], batch)
            assert not np.any(sound[len(batch) :])


def test_reading_ahead_is_bounded_and_its_errors_arrive_in_their_place():
    made = []

    def make(item):
        made.append(item)
        if item == 6:
            raise InputError("six is torn")
        return item

    results = devices.ahead(make, iter(range(100)), count=3)
    assert [next(results) for _ in range(6)] == list(range(6))
    with pytest.raises(InputError, match="six is torn"):
        next(results)
    assert max(made) <= 9
    results = devices.ahead(make, iter(range(7, 100)), count=3)
    assert next(results) == 7
    results.close()  # ends the thread
    assert max(made) <= 12


def together(settings, alone, folder, port):
    """Two processes of bin/train in one workdir, each with a device of its own."""
    (folder / "tiny.py").write_text(
        f"from ml_collections import ConfigDict\ndef get_config():\n  return ConfigDict({settings})\n"
    )
    processes = []
    for number in range(2):
        flags = [f"--config={folder}/tiny.py", f"--workdir={folder}/run", f"--cache_dir={alone}/cache", "--distributed"]
        flags += [f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--process={number}"]
        environment = os.environ | {
            "XLA_FLAGS": QUICK,
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        }
        with open(folder / f"said{number}.txt", "w") as said:
            command = [sys.executable, ROOT / "bin" / "train", *flags]
            processes.append(subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment))
    return processes


def test_two_processes_train_what_one_does_and_stop_and_go_on_together(settings, alone, free_port, tmp_path):
    """One of two is killed in the middle: the other says so and stops; both, started again, end as one process."""
    said = [tmp_path / f"said{number}.txt" for number in range(2)]
    processes: list[subprocess.Popen] = []
    try:
        processes = together(settings, alone, tmp_path, free_port())
        until = time.monotonic() + 240
        while not any((tmp_path / "run" / "checkpoints" / "last").glob("[0-9]*")):
            assert time.monotonic() < until
            assert processes[0].poll() is None, said[0].read_text()
            time.sleep(0.002)
        processes[1].send_signal(signal.SIGKILL)
        assert [p.wait(timeout=120) for p in processes] == [1, -signal.SIGKILL]
        text = said[0].read_text()
        assert "Traceback" not in text
        assert text.splitlines()[-1].startswith("error: process 0 of 2: ")
        assert "is gone" in text.splitlines()[-1]
        assert not (tmp_path / "run" / "report.json").exists()

        processes = together(settings, alone, tmp_path, free_port())
        assert [p.wait(timeout=300) for p in processes] == [0, 0], "".join(s.read_text() for s in said)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert "report.json" in said[0].read_text()
    assert "report.json" not in said[1].read_text()
    same(alone / "run", tmp_path / "run")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--processes=2"], "--processes belongs to --distributed"),
        (["--distributed"], "name coordinator=HOST:PORT"),
        (["--distributed", "--coordinator=here"], "--coordinator=here: wanted"),
        (["--distributed", "--coordinator=h:1", "--processes=2", "--process=2"], "--process=2: must"),
    ],
)
def test_wrong_flags_of_several_processes_end_in_one_line(tmp_path, flags, words):
    process = subprocess.run(
        [sys.executable, ROOT / "bin" / "train", f"--workdir={tmp_path}/run", *flags],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 2, process.stderr
    assert "Traceback" not in process.stderr
    assert words in process.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
