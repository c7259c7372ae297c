"""Calls a function on many inputs in processes that may die: a crash, a hang or too little memory costs one input.

Decoders are C code, and the files that people have are hostile to it. `concurrent.futures` drops all work when one of
its processes dies, neither it nor `multiprocessing` has a time limit, and with "spawn" both (and Pebble) run the main
script again, which no plain script bears; "fork" may hang once JAX has started threads. So a worker here is a fresh
interpreter that takes one task a line and answers with one line, both JSON. When its parent is killed, it reads the
end of its input and ends too.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any

CRASHES = ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL", "SIGSYS")
"""Signals that come from what a process did itself; any other was sent to it."""

PATIENCE = 10
"""A busy machine or a slow disk may make an input take so many times as long as its processor time."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one input may cost: seconds of processor time (and ten times that of any time), and bytes of address space.

    Where the system cannot limit processor time or memory, only the second limit of time is there.
    """

    seconds: float = 300.0
    memory: int = 4 << 30


@dataclasses.dataclass(frozen=True)
class Lost:
    """An input without a result. `certain`: the same is to be expected of it next time."""

    reason: str
    certain: bool


class _Killed(Lost):
    """By somebody else."""


def run(
    function: str, tasks: Iterable[tuple[Any, dict]], count: int, limits: Limits | None = None
) -> Generator[tuple[Any, Any], None, None]:
    """Calls a function once for every task, in `count` processes.

    Args:
      function: "module:name"; takes a task's keywords and returns what JSON can hold.
      tasks: (name, keywords that JSON can hold); taken one by one, as they are begun.
      count: number of processes.
      limits: of each task.

    Yields:
      (name, result) in the order in which they are done; the result is a `Lost` where the process died, took too
      long, or the function raised.

    Raises:
      RuntimeError: a process could not be started; its own message stands on stderr.
    """
    limits = limits or Limits()
    waiting, lock, stop = iter(tasks), threading.Lock(), threading.Event()
    done: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()
    workers = [_Worker(function, limits) for _ in range(max(1, count))]

    def serve(worker: _Worker) -> None:
        try:
            while not stop.is_set():
                with lock:
                    item = next(waiting, None)
                if item is None:
                    break
                done.put(("result", item[0], worker.ask(item[1])))
        except BaseException as error:  # to be raised where the results are taken
            done.put(("error", None, error))
        finally:
            worker.end()
            done.put(("end", None, None))

    threads = [threading.Thread(target=serve, args=(w,), daemon=True) for w in workers]
    try:
        for thread in threads:
            thread.start()
        running = len(threads)
        while running:
            kind, name, value = done.get()
            if kind == "error":
                raise value
            if kind == "result":
                yield name, value
            else:
                running -= 1
    finally:
        stop.set()
        for worker in workers:
            worker.kill()
        for thread in threads:
            thread.join()


class _Worker:
    """One process at a time, started when it is first needed and again after it died."""

    def __init__(self, function: str, limits: Limits):
        self._function, self._limits = function, limits
        self._process: subprocess.Popen | None = None
        self._lock, self._ended = threading.Lock(), False

    def ask(self, task: dict) -> Any:
        """The function's result, or a `Lost`. One that was killed by somebody else gets a second chance."""
        answer = self._ask(task)
        return self._ask(task) if isinstance(answer, _Killed) and not self._ended else answer

    def _ask(self, task: dict) -> Any:
        process = self._process or self._start()
        assert process.stdin
        assert process.stdout
        late = threading.Event()

        def give_up():
            late.set()
            process.kill()

        timer = threading.Timer(PATIENCE * self._limits.seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(json.dumps(task).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:  # it died before it read the task
            line = b""
        finally:
            timer.cancel()
        if line.endswith(b"\n") and not late.is_set():
            answer = json.loads(line)
            return answer["result"] if "result" in answer else Lost(answer["lost"], answer["certain"])
        process.kill()
        status = self._close()
        name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        if late.is_set():
            return Lost(f"took longer than {PATIENCE * self._limits.seconds:g} s", False)
        if name == "SIGPROF":
            return Lost(f"takes more than {self._limits.seconds:g} s of processor time", True)
        if name in CRASHES:
            return Lost(f"crashed the process that read it ({name})", True)
        return _Killed(f"was being read by a process that was ended ({name}), twice", False)

    def _start(self) -> subprocess.Popen:
        setup = {
            "path": sys.path,
            "function": self._function,
            "memory": self._limits.memory,
            "seconds": self._limits.seconds,
        }
        code = "import json, sys; setup = json.loads(sys.argv[1]); sys.path[:] = setup.pop('path'); "
        code += f"from {__name__} import serve; serve(**setup)"
        with self._lock:
            if self._ended:
                raise RuntimeError("ended")
            try:
                self._process = process = subprocess.Popen(
                    [sys.executable, "-c", code, json.dumps(setup)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    # More threads for linear algebra would only take address space.
                    env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                )
            except OSError as error:
                raise RuntimeError(f"no process could be started ({error})") from error
        assert process.stdout
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{sys.executable}: a process to call {self._function} could not be started")
        return process

    def _close(self) -> int:
        process, self._process = self._process, None
        assert process
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(OSError):  # what it did not read is lost with it
            process.stdin.close()
        process.stdout.close()
        return process.wait()

    def kill(self) -> None:
        """For other threads: whoever waits for its answer wakes up, and it is not started again."""
        with self._lock:
            self._ended = True
            if self._process:
                self._process.kill()

    def end(self) -> None:
        """For the thread that asks: ends the process."""
        self.kill()
        if self._process:
            self._close()


def serve(function: str, memory: int, seconds: float) -> None:
    """What a worker's process does: answers tasks until its input ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    module, _, name = function.partition(":")
    call: Callable[..., Any] = getattr(importlib.import_module(module), name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    _limit_memory(memory)
    limited = hasattr(signal, "setitimer")  # what becomes of the signals ends the process, even in the midst of C code
    answers.write(b"ready\n")
    # Decoders write warnings where they like.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    for line in sys.stdin.buffer:
        if limited:
            signal.setitimer(signal.ITIMER_PROF, seconds)
            signal.setitimer(signal.ITIMER_REAL, 2 * PATIENCE * seconds)  # the parent may have been killed
        answer: dict[str, Any]
        try:
            answer = {"result": call(**json.loads(line))}
        except MemoryError:
            answer = {"lost": f"needs more than {memory / 2**30:g} GiB of memory", "certain": True}
        except Exception as error:
            answer = {"lost": f"{type(error).__name__}: {error}", "certain": False}
        if limited:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
        answers.write(json.dumps(answer).encode() + b"\n")


def _limit_memory(memory: int) -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # no such system, or a lower limit is set already
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
