"""How long a deconvolution sweep takes: all 64 features of a layer of the paper's network, for one clip.

    pip install '.[benchmarks]'
    python benchmarks/sweep.py [--layers=1,2,3,4,5] [--repeats=5] [--clip=FILE] [--out=sweep.json]

About 4 minutes and 5 GB of memory on two cores. This library against PyTorch as an expert would write it, Captum, and
NumPy loops like the authors'; same clip, same weights (He-normal, no bias). First, all are given the same switches
and must agree within 1e-5 of each image's maximum. Then each gets a process of its own and they take turns; a time is
that of a whole call, forward pass included. It prints a table, writes JSON, and judges nothing.
"""

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import measure
import numpy as np
from absl import app, flags
from candidates import CAPTUM, DEPTH, MAPS, NUMPY, OURS, TOLERANCE, Captum, Check, Library, Loops, Torch

KEPT = measure.KEEP_FREED_MEMORY
CANDIDATES: dict[str, tuple] = {
    OURS: (Library, ("auto",), {}, MAPS),
    f"{OURS}, plain path": (Library, ("plain",), {}, MAPS),
    "PyTorch": (Torch, (False,), {}, MAPS),
    "PyTorch, last stage rewritten": (Torch, (True,), {}, MAPS),
    "PyTorch, freed memory kept": (Torch, (False,), KEPT, MAPS),
    "PyTorch, both": (Torch, (True,), KEPT, MAPS),
    CAPTUM: (Captum, (False,), {}, len(Captum.SOME)),
    NUMPY: (Loops, (), {}, len(Loops.SOME)),
}
"""Class, arguments after the magnitude, environment, and features timed of the 64."""


def gflop(layer: int, size: tuple[int, int]) -> float:
    """Multiplications and additions of dense convolutions, forward pass and sweep, in 10⁹."""
    cells = [(size[0] >> n) * (size[1] >> n) for n in range(layer)]
    forward = [18 * c * MAPS * (MAPS if number else 1) for number, c in enumerate(cells)]
    # Back from the layer itself one map is alive, 1 / MAPS of the work, so all its features together cost one forward.
    return (sum(forward) + MAPS * sum(forward[:-1]) + forward[-1]) / 1e9


def measured(magnitude: np.ndarray, layers: list[int], repeats: int) -> dict:
    """First calls, times of every round and peak memory of all candidates."""
    out: dict = {"start_s": {}, "first_s": {}, "seconds": {}, "cpu_seconds": {}, "peak_mb": {}, "gemm_gflops": []}
    deepest = layers[-1]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
        peak, running = measure.Candidate(measure.MatrixMultiply), {}
        for name, (make, arguments, extra, _) in CANDIDATES.items():
            running[name] = measure.Candidate(make, magnitude, *arguments, environment=extra)
            out["start_s"][name] = running[name].start_seconds
            out["first_s"][name] = {l: running[name].call("run", l).seconds for l in reversed(layers)}
        again = measure.Candidate(Library, magnitude, "auto")
        out["second_process_s"] = [again.start_seconds, again.call("run", deepest).seconds]
        again.close()
        for name in CANDIDATES:
            out["seconds"][name], out["cpu_seconds"][name] = {l: [] for l in layers}, {l: [] for l in layers}
        for turn in range(repeats):
            print(f"round {turn + 1} of {repeats}", file=sys.stderr)
            out["gemm_gflops"].append(peak.call("run").result)
            for layer in layers:
                for name in measure.alternating(list(CANDIDATES), turn):
                    call, share = running[name].call("run", layer), MAPS / CANDIDATES[name][3]
                    out["seconds"][name][layer].append(share * call.seconds)
                    out["cpu_seconds"][name][layer].append(share * call.cpu_seconds)
        out["peak_mb"] = {name: candidate.peak_bytes / 1e6 for name, candidate in running.items()}
        for candidate in (peak, *running.values()):
            candidate.close()
    return out


