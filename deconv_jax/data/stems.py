"""Songs with a sound file for each stem, from folders: what MUSDB and most multitrack sets look like once unpacked."""

import dataclasses
from pathlib import Path

import numpy as np

from deconv_jax.errors import InputError
from deconv_jax.sound import audio
from deconv_jax.system import files

MIXES = ("mixture", "mix")
"""Names of files that hold the whole: they are left out, since stems are taken to add up to it."""


@dataclasses.dataclass(frozen=True)
class StemSong:
    """One song: its name below the root, printable, and the file of every stem by the stem's name."""

    name: str
    stems: dict[str, Path]


def find(root) -> list[StemSong]:
    """Songs below a folder, sorted: every folder that holds at least two stems.

    As in MUSDB18-HQ (`train/Song/vocals.wav`, `drums.wav`, `bass.wav`, `other.wav` beside `mixture.wav`), or plainly
    `Song/stem.wav`, of any kind that can be read. A file's name is its stem's, in lower case; those of `MIXES` are left
    out.

    Raises:
      InputError: there is no such folder, it has no such song, or fewer than two.
    """
    root = Path(root)
    found = [StemSong(files.shown(folder.relative_to(root)), stems) for folder, stems in _songs(root).items()]
    if len(found) < 2:
        packed = next(root.rglob("*.stem.mp4"), None)
        hint = f"; {files.shown(packed.name)} is a packed one: unpack it, as MUSDB18-HQ is" if packed else ""
        raise InputError(
            f"{files.shown(root)}: holds {len(found)} song(s) with stems; {_WANTED}, two songs at least{hint}", "stems"
        )
    return sorted(found, key=lambda song: song.name)


_WANTED = "wanted is a folder with a folder for each song, in which every stem is a sound file (bass.wav, drums.wav …)"


def _songs(root: Path, besides: Path | None = None) -> dict[Path, dict[str, Path]]:
    """Folders below the root that hold at least two stems, and these by name; the file `besides` is none of them."""
    if not root.is_dir():
        raise InputError(f"{files.shown(root)}: is no folder; {_WANTED}", "stems")
    songs: dict[Path, dict[str, Path]] = {}
    for path in audio.find([root]):
        name = files.shown(path.stem).lower()
        if name not in MIXES and path.absolute() != besides:
            songs.setdefault(path.parent, {}).setdefault(name, path)
    return {folder: stems for folder, stems in songs.items() if len(stems) > 1}


def of_file(path, root) -> StemSong | None:
    """The stems of one sound file: in its own folder, in a folder of its name, or else in the root itself.

    Args:
      path: the song, such as `Song/mixture.wav` or `anywhere/Song.mp3`.
      root: a folder as `find` takes it, in which one song is enough.

    Returns:
      The song with its stems; None if the root holds none of it.

    Raises:
      InputError: there is no such folder.
    """
    root, path = Path(root), Path(path).absolute()
    songs = _songs(root, path)
    own = [folder for folder in songs if folder.absolute() == path.parent]
    named = [folder for folder in songs if folder.name == path.stem]
    alone = [folder for folder in songs if folder == root and len(songs) == 1]
    return next((StemSong(files.shown(folder.name), songs[folder]) for folder in [*own, *named, *alone]), None)


def concepts(songs: list[StemSong]) -> list[str]:
    """Names of all stems, those of most songs first."""
    names = [name for song in songs for name in song.stems]
    return sorted(set(names), key=lambda name: (-names.count(name), name))


def read(song: StemSong, sample_rate: int) -> dict[str, np.ndarray]:
    """Waveforms (samples,) of a song's stems, as long as the longest of them.

    Raises:
      InputError: one of them cannot be read.
    """
    sounds = {name: audio.read(path, sample_rate) for name, path in song.stems.items()}
    longest = max(map(len, sounds.values()))
    return {name: audio.cut(sound, 0, longest) for name, sound in sounds.items()}
