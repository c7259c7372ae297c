"""Labelled music → tracks, from folders or from a table, and their division into training, validation and test."""

import bisect
import codecs
import collections
import csv
import dataclasses
import itertools
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deconv_jax.errors import InputError, SettingError
from deconv_jax.sound import audio
from deconv_jax.system import files

PARTS = ("train", "validation", "test")

COLUMNS = {
    "path": ("path", "audio_path", "file", "filename", "file_name", "filepath", "file_path", "audio", "mp3_path"),
    "label": ("label", "genre", "genre_top", "class", "tag", "style"),
    "group": ("group", "artist", "artist_id", "artist_name", "performer"),
    "part": ("split", "set", "part", "subset"),
}
"""Names by which `index_table` knows a column: the first of them that is there. Capitals and spaces do not matter."""

PART_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "validation": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
}
"""What a table may call the parts."""

_MARKS = {"1": True, "1.0": True, "true": True, "": False, "0": False, "0.0": False, "false": False}
"""Cells of a column that says of one tag who has it, in lower case."""

_FMA = {"label": ("track", "genre_top"), "group": ("artist", "id"), "part": ("set", "split")}
_CELL_LIMIT = 1 << 24  # characters; csv's own limit of 131,072 is less than a biography may take


@dataclasses.dataclass(frozen=True)
class Track:
    """One labelled sound file.

    Attributes:
      path: the file.
      name: its path below the root, which identifies it wherever the root lies; printable.
      label: its genre.
      group: its artist, or whatever else must not stand on two sides of a split; "" if not known.
      part: the part that the index puts it into, one of `PARTS`; "" if the index leaves that open.
      tags: what the columns that were asked for say of it; see `index_table`.
    """

    path: Path
    name: str
    label: str
    group: str = ""
    part: str = ""
    tags: tuple[str, ...] = ()


def index_folder(root, keep: set[Path] | None = None) -> list[Track]:
    """Tracks below a folder whose sub-folders are named after genres, sorted by name.

    Where sound files lie further down than directly in their genre's folder, the folder below the genre is their
    artist (`Track.group`), in whichever genres it stands; files directly in a genre's folder have none. Hidden files
    and folders are left out. Links to folders are followed only at the first level, and not to where they came from.

    Args:
      root: the folder.
      keep: take these files only.

    Raises:
      InputError: there is no such folder, or it holds fewer than two genres.
    """
    root = Path(root)
    name = files.shown(root)
    wanted = "wanted is a folder with one sub-folder of sound files for each genre"
    if not root.is_dir():
        raise InputError(f"{name}: is no folder; {wanted}", "root")
    try:
        here = root.resolve()
        genres = sorted(d for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))
        genres = [d for d in genres if not (d.is_symlink() and here.is_relative_to(d.resolve()))]
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}; {wanted}", "root") from None
    tracks = []
    for genre in genres:
        label = files.shown(genre.name)
        for path in audio.find([genre]):
            if keep is None or path in keep:
                below = path.relative_to(genre).parts
                group = files.shown(below[0]) if len(below) > 1 else ""
                tracks.append(Track(path, files.shown(path.relative_to(root)), label, group))
    labels = {t.label for t in tracks}
    if len(labels) < 2:
        raise InputError(f"{name}: holds sound files of {len(labels)} genre(s), not of two; {wanted}", "root")
    return tracks


