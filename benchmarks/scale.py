"""How a layer-5 sweep grows: with clips, clip length, features and devices.

    python benchmarks/scale.py [--layer=5] [--repeats=3] [--out=scale.json]

About 8 minutes and 2 GB of memory on two cores. Each row is a process of its own: it compiles in a first call, which
is not counted, then takes the median of some calls; its peak memory is its own, the images that it returns included,
and stands beside the size of these. Clips are synthetic music; the network is the paper's with random weights. For
devices, XLA is told to make so many of the processor, which shows that results do not depend on their number and
what sharing costs, not that more devices of one processor are faster; with a GPU or TPU, that part takes the devices
that are there. It prints tables, writes JSON, and judges nothing but equality.
"""

import hashlib
import json
import math
import os
import statistics
import sys
from pathlib import Path

import measure
import numpy as np
from absl import app, flags
from candidates import DEPTH, MAPS, Library

CLIPS = (1, 2, 4, 8, 16, 32)
SECONDS = (1, 2, 4, 15, 60, 240)
FEATURES = (1, 4, 16, 32, 64)
DEVICES = (1, 2, 4)
DEVICE_CLIPS = 8


def music(seconds: float, seed: int) -> np.ndarray:
    """Synthetic, (samples,): a long clip is a row of different short ones."""
    pieces = [measure.synthetic_clip(1000 * seed + n) for n in range(math.ceil(seconds / 4))]
    return np.concatenate(pieces)[: round(seconds * measure.SAMPLE_RATE)]


class Sweeps:
    """Sweeps of one size, in a process of its own."""

    def __init__(self, clips: int, seconds: float, features: int, layer: int):
        from deconv_jax import stft

        magnitude = np.stack([np.abs(np.asarray(stft(music(seconds, seed)))) for seed in range(clips)])
        self.magnitude = magnitude / np.sqrt(np.mean(magnitude**2))
        self.library = Library(self.magnitude, "auto")
        self.layer, self.features = layer, list(range(features))

    def sweep(self) -> np.ndarray:
        from deconv_jax import deconvolve

        magnitude = self.magnitude[0] if len(self.magnitude) == 1 else self.magnitude
        found = deconvolve(self.library.network, self.library.variables, magnitude, self.layer, self.features)
        return found.block_until_ready()

    def run(self) -> int:
        """Bytes of the images."""
        return self.sweep().nbytes

    def digest(self) -> str:
        """Of the images' bits."""
        return hashlib.sha256(np.asarray(self.sweep()).tobytes()).hexdigest()


def measured(clips=1, seconds=4.0, features=MAPS, devices=None) -> dict:
    """One row: medians of a few calls, peak memory, and for devices the digest of the result."""
    extra = {}
    if devices:
        extra["XLA_FLAGS"] = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}".strip()
        )
    layer, repeats = flags.FLAGS.layer, flags.FLAGS.repeats
    candidate = measure.Candidate(Sweeps, clips, seconds, features, layer, environment=extra)
    first = candidate.call("run")
    times = [candidate.call("run").seconds for _ in range(repeats)]
    row = {
        "clips": clips,
        "seconds": seconds,
        "features": features,
        "devices": devices,
        "first_s": first.seconds,
        "call_s": statistics.median(times),
        "images_mb": first.result / 1e6,
        "peak_mb": candidate.peak_bytes / 1e6,
    }
    if devices:
        row["digest"] = candidate.call("digest").result
    candidate.close()
    return row


def shown(rows: list[dict], column: str, head: str) -> str:
    """A table of rows that differ in one column."""
    cells = []
    for row in rows:
        speed = row["clips"] / row["call_s"]
        real_time = row["clips"] * row["seconds"] / row["call_s"]
        numbers = [f"{row['call_s']:.2f}", f"{speed:.2f}", f"{real_time:.1f}", f"{row['peak_mb']:.0f}"]
        cells.append(
            [f"{row[column]:g}", *numbers, f"{row['images_mb']:.0f}", f"{row['peak_mb'] - row['images_mb']:.0f}"]
        )
    names = [head, "s", "clips/s", "s of music/s", "peak MB", "images MB", "the rest MB"]
    return measure.table(names, cells)


def main(argv) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}")
    setting = measure.environment(["jax", "flax", "numpy"])
    print(", ".join(f"{k}: {v}" for k, v in setting.items()))
    layer = flags.FLAGS.layer
    tables: dict[str, tuple[str, list[dict]]] = {
        "clips": ("clips of 4 s", [{"clips": n} for n in CLIPS]),
        "seconds": ("length, s", [{"seconds": float(s)} for s in SECONDS]),
        "features": ("features", [{"features": n} for n in FEATURES]),
        "devices": ("devices", [{"devices": n, "clips": DEVICE_CLIPS} for n in DEVICES]),
    }
    record: dict = {"environment": setting, "layer": layer}
    for column, (head, settings) in tables.items():
        record[column] = []
        for row in settings:
            print(f"{column}: {row[column]}", file=sys.stderr)
            record[column].append(measured(**row))
        what = f", {DEVICE_CLIPS} clips of 4 s" if column == "devices" else ""
        print(f"\nLayer {layer}{what}:\n\n{shown(record[column], column, head)}")
    digests = {row["digest"] for row in record["devices"]}
    print(
        f"\nResults on {', '.join(map(str, DEVICES))} devices: {'the same bits' if len(digests) == 1 else 'DIFFERENT'}"
    )
    Path(flags.FLAGS.out).write_text(json.dumps(record, indent=1) + "\n")
    if len(digests) > 1:
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_integer("layer", DEPTH, "layer to sweep", lower_bound=1, upper_bound=DEPTH)
    flags.DEFINE_integer("repeats", 3, "calls of each size", lower_bound=1)
    flags.DEFINE_string("out", "scale.json", "where the figures go")
    app.run(main)