def report(found: dict, layers: list[int], size: tuple[int, int]) -> str:
    """The tables in Markdown."""
    columns: list = [*layers, "all"] if len(layers) > 1 else [*layers]
    seconds: dict[str, dict] = {name: {**rows} for name, rows in found["seconds"].items()}
    for rows in seconds.values():
        rows["all"] = [sum(turn) for turn in zip(*(rows[l] for l in layers), strict=True)]
    head = [f"layer {c}" if c != "all" else f"all {len(layers)}" for c in columns]
    times = []
    for name, rows in seconds.items():
        first = found["start_s"][name], found["first_s"][name][layers[-1]]
        pairs = zip(found["cpu_seconds"][name][layers[-1]], found["seconds"][name][layers[-1]], strict=True)
        had = f"{statistics.median(cpu / wall for cpu, wall in pairs):.1f}"
        cells = [f"{1e3 * statistics.median(rows[c]):.0f}" for c in columns]
        partial = name.endswith("*")
        last = ["", ""] if partial else [f"{first[0]:.1f} + {first[1]:.1f}", f"{found['peak_mb'][name]:.0f}"]
        times.append([name, *cells, had, *last])
    others = [name for name in seconds if name != OURS]
    torch_names = [name for name in others if name.startswith("PyTorch")]
    faster = []
    for name in others:
        faster.append([name, *(measure.ratio(seconds[name][c], seconds[OURS][c]) for c in columns)])
    best = [min(torch_names, key=lambda n, c=c: statistics.median(seconds[n][c])) for c in columns]  # type: ignore[misc]
    ratios = [measure.ratio(seconds[n][c], seconds[OURS][c]) for n, c in zip(best, columns, strict=True)]
    faster.append(["the fastest PyTorch", *ratios])
    gemm = max(found["gemm_gflops"])
    work: dict = {l: gflop(l, size) for l in layers}
    work["all"] = sum(work.values())
    rates = []
    for name in (OURS, "PyTorch"):
        speeds = [work[c] / statistics.median(seconds[name][c]) for c in columns]
        rates.append([name, *(f"{s:.0f} ({s / gemm:.2f})" for s in speeds)])
    again = found["second_process_s"]
    return f"""\
Times of a sweep in ms, median of {len(seconds[OURS][layers[0]])} rounds; for layer {layers[-1]}, cores had (CPU time \
over wall time),
and start of the process and first call, s; peak memory, MB:

{measure.table(["", *head, "cores", "start + first", "peak"], times)}

\\* extrapolated to {MAPS} features from the time of {len(Captum.SOME)} (Captum) or {len(Loops.SOME)} (NumPy, without \
forward pass).
A second process of this library, compiled programs kept: {again[0]:.1f} + {again[1]:.1f} s.

How many times as fast this library is; ratio of medians (median of each round's ratio; ratio of the fastest rounds):

{measure.table(["than", *head], faster)}

GFLOP/s, counted as dense convolutions (share of the matrix-multiply peak measured, {gemm:.0f} GFLOP/s; Winograd's
transforms do with fewer operations, so a share may exceed 1):

{measure.table(["", *head], [["GFLOP", *(f"{work[c]:.1f}" for c in columns)], *rates])}"""


def main(argv) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}")
    measure.need(["torch", "captum"])
    layers = sorted({int(l) for l in flags.FLAGS.layers})
    setting = measure.environment(["jax", "flax", "torch", "captum", "numpy"])
    print(", ".join(f"{k}: {v}" for k, v in setting.items()))
    check = measure.Candidate(Check)
    magnitude = check.call("magnitude", flags.FLAGS.clip).result
    if isinstance(magnitude, str):
        sys.exit(magnitude)
    agreement = {l: check.call("errors", magnitude, l).result for l in layers}
    check.close()
    names = [name for name in agreement[layers[0]] if name not in ("flips", "end to end", "features beyond")]
    rows = [[n, *(f"{agreement[l][n]:.1e}" for l in layers)] for n in names]
    print("\nLargest difference from PyTorch's images given the same switches, as a share of an image's maximum:\n")
    print(measure.table(["", *(f"layer {l}" for l in layers)], rows))
    print("\nEach with the switches of its own forward pass, where near ties may fall either way:")
    for l, row in agreement.items():
        print(
            f"layer {l}: {row['flips']} switches differ, {row['features beyond']} of {MAPS} images by more than "
            f"{TOLERANCE:.0e}, at most {row['end to end']:.1e}"
        )
    wrong = sorted({n for n in names for l in layers if not agreement[l][n] <= TOLERANCE})
    if wrong:
        sys.exit(f"No times: {' and '.join(wrong)} differ by more than {TOLERANCE:.0e}")
    found = measured(magnitude, layers, flags.FLAGS.repeats)
    print(f"\n{report(found, layers, magnitude.shape)}")
    record = {"environment": setting, "layers": layers, "agreement": agreement, **found}
    Path(flags.FLAGS.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    flags.DEFINE_list("layers", [str(n) for n in range(1, DEPTH + 1)], "layers to sweep")
    flags.DEFINE_integer("repeats", 5, "rounds", lower_bound=1)
    flags.DEFINE_string("clip", None, "music file; its first 4 s are used. A synthetic clip if left out")
    flags.DEFINE_string("out", "sweep.json", "where the times go")
    flags.register_validator(
        "layers", lambda v: bool(v) and all(l in "12345" and l for l in v), "a list of layers from 1 to 5"
    )
    app.run(main)
