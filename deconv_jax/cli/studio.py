"""Opens the studio: a page on this machine to drop a song on, mute features of a network, and hear the answer change.

bin/studio                                      built-in excerpts, as builtin3 hears them
bin/studio --music=DIR song.mp3                 with songs of yours, as real3 does; more can be dropped on the page
bin/studio --workdir=runs/mine --open           a network that you trained, in the browser at once
bin/studio --network=DIR                        a network of your own (bin/import_network); list names some

It prints its address, for a browser on this machine; Ctrl-C ends it.
"""

import contextlib
import sys
import webbrowser
from pathlib import Path

from absl import flags

from deconv_jax.cli import networks, sounds
from deconv_jax.cli.launch import launch
from deconv_jax.cli.values import define_number

_MUSIC = flags.DEFINE_string("music", None, "Folder of songs to choose from, and to look for a feature's moments in.")
_NOTES = flags.DEFINE_string("notes", None, "File (JSON) in which favourites and notes are kept.")
_OPEN = flags.DEFINE_boolean("open", False, "Open the page in the browser.")
_PORT = define_number("port", None, "Port to listen at (default: 8607, or a free one).", 1, 65535)
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; beyond this machine only with --i_know.")
_BEYOND = "Listen beyond this machine: who can see the network traffic can read the address and use the studio."
_I_KNOW = flags.DEFINE_boolean("i_know", False, _BEYOND)
_load, _cache = networks.define_network(), sounds.define_cache("dropped songs and the built-in music are")


def _studio(arguments: list[str]) -> int:
    if _HOST.value not in ("127.0.0.1", "localhost", "::1") and not _I_KNOW.value:
        raise flags.Error(f"--host={_HOST.value}: others could use the studio there; say --i_know if that is meant")
    first = _load([*arguments, *([_MUSIC.value] if _MUSIC.value else [])])
    from deconv_jax.sound import audio
    from deconv_jax.studio import networks as choice
    from deconv_jax.studio import server
    from deconv_jax.studio.notes import Notes
    from deconv_jax.studio.songs import Library
    from deconv_jax.studio.window import Studio

    if arguments and not (given := audio.find(arguments)):
        raise audio.none_in(arguments)
    library = Library(_cache() / "studio", given if arguments else [], _MUSIC.value, _cache())
    notes = Notes(Path(_NOTES.value) if _NOTES.value else None)
    with contextlib.closing(server.listening(_HOST.value, _PORT.value and int(_PORT.value))) as sock:
        studio = Studio(*choice.offered(first), library, notes)
        running, address = server.server_of(studio, sock, _HOST.value)
        print(f"The studio is open, for a browser on this machine, until Ctrl-C:\n{address}", flush=True)
        if _OPEN.value:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):
            running.run(sockets=[sock])
        studio.end()
    return 0


def main() -> int:
    """Entry point of `bin/studio` and `deconv-studio`."""
    return launch(_studio, __name__, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