def index_table(
    table, root=None, labelled: bool = True, tags: Sequence[str] = ()
) -> tuple[list[Track], list[tuple[str, str]]]:
    """Tracks that a table lists: CSV (commas or semicolons) or TSV, UTF-8 or UTF-16, one header row.

    Columns are found by their names, see `COLUMNS`: path and label are needed, group (the artist) and part are taken
    if there. Read as they are: tables with these columns (such as an export of mirdata's tracks, whose paths are
    absolute); GTZAN's `features_30_sec.csv` (a bare file name is looked for in the folder of its label too); and
    FMA's `fma_metadata/tracks.csv`, known by its three header rows, with `root` as the folder of the sound, in which
    track 2 is `000/000002.mp3`. FMA's table lists many more tracks than its smaller sets hold.

    A column of parts counts if any of its values is one (`PART_NAMES`); FMA's "small" or "medium" is none. Rows
    without one are then left out. A row without a group is a group of its own.

    Args:
      table: the file.
      root: what paths are relative to; the table's own folder if left out. Paths may lead out of it.
      labelled: whether a label is needed. If not, tracks of tables or rows without have the label "".
      tags: names of columns, as in the header, of which `Track.tags` is made. One of zeros and ones (or true and false)
        is a tag of the column's name; of any other every value is one, such as "mood: calm". FMA's has none.

    Returns:
      Tracks in the table's order, and (name, reason) of every row that cannot be used: too few cells, no path, no
      label, no part, no such file, or a file that an earlier row has. FMA's are counted and not listed.

    Raises:
      InputError: no such table, no text, needed columns missing, no track left, or fewer than two labels.
    """
    shown, title = files.shown(table), files.shown(Path(table).name)
    if root and not Path(root).is_dir():
        raise InputError(f"{files.shown(root)}: is no folder; wanted is what {title} starts from", "root")
    base = os.path.abspath(root or Path(table).parent)
    rows, is_fma = _read_table(table, labelled, tags)
    marks = [all(row.tags[n].lower() in _MARKS for row in rows) for n in range(len(tags))]
    skipped: list[tuple[str, str]] = []
    if is_fma:
        present = [r for r in rows if os.path.exists(os.path.join(base, r.path))]
        named = [r for r in present if r.label or not labelled]
        left_out = {
            f"are not below {files.shown(base)}": len(rows) - len(present),
            "have no genre_top": len(present) - len(named),
        }
        skipped = [(title, f"{n:,} of its {len(rows):,} tracks {why}") for why, n in left_out.items() if n]
        rows = named
    candidates = range(max((len(r.parts) for r in rows), default=0))
    parts = next((n for n in candidates if any(r.parts[n].lower() in PART_NAMES for r in rows)), None)
    tracks: list[Track] = []
    lines: dict[str, int] = {}
    for row in rows:
        path = os.path.normpath(os.path.join(base, row.path))
        if os.sep not in row.path and not os.path.exists(path):
            with_label = os.path.join(base, row.label, row.path)
            path = with_label if os.path.exists(with_label) else path
        part = "" if parts is None else row.parts[parts]
        reason = _unusable(row, path, part if parts is not None else None, labelled, lines)
        name = files.shown(path[len(base) :].lstrip(os.sep) if path.startswith(base + os.sep) else row.path)
        if reason:
            skipped.append((name[:200] or title, f"line {row.line} of {title}: {reason[:300]}"))
            continue
        lines[path] = row.line
        group, label = files.shown(row.group), files.shown(row.label)
        given = tuple(_tags(tags, row.tags, marks))
        tracks.append(Track(Path(path), name, label, group, PART_NAMES.get(part.lower(), ""), given))
    if not tracks:
        first = f"first reason: {skipped[0][1]}" if skipped else "it has no rows"
        raise InputError(
            f"{shown}: lists no track that can be used ({first}); name by root=DIR the folder that its paths "
            "start from",
            "index",
        )
    labels = {t.label for t in tracks}
    if labelled and len(labels) < 2:
        raise InputError(f"{shown}: lists tracks of one genre only, {labels.pop()!r}; at least two are needed", "index")
    return tracks, skipped


def _unusable(row: "_Row", path: str, part: str | None, labelled: bool, lines: dict[str, int]) -> str:
    """Why a row cannot be used, or ""; `part` is None in a table without, `lines` those of files that came before."""
    if not row.path.strip():
        return "no path"
    if labelled and not row.label:
        return "no label"
    if part is not None and part.lower() not in PART_NAMES:
        return f"the part {files.shown(part)!r} is none of {', '.join(PART_NAMES)}" if part else "no part"
    if path in lines:
        return f"the same file as in line {lines[path]}"
    return "" if os.path.exists(path) else f"there is no file {files.shown(path)}"


def _tags(columns: Sequence[str], cells: Sequence[str], marks: Sequence[bool]) -> Iterator[str]:
    """The tags of a row; `marks`: of which columns the cells only say whether it has the tag."""
    for column, cell, mark in zip(columns, cells, marks, strict=True):
        if mark and _MARKS[cell.lower()]:
            yield files.shown(column)
        elif not mark and cell:
            yield files.shown(f"{column}: {cell}")


class _Row(NamedTuple):
    """What a row says, as it stands there.

    `parts` has the cells of every column that may name the part, `tags` those of the columns that were asked for.
    """

    line: int
    path: str
    label: str
    group: str
    parts: tuple[str, ...]
    tags: tuple[str, ...]


