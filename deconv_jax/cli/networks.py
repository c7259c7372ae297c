"""Flags that several commands share, and what is found by them: a network, its layers and features, sounds.

A function here defines flags of the command that calls it. What is heavy is imported when a flag is used, so that
--help comes at once.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    from deconv_jax.network.trained import Trained

flags.disclaim_key_flags()  # what is defined here belongs to the command that asks for it, and to its --help

EXCERPT_OFFSET = 12.0
"""Seconds after which the built-in excerpts have all their instruments."""


class _Read(flags.ArgumentParser):
    """A flag's text → its value, by a function whose ValueError says what is wanted."""

    def __init__(self, function: Callable[[str], Any]):
        self._function = function

    def parse(self, argument):
        return self._function(argument) if isinstance(argument, str) else argument


class _Written(flags.ArgumentSerializer):
    def serialize(self, value) -> str:
        return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def define(name: str, default: str | None, about: str, read: Callable[[str], Any]) -> flags.FlagHolder:
    """Defines a flag whose value is what `read` makes of its text; its ValueError becomes a line about the flag."""
    return flags.DEFINE(_Read(read), name, default, about, serializer=_Written())


def define_number(name: str, default: float | None, about: str, low: float, high: float) -> flags.FlagHolder:
    """Defines a flag whose value is a number from `low` to `high`, and so neither infinite nor NaN."""
    flag = flags.DEFINE_float(name, default, about)
    said = f"wanted is a number from {low:g} to {high:g}"
    flags.register_validator(flag, lambda value: value is None or low <= value <= high, said)
    return flag


def numbers(text: str) -> list[int]:
    """The whole numbers that a text lists with commas, each once."""
    try:
        return list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ValueError("neither a number, nor numbers with commas, nor a word it knows") from None


def counts(text: str) -> list[int]:
    """Numbers of artists: "2,4,all" → [2, 4, 0]."""
    found = text.split(",")
    if not all(word == "all" or (word.isdecimal() and int(word)) for word in found):
        raise ValueError("wanted are numbers of artists of each genre, such as 2,4,8,all")
    return [0 if word == "all" else int(word) for word in found]


def share(text: str) -> tuple[int, int]:
    """A share of the work: "2/8" → (1, 8)."""
    first, _, count = text.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise ValueError("wanted is the number of a share and how many there are, as in 2/8")
    return int(first) - 1, int(count)


def define_duration(default: str, about: str) -> flags.FlagHolder:
    """Defines --duration: a number of seconds, or "full"."""

    def read(text: str) -> str | float:
        if text == "full":
            return text
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < 1e6:
            raise ValueError("wanted is a number of seconds above 0, or full")
        return seconds

    return define("duration", default, about, read)


def define_layers(default: str, about: str) -> "Callable[[Trained], list[int]]":
    """Defines --layer; gives what it means for a network."""
    flag = define("layer", default, about, lambda text: text if text == "all" else sorted(numbers(text)))
    return lambda net: list(range(1, len(net.network.blocks) + 1)) if flag.value == "all" else list(flag.value)


def define_features(default: str | None, about: str) -> flags.FlagHolder:
    """Defines --features: "all", "top:N", or numbers, where they are not all meant if there is no default."""

    def read(text: str) -> str | list[int]:
        if default and text.startswith("top:"):
            if not text[4:].isdecimal() or int(text[4:]) < 1:
                raise ValueError("top: takes a whole number from 1, as in top:12")
            return text
        return text if default and text == "all" else numbers(text)

    return define("features", default, about, read)


def define_offset(about: str) -> flags.FlagHolder:
    """Defines --offset."""
    return define_number("offset", None, f"{about} (default: 0; {EXCERPT_OFFSET:g} in built-in excerpts).", 0.0, 1e6)


def define_network() -> "Callable[[], Trained]":
    """Defines --workdir, --network and --checkpoint; gives what loads the network that they name."""
    workdir = flags.DEFINE_string("workdir", None, "Folder of the training run (default: that of bin/train).")
    network = flags.DEFINE_string("network", None, "A network's name or folder, in place of a run; list names them.")
    checkpoint = flags.DEFINE_string("checkpoint", None, "One checkpoint, such as WORKDIR/checkpoints/last/1230.")

    def load() -> "Trained":
        from deconv_jax.importers import named as names
        from deconv_jax.system import runtime
        from deconv_jax.training import workdir as runs

        if network.value == "list":
            print(names.listing())
            sys.exit()
        runtime.keep_compiled()
        named = workdir.value or (None if checkpoint.value or network.value else runs.default_workdir())
        return runs.load(named, checkpoint.value, network.value)

    return load


def define_way_back() -> Callable[[], dict[str, Any]]:
    """Defines --method and --norm_back; gives them as keywords of `deconvolve`."""
    method = flags.DEFINE_enum(
        "method",
        "deconvnet",
        ["deconvnet", "guided", "gradient"],
        "What passes an activation on the way back: the rectified signal; that, where the unit was active; the "
        "gradient.",
    )
    norm_back = flags.DEFINE_enum(
        "norm_back",
        "transpose",
        ["transpose", "inverse"],
        "What batch norm does on the way back: multiply by its scale as the gradient does, or divide by it.",
    )
    return lambda: {"method": method.value, "norm_back": norm_back.value}


def define_reading(default: str | None, more: str = "") -> flags.FlagHolder:
    """Defines --reading."""
    about = f"phase: the image is the magnitude (the paper). mask: it scales the STFT.{more}"
    return flags.DEFINE_enum("reading", default, ["phase", "mask"], about)


def define_cache(what: str = "the built-in music is") -> Callable[[], Path]:
    """Defines --cache_dir; gives the folder."""
    flag = flags.DEFINE_string("cache_dir", None, f"Where {what} kept (default: the platform's cache).")

    def folder() -> Path:
        from deconv_jax.system import runtime

        return Path(flag.value or runtime.cache_dir())

    return folder


def find_sounds(
    arguments: Sequence[str], cache_dir: Path, offset: float | None, excerpts: bool = False
) -> tuple[list[Path], list[float]]:
    """The sound files that a command names, and how many seconds to skip in each.

    Args:
      arguments: files and folders; if there are none, the built-in excerpts.
      cache_dir: where those are kept.
      offset: seconds to skip; None for the excerpts' own, and 0 elsewhere.
      excerpts: the built-in excerpts before the files.
    """
    from deconv_jax.errors import InputError
    from deconv_jax.music import builtin
    from deconv_jax.sound import audio
    from deconv_jax.system import files

    built_in = builtin.excerpts(cache_dir) if excerpts or not arguments else []
    named = audio.find(arguments)
    if arguments and not named:
        raise InputError(
            f"{', '.join(map(files.shown, arguments))}: holds no sound files; name a file or another folder"
        )
    skips = [EXCERPT_OFFSET if offset is None else offset] * len(built_in) + [offset or 0.0] * len(named)
    return [*built_in, *named], skips
