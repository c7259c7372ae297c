"""The listening page: everything that was made of the clips → one HTML page that opens by double-click.

While a clip is explained, its pictures, sounds and numbers go to files of its own (`Files`); `write` puts the page
together at the end, file by file, so memory does not grow with the clips. The page asks the network for nothing:
with `single` everything is inside; with `folder` it loads what is seen from the clips' folders beside it, sounds as
scripts, because browsers let a page that was opened from a file fetch nothing else.
"""

import base64
import dataclasses
import datetime
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import soundfile
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from deconv_jax import __version__
from deconv_jax.errors import InputError
from deconv_jax.measures import randomised
from deconv_jax.network.receptive_field import extents
from deconv_jax.network.trained import Trained
from deconv_jax.page.scripts import joined
from deconv_jax.pictures import spectrograms
from deconv_jax.sound import levels
from deconv_jax.system import files

MODES = ("single", "folder", "none")

KERNEL_CELLS = 100
"""Largest first-layer kernel that the page prints as a table."""

_MARK = '<meta name="generator" content="deconv_jax auralise">'
_NAMES = {
    "majority": "always the same genre",
    "mean log-mel": "linear model on mean log-mel spectra",
    "log-mel mean and deviation": "the same with deviations",
}
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
        buffer = io.BytesIO()
        soundfile.write(buffer, waveform, sample_rate, format="FLAC", subtype="PCM_16")
        if self.scripts:
            text = f'deconv("{self.address}/{name}.flac", "{_base64(buffer.getvalue())}");\n'
            self._place(f"{name}.js").write_text(text, encoding="utf-8")
        else:
            self._place(f"{name}.flac").write_bytes(buffer.getvalue())

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
    power = float(b @ b)
    factor = float(a @ b) / power if power > 0 else 0.0
    peak, left = float(np.abs(a).max(initial=0)), float(np.abs(a - factor * b).max(initial=0))
    energy = float(a @ a)
    return factor, min(1.0, peak / left) if left > 0 else 1.0, factor * float(a @ b) / energy if energy > 0 else 0.0


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
            "name another --out, or use --page=none"
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
    style, script = source("css/page.css"), joined("page")
    names = [json.loads((clip.root / "clip.json").read_text("utf-8"))["name"] for clip in clips]
    every = [path for clip in clips for path in _files(clip.root)]
    beside = sum(path.stat().st_size for path in every) if mode == "folder" else 0
    sources = " 'self' file:" if mode == "folder" else ""
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest(script)}'{sources}; style-src 'sha256-{digest(style)}'; "
        f"img-src data:{sources}; base-uri 'none'; form-action 'none'"
    )
    template = environment().get_template("page.html.j2")
    known = {
        "mark": Markup(_MARK),
        "policy": policy,
        "style": Markup(style),
        "script": Markup(script),
        "version": __version__,
        "names": names,
        "mode": mode,
        "beside": _size(beside),
        "count": f"{len(every):,}",
        "network": _network(trained),
        "about": about(trained),
        "run": "train" in trained.about["config"],
        "scores": _scores(_report(trained)),
        "norms": any(block.norm != "none" for block in trained.network.blocks),
        "addresses": [clip.address for clip in clips],
    }
    size = len(template.render(known, size="", blocks=[]).encode())
    size += sum(len(block["name"]) + len(block["text"]) + 60 for block in _embedded(clips, mode))
    path = out / "index.html"
    with files.replacing(path) as partial:
        template.stream(known, size=_size(size), blocks=_embedded(clips, mode)).dump(str(partial), encoding="utf-8")
    return path


