"""The pages' scripts: modules joined into one, and the tests of those parts that need no page."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deconv_jax.page.scripts import joined

NODE = shutil.which("node")
MODULES = Path(__file__).parent.parent / "deconv_jax" / "page" / "js"
needs_node = pytest.mark.skipif(
    NODE is None, reason="no node was found, so the page's script was tried in a browser only: install Node.js 20"
)


def ran(*arguments, **settings) -> subprocess.CompletedProcess:
    return subprocess.run([NODE, *arguments], capture_output=True, text=True, timeout=120, **settings)


@needs_node
def test_the_parts_of_the_script_do_what_they_say():
    found = ran("--test", *sorted(map(str, Path(__file__).parent.glob("js/*.test.mjs"))))
    assert found.returncode == 0, found.stdout[-5000:]
    assert int(re.search(r"# pass (\d+)", found.stdout)[1]) >= 10


def test_every_module_is_in_a_page_once_and_nothing_of_modules_is_left():
    pages = [joined(name) for name in ("page", "top", "studio")]
    for module in MODULES.glob("*.mjs"):
        counts = [page.count(f"const $${module.stem} = (() => {{") for page in pages]
        assert max(counts) == 1, module
    assert not re.search(r"^\s*(import|export)\b", "".join(pages), re.MULTILINE)


def test_modules_are_joined_in_the_order_of_need_and_keep_their_names_apart(tmp_path):
    (tmp_path / "a.mjs").write_text(
        'import { two, three$ } from "./b.mjs";\nimport { one } from "./c.mjs";\nconst own = 10;\n'
        "console.log(own + one + two() + three$);\n"
    )
    (tmp_path / "b.mjs").write_text(
        'import { one } from "./c.mjs";\nconst own = 100;\nexport const two = () => own + one;\n'
        "export const three$ = 1000;\n"
    )
    (tmp_path / "c.mjs").write_text("const own = 1;\nexport const one = own;\n")
    script = joined("a", tmp_path)
    assert [script.index(f"$${name} =") for name in "cba"] == sorted(script.index(f"$${name} =") for name in "cba")
    assert script.count("const own = 1;") == 1
    if NODE:
        (tmp_path / "all.js").write_text(script)
        module = ran(tmp_path / "a.mjs")
        assert (ran(tmp_path / "all.js").stdout, module.stdout) == ("1112\n", "1112\n")


@pytest.mark.parametrize(
    ("modules", "says"),
    [
        ({"a": 'import { x } from "./b.mjs";', "b": 'import { y } from "./a.mjs";'}, r"a\.mjs → b\.mjs → a\.mjs"),
        ({"a": 'import { x, z } from "./b.mjs";', "b": "export const x = 1;"}, r"a\.mjs:1: b\.mjs exports no z"),
        ({"a": 'import * as b from "./b.mjs";', "b": ""}, r"a\.mjs:1: .*form"),
        ({"a": 'import { x as y } from "./b.mjs";', "b": "export const x = 1;"}, r"a\.mjs:1: .*form"),
        ({"a": "const x = 1;\nexport { x };"}, r"a\.mjs:2: .*form"),
        ({"a": "export default 1;"}, r"a\.mjs:1: .*form"),
        ({"a": 'const x = "</SCRIPT>";'}, r"would end a script element"),
    ],
)
def test_what_cannot_be_joined_is_named(modules, says, tmp_path):
    for name, text in modules.items():
        (tmp_path / f"{name}.mjs").write_text(f"{text}\n")
    with pytest.raises(ValueError, match=says):
        joined("a", tmp_path)