def _read_table(table, labelled: bool, tags: Sequence[str] = ()) -> tuple[list[_Row], bool]:
    """The rows of a table, and whether it is FMA's; InputError if it is no table or lacks a column."""
    shown = files.shown(table)
    accepted = "accepted is a table as CSV or TSV, in UTF-8, with a header row"
    limit = csv.field_size_limit(_CELL_LIMIT)
    line = 1
    try:
        if not stat.S_ISREG(os.stat(table).st_mode):
            raise InputError(f"{shown}: is no plain file; {accepted}", "index")
        with open(table, "rb") as raw:
            start = raw.read(4096)
        wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        if b"\0" in start and not wide:
            raise InputError(f"{shown}: is no text; {accepted}", "index")
        encoding, errors = ("utf-16", "strict") if wide else ("utf-8-sig", "surrogateescape")
        with open(table, newline="", encoding=encoding, errors=errors) as handle:
            first = handle.readline(_CELL_LIMIT)
            delimiter = max(
                "\t,;", key=lambda d: (len(_roles(next(csv.reader([first], delimiter=d), []))), first.count(d))
            )
            reader = csv.reader(itertools.chain([first], handle), delimiter=delimiter)
            header = next(reader, [])
            second = next(reader, [])
            pairs = list(zip(header, second, strict=False))
            is_fma = _FMA["label"] in pairs
            if is_fma:
                roles = {role: [pairs.index(pair)] for role, pair in _FMA.items() if pair in pairs} | {"path": [0]}
            else:
                roles = _roles(header)
            needed = ["path", "label"] if labelled else ["path"]
            if lacking := [role for role in needed if role not in roles]:
                found = ", ".join(files.shown(name) for name in header[:20]) or "nothing"
                raise InputError(
                    f"{shown}: has no column for the {lacking[0]}: its first row is {found}; accepted is "
                    f"{', '.join(COLUMNS[lacking[0]])}; name the column so",
                    "index",
                )
            if unknown := [name for name in tags if is_fma or name not in header]:
                found = ", ".join(files.shown(name) for name in ([] if is_fma else header[:20])) or "none for tags"
                raise InputError(
                    f"{shown}: has no column {files.shown(unknown[0])!r}; its first columns are {found}", "tags"
                )
            places = [header.index(name) for name in tags]
            rows = []
            for row in reader if is_fma else itertools.chain([second], reader):
                line = reader.line_num
                if not row:
                    continue
                path, label, group = (
                    row[roles[role][0]] if role in roles and roles[role][0] < len(row) else ""
                    for role in ("path", "label", "group")
                )
                if is_fma:
                    if path == "track_id":
                        continue  # the third header row
                    path = os.path.join(path.zfill(6)[:3], path.zfill(6) + ".mp3")
                parts = tuple(row[n].strip() if n < len(row) else "" for n in roles.get("part", []))
                cells = tuple(row[n].strip() if n < len(row) else "" for n in places)
                rows.append(_Row(line, path, label.strip(), group.strip(), parts, cells))
            return rows, is_fma
    except OSError as error:
        raise InputError(f"{shown}: cannot be read ({error.strerror}); {accepted}", "index") from None
    except UnicodeError:
        raise InputError(f"{shown}: is no text in UTF-16, as its first bytes say; save it as UTF-8", "index") from None
    except csv.Error as error:
        raise InputError(f"{shown}: after line {line}: {error}; check its quotation marks", "index") from None
    finally:
        csv.field_size_limit(limit)


def _roles(header: list[str]) -> dict[str, list[int]]:
    """Role → columns that may have it, the likeliest first."""
    names = [re.sub(r"[\s-]+", "_", name.strip().lower()) for name in header]
    found = {role: [names.index(name) for name in known if name in names] for role, known in COLUMNS.items()}
    return {role: columns for role, columns in found.items() if columns}


