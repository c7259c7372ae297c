"""One process at a time writes into a folder; those that share one work out go in together."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock

from deconv_jax.errors import InputError
from deconv_jax.system import files

LOCK = ".lock"


@contextlib.contextmanager
def writing(
    folder,
    about: str,
    inside: Sequence[str] = (),
    share: tuple[int, int] = (0, 1),
    wait: bool = False,
) -> Iterator[Path]:
    """Makes a folder and keeps other processes out of it while the body writes there.

    The lock is the kernel's (flock): it ends with its process, however that ends, and works over NFS. Temporary files
    and folders that killed processes left are swept away, but not while others share the work.

    Args:
      folder: made if it is not there.
      about: the argument that named it, for errors, such as "workdir".
      inside: its sub-folders that are written as well.
      share: (i, n): the body does the i-th of n shares of one work; the others may go on meanwhile.
      wait: for others to end, in place of an error.

    Yields:
      The folder.

    Raises:
      InputError: another process has the folder, the message says which; or it cannot be written, now or in the body,
        whose OSError this replaces.
    """
    folder = Path(folder)
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as held:
            with contextlib.ExitStack() as door:
                door.enter_context(_lock(folder / LOCK, about, wait, passing=share[1] > 1))
                for other in folder.glob(".share-*.lock"):
                    if share[1] == 1 or not other.name.endswith(f"-of-{share[1]}.lock"):
                        with _lock(other, about, wait):
                            pass
                if share[1] > 1:
                    held.enter_context(_lock(folder / f".share-{share[0] + 1}-of-{share[1]}.lock", about, wait))
                else:
                    for place in (folder, *(folder / name for name in inside)):
                        files.remove_leftovers(place)
                    held.push(door.pop_all())
            yield folder
    except OSError as error:
        raise unwritable(folder, error, about) from None
    finally:
        if made:
            with contextlib.suppress(OSError):  # what fails before it writes leaves no empty folder
                folder.rmdir()


def unwritable(folder, error: OSError, about: str) -> InputError:
    """The error that says that a folder, which the argument `about` named, cannot be written."""
    reason = error.strerror or str(error).partition("\n")[0]
    return InputError(
        f"{files.shown(folder)}: cannot be written ({reason}); free some space or name another folder", about
    )


@contextlib.contextmanager
def turn(path) -> Iterator[None]:
    """Waits until no other process holds this lock file, and holds it while the body runs."""
    with _lock(Path(path), "", wait=True):
        yield


@contextlib.contextmanager
def _lock(path: Path, about: str, wait: bool = False, passing: bool = False) -> Iterator[None]:
    """Holds a lock file. One who is only `passing` does not sign it, and waits for others who pass."""
    lock = filelock.FileLock(path, timeout=-1 if wait else 0)
    while not lock.is_locked:
        try:
            lock.acquire()
        except filelock.Timeout:
            if not passing or _signed(path):
                raise InputError(
                    f"{files.shown(path.parent)}: {_signed(path) or 'another process'} is at work there; "
                    "wait for it to end, or name another folder",
                    about,
                ) from None
            time.sleep(0.05)
    try:
        if not passing:
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
        yield
    finally:
        path.unlink(missing_ok=True)  # those who opened it before see that it is gone, and try again
        lock.release()


def _signed(path: Path) -> str:
    try:
        return files.shown(path.read_text(errors="replace")[:200].strip())
    except OSError:
        return ""
