"""What every command shares: flags, help, messages, exit status. Imports nothing heavy."""

import logging
import sys
from collections.abc import Callable

from absl import flags

from deconv_jax.cli.fields import unknown_field
from deconv_jax.cli.together import TOGETHER
from deconv_jax.errors import InputError, SettingError
from deconv_jax.system import hosts

WRONG_FLAGS = 2


def launch(main: Callable[[list[str]], int], module: str, about: str) -> int:
    """Parses the flags, runs `main` on what is left of the command line, and turns errors into one line each.

    Args:
      main: takes the arguments that are no flags; returns the exit status.
      module, about: whose flags `--help` shows, and the text above them.

    Returns: main's exit status; 1 for input that cannot be used; 2 for wrong flags; 130 when interrupted.
    """
    if getattr(sys.stdout, "errors", "") == "strict":  # paths and names may hold any bytes
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if any(a in ("--help", "-help", "-h") for a in sys.argv[1:]):
        about = about.strip() + ("\n" + TOGETHER.rstrip() if "distributed" in flags.FLAGS else "")
        print(f"{about}\n\nFlags:{flags.FLAGS.module_help(module).split(':', 1)[1]}")
        return 0
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("deconv_jax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax tells every step of its work there
    try:
        arguments = flags.FLAGS(sys.argv)[1:]
    except (flags.Error, AttributeError, KeyError, ValueError, TypeError, OSError, SyntaxError) as error:
        return _fail(unknown_field(error) or str(error), WRONG_FLAGS)
    return hosts.ending(lambda: _status(main, arguments))


def _status(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    try:
        return main(arguments)
    except (InputError, SettingError) as error:
        return _fail(_flag(error.about) + error.message, WRONG_FLAGS if isinstance(error, SettingError) else 1)
    except (flags.Error, FloatingPointError) as error:
        return _fail(str(error), WRONG_FLAGS if isinstance(error, flags.Error) else 1)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command goes on or begins again", 130)


def _flag(about: str | None) -> str:
    """What names an argument on this command line, up to its value: a flag, or a field of its config's data."""
    return f"--{'' if about in flags.FLAGS or 'config' not in flags.FLAGS else 'config.data.'}{about}=" if about else ""


def say_unused(which: str, lines: list[str]) -> int:
    """Says on stderr what could not be used, a line for each; gives the exit status: 1 if there is any."""
    if lines:
        print(f"{which} could not be used:", *lines, sep="\n  ", file=sys.stderr)
    return 1 if lines else 0


def _fail(message: str, status: int) -> int:
    if "Traceback" in message:  # ml_collections quotes one for a config file that fails
        message = message.strip().splitlines()[-1]
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status
