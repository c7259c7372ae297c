"""A folder of signals and its table of attributes: model signals as they were made, or recordings of one's own.

signals.csv    one row per signal: its file, and the attributes in which signals differ
hits.csv       of model signals: what every hit holds, note by note
recipe.json    of model signals: the recipe; made anew when it, or the sample rate, is another
"""

import csv
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deconv_jax.errors import InputError
from deconv_jax.music import stimuli
from deconv_jax.sound import audio
from deconv_jax.system import files
from deconv_jax.training.workdir import read_json

_WANTED = "wanted is a table with a column file and a column for each attribute, such as instrument, key, take"


@dataclasses.dataclass(frozen=True)
class Signals:
    """Signals of one length.

    Attributes:
      names: file names, for people.
      attributes: of each signal, name → level, the same names in all.
      waveforms: float32, shape (signals, samples).
    """

    names: list[str]
    attributes: list[dict[str, str]]
    waveforms: np.ndarray


def write_stimuli(folder, wanted: Sequence[stimuli.Stimulus], sample_rate: int) -> None:
    """Writes model signals as WAV with their tables, unless they are there already.

    Args:
      folder: made whole, or replaced whole if it holds model signals of another recipe.
      wanted: the signals.
      sample_rate: Hz.

    Raises:
      InputError: the folder is there and holds something else. OSError: it cannot be written.
    """
    folder = Path(folder)
    recipe = {"sample_rate": sample_rate, "recipe": stimuli.RECIPE, "signals": [dataclasses.asdict(s) for s in wanted]}
    if folder.exists():
        if not (folder / "recipe.json").is_file():
            raise InputError(f"{files.shown(folder)}: is there already and holds no model signals; name another folder")
        if read_json(folder / "recipe.json", "model signals") == files.plain(recipe):
            return
    with files.replacing_folder(folder) as partial:
        rows, hits = [], []
        for number, stimulus in enumerate(tqdm(wanted, desc="model signals", unit="signal")):
            attributes = stimulus.attributes
            words = (attributes["instrument"], attributes["chord"], attributes["key"])
            name = re.sub(r"[^\w-]+", "-", f"{number:03d}_" + "_".join(words)) + ".wav"
            audio.write(partial / name, stimuli.synthesise(stimulus, sample_rate), sample_rate)
            rows.append({"file": name} | attributes)
            hits += [{"file": name} | hit for hit in stimuli.describe(stimulus)]
        files.write_csv(partial / "signals.csv", rows)
        files.write_csv(partial / "hits.csv", hits)
        files.write_json(partial / "recipe.json", recipe)


def read(folder, sample_rate: int, seconds: float) -> tuple[Signals, list[str]]:
    """Reads the first `seconds` of every signal that a folder's table names.

    Args:
      folder: holds signals.csv: a column `file` with paths below the folder; every other column is an attribute.
      sample_rate: Hz; files of another rate are resampled.
      seconds: every signal is cut to this length, so that all are compared over the same time. A shorter one is
        left out: silence at its end would be compared as well.

    Returns:
      The signals, in the table's order, and one line for each that could not be used.

    Raises:
      InputError: no table, no such column, or fewer than two signals are left.
    """
    folder = Path(folder)
    path = folder / "signals.csv"
    rows = _read_table(path)
    samples = round(seconds * sample_rate)
    names, attributes, waveforms, failed = [], [], [], []
    for row in tqdm(rows, desc="reading signals", unit="signal", leave=False):
        file = row.pop("file")
        try:
            waveform = audio.read(folder / file, sample_rate, duration=seconds)
            if len(waveform) < samples - 1:  # resampling may round a sample off
                raise InputError(
                    f"{files.shown(folder / file)}: lasts {len(waveform) / sample_rate:.2f} s, less than the "
                    f"{seconds:g} s that are compared; leave it out, or compare fewer seconds"
                )
            if not np.any(waveform):
                raise InputError(f"{files.shown(folder / file)}: is silent in its first {seconds:g} s")
        except InputError as error:
            failed.append(str(error))
            continue
        names.append(files.shown(file))
        attributes.append(row)
        waveforms.append(audio.cut(waveform, 0, samples))
    if len(names) < 2:
        reason = f"; first reason: {failed[0]}" if failed else ""
        raise InputError(f"{files.shown(path)}: {len(names)} signal(s) can be used, at least 2 are needed{reason}")
    return Signals(names, attributes, np.stack(waveforms)), failed


def _read_table(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, strict=True)
            rows = [dict(row) for row in reader]
            columns = reader.fieldnames or []
    except FileNotFoundError:
        raise InputError(f"{files.shown(path)}: does not exist; {_WANTED}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{files.shown(path)}: is no readable table ({error}); {_WANTED}") from None
    if "file" not in columns or len(columns) < 2 or len(set(columns)) < len(columns):
        raise InputError(f"{files.shown(path)}: has the columns {files.shown(', '.join(columns))!r}; {_WANTED}")
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values() or not row["file"]:
            raise InputError(f"{files.shown(path)}: row {number} has not {len(columns)} fields; {_WANTED}")
    return rows
