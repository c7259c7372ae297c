"""The static listening page of what is chosen in the studio, by the library's own writer, in the studio's folder."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from deconv_jax.errors import InputError, SettingError
from deconv_jax.network.trained import Trained
from deconv_jax.results import clip_folder
from deconv_jax.studio.songs import Source
from deconv_jax.system import files, locks

KEPT = 40
"""Pages that are kept, at most: some 10 MB each, with their sounds."""


def make(
    trained: Trained,
    source: Source,
    folder: Path,
    start: float,
    seconds: float,
    layer: int,
    features: Sequence[int] | None,
    why: bool,
) -> tuple[str, Path]:
    """Explains a stretch of a song by some features of a layer, as `bin/auralise` does, in ten seconds.

    Args:
      trained, source: the network and the song.
      folder: of all pages; the oldest go.
      start, seconds: the stretch.
      layer: 1-based.
      features: numbers; all if left out.
      why: what the answer hangs on as well, as sound.

    Returns:
      The page's name, the same for the same choice, and the folder that holds it.

    Raises:
      InputError: the song cannot be read there any more, or the page cannot be written.
    """
    choice = [trained.fingerprint, source.key, round(start, 4), round(seconds, 4), layer, features, why]
    name = files.digest(choice)[:20]
    out = folder / name
    options = clip_folder.Options(
        layers=(layer,),
        chosen=list(features) if features else "all",
        reading="phase" if trained.front_end.linear else "mask",
        offset=start,
        duration=seconds,
        why=why,
    )
    try:
        made = clip_folder.export(trained, [source.path], out, options)
        if made.failed:
            raise InputError(made.failed[0])
        _trim(folder, out)
    except (InputError, SettingError, OSError) as error:
        if not any((out / there).exists() for there in ("index.html", locks.LOCK)):  # made before, or by another studio
            shutil.rmtree(out, ignore_errors=True)
        reason = str(error) if not isinstance(error, OSError) else f"cannot be written ({error.strerror or error})"
        reason = reason.replace(files.shown(source.path), source.name)
        raise InputError(f"No page was made: {reason}") from None
    return name, out


def find(folder: Path, name: str) -> Path | None:
    """The page of a name, if it is there."""
    path = folder / name / "index.html"
    return path if re.fullmatch(r"[0-9a-f]{20}", name) and path.is_file() else None


def _trim(folder: Path, newest: Path) -> None:
    """Removes the pages that were made first, where there are more than are kept."""
    made = sorted(folder.glob("*/index.html"), key=lambda path: path.stat().st_mtime)
    for path in made[:-KEPT]:
        if path.parent != newest:
            shutil.rmtree(path.parent, ignore_errors=True)
