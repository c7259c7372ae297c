"""The listening page: everything that was made of the clips → one HTML page that opens by double-click.

While a clip is explained, its pictures, sounds and numbers go to files of its own (`Files`); `write` puts the page
together at the end, file by file, so memory does not grow with the clips. The page asks the network for nothing:
with `single` everything is inside; with `folder` it loads what is seen from the clips' folders beside it, sounds as
scripts, because browsers let a page that was opened from a file fetch nothing else.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from deconv_jax import __version__
from deconv_jax.errors import InputError
from deconv_jax.network.trained import Trained
from deconv_jax.page import document, network
from deconv_jax.page.scripts import joined
from deconv_jax.pictures import spectrograms
from deconv_jax.sound import audio
from deconv_jax.system import files

_MARK = '<meta name="generator" content="deconv_jax auralise">'
_KINDS = {".png": "image/png", ".flac": "audio/flac", ".json": "application/json"}


@dataclasses.dataclass(frozen=True)
class Files:
    """Where one clip's part of the page is written.

    Attributes:
      root: folder for the files: pictures, sounds and `clip.json`.
      address: how the page calls it, percent-encoded, such as "bach/page".
      scripts: write sounds as scripts that hand them to the page, as folder mode needs them.
    """

    root: Path
    address: str
    scripts: bool

    def picture(self, name: str, image: np.ndarray) -> None:
        """Writes `spectrograms.level_picture` of an image (freq, time)."""
        self._place(f"{name}.png").write_bytes(spectrograms.level_picture(image))

    def sound(self, name: str, waveform: np.ndarray, sample_rate: int) -> None:
        """Writes a waveform of at most full scale as 16-bit FLAC: small, and exactly as long as it is."""
        content = audio.flac(waveform, sample_rate)
        if self.scripts:
            text = f'deconv("{self.address}/{name}.flac", "{document.base64(content)}");\n'
            self._place(f"{name}.js").write_text(text, encoding="utf-8")
        else:
            self._place(f"{name}.flac").write_bytes(content)

    def numbers(self, value: dict) -> None:
        """Writes what the page knows of the clip."""
        text = json.dumps(files.plain(_short(value)), allow_nan=False, separators=(",", ":"))
        self._place("clip.json").write_text(text, encoding="utf-8")

    def _place(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def rest(original: np.ndarray, feature: np.ndarray) -> tuple[float, float, float]:
    """What is left of a clip without a feature: scale · (original - factor · feature).

    The level of a feature's sound is arbitrary, so as much of it is taken away as leaves the least: factor =
    ⟨original, feature⟩ / ⟨feature, feature⟩. The rest then never has more energy than the original; `scale`, at most
    1, keeps its peak from exceeding the original's as well.

    Args:
      original, feature: waveforms, shape (samples,).

    Returns:
      factor, scale, and the share of the original's energy that is gone.
    """
    a, b = np.asarray(original, np.float64), np.asarray(feature, np.float64)
    power, shared, energy = (float(np.einsum("i,i", x, y)) for x, y in ((b, b), (a, b), (a, a)))  # @ wakes all cores
    factor = shared / power if power > 0 else 0.0
    peak, left = float(np.abs(a).max(initial=0)), float(np.abs(a - factor * b).max(initial=0))
    return factor, min(1.0, peak / left) if left > 0 else 1.0, factor * shared / energy if energy > 0 else 0.0


def check_place(out: Path) -> None:
    """Looks whether the page may be written there.

    Raises:
      InputError: an `index.html` that is none of ours is there already.
    """
    path = out / "index.html"
    if not path.exists():
        return
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            ours = _MARK in handle.read(2000)
    except OSError:
        ours = False
    if not ours:
        raise InputError(
            f"{files.shown(path)}: is there already and was not made by auralise; "
            "name another folder, or make no page (page=none)"
        )


def write(out: Path, trained: Trained, clips: Sequence[Files], mode: str) -> Path:
    """Puts the page together, whole or not at all.

    Args:
      out: folder of `index.html`.
      trained: the network.
      clips: what was written of each clip; it must lie below `out` in folder mode.
      mode: "single" or "folder".

    Returns:
      Path of the page.
    """
    style, script = document.style("page"), joined("page")
    names = [json.loads((clip.root / "clip.json").read_text("utf-8"))["name"] for clip in clips]
    every = [path for clip in clips for path in _files(clip.root)]
    beside = sum(path.stat().st_size for path in every) if mode == "folder" else 0
    sources = document.BESIDE if mode == "folder" else ""
    template = document.environment().get_template("page.html.j2")
    known = {
        "mark": Markup(_MARK),
        "policy": document.policy(style, script, sources, sources),
        "style": Markup(style),
        "script": Markup(script),
        "version": __version__,
        "names": names,
        "mode": mode,
        "beside": _size(beside),
        "count": f"{len(every):,}",
        "network": network.facts(trained),
        "about": network.about(trained),
        "run": "train" in trained.about["config"],
        "tested": network.tested(trained),
        "card": trained.about.get("card"),
        "norms": any(block.norm != "none" for block in trained.network.blocks),
        "addresses": [clip.address for clip in clips],
    }
    size = len(template.render(known, size="", blocks=[]).encode())
    size += sum(len(block["name"]) + len(block["text"]) + 60 for block in _embedded(clips, mode))
    path = out / "index.html"
    with files.replacing(path) as partial:
        template.stream(known, size=_size(size), blocks=_embedded(clips, mode)).dump(str(partial), encoding="utf-8")
    return path


def _files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def _embedded(clips: Sequence[Files], mode: str) -> Iterator[dict]:
    """What goes inside the page, one file at a time: its address, its type, and its text."""
    for clip in clips:
        for path in _files(clip.root):
            name = f"{clip.address}/{path.relative_to(clip.root).as_posix()}"
            if path.suffix == ".json":
                # Within a script element only "<" could end it; JSON may write it as an escape.
                text = path.read_text("utf-8").replace("<", "\\u003c")
            elif mode == "single":
                text = document.base64(path.read_bytes())
            else:
                continue
            yield {"name": name, "kind": _KINDS[path.suffix], "text": Markup(text)}


def _short(value):
    """Numbers with five digits: enough to read, half as long."""
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_short(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(1, round(count / 1e3))} kB"
