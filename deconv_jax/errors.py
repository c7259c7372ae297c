"""The one error that a user's own input can cause.

It crosses every stage of the signal's way, so it stands apart from them. Its message is one line that names the
file or flag, says what was found, what is accepted and what to do. The commands print it and exit with status 1.
"""


class InputError(Exception):
    """A file, folder or checkpoint that cannot be used as it was given."""
