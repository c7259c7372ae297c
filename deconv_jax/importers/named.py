"""Networks by name: those that come with the package, and published ones that their publisher's package holds.

A packaged network is a folder in `deconv_jax/network/zoo`: a network file (`deconv_jax.network.file`) and its card,
`card.json`, which says what it is, what it was trained on and by which command, how well it does beside what, and what
it must not be used for. A published one is fetched once (`pip download`, digest checked), converted and kept in the
cache.
"""

import dataclasses
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from deconv_jax.errors import InputError
from deconv_jax.importers import musicnn
from deconv_jax.network.file import DESCRIPTION, load_network
from deconv_jax.network.trained import Trained
from deconv_jax.system import files, locks, runtime

CARD = "card.json"
ZOO = Path(str(resources.files("deconv_jax.network"))) / "zoo"
"""The packaged networks, and what is known of published ones."""


@dataclasses.dataclass(frozen=True)
class Published:
    """A network that somebody else published as a Python package.

    Attributes:
      requirement: what pip downloads.
      sha256: of the file that it then gets.
      convert: (file, folder) → a network file in the folder.
      what: one line about it.
    """

    requirement: str
    sha256: str
    convert: Callable[[Path, Path], Any]
    what: str


def _musicnn(model: str, dataset: str) -> Published:
    return Published(
        "musicnn==0.1.0",
        "f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa",
        lambda wheel, folder: musicnn.import_musicnn(wheel, folder, model),
        f"tagger of 50 tags, five layers of 128 features, trained on the {dataset} (Pons & Serra 2019); mask reading",
    )


PUBLISHED = {
    "MTT_vgg": _musicnn("MTT_vgg", "MagnaTagATune dataset"),
    "MSD_vgg": _musicnn("MSD_vgg", "Million Song Dataset"),
}


def packaged() -> dict[str, Path]:
    """The networks that come with the package: name → folder."""
    return {path.parent.name: path.parent for path in sorted(ZOO.glob(f"*/{DESCRIPTION}"))}


def names() -> list[str]:
    """All names that `load` knows."""
    return [*packaged(), *PUBLISHED]


def load(name: str, cache_dir=None) -> Trained:
    """Loads a network by its name.

    Args:
      name: one of `names()`.
      cache_dir: where published networks are kept; the platform's cache if left out.

    Returns:
      The network; `about["card"]` is its card, if it has one.

    Raises:
      InputError: there is no network of that name, or it cannot be fetched; the message says what to do.
    """
    if name in (here := packaged()):
        trained = load_network(here[name])
        return dataclasses.replace(trained, about=trained.about | {"card": card(name)})
    if name not in PUBLISHED:
        raise InputError(f"{files.shown(name)}: is no network's name; known are {', '.join(names())}")
    folder = Path(cache_dir or runtime.cache_dir()) / "networks" / name
    if not (folder / DESCRIPTION).is_file():
        with locks.writing(folder, "cache_dir", wait=True):
            if not (folder / DESCRIPTION).is_file():  # another process may have fetched it meanwhile
                _fetch(name, folder)
    return load_network(folder)


def card(name: str) -> dict[str, Any]:
    """The card of a packaged network."""
    return json.loads((packaged()[name] / CARD).read_text("utf-8"))


def listing() -> str:
    """All names with a line on each, as text."""
    lines = {name: card(name)["what"] for name in packaged()}
    lines |= {name: f"{network.what}; fetched when first used" for name, network in PUBLISHED.items()}
    width = max(map(len, lines))
    return "\n".join(f"{name:{width}}  {what}" for name, what in lines.items())


def _fetch(name: str, folder: Path) -> None:
    network = PUBLISHED[name]
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place]
        done = subprocess.run([*command, network.requirement], capture_output=True, text=True, check=False)
        found = sorted(Path(place).iterdir())
        if done.returncode or not found:
            reason = (done.stderr.strip().splitlines() or ["nothing came"])[-1][:200]
            raise InputError(
                f"{name}: could not be fetched ({reason}); where there is a network, run "
                f"`pip download {network.requirement} --no-deps`, and then here "
                f"`bin/import_network --out={files.shown(folder)} --model={name} FILE.whl`"
            )
        with open(found[0], "rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        if digest != network.sha256:
            raise InputError(
                f"{name}: {found[0].name} has another content (SHA-256 {digest[:16]}…) than the one that was checked "
                f"({network.sha256[:16]}…), and is not used"
            )
        network.convert(found[0], folder)
