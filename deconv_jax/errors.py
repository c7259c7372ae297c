"""The two errors that a user can cause. They cross every stage of the signal's way, so they stand apart from them.

The message is one line that says what was found, what is accepted and what to do. The commands print it and end with
status 1 (`InputError`) or 2 (`SettingError`, as for a wrong flag).

Where it is one argument's value that cannot be used, the message begins with that value and `about` names the
argument: InputError("runs/a: holds no run", "workdir") reads "workdir runs/a: holds no run" in Python, and a command,
which knows how its flags are called, prints "--workdir=runs/a: holds no run". No message names a flag itself.
"""


class _UserError(Exception):
    def __init__(self, message: str, about: str | None = None):
        super().__init__(message, about)
        self.message, self.about = message, about

    def __str__(self) -> str:
        return f"{self.about} {self.message}" if self.about else self.message


class InputError(_UserError):
    """A file, folder or checkpoint that cannot be used as it was given."""


class SettingError(_UserError, ValueError):
    """An argument, a flag or a field of a config with a value that it cannot take."""
