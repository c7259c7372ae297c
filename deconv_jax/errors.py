"""The two errors that a user can cause. They cross every stage of the signal's way, so they stand apart from them.

The message is one line that says what was found, what is accepted and what to do. The commands print it and end with
status 1 (`InputError`) or 2 (`SettingError`, as for a wrong flag).
"""


class InputError(Exception):
    """A file, folder or checkpoint that cannot be used as it was given."""


class SettingError(ValueError):
    """An argument, a flag or a field of a config with a value that it cannot take."""
