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
    root = known[0].parents[1]
    root = root.with_name(f"{root.name.replace('builtin', 'stems', 1)}-{sample_rate}")
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


def write(folder, sample_rate: int) -> None:
    """Plays one song into its folder, whose name is that of genre and number."""
    genre, number = Path(folder).name.rsplit("_", 1)
    assert genre in GENRES, genre
    stems = make_stems(genre, int(number), sample_rate)
    with files.replacing_folder(folder) as partial:
        for name, waveform in stems.items():
            soundfile.write(partial / f"{name}.flac", waveform, sample_rate, format="FLAC", subtype="PCM_24")
