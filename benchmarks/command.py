"""How long people wait: from a command to its page, and for a folder of songs.

    python benchmarks/command.py [--repeats=3] [--clips=200] [--out=command.json]

About 20 minutes on two cores, 11 with --repeats=1. Songs are synthetic, 4 s each, all different; the network is the
packaged `real3`, layer 5. Every row is a command as typed, in a fresh process; each runs once before, uncounted, so
that everything is compiled (into a folder of this benchmark's own). Then medians of wall and processor seconds, and the
largest memory of the command's process. A further song costs what a folder of five takes beyond one. It judges nothing.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure
import soundfile
from absl import app, flags

ROOT = Path(__file__).parents[1]
FEW = 5


def run(command: list[str], folder: Path) -> tuple[float, float, float]:
    """Wall and processor seconds, and peak memory in MB, of a command and the processes that it started."""
    paths = {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    script, *arguments = command
    with tempfile.TemporaryDirectory(dir=folder) as out:
        places = [f"--out={out}/made", f"--cache_dir={folder}/cache"]
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "bin" / script), *arguments, *places],
            env=os.environ | paths,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr
        said = process.stderr.read().decode(errors="replace")
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
    if status:
        sys.exit(f"{' '.join(command)} ended with status {status}:\n{said}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def commands(folder: Path, clips: int) -> dict[str, list[str]]:
    """What is measured, by name; writes the songs."""
    for name, count in (("one", 1), ("few", FEW), ("many", clips)):
        (folder / name).mkdir()
        for seed in range(count):
            soundfile.write(folder / name / f"{seed}.wav", measure.synthetic_clip(seed), measure.SAMPLE_RATE)
    one, few, many = (str(folder / name) for name in ("one", "few", "many"))
    page, none = ["auralise", "--page=folder"], ["auralise", "--page=none"]
    return {
        "one song to its page": ["auralise", one],
        "--page=none": [*none, one],
        "--nowhy": ["auralise", "--nowhy", one],
        "--page=none --nowhy": [*none, "--nowhy", one],
        "--page=folder": [*page, one],
        f"--page=folder, {FEW} songs": [*page, few],
        f"--page=none, {FEW} songs": [*none, few],
        f"bin/sweep, {clips} clips, with a page": ["sweep", "--clips_per_song=1", many],
        f"bin/sweep, {clips} clips, --top=0": ["sweep", "--clips_per_song=1", "--top=0", many],
    }


def main(argv) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}")
    setting, clips = measure.environment(["jax", "flax", "numpy"]), flags.FLAGS.clips
    print(", ".join(f"{k}: {v}" for k, v in setting.items()), flush=True)
    found: dict[str, list] = {}
    with tempfile.TemporaryDirectory() as place:
        rows = commands(Path(place), clips)
        for name, command in rows.items():
            print(name, file=sys.stderr)
            run(command, Path(place))
            found[name] = [run(command, Path(place)) for _ in range(flags.FLAGS.repeats)]
    medians = {name: [statistics.median(column) for column in zip(*runs, strict=True)] for name, runs in found.items()}
    cells = [[name, f"{wall:.1f}", f"{busy:.1f}", f"{peak:.0f}"] for name, (wall, busy, peak) in medians.items()]
    print(f"\n{measure.table(['', 's', 'processor s', 'peak MB'], cells)}\n")
    for kind in ("folder", "none"):
        further = medians[f"--page={kind}, {FEW} songs"][0] - medians[f"--page={kind}"][0]
        print(f"--page={kind}: {further / (FEW - 1):.1f} s for each further song")
    for name in list(rows)[-2:]:
        print(f"{name}: {clips / medians[name][0]:.2f} clips/s")
    Path(flags.FLAGS.out).write_text(json.dumps({"environment": setting, "clips": clips, **found}, indent=1) + "\n")


if __name__ == "__main__":
    flags.DEFINE_integer("repeats", 3, "runs of each command that count", lower_bound=1)
    flags.DEFINE_integer("clips", 200, "songs of 4 s in the large folder", lower_bound=1)
    flags.DEFINE_string("out", "command.json", "where the figures go")
    app.run(main)
