"""Kills bin/train and bin/auralise at random moments and holds what they leave in the end against a calm run.

    python tests/killing.py FOLDER [--moments=20] [--seed=0]

Used by test_system_kill.py in a short form. A moment is a sign that a phase has begun, in the
files, and a random wait.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
from compiling import QUICK

from deconv_jax.training import workdir

ROOT = Path(__file__).resolve().parents[1]
RATE = 11025
PHASES = ("indexing", "storing", "training", "checkpointing", "reporting", "auralising")


def make_music(folder: Path) -> Path:
    """Three genres of four songs of three seconds."""
    rng = np.random.default_rng(0)
    t = np.arange(3 * RATE) / RATE
    for genre, shape in (("noise", lambda: rng.uniform(-0.3, 0.3, len(t))), ("low", None), ("high", None)):
        (folder / genre).mkdir(parents=True)
        for number in range(4):
            pitch = rng.uniform(200, 400) * (8 if genre == "high" else 1)
            wave = shape() if shape else 0.3 * np.sin(2 * np.pi * pitch * t)
            soundfile.write(folder / genre / f"{number}.wav", wave, RATE)
    return folder


class Runs:
    """Commands in a folder: music, compiled programs and store are below it; `variant` of configs/genre3.py."""

    def __init__(self, folder: Path, variant: str = ""):
        self.folder, self.variant = folder, variant
        self.music = make_music(folder / "music")
        self.store, self.workdir, self.out = (folder / name for name in ("cache", "run", "out"))
        self.environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "XLA_FLAGS": QUICK,
        }

    def train(self, *more: str) -> list[str]:
        flags = [f"--config.network.block{n}.maps=2" for n in range(1, 6)]
        flags += ["--config.network.dense=(4,)", "--config.front_end.clip_seconds=1.5", "--config.train.epochs=3"]
        flags += ["--config.train.batch_size=4", "--config.train.checkpoint_steps=2", "--config.data.clips_per_song=3"]
        flags += ["--config.train.keep_all=True"]
        flags += [f"--config.data.root={self.music}", f"--workdir={self.workdir}", f"--cache_dir={self.store}"]
        if self.variant == "augmented":
            flags += ["--config.train.steps=12", "--config.train.validation_steps=4", "--config.train.crop_seconds=1.0"]
        return ["train", f"--config={ROOT / 'configs' / 'genre3.py'}:{self.variant}", *flags, *more]

    def auralise(self) -> list[str]:
        songs = sorted(self.music.glob("*/0.wav"))
        flags = [
            "--layer=2",
            "--nowhy",
            "--features=top:1",
            "--page=folder",
            f"--out={self.out}",
            f"--workdir={self.workdir}",
        ]
        return ["auralise", *flags, *map(str, songs)]

    def begin(self, command: list[str]) -> subprocess.Popen:
        with open(self.folder / "said.txt", "w") as said:
            return subprocess.Popen(
                [sys.executable, ROOT / "bin" / command[0], *command[1:]],
                stdout=said,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.folder,
            )

    def whole(self, command: list[str]) -> None:
        """Runs a command to its end, which must be a good one."""
        status = self.begin(command).wait(timeout=600)
        said = (self.folder / "said.txt").read_text()
        assert status == 0, said
        assert "Traceback" not in said, said

    def result(self) -> dict[str, str]:
        """Digests of all that must be the same in the end."""
        files = [self.workdir / name for name in ("report.json", "metrics.jsonl", "corpus.json")]
        files += sorted((self.workdir / "network").iterdir())
        files += [p for p in sorted(self.out.rglob("*")) if p.suffix in (".csv", ".js", ".npz", ".wav")]
        digests = {}
        for path in files:
            content = path.read_bytes()
            if path.suffix == ".wav":  # its header has the time of writing
                content = soundfile.read(path)[0].tobytes()
            elif path.suffix == ".npz":
                with np.load(path) as stored:
                    content = b"".join(stored[name].tobytes() for name in sorted(stored.files))
            digests[str(path.relative_to(self.folder))] = hashlib.sha256(content).hexdigest()
        kept = workdir.checkpoints(self.workdir).values()  # whole, and the same weights
        return digests | {str(p.relative_to(self.folder)): workdir.load(checkpoint=p).fingerprint for p in kept}

    def left_over(self) -> list[Path]:
        """Temporary files and folders that no finished run may leave."""
        places = (self.workdir, self.out)
        return [
            p for place in places for p in place.rglob("*") if "partial" in p.name or "orbax-checkpoint-tmp" in p.name
        ]

    def forget(self) -> None:
        for folder in (self.store, self.workdir, self.out):
            shutil.rmtree(folder, ignore_errors=True)

    def _begun(self, phase: str) -> bool:
        """Whether the files show that a phase has begun."""
        run = self.workdir
        if phase == "indexing":
            return True
        if phase == "storing":
            return any(self.store.glob("clips/*/*"))
        if phase == "training":
            return any(run.glob("checkpoints/last/[0-9]*"))
        if phase == "checkpointing":
            return any(run.glob("checkpoints/*/*orbax-checkpoint-tmp*"))
        if phase == "reporting":
            lines = (run / "metrics.jsonl").read_text().count("\n") if (run / "metrics.jsonl").exists() else 0
            return lines == 3
        return any(self.out.glob(".*.partial"))

    def kill(self, phase: str, wait: float) -> str:
        """Begins the command of a phase, kills it `wait` seconds after the phase has begun; says what was hit."""
        process = self.begin(self.auralise() if phase == "auralising" else self.train())
        begin = time.monotonic()
        try:
            while not self._begun(phase):
                if process.poll() is not None:
                    return "over before"
                time.sleep(0.001)
            time.sleep(wait)
            if process.poll() is not None:
                return "over before"
        finally:
            process.kill()
            process.wait()
        last = sorted(p.name for p in self.workdir.glob("checkpoints/last/*"))
        left = [p.name for p in self.left_over()]
        return f"killed after {time.monotonic() - begin:.2f} s; last checkpoint {last}; left {left}"


def main(folder: Path, moments: int, seed: int, phases=PHASES) -> list[dict]:
    """Kills at so many moments; AssertionError if anything is not as in a calm run."""
    folder.mkdir(parents=True)
    runs = Runs(folder)
    runs.whole(runs.train())
    runs.whole(runs.auralise())
    wanted = runs.result()
    rng = np.random.default_rng(seed)
    table = []
    for number in range(moments):
        phase = phases[number % len(phases)]
        wait = rng.uniform(0, 3.0 if phase == "indexing" else 0.3)
        if phase != "auralising":
            runs.forget()
        else:
            shutil.rmtree(runs.out, ignore_errors=True)
            runs.whole(runs.train())
        said = runs.kill(phase, wait)
        runs.whole(runs.train())
        runs.whole(runs.auralise())
        found = runs.result()
        different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        assert not runs.left_over()
        table.append({"moment": number, "phase": phase, "wait": round(wait, 3), "hit": said, "different": different})
        print(json.dumps(table[-1]), flush=True)
        assert not different, different
    return table


def in_turn(folder: Path, phases: tuple[str, ...], seed: int, variant: str = "") -> list[str]:
    """The short form: one run that is killed in each of the phases; says what was hit, AssertionError as `main`."""
    folder.mkdir(parents=True)
    runs = Runs(folder, variant)
    runs.whole(runs.train())
    runs.whole(runs.auralise())
    wanted = runs.result()
    runs.forget()
    rng = np.random.default_rng(seed)
    said = []
    for phase in phases:
        if phase == "auralising":
            runs.whole(runs.train())
        said.append(runs.kill(phase, rng.uniform(0, 0.3)))
    if phases[-1] != "auralising":
        runs.whole(runs.train())
    runs.whole(runs.auralise())
    assert runs.result() == wanted
    assert not runs.left_over()
    return said


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    main(given.folder.absolute(), given.moments, given.seed)