def environment() -> Environment:
    """Of all pages' templates: everything is escaped, and a name that is not given is an error."""
    return Environment(
        loader=PackageLoader("deconv_jax", "page/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def source(name: str) -> str:
    """A style of the pages, such as "css/page.css"."""
    return resources.files("deconv_jax.page").joinpath(name).read_text("utf-8")


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
                text = _base64(path.read_bytes())
            else:
                continue
            yield {"name": name, "kind": _KINDS[path.suffix], "text": Markup(text)}


def _network(trained: Trained) -> dict:
    """What the page's script knows of the network."""
    blocks, front = trained.network.blocks, trained.front_end
    layers = {}
    for block, extent in zip(blocks, extents(blocks, front), strict=True):
        layers[extent.layer] = {
            "maps": block.maps,
            "kernel": list(block.kernel),
            "printed": (extent.rule_ms / 1000, extent.rule_hz, extent.rule_bins),
            "true": (extent.true_ms / 1000, extent.true_hz, extent.true_bins),
        }
    kernel = np.asarray(trained.variables["params"]["conv1"]["kernel"], np.float64)
    small = kernel.shape[0] * kernel.shape[1] <= KERNEL_CELLS
    kernels = np.moveaxis(kernel[:, :, 0, :], -1, 0) if small else np.zeros((0,))
    return files.plain(
        {
            "id": trained.fingerprint,
            "rate": front.sample_rate,
            "hop": front.hop,
            "frequencies": np.round(front.frequencies(), 3),
            "rows": {"stft": "bins", "mel": "mel bands", "cqt": "constant-Q bins"}[front.kind],
            "labels": trained.labels,
            "layers": layers,
            "kernels": np.round(kernels, 5),
            "colours": spectrograms.colours(),
            "range": levels.RANGE_DB,
            "level": spectrograms.LEVEL_STEP,
            "seed": randomised.SEEDS[0],
        }
    )


def about(trained: Trained) -> list[tuple[str, str]]:
    """How the network was trained, as terms and their text."""
    config, report = trained.about["config"], _report(trained)
    front, net = trained.front_end, trained.network
    written = datetime.datetime.fromtimestamp(trained.checkpoint.stat().st_mtime, datetime.UTC)
    data, train = config.get("data", {}), config.get("train", {})
    maps = ", ".join(dict.fromkeys(str(block.maps) for block in net.blocks))
    if len({block.maps for block in net.blocks}) > 1:
        maps = ", ".join(str(block.maps) for block in net.blocks)
    rows = [
        ("Network", f"{len(net.blocks)} convolutional layer(s) of {maps} features"),
        (
            "Hears",
            f"{_heard(trained)} of {front.clip_seconds:g} s at {front.sample_rate:,} Hz, window {front.n_fft}, "
            f"hop {front.hop}",
        ),
    ]
    if "train" in config:
        rows.insert(0, ("Configuration", str(config.get("name", "unnamed"))))
    elif config.get("source"):
        source = config["source"]
        made = [str(source[k]) for k in ("file", "model", "kind") if source.get(k)] or [str(source.get("made_by"))]
        rows.insert(0, ("Source", ", ".join(made)[:300]))
    if report:
        songs, clips = report.get("songs", {}), report.get("clips", {})
        if songs and clips:
            rows.append(("Trained on", f"{clips['train']:,} clips of {songs['train']:,} songs"))
    if data:
        named = data.get("index") or data.get("root")
        rows.append(("Music", f"“{Path(named).name}”" if named else "composed by rule, built in"))
    if data.get("shuffle_labels") or (
        isinstance(source := config.get("source"), dict) and source.get("shuffle_labels")
    ):
        rows.append(("Labels", "dealt out at random, so that it learnt none of the classes"))
    if train:
        steps = f", {report['best_step']:,} steps" if report and "best_step" in report else ""
        rows.append(
            (
                "Training",
                f"{train['epochs']} epochs{steps}; batches of {train['batch_size']}, rate {train['learning_rate']:g}",
            )
        )
    rows.append(("Weights written" if "train" in config else "Network file written", f"{written:%-d %B %Y, %H:%M} UTC"))
    return rows


def _heard(trained: Trained) -> str:
    """What the rows of the network's input are."""
    front = trained.front_end
    rows = {"stft": "magnitudes", "mel": f"{front.bands} mel bands", "cqt": f"{front.bands} constant-Q bins"}[
        front.kind
    ]
    energy = " (energy)" if front.power == 2 else ""
    return f"{'' if front.linear else 'log '}{rows}{energy}"


def _report(trained: Trained) -> dict | None:
    """The test report of the run, or the part of it that a network file of `bin/train` keeps."""
    report, source = trained.about.get("report"), trained.about["config"].get("source")
    if report or not isinstance(source, dict) or source.get("made_by") != "bin/train":
        return report
    return {"test": source["test"]} if "test" in source else None


def _scores(report: dict | None) -> list[dict]:
    """Accuracy of the network and of its baselines on songs that it never heard; empty without a report."""
    if not report or "test" not in report:
        return []
    results = {"this network": report["test"], **report.get("baselines", {})}
    return [
        {
            "name": _NAMES.get(name, name),
            "clip": result["by_clip"]["accuracy"],
            "song": result["by_song"]["accuracy"],
            "clips": result["by_clip"]["n"],
            "songs": result["by_song"]["n"],
            "own": name == "this network",
        }
        for name, result in results.items()
    ]


def _short(value):
    """Numbers with five digits: enough to read, half as long."""
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_short(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(1, round(count / 1e3))} kB"


def digest(text: str) -> str:
    """SHA-256 of a style or script, as a page's policy names what it may run."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
