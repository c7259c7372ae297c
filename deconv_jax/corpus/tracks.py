"""Folders of labelled music → tracks, a split by song, and clips in memory."""

import concurrent.futures
import dataclasses
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deconv_jax import audio, runtime
from deconv_jax.errors import InputError
from deconv_jax.spectrogram import FrontEnd

PARTS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Track:
    """One labelled sound file; `name` is its path below the root, which identifies it wherever the root lies."""

    path: Path
    name: str
    label: str
    group: str = ""


def index_folder(root, keep: set[Path] | None = None) -> list[Track]:
    """Tracks below a folder whose sub-folders are named after genres, sorted by name.

    Sound files may lie any number of folders below their genre's; hidden files and folders are left out.

    Args:
      root: the folder.
      keep: take these files only.

    Raises:
      InputError: there is no such folder, or it holds fewer than two genres.
    """
    root = Path(root)
    wanted = "wanted is a folder with one sub-folder of sound files for each genre"
    if not root.is_dir():
        raise InputError(f"--config.data.root={audio.shown(root)}: is no folder; {wanted}")
    try:
        genres = sorted(d for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))
    except OSError as error:
        raise InputError(f"--config.data.root={audio.shown(root)}: {error.strerror}; {wanted}") from None
    tracks = [
        Track(path, audio.shown(path.relative_to(root)), audio.shown(genre.name))
        for genre in genres
        for path in audio.find([genre])
        if keep is None or path in keep
    ]
    labels = {t.label for t in tracks}
    if len(labels) < 2:
        raise InputError(
            f"--config.data.root={audio.shown(root)}: holds sound files of {len(labels)} genre(s), not of two; {wanted}"
        )
    return tracks


def split(tracks: list[Track], fractions, seed: int) -> dict[str, list[Track]]:
    """Divides songs, never clips, into train, validation and test, each genre in the same proportion.

    Args:
      tracks: in a fixed order.
      fractions: shares of the three parts; the paper's are 82.5 %, 8.75 % and 8.75 % (section 4).
      seed: of the shuffle.

    Returns:
      Part → tracks. Every part has at least one song of every genre.

    Raises:
      InputError: a genre has fewer than three songs.
      ValueError: the fractions are not three positive numbers that add up to 1.
    """
    fractions = [float(f) for f in fractions]
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"config.data.split must be three positive numbers that add up to 1, not {fractions}")
    parts: dict[str, list[Track]] = {part: [] for part in PARTS}
    for number, label in enumerate(sorted({t.label for t in tracks})):
        songs = [t for t in tracks if t.label == label]
        if len(songs) < 3:
            raise InputError(
                f"genre {label!r} has {len(songs)} song(s): at least 3 are needed, one each to train, validate and test"
            )
        order = np.random.Generator(np.random.PCG64([seed, number])).permutation(len(songs))
        held_out = [max(1, round(len(songs) * f)) for f in fractions[1:]]
        if sum(held_out) >= len(songs):
            held_out = [1, 1]
        edges = [len(songs) - sum(held_out), len(songs) - held_out[1]]
        for part, chosen in zip(PARTS, np.split(order, edges), strict=True):
            parts[part] += [songs[i] for i in sorted(chosen)]
    return parts


def shuffle_labels(parts: dict[str, list[Track]], seed: int) -> dict[str, list[Track]]:
    """Deals the labels out anew among the songs of the training part, and of the validation part: a null.

    A network trained on them can learn nothing about genres (the data randomisation test of Adebayo et al. 2018,
    section 4). Every clip of a song gets the song's new label; there are as many songs of each label as before. The
    test part keeps its labels, so that the report shows that nothing was learnt.

    Args:
      parts: of `split`.
      seed: of the permutation.
    """
    shuffled = dict(parts)
    for number, part in enumerate(("train", "validation")):
        tracks = parts[part]
        order = np.random.Generator(np.random.PCG64([seed, number, 1])).permutation(len(tracks))
        labels = [tracks[i].label for i in order]
        shuffled[part] = [dataclasses.replace(t, label=label) for t, label in zip(tracks, labels, strict=True)]
    return shuffled


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips of the songs of one part.

    Attributes:
      waveforms: int16 (full scale 32,768), shape (clips, samples).
      labels: class of every clip, shape (clips,).
      songs: index of its song among the part's tracks, shape (clips,).
    """

    waveforms: np.ndarray
    labels: np.ndarray
    songs: np.ndarray


def load_clips(
    parts: dict[str, list[Track]], labels: list[str], front_end: FrontEnd, per_song: int
) -> tuple[dict[str, Clips], list[tuple[str, str]]]:
    """Reads every song and cuts it into clips, evenly spread over it.

    Returns:
      Part → clips, and (name, reason) of every song that could not be used: unreadable, or silent throughout.

    Raises:
      InputError: a part or a genre of the training part has nothing left.
    """
    clip = front_end.clip_samples
    flat = [(part, song, track) for part, tracks in parts.items() for song, track in enumerate(tracks)]

    def read(item):
        track = item[2]
        try:
            waveform = audio.read(track.path, front_end.sample_rate)
        except InputError as error:
            return None, str(error)
        if not np.any(waveform):
            return None, f"{audio.shown(track.path)}: is silent throughout"
        starts = audio.clip_starts(len(waveform), clip, per_song)
        pieces = np.stack([audio.cut(waveform, start, clip) for start in starts])
        return np.round(np.clip(pieces, -1, 1 - 2**-15) * 32768).astype(np.int16), ""

    found: dict[str, list] = {part: [] for part in parts}
    skipped = []
    with concurrent.futures.ThreadPoolExecutor(runtime.cores()) as pool:
        results = pool.map(read, flat)
        for (part, song, track), (pieces, reason) in zip(
            flat, tqdm(results, total=len(flat), desc="reading music", unit="song"), strict=True
        ):
            if pieces is None:
                skipped.append((track.name, reason))
            else:
                found[part].append((pieces, labels.index(track.label), song))
    clips = {}
    for part, items in found.items():
        missing = set(range(len(labels))) - {label for _, label, _ in items}
        if not items or (part == "train" and missing):
            what = "any genre" if not items else f"genre {labels[min(missing)]!r}"
            raise InputError(f"no song of {what} could be read for the {part} part; first reason: {skipped[0][1]}")
        counts = [len(pieces) for pieces, _, _ in items]
        clips[part] = Clips(
            np.concatenate([pieces for pieces, _, _ in items]),
            np.repeat([label for _, label, _ in items], counts).astype(np.int32),
            np.repeat([song for _, _, song in items], counts).astype(np.int32),
        )
    return clips, skipped
