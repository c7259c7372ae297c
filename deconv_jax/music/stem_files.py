"""Stems of built-in songs kept as files, in the layout that stems of anybody have (`deconv_jax.data.stems`)."""

from pathlib import Path

import soundfile
from tqdm import tqdm

from deconv_jax.music import builtin
from deconv_jax.music.stems import make_stems
from deconv_jax.music.styles import GENRES
from deconv_jax.system import files, locks, workers
from deconv_jax.system.runtime import cores

SEED = 998
"""The corpus of songs that networks are dissected with: no packaged network was trained on any of it."""


def build(cache_dir, songs_per_genre: int, sample_rate: int, seed: int = SEED) -> list[Path]:
    """Plays songs by stems where that has not been done yet, in all cores; a song is there whole or not at all.

    Args:
      cache_dir: folder for them.
      songs_per_genre: of each of the built-in genres.
      sample_rate: of the files, in Hz.
      seed: number of the corpus.

    Returns:
      The songs' folders, genres in turns: number by number, so that both halves of them hold every genre. Each holds
      a FLAC of 24 bits for every stem that sounds.

    Raises:
      InputError: the folder cannot be written.
    """
    known = builtin.files(cache_dir, songs_per_genre, seed)
    root = _stems_of(known[0].parents[1], sample_rate)
    folders = sorted((root / path.stem for path in known), key=lambda path: path.name.rsplit("_")[::-1])
    missing = [folder for folder in folders if not folder.is_dir()]
    if not missing:
        return folders
    try:
        with locks.writing(root, "cache_dir", wait=True):
            missing = [folder for folder in folders if not folder.is_dir()]
            tasks = ((folder, {"folder": str(folder), "sample_rate": sample_rate}) for folder in missing)
            with tqdm(total=len(missing), unit="song", desc="stems of built-in music") as bar:
                for folder, result in workers.run(f"{__name__}:write", tasks, min(cores(), len(missing))):
                    if isinstance(result, workers.Lost):
                        write(folder, sample_rate)  # once more, here, where an error says by itself what is wrong
                    bar.update()
    except OSError as error:
        raise locks.unwritable(cache_dir, error, "cache_dir") from None
    return folders


def of_song(path) -> dict[str, Path] | None:
    """The stems of one built-in song, played where they have not been yet: beside the corpus that the song is of.

    Args:
      path: of a sound file, whichever.

    Returns:
      Name → file, at the song's own rate. None for a file that is no built-in song, or one of another version.

    Raises:
      InputError: the folder of the corpus cannot be written.
    """
    path = Path(path)
    corpus = path.absolute().parent.parent
    genre, _, number = path.stem.rpartition("_")
    if genre not in GENRES or not number.isdigit() or corpus != builtin.files(corpus.parent, 1)[0].parents[1]:
        return None
    folder = _stems_of(corpus, builtin.SAMPLE_RATE) / path.stem
    if not folder.is_dir():
        try:
            with locks.writing(folder.parent, "cache_dir", wait=True):
                if not folder.is_dir():
                    write(folder, builtin.SAMPLE_RATE)
        except OSError as error:
            raise locks.unwritable(folder.parent, error, "cache_dir") from None
    return {file.stem: file for file in sorted(folder.iterdir())}


def _stems_of(corpus: Path, sample_rate: int) -> Path:
    """Where the stems of a corpus of built-in songs are."""
    return corpus.with_name(f"{corpus.name.replace('builtin', 'stems', 1)}-{sample_rate}")


def write(folder, sample_rate: int) -> None:
    """Plays one song into its folder, whose name is that of genre and number."""
    genre, number = Path(folder).name.rsplit("_", 1)
    assert genre in GENRES, genre
    stems = make_stems(genre, int(number), sample_rate)
    with files.replacing_folder(folder) as partial:
        for name, waveform in stems.items():
            soundfile.write(partial / f"{name}.flac", waveform, sample_rate, format="FLAC", subtype="PCM_24")