def split(tracks: list[Track], fractions, seed: int, fold: str = "") -> dict[str, list[Track]]:
    """Divides songs, never clips, into train, validation and test, each genre in the same proportion.

    Where tracks have groups (artists), groups are divided whole, so that no artist is heard in two parts; the
    proportions are then kept as well as the groups' sizes allow. A group may hold several genres; a track without
    a group is one of its own.

    With `fold` "2/5" the songs are dealt into five folds: the second is for testing, the next one (after the last,
    the first) for validation, the others for training. Every song is in the test part of one fold. `fractions` do
    not matter then.

    Parts that the index gives are taken as they are, but must not divide a group. If it gives no validation or no
    test part, that is taken out of its training part, by group.

    Our own, since scikit-learn's StratifiedGroupKFold deals into equal folds only, promises no fold every class, and
    deals differently since its shuffle was repaired (its pull request 32540).

    Args:
      tracks: in a fixed order.
      fractions: shares of the three parts; the paper's are 82.5 %, 8.75 % and 8.75 % (section 4).
      seed: of the shuffle.
      fold: "" or number/folds.

    Returns:
      Part → tracks. Every part that is made here has at least one song of every genre.

    Raises:
      InputError: a genre has too few songs or groups for that; or parts of the index lack genres, divide groups or
        contradict `fold`.
      ValueError: the fractions are not three positive numbers that add up to 1, or `fold` is none.
    """
    fractions = shares_of(fractions)
    number, folds = _fold(fold)
    if any(t.part for t in tracks):
        if fold:
            raise InputError(
                f"{fold}: the index says itself which tracks are for training and for testing; "
                "leave fold out, or take that column out of the index",
                "fold",
            )
        return _given_parts(tracks, fractions, seed)
    if folds:
        places = ["train"] * folds
        places[number - 1], places[number % folds] = "test", "validation"
        where = [places[n] for n in _deal(tracks, [1 / folds] * folds, seed, f"one for each of {folds} folds")]
    elif any(t.group for t in tracks):
        purpose = "one each to train, validate and test"
        where = [PARTS[n] for n in _deal(tracks, fractions, seed, purpose)]
    else:
        return _split_songs(tracks, fractions, seed)
    return {part: [t for t, place in zip(tracks, where, strict=True) if place == part] for part in PARTS}


def shares_of(fractions) -> list[float]:
    """The shares of the three parts as numbers; ValueError if they are none."""
    try:
        shares = [float(share) for share in fractions]
    except (TypeError, ValueError):
        shares = []
    if len(shares) != 3 or not min(shares) > 0 or not abs(sum(shares) - 1) <= 1e-6:
        raise SettingError(f"config.data.split must be three positive numbers that add up to 1, not {fractions}")
    return shares


def _fold(fold: str) -> tuple[int, int]:
    """Number and count of folds; zeros for none."""
    if not fold:
        return 0, 0
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", str(fold))
    number, folds = map(int, match.groups()) if match else (0, 0)
    if not (folds >= 3 and 1 <= number <= folds):
        raise SettingError(
            f"config.data.fold must be empty or a number of a fold like 2/5, the second of five (of three at least: "
            f"one to train, one to validate, one to test), not {fold!r}"
        )
    return number, folds


def _split_songs(tracks: list[Track], fractions: list[float], seed: int) -> dict[str, list[Track]]:
    """Genre by genre: a shuffle, cut at the shares."""
    parts: dict[str, list[Track]] = {part: [] for part in PARTS}
    genres: dict[str, list[Track]] = {}
    for track in tracks:
        genres.setdefault(track.label, []).append(track)
    for number, label in enumerate(sorted(genres)):
        songs = genres[label]
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


def _given_parts(tracks: list[Track], fractions: list[float], seed: int) -> dict[str, list[Track]]:
    """The parts that an index gives; those that it does not are taken out of its training part."""
    if odd := {t.part for t in tracks} - set(PARTS):
        raise SettingError(f"a track's part must be one of {PARTS} if any track has one, not {sorted(odd)[0]!r}")
    parts = {part: [t for t in tracks if t.part == part] for part in PARTS}
    places = collections.Counter(group for group, _ in {(t.group, t.part) for t in tracks if t.group})
    if divided := sorted(group for group, count in places.items() if count > 1):
        raise InputError(
            f"the index puts {len(divided)} artist(s) into more than one part, such as {divided[0]!r}; results were "
            "too good: mend its column of parts or take it out, or let artists stand on both sides: "
            "config.data.split_by=song"
        )
    if not parts["train"]:
        raise InputError("the index puts no track that can be used into the training part: one is needed")
    made = [part for part in PARTS if part == "train" or not parts[part]]
    if len(made) > 1:
        shares = [fractions[PARTS.index(part)] for part in made]
        purpose = f"one for each part, since the index itself names no track for {' and '.join(made[1:])}"
        source = parts["train"]
        where = _deal(source, [share / sum(shares) for share in shares], seed, purpose)
        parts |= {part: [t for t, n in zip(source, where, strict=True) if n == made.index(part)] for part in made}
    if unheard := {t.label for t in tracks} - {t.label for t in parts["train"]}:
        raise InputError(f"the index puts no track of genre {min(unheard)!r} into the training part: one is needed")
    return parts


