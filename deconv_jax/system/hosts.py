"""Several processes, on one host or on many, that work on one run together: `--distributed`.

Every process gives the same command. They find each other through `jax.distributed`; process 0 is the one that
writes and prints. What is said here about a process that dies: its sockets close, so a CPU's collective (Gloo) fails
at once in all others, and so does the coordination service where it was process 0. Where nothing is under way, a
thread notices that it does not come to their next meeting. In every case the others end with one line and a status
that is not zero, and the same commands go on from what was saved last.
"""

import atexit
import ctypes
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable

from deconv_jax.errors import InputError, SettingError

JOIN_SECONDS = 300
"""How long a process waits for the others to start."""

SIGN_SECONDS, SILENT_SECONDS = 5.0, 30.0
"""Between two meetings of the processes, and how long one is waited for before it is taken for dead."""

_FOREVER_MS = 7 * 24 * 3600 * 1000


def start(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Joins the other processes of this run; to be called before anything else of JAX.

    Args:
      coordinator: "host:port" of process 0, with a port that is free there; processes: how many there are; process:
        which one this is, from 0. What is left out is taken from the cluster's environment: Slurm, Open MPI,
        Kubernetes (GKE) and Cloud TPU have one.

    Raises:
      ValueError: an argument is wrong, or left out where no environment has it.
      InputError: the others cannot be reached.
    """
    import jax

    host, colon, port = (coordinator or "").rpartition(":")
    if coordinator is not None and not (host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise SettingError(f"{coordinator}: wanted is the host and a free port of process 0, host:port", "coordinator")
    if processes is not None and processes < 1:
        raise SettingError(f"{processes}: must be at least 1", "processes")
    if process is not None and not 0 <= process < (processes or process + 1):
        raise SettingError(f"{process}: must be at least 0 and below processes={processes}", "process")
    if coordinator is not None and process:
        _reach(coordinator, host, int(port))
    _say_when_aborted()
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=100,  # the watch below is quicker, and says more
            shutdown_timeout_seconds=24 * 3600,  # while process 0 measures the baselines of a large corpus
        )
    except (ValueError, TypeError, KeyError) as error:
        raise SettingError(
            "no cluster's environment (Slurm, Open MPI, Kubernetes, Cloud TPU) says what the run "
            f"consists of ({str(error).rstrip('.')}); name coordinator=HOST:PORT, processes=N and process=I"
        ) from None
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"the processes did not find each other ({reason})") from None
    if jax.process_count() > 1:
        over = threading.Event()
        threading.Thread(target=_watch, args=(over,), name="watch", daemon=True).start()
        atexit.register(_leave, over)  # comes before what JAX has registered


def _reach(coordinator: str, host: str, port: int) -> None:
    """Waits until process 0 listens, which JAX does too, but gives up with a stack dump."""
    until = time.monotonic() + JOIN_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), port), timeout=10).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                reason = error.strerror or error
                raise InputError(
                    f"{coordinator}: process 0 cannot be reached there ({reason}); start it, or name its host and port",
                    "coordinator",
                ) from None
            time.sleep(0.5)


def joined() -> bool:
    """Whether this process is one of several."""
    if "jax" not in sys.modules:
        return False
    import jax

    return jax.distributed.is_initialized() and jax.process_count() > 1


def share() -> tuple[int, int]:
    """(which process this is, how many there are); (0, 1) for one by itself."""
    if not joined():
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def first() -> bool:
    """Whether this process is the one that writes and prints."""
    return share()[0] == 0


def barrier(name: str) -> None:
    """Waits until all processes are here, however long that takes."""
    if joined():
        _meeting()(key=f"deconv_jax/{name}", timeout_ms=_FOREVER_MS)


def from_first(tree):
    """Process 0's arrays, for all; every process gives a tree of the same shapes, and gets NumPy arrays back."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if not joined():
        return jax.tree.map(np.asarray, tree)
    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def ending(main: Callable[[], int]) -> int:
    """Runs a command; one of several processes that fails ends at once, so that the others notice.

    (An ordinary exit would wait for all others to end, and they for this one's next batch.)
    """
    try:
        status = main()
    except BaseException as error:
        if not joined():
            raise
        if _lost(error):
            reason = str(error).splitlines()[0][:200]
            print(f"error: {_another_died()} ({reason})", file=sys.stderr)
        else:
            traceback.print_exc()
        status = 1
    if status and joined():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _lost(error: BaseException) -> bool:
    """Whether it says that another process is gone: a collective's error has no type of its own."""
    signs = ("gloo", "nccl", "collective", "connection", "unavailable", "coordination service", "deadline_exceeded")
    known = isinstance(error, RuntimeError | ValueError | OSError)
    return known and any(sign in str(error).lower() for sign in signs)


def _another_died() -> str:
    number, count = share()
    return (
        f"process {number} of {count}: another process of this run is gone, and nothing goes on without it; start "
        "all of them again: they go on from what was saved last"
    )


def _meeting() -> Callable[..., None]:
    """A function (key, timeout_ms) that waits until all processes called it with the same key, once each."""
    from orbax.checkpoint import multihost

    return multihost.get_barrier_sync_fn()


def _leave(over: threading.Event) -> None:
    """Waits at the end for all others: JAX's own end takes no part in meetings, which would look like a death."""
    _meeting()(key="deconv_jax/over", timeout_ms=_FOREVER_MS)
    over.set()


def _watch(over: threading.Event) -> None:
    """Meets the other processes again and again, and ends this one when another does not come any more."""
    meet, turn = _meeting(), 0
    while True:
        turn += 1
        try:
            meet(key=f"deconv_jax/alive/{turn}", timeout_ms=int(1000 * SILENT_SECONDS))
        except Exception as error:
            if over.is_set() or "DEADLINE_EXCEEDED" not in str(error):
                return  # at the run's end, or with the end of process 0, of which JAX tells
            print(f"\nerror: {_another_died()}", file=sys.stderr, flush=True)
            os._exit(1)
        if over.wait(SIGN_SECONDS):
            return


def _say_when_aborted() -> None:
    """Ends the stack dump with which JAX's runtime aborts by a line that says what to do.

    The runtime aborts in a thread of its own when it loses its coordinator; Python's own handlers would never run.
    """
    number = int(signal.SIGABRT)
    _aborted.append(_HANDLER(_on_abort))  # kept for as long as the process lives
    try:
        ctypes.CDLL(None).signal(number, _aborted[-1])
    except (OSError, AttributeError):
        return


def _on_abort(_: int) -> None:
    os.write(
        2,
        b"\nerror: process 0 of this run is gone or could not be reached, and nothing goes on without it; start all "
        b"of them again: they go on from what was saved last\n",
    )
    os._exit(1)


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)
_aborted: list = []
