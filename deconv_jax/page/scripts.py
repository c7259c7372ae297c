"""A page's modules → one script: a browser loads no module for a page that was opened from a file.

Each module of `js/` becomes a function that runs once and returns what it exports, those that it imports before it, so
names mean what they mean among modules. A line imports or exports in one form: `import { a, b } from "./name.mjs";`
and `export const a = ...`.
"""

import re
from importlib import resources
from importlib.resources.abc import Traversable

from deconv_jax.errors import SettingError

_IMPORT = re.compile(r'import (\{ [\w$]+(?:, [\w$]+)* \}) from "\./(\w+)\.mjs";')
_EXPORT = re.compile(r"export (const ([\w$]+) = .*)")


def joined(name: str, folder: Traversable | None = None) -> str:
    """A module `NAME.mjs`, of `js/` or another folder, with everything that it imports, as one classic script.

    Raises:
      ValueError: modules import each other in a circle, or a name that is not exported; an import or export has
        another form; or the script would end the element that it stands in.
    """
    folder = folder or resources.files(__package__) / "js"
    exports: dict[str, list[str]] = {}
    script = ['"use strict";', "(() => {"]

    def add(name: str, way: tuple[str, ...]) -> None:
        way = (*way, f"{name}.mjs")
        if way[-1] in way[:-1]:
            raise SettingError(f"modules import each other in a circle: {' → '.join(way)}")
        if name in exports:
            return
        lines, out = [], []
        for number, line in enumerate((folder / f"{name}.mjs").read_text("utf-8").splitlines(), 1):
            if match := _IMPORT.fullmatch(line):
                add(match[2], way)
                if unknown := set(re.findall(r"[\w$]+", match[1])) - set(exports[match[2]]):
                    raise SettingError(f"{name}.mjs:{number}: {match[2]}.mjs exports no {', '.join(sorted(unknown))}")
                line = f"const {match[1]} = $${match[2]};"
            elif match := _EXPORT.fullmatch(line):
                line = match[1]
                out.append(match[2])
            elif re.match(r"\s*(import|export)\b", line):
                raise SettingError(f"{name}.mjs:{number}: an import or export of another form: {line.strip()}")
            lines.append(line)
        exports[name] = out
        script.extend([f"const $${name} = (() => {{", *lines, f"return {{ {', '.join(out)} }};", "})();"])

    add(name, ())
    text = "\n".join([*script, "})();", ""])
    if re.search(r"</script|<!--", text, re.IGNORECASE):
        raise SettingError(f"{name}.mjs or what it imports would end a script element")
    return text
