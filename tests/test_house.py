"""The house: imports point back along the signal's way only, nothing of JAX is private, functions are short."""

import ast
import graphlib
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "deconv_jax"

ROOMS = (
    "errors", "system", "sound", "network", "deconvolution", "decision", "measures", "importers", "data", "music",
    "pictures", "training", "page", "results", "studio", "experiments", "cli",
)  # fmt: skip
"""In the order of the signal's way: a module imports from its own room and from those before it."""

LONGEST = 80
"""Lines of a function, its docstring included."""

LONG = 50
"""Lines of a function's body that at most eight functions may exceed."""


def modules():
    """(name, syntax tree) of every module, as deconv_jax.sound.audio."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield name, ast.parse(path.read_text(encoding="utf-8"))


TREES = dict(modules())


def imported(tree, package="deconv_jax"):
    """(module, line) of what is imported from the package, within functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.split(".")[0] == package)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are written in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in TREES else node.module for name in names if name.split(".")[0] == package]
            yield from ((name, node.lineno) for name in dict.fromkeys(found))


def room(name):
    return name.split(".")[1] if "." in name else ""


def backward(name, other):
    """Whether an import points back; the version is all that anybody needs of the package itself."""
    return other == "deconv_jax" or ROOMS.index(room(other)) <= ROOMS.index(room(name))


def test_every_room_has_its_place():
    assert {room(name) for name in TREES} - {""} <= set(ROOMS)
    assert len([p for p in PACKAGE.iterdir() if p.suffix != ".pyc" and p.name != "__pycache__"]) <= 20


@pytest.mark.parametrize("name", [name for name in TREES if name != "deconv_jax"])
def test_imports_point_back_along_the_signals_way(name):
    wrong = [f"line {line}: {other}" for other, line in imported(TREES[name]) if not backward(name, other)]
    assert wrong == []


def test_imports_make_no_circle():
    graph = {name: {other for other, _ in imported(tree)} - {"deconv_jax"} for name, tree in TREES.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_nothing_private_of_jax_is_imported():
    for name, tree in TREES.items():
        private = [f"{name}, line {line}: {other}" for other, line in imported(tree, "jax") if "._" in other]
        assert private == []


HEAVY = {"matplotlib", "scipy", "sklearn", "librosa", "pyarrow", "h5py", "keras", "torch"}
"""Packages that take a second or more to import, and that a page is made without."""


def at_once(tree):
    """Names of what importing a module imports: at its top."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
            yield str(node.module)


@pytest.mark.parametrize("command", ["results.clip_folder", "studio.server"])
def test_the_way_to_sound_imports_nothing_heavy(command):
    reached, waiting = {}, [f"deconv_jax.{command}"]
    while waiting:
        name = waiting.pop()
        for other in at_once(TREES[name]):
            if other in TREES and other not in reached:
                reached[other] = name
                waiting.append(other)
            assert other.split(".")[0] not in HEAVY, f"{other} is imported by {name}, which {reached.get(name)} imports"
    assert "deconv_jax.deconvolution.winograd" in reached


def test_functions_are_short():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = []
    for name, tree in TREES.items():
        for node in (n for n in ast.walk(tree) if isinstance(n, functions)):
            length = node.end_lineno - node.lineno + 1
            assert length <= LONGEST, f"{name}.{node.name} has {length} lines"
            first = node.body[1 if ast.get_docstring(node) and node.body[1:] else 0]
            long += [f"{name}.{node.name}"] if node.end_lineno - first.lineno + 1 > LONG else []
    assert len(long) <= 8, long


def test_commands_are_short():
    lengths = {path.name: len(path.read_text("utf-8").splitlines()) for path in (PACKAGE / "cli").glob("*.py")}
    assert {name: length for name, length in lengths.items() if length >= 70} == {}


def test_the_package_stays_small_with_its_networks():
    """What a wheel holds, before it is compressed: 3 MB today, of which three networks have 1.8."""
    held = [p for top in (PACKAGE, PACKAGE.parent / "configs") for p in top.rglob("*") if "__pycache__" not in p.parts]
    assert sum(path.stat().st_size for path in held if path.is_file()) < 15e6


def test_these_tests_can_fail():
    later = ast.parse("def f():\n    from deconv_jax.results import explain\n    import jax._src.core")
    assert list(imported(later)) == [("deconv_jax.results.explain", 2)]
    assert not backward("deconv_jax.sound.audio", "deconv_jax.results.explain")
    assert backward("deconv_jax.cli.auralise", "deconv_jax.results.explain")
    assert [other for other, _ in imported(later, "jax")] == ["jax._src.core"]


@pytest.mark.parametrize("name", [name for name in TREES if room(name) not in ("", "cli")])
def test_errors_leave_flags_to_the_commands(name):
    calls = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]
    errors = [ast.unparse(call) for call in calls if getattr(call.func, "id", "").endswith("Error")]
    texts = [re.sub("`[^`]*`", "", error) for error in errors]  # a whole command, such as `bin/train --help`, may stay
    assert [text for text in texts if re.search(r"(?<![\w-])--[a-z]", text)] == []
