"""One process at a time writes into a folder, and what a killed one left there is swept away."""

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock

from deconv_jax.errors import InputError
from deconv_jax.sound import audio

LOCK = ".lock"

_LEFT_OVER = re.compile(r"\.\d+-[0-9a-f]{8}\.partial")
"""Names of `audio.replacing` and of folders that are put together before they are renamed."""


@contextlib.contextmanager
def claimed(folder, flag: str, inside: Sequence[str] = ()) -> Iterator[None]:
    """Keeps other processes out of a folder while the body runs.

    The lock is the kernel's (flock): it ends with its process, however that ends, and works over NFS.

    Args:
      folder: there already.
      flag: that named it, for the message, such as "--workdir".
      inside: its sub-folders in which this program replaces files, too.

    Raises:
      InputError: another process has it; the message says which.
      OSError: the folder cannot be written.
    """
    folder = Path(folder)
    path = folder / LOCK
    lock = filelock.FileLock(path, blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(
            f"{flag}={audio.shown(folder)}: {_holder(path)} is at work there; "
            "wait for it to end, or name another folder"
        ) from None
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        for place in (folder, *(folder / name for name in inside)):
            sweep(place)
        yield
    finally:
        path.unlink(missing_ok=True)  # those who opened it before see that it is gone, and try again
        lock.release()


def _holder(path: Path) -> str:
    try:
        said = audio.shown(path.read_text(errors="replace")[:200].strip())
    except OSError:
        said = ""
    return said or "another process"


def sweep(folder: Path) -> None:
    """Removes half-written files and folders. Only for who has the folder to itself."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if not _LEFT_OVER.fullmatch(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
