"""Flags whose values are more than a word: how their text is read, and what is said of one that cannot be."""

from collections.abc import Callable
from typing import Any

from absl import flags

flags.disclaim_key_flags()  # what is defined here belongs to the command that asks for it, and to its --help


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
