"""Flags of the sounds that a command hears, and the files that are found by them."""

from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from deconv_jax.cli.values import define, define_number

flags.disclaim_key_flags()

EXCERPT_OFFSET = 12.0
"""Seconds after which the built-in excerpts have all their instruments."""


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


def define_offset(about: str) -> flags.FlagHolder:
    """Defines --offset."""
    return define_number("offset", None, f"{about} (default: 0; {EXCERPT_OFFSET:g} in built-in excerpts).", 0.0, 1e6)


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
    from deconv_jax.music import builtin
    from deconv_jax.sound import audio

    built_in = builtin.excerpts(cache_dir) if excerpts or not arguments else []
    named = audio.find(arguments)
    if arguments and not named:
        raise audio.none_in(arguments)
    skips = [EXCERPT_OFFSET if offset is None else offset] * len(built_in) + [offset or 0.0] * len(named)
    return [*built_in, *named], skips
