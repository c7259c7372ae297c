"""What is said of a field of a config that there is none of."""

import sys


def unknown_field(error: Exception) -> str:
    """What is said of a field that a config does not have, as ml_collections tells of it; "" of any other error."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    if not isinstance(error, KeyError | AttributeError) or str(error.args[0])[:1] != "'":
        return ""
    name, _, near = error.args[0].replace("'", "", 2).partition("\n")
    flag = next((a for a in sys.argv[1:] if f".{name}" in a.partition("=")[0]), name)
    return f"{flag}: the config has no field {name}. {near or 'Known are those of its file, such as configs/genre3.py'}"
