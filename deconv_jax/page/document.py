"""What all pages are made with: templates, styles, and the policy that says what a page may load."""

import binascii
import hashlib
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined

BESIDE = " 'self' file:"
"""For a policy: what lies beside the page."""


def environment() -> Environment:
    """Of all pages' templates: everything is escaped, and a name that is not given is an error."""
    return Environment(
        loader=PackageLoader("deconv_jax", "page/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def style(*names: str) -> str:
    """Styles of this room, one after the other."""
    return "".join(resources.files(__package__).joinpath("css", f"{name}.css").read_text("utf-8") for name in names)


def policy(style: str, script: str, scripts: str = "", images: str = "", media: str | None = None) -> str:
    """The content security policy of a page: its own style and script, pictures inside it, and nothing else.

    Args:
      style, script: those that stand in the page.
      scripts, images, media: what may be loaded besides, "" or `BESIDE`; no media at all if left out.
    """
    played = "" if media is None else f"media-src{media}; "
    return (
        f"default-src 'none'; script-src 'sha256-{_digest(script)}'{scripts}; style-src 'sha256-{_digest(style)}'; "
        f"img-src data:{images}; {played}base-uri 'none'; form-action 'none'"
    )


def base64(content: bytes) -> str:
    """Bytes as text for a page."""
    return binascii.b2a_base64(content, newline=False).decode("ascii")


def _digest(text: str) -> str:
    """SHA-256 of a style or script, as a policy names what may run."""
    return base64(hashlib.sha256(text.encode()).digest())
