"""Measuring candidates side by side: each in a process of its own, taking turns.

A process for each keeps the comparison fair: nobody's allocator, thread pool or memory is another's, and peak memory
is a candidate's own. One works while the others sleep. Rounds are interleaved, so that a machine that slows down
slows all of them. Threads that wait for each other suffer most where the machine is shared: trust ratios only where
the cores that a candidate had, CPU time over wall time, come near those that there are. Nothing here imports JAX or
PyTorch: the size of the parent would count as the peak of its children.
"""

import contextlib
import importlib.metadata
import importlib.util
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SAMPLE_RATE = 11025

KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""Environment that gives any process on glibc what `system.runtime.keep_freed_memory` gives ours."""


class Call(NamedTuple):
    """One call in a candidate's process: wall and CPU time in seconds, and what it returned."""

    seconds: float
    cpu_seconds: float
    result: Any


class Candidate:
    """An object that lives in a fresh process; `start_seconds` is from the process's start until it is ready."""

    def __init__(self, make: Callable, *arguments, environment: Mapping[str, str] | None = None):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self.peak_bytes = 0
        begin = time.perf_counter()
        with _environment(environment or {}):
            self._process.start()
        theirs.close()
        self._receive()
        self.start_seconds = time.perf_counter() - begin

    def call(self, method: str, *arguments) -> Call:
        self._pipe.send((method, arguments))
        return self._receive()

    def close(self) -> None:
        self._pipe.close()
        self._process.join()

    def _receive(self) -> Call:
        try:
            answer, self.peak_bytes = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"a candidate's process ended with code {self._process.exitcode}") from None
        if isinstance(answer, str):
            raise RuntimeError(f"in a candidate's process:\n{answer}")
        return answer


def _serve(pipe, make: Callable, arguments: tuple) -> None:
    def timed(function: Callable, arguments: tuple) -> Call | str:
        begin, cpu = time.perf_counter(), time.process_time()
        try:
            result = function(*arguments)
        except Exception:
            return traceback.format_exc()
        return Call(time.perf_counter() - begin, time.process_time() - cpu, result)

    def answer(call: Call | str) -> None:
        unit = 1 if sys.platform == "darwin" else 1024
        pipe.send((call, unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))

    made = timed(make, arguments)
    if isinstance(made, str):
        answer(made)
        return
    answer(made._replace(result=None))
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            method, arguments = pipe.recv()
            answer(timed(getattr(made.result, method), arguments))


@contextlib.contextmanager
def _environment(extra: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(extra)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def alternating(items: Sequence, turn: int) -> Sequence:
    """Forwards in even rounds and backwards in odd ones, so that nobody always comes after the same other."""
    return items if turn % 2 == 0 else items[::-1]


def ratio(slower: Sequence[float], faster: Sequence[float]) -> str:
    """How many times as long the first took: of the medians (median of each round's; of the fastest rounds).

    Where others use the machine too, the last is the least disturbed.
    """
    rounds = statistics.median(s / f for s, f in zip(slower, faster, strict=True))
    values = (statistics.median(slower) / statistics.median(faster), rounds, min(slower) / min(faster))
    medians, rounds_text, fastest = (f"{v:.2f}" if v < 10 else f"{v:.0f}" for v in values)
    return f"{medians} ({rounds_text}; {fastest})"


class MatrixMultiply:
    """The machine's float32 peak as a 2048×2048 product reaches it, in PyTorch's library."""

    def __init__(self):
        import torch

        torch.set_num_threads(cores())
        self._a = torch.randn(2048, 2048, generator=torch.Generator().manual_seed(0))

    def run(self) -> float:
        """GFLOP/s, best of five."""
        best = np.inf
        for _ in range(5):
            begin = time.perf_counter()
            self._a @ self._a
            best = min(best, time.perf_counter() - begin)
        return 2 * len(self._a) ** 3 / best / 1e9

    def copy(self) -> float:
        """GB/s of copying 256 MB on all cores, read and written, best of five."""
        a = self._a.expand(16, -1, -1).contiguous()
        b, best = a.clone(), np.inf
        for _ in range(5):
            begin = time.perf_counter()
            b.copy_(a)
            best = min(best, time.perf_counter() - begin)
        return 2 * 4 * a.numel() / best / 1e9


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(packages: Sequence[str]) -> dict:
    """Processor, number of cores, load and versions: what the times depend on."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    versions = {name: importlib.metadata.version(name) for name in packages}
    load = round(os.getloadavg()[0], 2)
    return {"processor": model, "cores": cores(), "load": load, "python": platform.python_version(), **versions}


def need(packages: Sequence[str]) -> None:
    """Leaves with a line that says what to install, if a package is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} missing: pip install '.[benchmarks]'")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown with aligned columns, numbers to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]

    def line(cells: Sequence[str]) -> str:
        numbers = [f"{c:>{w}}" for c, w in zip(cells[1:], widths[1:], strict=True)]
        return " | ".join([f"| {cells[0]:<{widths[0]}}", *numbers, ""]).rstrip()

    return "\n".join(line(row) for row in (head, rule, *rows))


def synthetic_clip(seed: int = 0, seconds: float = 4.0) -> np.ndarray:
    """Decaying harmonic tones and bursts of noise over a faint floor of noise, (samples,), the same on any machine.

    The floor is there because in digital silence every pooling window is a tie.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    time_axis = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    clip = 1e-3 * random.standard_normal(len(time_axis))
    for onset in np.arange(0, seconds, 0.25):
        since = np.maximum(time_axis - onset, 0)
        begun = time_axis >= onset
        pitch = 55 * 2 ** (random.integers(0, 48) / 12)
        for harmonic in range(1, 1 + min(12, int(SAMPLE_RATE / 2 // pitch))):
            clip += begun * np.exp(-(2 + harmonic) * since) * np.sin(2 * np.pi * harmonic * pitch * since) / harmonic
        clip += 0.3 * begun * np.exp(-40 * since) * random.standard_normal(len(time_axis))
    return (0.9 * clip / np.abs(clip).max()).astype(np.float32)
