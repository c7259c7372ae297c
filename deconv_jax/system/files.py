"""Files that are whole or not there, names that can be printed and used everywhere, and tables that run no formulas.

Whatever is made gets a temporary name beside its place and is then renamed. What a killed process left under such a
name, and nothing else, `remove_leftovers` removes.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import time
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

STALE = 3600.0
"""Seconds after which a temporary name belongs to no running process: far longer than one file or folder may take."""

_TEMPORARY = re.compile(r"\.\d+-[0-9a-f]{8}\.partial")
_FORMULA = re.compile(r"(?![+-]?[\d.]+(e[+-]?\d+)?$)[=+\-@\t\r].*", re.IGNORECASE | re.DOTALL)


# --- names ----------------------------------------------------------------------------------


def shown(path) -> str:
    """A file name on one printable line, whatever bytes it holds."""
    text = os.fspath(path)
    if isinstance(text, str) and text.isprintable():  # nearly all are, and collections have many
        return text
    text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def folder_names(stems: Iterable, taken: Iterable[str] = ()) -> list[str]:
    """A name for a folder for each of some names: printable, not hidden, and unlike all others on any file system.

    Names that differ in case, or in how a letter with an accent is encoded, are one name where a file system takes
    them for one, as those of macOS and Windows do: the later ones are numbered.

    Args:
      stems: names of any bytes.
      taken: names that are not to be given.
    """
    names: list[str] = []
    used = set(map(_folded, taken))
    for stem in stems:
        short = shown(stem).lstrip(".")[:100] or "clip"
        short = short.encode()[:200].decode(errors="ignore")  # names have 255 bytes at most
        name, number = short, 1
        while _folded(name) in used:
            number += 1
            name = f"{short}-{number}"
        used.add(_folded(name))
        names.append(name)
    return names


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


# --- temporary names ------------------------------------------------------------------------


def temporary(folder) -> Path:
    """A hidden name in a folder that nobody has and `remove_leftovers` knows."""
    return Path(folder) / f".{os.getpid()}-{uuid.uuid4().hex[:8]}.partial"


def remove_leftovers(folder, older: float = 0.0) -> None:
    """Removes what killed processes left under temporary names in a folder, its sub-folders not.

    Args:
      folder: need not be there.
      older: leave what was changed in the last so many seconds. 0 is only for who has the folder to itself, `STALE`
        for folders that several processes fill.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if not _TEMPORARY.fullmatch(path.name) or time.time() - path.lstat().st_mtime < older:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


@contextlib.contextmanager
def replacing(path, folder=None) -> Iterator[Path]:
    """A temporary name to write to, beside `path` or in a folder; renamed to `path` on success, removed on failure."""
    path = Path(path)
    partial = temporary(folder or path.parent)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path) -> Iterator[Path]:
    """An empty folder to fill; takes the place of the folder `path` on success, is removed on failure."""
    path = Path(path)
    partial, aside = temporary(path.parent), temporary(path.parent)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            os.replace(path, aside)
        os.replace(partial, path)
    finally:
        for left in (partial, aside):
            shutil.rmtree(left, ignore_errors=True)


# --- contents -------------------------------------------------------------------------------


def write_bytes(path, content: bytes) -> None:
    """Writes a file whole, and to the disk itself, so that not even a power cut leaves an empty file of its name."""
    with replacing(path) as partial, open(partial, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


def write_text(path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path, value) -> None:
    """Writes JSON whole; numbers that JSON does not know (NaN) become null."""
    write_text(path, json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def write_csv(path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Writes rows that share their keys as a table, whole; floats with seven digits.

    A spreadsheet takes a cell that begins with =, +, - or @ for a formula, and names are whoever's who named the
    files: such a text, unless it is a number, gets an apostrophe before it, as OWASP advises.

    Args:
      path: of the table.
      rows: at least one, if there are no columns.
      columns: names of the columns; those of the first row if left out.
    """
    rows = list(rows)
    columns = list(columns or rows[0])
    text = io.StringIO(newline="")
    csv.writer(text).writerow(map(cell, columns))
    csv.DictWriter(text, columns).writerows({name: cell(value) for name, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def cell(value):
    """A value as `write_csv` puts it into a cell."""
    if isinstance(value, float | np.floating):
        return f"{value:.7g}"
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def digest(value) -> str:
    """SHA-256, in hexadecimal, of what JSON can hold; the order of keys changes nothing."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def plain(value):
    """A value as JSON can hold it: arrays as lists, paths as text, NaN and infinity as None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
