"""The page of the clips that excite every feature of a collection most; it lies beside its sounds and pictures."""

from pathlib import Path

from markupsafe import Markup

from deconv_jax import __version__
from deconv_jax.network.trained import Trained
from deconv_jax.page import document, network
from deconv_jax.page.scripts import joined
from deconv_jax.system import files


def write(path: Path, trained: Trained, **known) -> None:
    """Puts the page together, whole or not at all.

    Args:
      path: of the page.
      trained: the network.
      known: what the template asks for besides: layers (`strongest.summarised` with the entries of each feature),
        songs, skipped, settings, options, known, base, few, by.
    """
    style, script = document.style("page", "top"), joined("top")
    template = document.environment().get_template("top.html.j2")
    with files.replacing(path) as partial:
        template.stream(
            known,
            policy=document.policy(style, script, images=document.BESIDE, media=document.BESIDE),
            style=Markup(style),
            script=Markup(script),
            version=__version__,
            about=network.about(trained),
            clip_seconds=trained.front_end.clip_seconds,
        ).dump(str(partial), encoding="utf-8")
