"""The documentation: its examples run, every public name is in it, its commands and links exist.

`make docs` runs all pages with the real networks, in minutes. Here their cells run with small ones: of the quickstart
always, of the others where PAGES=all says so, as .ci/run does, since they compile a minute's worth.
"""

import ast
import dataclasses
import doctest
import importlib
import json
import os
import re
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

import deconv_jax
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block
from deconv_jax.network.trained import Trained
from deconv_jax.sound.front_end import FrontEnd

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
ZOO = ROOT / "deconv_jax" / "network" / "zoo"
FRONT = FrontEnd(sample_rate=4000, n_fft=64, hop=32, clip_seconds=0.5)


def cells(page: Path) -> list[str]:
    """The cells of a page, in order."""
    return re.findall(r"^```\{code-cell\} python\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


EXECUTED = [page for page in PAGES if cells(page) and page.stem != "music"]  # that one trains
ALWAYS = ("index",)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A network of five layers that takes no time."""
    network = Network(blocks=(Block(maps=8, pool=(1, 2)),) * 5, dense=(), classes=3, head="average")
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((FRONT.bins, FRONT.clip_frames)))
    about = {"config": {}, "card": json.loads((ZOO / "real3" / "card.json").read_text("utf-8"))}
    labels = ["ballad", "dance", "hiphop"]
    return Trained(network, variables, FRONT, labels, tmp_path_factory.mktemp("none"), about)


@pytest.fixture
def house(small, monkeypatch, tmp_path):
    """A place in which the pages find networks and music that take no time."""
    from deconv_jax.experiments import cue_networks
    from deconv_jax.music import builtin, stem_files
    from deconv_jax.results import dissected
    from deconv_jax.training import workdir

    songs, folders = [], []
    for number in range(3):
        songs.append(tmp_path / f"song{number}.wav")
        noise = 0.1 * np.random.default_rng(number).standard_normal(14 * FRONT.sample_rate)
        soundfile.write(songs[-1], noise, FRONT.sample_rate)
        folders.append(tmp_path / f"stems{number}")
        folders[-1].mkdir()
        time = np.arange(len(noise))
        stems = {"hats": noise * (time // 200 % 2), "bass": 0.1 * np.sin(time / 9) * (1 - time // 200 % 2)}
        for name, stem in stems.items():
            soundfile.write(folders[-1] / f"{name}.wav", stem, FRONT.sample_rate)
    carried = json.loads((ZOO / "real3" / "dissected" / "dissected.json").read_text("utf-8"))
    for layer in carried["layers"].values():
        for one in layer["names"]:
            one.update(feature=one["feature"] % 8, concept="hats")  # what the small network and these songs have
    real = workdir.load
    ours = ("builtin3", "genre3", "real3")
    monkeypatch.setattr(workdir, "load", lambda n=None, **given: small if n in ours else real(n, **given))
    monkeypatch.setattr(builtin, "excerpts", lambda *_: songs)
    monkeypatch.setattr(stem_files, "build", lambda *_: folders)
    monkeypatch.setattr(dissected, "carried", lambda _: carried)
    few = dataclasses.replace(cue_networks.QUICK, seconds=1.5, layers=1, maps=4, steps=4)
    monkeypatch.setattr(cue_networks, "Settings", lambda **_: few)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "jax")


def ran(cell: str, place: str, names: dict) -> None:
    """Runs a cell as a notebook does: what its last line gives is shown."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, place, "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), place, "eval"), names)
        getattr(value, "_repr_html_", value.__repr__)()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, on saving a model
@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.stem)
def test_every_cell_of_a_page_runs(page, house, capsys):
    if page.stem not in ALWAYS and os.environ.get("PAGES") != "all":
        pytest.skip("this page compiles much: it runs with PAGES=all, and in `make docs`")
    for module in re.findall(r"^(?:import|from) (keras|IPython)\b", "".join(cells(page)), re.MULTILINE):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install 'deconv_jax[docs]'")
    names: dict = {"__name__": "__main__"}
    for number, cell in enumerate(cells(page), 1):
        ran(cell, f"{page.name}, cell {number}", names)


def test_the_readmes_calls_and_labels_exist():
    block = re.search(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)[1]
    called = dict(re.findall(r"(?:result\.|deconv_jax\.)(\w+)\(\"(\w+)\"", block))
    trained = deconv_jax.load(called["explain"])
    assert set(called) == {"explain", "why"}
    assert called["why"] in trained.labels
    assert hasattr(importlib.import_module("deconv_jax.results.explanation").Explanation, "why")
    assert int(re.search(r"result\[(\d+)\]", block)[1]) < trained.network.blocks[-1].maps


def test_cells_that_fail_fail():
    with pytest.raises(ZeroDivisionError):
        ran("x = 1\nx / 0", "here", {})


def test_commands_of_the_pages_exist_with_their_flags():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    flags = "".join(path.read_text("utf-8") for path in (ROOT / "deconv_jax" / "cli").glob("*.py"))
    config = importlib.import_module("runpy").run_path(str(ROOT / "configs" / "music.py"))["get_config"]()
    found = 0
    for page in [*PAGES, ROOT / "README.md"]:
        text = page.read_text("utf-8")
        for command in re.findall(r"(?<![\w/])deconv-(\w+)", text):
            assert f"deconv-{command}" in project["scripts"], page
        for command in re.findall(r"(?<![\w./])bin/(\w+)", text):
            assert (ROOT / "bin" / command).is_file(), (page, command)
        for flag in re.findall(r"(?<=[ `(])--(?:no)?([a-z_.]+)", text):
            if flag.startswith("config."):
                value = config
                for name in flag.split(".")[1:]:
                    value = value[name]  # KeyError: there is no such field
            else:
                assert re.search(rf'"(no)?{flag}"', flags) or flag in ("help", "config", "no-deps"), (page, flag)
            found += 1
    assert found > 20


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "BUILD.md"))]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), (page, target)


def test_every_public_name_is_on_the_page_of_the_face_or_in_the_reference():
    reference = (ROOT / "docs" / "pages" / "reference.md").read_text("utf-8")
    assert [name for name in deconv_jax.__all__ if f"deconv_jax.{name}\n" not in reference] == []
    for name in re.findall(r":: deconv_jax\.([\w.]+)$", reference, re.MULTILINE):
        module, _, attribute = f"deconv_jax.{name}".rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__doc__, name
    face = (ROOT / "docs" / "pages" / "face.md").read_text("utf-8")
    known = set(deconv_jax.__all__)
    assert set(re.findall(r"^\| `(?:\w+, )?(\w+)\(", face, re.MULTILINE)) <= known


@pytest.mark.parametrize(
    "module",
    [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in sorted((ROOT / "deconv_jax").rglob("*.py"))
     if re.search(r"^\s*>>> ", path.read_text("utf-8"), re.MULTILINE)],
)  # fmt: skip
def test_examples_in_docstrings_give_what_they_say(module):
    found = doctest.testmod(
        importlib.import_module(module), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )
    assert found.attempted > 0
    assert found.failed == 0
