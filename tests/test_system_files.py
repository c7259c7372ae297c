"""Files whole or not there, names for every file system, tables without formulas, and what killed runs left."""

import csv
import json
import math
import os
import re
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from deconv_jax.system import files, runtime

SOURCE = Path(files.__file__).parents[1]


def test_a_table_runs_no_formulas_and_keeps_its_numbers(tmp_path):
    rows = [
        {"=head": name, "number": -1.5}
        for name in ("=1+1.wav", "+a", "-b", "@c", "\td", "plain", "a=b", "-23", "+1e-3")
    ]
    files.write_csv(tmp_path / "t.csv", rows)
    with open(tmp_path / "t.csv", newline="") as handle:
        head, *found = csv.reader(handle)
    assert head == ["'=head", "number"]
    assert [row[0] for row in found] == ["'=1+1.wav", "'+a", "'-b", "'@c", "'\td", "plain", "a=b", "-23", "+1e-3"]
    assert {row[1] for row in found} == {"-1.5"}  # numbers are no texts
    files.write_csv(tmp_path / "t.csv", [], ["path", "reason"])
    assert (tmp_path / "t.csv").read_bytes() == b"path,reason\r\n"
    with pytest.raises(ValueError, match="other"):
        files.write_csv(tmp_path / "t.csv", [{"a": 1}, {"a": 2, "other": 3}])
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]


def test_only_files_writes_tables_and_makes_temporary_names():
    """Another writer would not guard against formulas, and the sweeper would not know other names."""
    for path in SOURCE.rglob("*.py"):
        if path != Path(files.__file__):
            text = path.read_text("utf-8")
            assert not re.search(r"csv\.(writer|DictWriter)", text), path
            assert not re.search(r"\}\.partial", text), path


def test_json_has_no_numbers_that_json_does_not_know(tmp_path):
    value = {"a": np.float32("nan"), 1: [math.inf, np.arange(2)], "path": Path("x"), "n": np.int64(3)}
    files.write_json(tmp_path / "v.json", value)
    assert json.loads((tmp_path / "v.json").read_text()) == {"a": None, "1": [None, [0, 1]], "path": "x", "n": 3}


def test_names_differ_on_every_file_system():
    """Case, and letters with their accents in one code or two, tell no files apart on macOS and Windows."""
    stems = [
        "Song",
        "song",
        "SONG",
        "song-2",
        "caf\u00e9",
        "cafe\u0301",
        "index.html",
        "Index.HTML",
        ".hidden",
        "",
        "a\nb",
    ]
    names = files.folder_names(stems, ["index.html"])
    assert names == [
        *("Song", "song-2", "SONG-3", "song-2-2", "caf\u00e9", "cafe\u0301-2", "index.html-2", "Index.HTML-3"),
        *("hidden", "clip", "a\\nb"),
    ]
    long = files.folder_names(["\u6b4c" * 200] * 2)
    assert len(set(long)) == 2
    assert all(len(os.fsencode(name)) < 250 for name in long)


def test_every_temporary_name_is_swept_and_nothing_else(tmp_path):
    left = [files.temporary(tmp_path) for _ in range(3)]
    left[0].write_text("half")
    (left[1] / "deep").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    left[2].symlink_to(tmp_path / "kept")
    (tmp_path / ".hidden.partial").touch()
    files.remove_leftovers(tmp_path, older=60)
    assert all(path.exists() for path in left)
    for path in left[:2]:
        os.utime(path, (time.time() - 61,) * 2)
    files.remove_leftovers(tmp_path, older=60)
    assert [path.exists() for path in left] == [False, False, True]
    files.remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden.partial", "kept"]
    files.remove_leftovers(tmp_path / "none")


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    def make(content):
        with files.replacing_folder(tmp_path / "made") as partial:
            (partial / content).touch()
            assert content != "wrong"

    for content in ("first", "second"):
        make(content)
        assert [p.name for p in (tmp_path / "made").iterdir()] == [content]
    with pytest.raises(AssertionError):
        make("wrong")
    assert [p.name for p in (tmp_path / "made").iterdir()] == ["second"]
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_compiled_programs_are_not_kept_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(runtime, "cache_dir", lambda: tmp_path / "file")
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        runtime.keep_compiled()
        assert not jax.config.values["jax_compilation_cache_dir"]
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
