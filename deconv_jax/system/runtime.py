"""Settings of the process that let compiled code start and run fast, on which no result depends, and its versions."""

import contextlib
import ctypes
import functools
import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path


def cores() -> int:
    """Number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory that this process may use: of the machine, or of the container that it runs in."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else [sys.maxsize]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max", or no such file
            limits.append(int(Path(name).read_text()))
    return min(limits)


def cache_dir() -> Path:
    """The folder in which this platform keeps caches, for this library."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("deconv_jax"))


def keep_compiled() -> None:
    """Keeps compiled programs between processes, where the platform keeps caches, unless the user chose a place.

    Where that cannot be written nothing is kept: JAX would warn of every program.
    """
    import jax

    if not jax.config.values.get("jax_compilation_cache_dir"):
        place = cache_dir() / "compiled"
        with contextlib.suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
        if not os.access(place, os.W_OK):
            return
        jax.config.update("jax_compilation_cache_dir", str(place))
    # Small ones too: a command runs forty, 0.6 MB together.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


KEEP_BARRIERS: dict[str, str | bool] = {"xla_disable_hlo_passes": "cse_barrier_expander"}
"""Compiler options. XLA on a CPU drops `optimization_barrier` before it fuses, and then computes what stands before
one many times over: needed for the speed, not for the result."""


@functools.cache
def keep_freed_memory() -> bool:
    """Tells the C library to keep freed memory rather than hand it back to the system after every array.

    XLA on a CPU takes its temporaries from malloc, which by default maps and unmaps anything large: every pass
    then pays for page faults over fresh memory, up to half of the time of a sweep and two thirds of the first
    convolution's. Only glibc has the setting; elsewhere, and on accelerators, nothing is done.

    Returns:
      Whether the setting was made.
    """
    import jax

    if not sys.platform.startswith("linux") or jax.default_backend() != "cpu":
        return False
    return _mallopt(_MMAP_MAX, 0) and _mallopt(_TRIM_THRESHOLD, 2**31 - 1)


@contextlib.contextmanager
def handing_back() -> Iterator[None]:
    """Large blocks allocated within go back to the system when they are freed, as they would without the above.

    For a result that outgrows all temporaries: kept, its place would be nibbled at by smaller blocks, and the next
    result of its size would need a new one.
    """
    if not keep_freed_memory():
        yield
        return
    _mallopt(_MMAP_MAX, 65536)  # glibc's own
    try:
        yield
    finally:
        _mallopt(_MMAP_MAX, 0)


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h


def _mallopt(setting: int, value: int) -> bool:
    try:
        return bool(ctypes.CDLL(None).mallopt(setting, value))
    except (OSError, AttributeError):
        return False


def versions() -> dict[str, str]:
    """Versions of what had a part in a result."""
    packages = ("deconv_jax", "jax", "jaxlib", "flax", "numpy", "soundfile", "soxr", "matplotlib")
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in packages}
