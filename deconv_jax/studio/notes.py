"""Favourites and notes in a file of JSON, written whole at every change: a kill loses none that was told as kept.

Several studios may keep theirs in one file: each change is made to what the file holds then, one studio at a time.
"""

import json
import threading
from pathlib import Path
from typing import Any

from deconv_jax.errors import InputError
from deconv_jax.system import files, locks

LONGEST = 2000
"""Characters of a note, at most."""

MOST = 100_000
"""Features that can be marked, at most."""


class Notes:
    """What was marked, by network (its fingerprint), song, layer and feature; `kept`: whether all of it is in the file.

    Args:
      path: of the file; None keeps nothing beyond this process. One that is there is read and added to.

    Raises:
      InputError: the file is there and holds no notes of the studio.
    """

    def __init__(self, path: Path | None = None):
        self.path, self._lock, self.kept = path, threading.Lock(), bool(path)
        self.marks: dict[str, dict[str, Any]] = {}
        self._changed: dict[str, dict[str, Any] | None] = {}  # what is not in the file yet
        if path and path.exists():
            self.marks = _read(path)

    def change(self, place: list[Any], mark: dict[str, Any]) -> None:
        """Marks a feature; what is neither a favourite nor noted is not kept.

        Raises:
          InputError: it cannot be written. What was written before stands, and the change is held for the next time.
        """
        network, song, layer, feature = place
        key = json.dumps([str(network)[:100], str(song)[:300], int(layer), int(feature)], separators=(",", ":"))
        with self._lock:
            if len(self.marks) >= MOST and key not in self.marks:
                raise InputError(f"{MOST:,} features are marked, which is as many as are kept")
            new = _mark(mark)
            self._changed[key] = new if any(new.values()) else None
            self.marks = _with(self.marks, self._changed)
            self._write()

    def end(self) -> None:
        """Writes once more what could not be written; InputError where that fails again."""
        with self._lock:
            if self.path and not self.kept:
                self._write()

    def _write(self) -> None:
        if not self.path:
            return
        self.kept = False
        try:
            with locks.turn(self.path.with_name(f".{self.path.name}.lock")):
                if self.path.exists():  # another studio may have added to it
                    self.marks = _with(_read(self.path), self._changed)
                files.write_json(self.path, {"studio notes": self.marks})
            self._changed, self.kept = {}, True
        except OSError as error:
            reason = f"the notes cannot be written ({error.strerror or error}); they are held until the studio ends"
            raise InputError(f"{files.shown(self.path)}: {reason}: free some space, and change one again") from None


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The marks in a file; InputError if it holds something else."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return {str(key): _mark(mark) for key, mark in found["studio notes"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        wanted = "wanted is a file that the studio wrote, or a name that is not taken"
        raise InputError(f"{files.shown(path)}: holds no notes ({type(error).__name__}); {wanted}", "notes") from None


def _with(marks: dict[str, dict[str, Any]], changed: dict[str, dict[str, Any] | None]) -> dict[str, dict[str, Any]]:
    """Marks, and what was changed of them: the last ones last; None takes one away."""
    rest = {key: mark for key, mark in marks.items() if key not in changed}
    return rest | {key: mark for key, mark in changed.items() if mark}


def _mark(given: dict[str, Any]) -> dict[str, Any]:
    return {"favourite": bool(given["favourite"]), "note": str(given["note"])[:LONGEST]}
