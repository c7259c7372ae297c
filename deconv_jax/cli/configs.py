"""The config of a training, as its command line names and changes it."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags
from ml_collections import config_flags

flags.disclaim_key_flags()


def define_config() -> Callable[[], dict]:
    """Defines --config and --config.FIELD; gives the config that they make, as plain values."""
    flag = config_flags.DEFINE_config_file(
        "config",
        None,
        "Settings of the run (default: configs/genre3.py, or configs/music.py for your own music); change one by "
        "--config.FIELD=VALUE.",
    )

    def read() -> dict:
        try:
            return json.loads(flag.value.to_json())
        except OSError:
            named = next((a for a in sys.argv if a.startswith("--config=")), "--config")
            raise flags.Error(f"{named}: there is no such file; wanted is one like configs/genre3.py") from None

    return read


def with_config(arguments: list[str]) -> list[str]:
    """A command line with --config: the one that is named, found where it lies, or the default."""
    arguments = _joined(arguments)
    names = {a.partition("=")[0].replace("--", "-", 1) for a in arguments}
    if "-config" not in names:
        own = names & {"-config.data.root", "-config.data.index"}
        arguments = [f"--config=configs/{'music' if own else 'genre3'}.py", *arguments]
    return [f"--config={_found(a[9:])}" if a.startswith("--config=") else a for a in arguments]


def _joined(arguments: list[str]) -> list[str]:
    """--config=FILE in the place of all that absl takes for it, such as --config FILE."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--config", "-config") and not argument.startswith("-"):
            joined[-1] = f"--config={argument}"
        else:
            joined.append(argument.replace("-config=", "--config=", 1) if argument.startswith("-config=") else argument)
    return joined


def _found(path: str) -> str:
    """The config file meant: as named, or else below the checkout, or among those installed with the package."""
    name, _, variant = path.partition(":")
    package = Path(__file__).resolve().parents[1]
    places = [Path(name), package.parent / name, package / name]
    found = next((p for p in places if p.is_file()), Path(name))
    return f"{found}:{variant}" if variant else str(found)