def _deal(tracks: list[Track], shares: list[float], seed: int, purpose: str) -> list[int]:
    """Deals groups into parts so that every part gets every genre, and about its share of it.

    Genres of few groups come first, and of each the largest groups. A group goes to one of the parts that have room
    for it, by chance in proportion to the room; if none has, to the one with the most. It goes nowhere that would
    leave fewer groups of a genre than parts without that genre: for groups of one genre that suffices, for others
    the order is changed and tried again.

    Args:
      shares: of the parts, adding up to 1.
      purpose: what as many groups as parts are needed for, to be read in errors.

    Returns:
      Number of the part of each track.

    Raises:
      InputError: a genre has fewer groups than there are parts, or groups of several genres leave no way.
    """
    members: dict[str | int, list[int]] = {}
    for i, track in enumerate(tracks):
        members.setdefault(track.group or i, []).append(i)
    groups = [collections.Counter(tracks[i].label for i in indices) for indices in members.values()]
    holders = collections.Counter(label for counts in groups for label in counts)
    what = "artist" if any(t.group for t in tracks) else "song"
    rest = "; leave that genre out, or take fewer folds" if len(shares) > 3 else "; leave that genre out"
    rest += ", or let artists stand on both sides: config.data.split_by=song" if what == "artist" else ""
    for label, count in sorted(holders.items()):
        if count < len(shares):
            raise InputError(
                f"genre {label!r} has {count} {what}(s): at least {len(shares)} are needed, {purpose}{rest}"
            )
    for attempt in range(20):
        chosen = _deal_once(groups, holders, shares, np.random.Generator(np.random.PCG64([seed, 2, attempt])), attempt)
        if chosen is not None:
            where = [0] * len(tracks)
            for indices, part in zip(members.values(), chosen, strict=True):
                for i in indices:
                    where[i] = part
            return where
    scarce = min(holders, key=lambda label: (holders[label], label))
    raise InputError(
        f"no way was found to give every part a group of every genre ({purpose}): too many of the {holders[scarce]} "
        f"artists of {scarce!r} play other genres too{rest}"
    )


def _deal_once(
    groups: list[collections.Counter], holders: collections.Counter, shares: list[float], rng, attempt: int
) -> list[int] | None:
    """One try of `_deal`: the part of each group, or None if that leaves a part without a genre."""
    totals: collections.Counter = collections.Counter()
    for counts in groups:
        totals.update(counts)
    room = [{label: share * total for label, total in totals.items()} for share in shares]
    lacking = {label: set(range(len(shares))) for label in totals}
    left = dict(holders)
    chance = rng.random(len(groups)).tolist()
    order = rng.permutation(len(groups)).tolist()
    order.sort(key=lambda g: (min(holders[label] for label in groups[g]), -groups[g].total() if attempt == 0 else 0))
    chosen = [0] * len(groups)
    for g in order:
        counts = groups[g]
        allowed = [
            part for part in range(len(shares)) if all(len(lacking[label] - {part}) < left[label] for label in counts)
        ]
        if not allowed:
            return None
        weights = [sum(n * room[part][label] / totals[label] ** 2 for label, n in counts.items()) for part in allowed]
        fits = [all(n <= room[part][label] + 1e-9 for label, n in counts.items()) for part in allowed]
        if not any(fits):
            best = max(weights)
            fits = [weight > best - 1e-9 for weight in weights]
            weights = [1.0] * len(weights)
        sums = list(itertools.accumulate(w if fit else 0.0 for w, fit in zip(weights, fits, strict=True)))
        part = allowed[bisect.bisect_right(sums, chance[g] * sums[-1])]
        chosen[g] = part
        for label, n in counts.items():
            room[part][label] -= n
            lacking[label].discard(part)
            left[label] -= 1
    return chosen


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


def fewer_artists(parts: dict[str, list[Track]], count: int, seed: int) -> dict[str, list[Track]]:
    """Keeps so many artists of each genre of the training part: a point of a learning curve.

    With the same seed, those of a smaller count are among those of a larger one. A track without an artist is by one
    of its own; a genre of fewer artists keeps them all.

    Args:
      parts: of `split`.
      count: artists of each genre.
      seed: of the choice.
    """
    tracks = parts["train"]
    artists: dict[str, set[str]] = {}
    for track in tracks:
        artists.setdefault(track.label, set()).add(track.group or track.name)
    kept = set()
    for number, label in enumerate(sorted(artists)):
        names = sorted(artists[label])
        order = np.random.Generator(np.random.PCG64([seed, number, 5])).permutation(len(names))
        kept |= {(label, names[i]) for i in order[:count]}
    return parts | {"train": [t for t in tracks if (t.label, t.group or t.name) in kept]}
