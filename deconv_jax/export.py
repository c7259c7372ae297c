"""A sound file → a folder of sounds, pictures and numbers: the far end of the way."""

import csv
import dataclasses
import functools
import logging
import os
import platform
import shutil
import uuid
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from deconv_jax import audio, auralisation, deconvolution, features, pictures
from deconv_jax.activations import check_method
from deconv_jax.errors import InputError
from deconv_jax.spectrogram import FrontEnd, analyse, lift
from deconv_jax.training.workdir import Trained, write_json

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to make of every clip.

    Attributes:
      layers: 1-based layers.
      chosen: features wanted: "all", "top:N" (the N of most energy) or a list of 0-based numbers.
      reading, rectify, gain: see `deconv_jax.auralisation`.
      method, norm_back: see `deconv_jax.deconvolution`.
      offset: seconds to skip in every file.
      duration: seconds to explain; None for the whole file.
    """

    layers: Sequence[int]
    chosen: str | Sequence[int] = "all"
    reading: str = "phase"
    rectify: bool = False
    gain: str = "match"
    offset: float = 0.0
    duration: float | None = 4.0
    method: str = "deconvnet"
    norm_back: str = "transpose"


def check(trained: Trained, options: Options) -> None:
    """Compares the options with the network before any work is done.

    Raises:
      ValueError: layer or feature does not exist, the method has no rule for an activation, or the phase reading is
        asked of a network with log input.
    """
    for layer in options.layers:
        wanted = None if isinstance(options.chosen, str) else options.chosen
        deconvolution.check_features(trained.network.blocks, layer, wanted)
    check_method(options.method, (b.activation for b in trained.network.blocks[: max(options.layers)]))
    if (trained.network.log or not trained.front_end.linear) and options.reading == "phase":
        raise ValueError(
            "this network hears log magnitudes, so its images are no magnitudes and the phase reading means nothing: "
            "use --reading=mask"
        )


def export(trained: Trained, paths: Sequence[Path], out, options: Options) -> tuple[list[Path], list[str]]:
    """Explains every file into a folder of its own below `out`.

    Args:
      trained: the network.
      paths: sound files. One that cannot be used is reported and left out; the others are done.
      out: made if it is not there.
      options: what to make.

    Returns:
      The folders that were made, and one line for every file that could not be used.

    Raises:
      InputError: `out` cannot be written. ValueError: see `check`.
    """
    check(trained, options)
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with audio.replacing(out / ".probe") as temporary:
            temporary.write_bytes(b"")
        (out / ".probe").unlink()
    except OSError as error:
        raise InputError(
            f"--out={audio.shown(out)}: cannot be written ({error.strerror}); name another folder"
        ) from None
    made: list[Path] = []
    failed: list[str] = []
    for path, name in zip(paths, _names(paths), strict=True):
        try:
            made.append(_export_clip(trained, path, out / name, options))
        except InputError as error:
            failed.append(str(error))
            log.error("%s", error)
        except OSError as error:
            raise InputError(
                f"--out={audio.shown(out)}: cannot be written ({error.strerror or error}) at {name}; "
                "free some space or name another folder"
            ) from None
    return made, failed


def _names(paths: Sequence[Path]) -> list[str]:
    """A folder name for every file: its stem, made printable, numbered where two files share one."""
    names: list[str] = []
    for path in paths:
        stem = audio.shown(path.stem).lstrip(".")[:100] or "clip"
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


def _export_clip(trained: Trained, path: Path, folder: Path, options: Options) -> Path:
    front = trained.front_end
    waveform, read = _load(path, trained, options)
    if folder.exists() and not (folder / "manifest.json").is_file():
        raise InputError(f"{audio.shown(folder)}: is there already and was not made by auralise; name another --out")
    partial = folder.parent / f".{os.getpid()}-{uuid.uuid4().hex[:8]}.partial"
    partial.mkdir()
    try:
        spectrum, seen = map(np.asarray, analyse_clip(front, waveform))
        audio.write(partial / "original.wav", waveform, front.sample_rate)
        seconds = len(waveform) / front.sample_rate
        magnitude = np.abs(spectrum)
        sheet = pictures.SpectrogramSheet(front.stft_frequencies(), seconds, "loudest of the clip")
        (partial / "original.png").write_bytes(sheet.draw(magnitude, magnitude.max(), f"{folder.name}: original"))
        rows = []
        for layer in options.layers:
            rows += _export_layer(trained, waveform, spectrum, seen, layer, partial, folder.name, options)
        _write_table(partial / "features.csv", rows)
        manifest = {
            "source": audio.shown(path.absolute()),
            "samples_read": read,
            "samples": len(waveform),
            "sample_rate": front.sample_rate,
            "front_end": dataclasses.asdict(front),
            "prediction": _predict(trained, waveform),
            "options": dataclasses.asdict(options),
            "checkpoint": str(trained.checkpoint),
            "training": trained.about["config"],
            "inactive": {
                str(l): [r["feature"] for r in rows if r["layer"] == l and r["inactive"]] for l in options.layers
            },
            "versions": versions(),
        }
        write_json(partial / "manifest.json", manifest)
        _swap(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _load(path: Path, trained: Trained, options: Options) -> tuple[np.ndarray, int]:
    """The clip, padded with silent samples to the shortest length that can be explained, and the samples read."""
    front = trained.front_end
    waveform = audio.read(path, front.sample_rate, options.offset, options.duration)
    read = len(waveform)
    if read < front.n_fft:
        raise InputError(
            f"{audio.shown(path)}: holds {read} sample(s) at {front.sample_rate} Hz; at least {front.n_fft} "
            f"({front.n_fft / front.sample_rate:.3f} s) are needed"
        )
    if not np.any(waveform):
        raise InputError(f"{audio.shown(path)}: is silent there; choose a part with sound by --offset and --duration")
    wanted = front.clip_samples if options.duration is None else round(options.duration * front.sample_rate)
    return audio.cut(waveform, 0, max(read, min(wanted, front.clip_samples))), read


def _export_layer(trained, waveform, spectrum, seen, layer, folder, name, options) -> list[dict]:
    front = trained.front_end
    chosen = None if isinstance(options.chosen, str) else list(options.chosen)
    how = {"method": options.method, "norm_back": options.norm_back}
    found = deconvolution.sweep(trained.network, trained.variables, seen, layer, chosen, **how)
    images, maps = (np.asarray(array) for array in found)
    numbers = np.arange(len(images)) if chosen is None else np.asarray(chosen)
    if isinstance(options.chosen, str) and options.chosen.startswith("top:"):
        best = features.strongest(features.measure(images, maps, front.frequencies()), int(options.chosen[4:]))
        images, maps, numbers = images[best], maps[best], numbers[best]
    measures = features.measure(images, maps, front.frequencies())
    subfolder = folder / f"layer{layer}"
    subfolder.mkdir()
    np.savez(folder / f"layer{layer}.npz", images=images, features=numbers)
    seconds = len(waveform) / front.sample_rate
    sheet = pictures.SpectrogramSheet(front.frequencies(), seconds, "loudest of the layer")
    overview = pictures.layer_sheet(images, numbers, front.frequencies(), seconds, f"{name}: layer {layer}")
    (folder / f"layer{layer}.png").write_bytes(overview)
    reference = float(np.abs(images).max())
    rows = []
    progress = tqdm(numbers, desc=f"{name}: layer {layer}", unit="feature", leave=False)
    for index, number in enumerate(progress):
        image = images[index]
        sound = auralise_image(front, image, seen, spectrum, options.reading, options.rectify, len(waveform))
        gained = auralisation.match_gain(np.asarray(sound), waveform, options.gain)
        audio.write(subfolder / f"f{number:03d}.wav", gained.waveform, front.sample_rate)
        picture = sheet.draw(image, reference, f"{name}: layer {layer}, feature {number}")
        (subfolder / f"f{number:03d}.png").write_bytes(picture)
        rows.append(_row(layer, int(number), measures, index, gained.gain))
    return rows


def _row(layer: int, number: int, measures: features.Measures, index: int, gain: float) -> dict:
    row = {
        "layer": layer,
        "feature": number,
        "active_fraction": measures.active[index],
        "activation_maximum": measures.maximum[index],
        "activation_mean": measures.mean[index],
        "energy": measures.energy[index],
        "negative_share": measures.negative[index],
        "centroid_hz": measures.centroid[index],
    }
    row |= {f"{band}_share": share for (band, *_), share in zip(features.BANDS, measures.bands[index], strict=True)}
    return row | {"gain": gain, "inactive": int(measures.inactive[index])}


def _write_table(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.7g}" if isinstance(v, float | np.floating) else v for k, v in row.items()})


def _predict(trained: Trained, waveform: np.ndarray) -> dict[str, float]:
    """Mean probability of each class over the clip lengths that the waveform holds."""
    front = trained.front_end
    count = -(-len(waveform) // front.clip_samples)
    starts = audio.clip_starts(len(waveform), front.clip_samples, count)
    total = np.zeros(len(trained.labels))
    for start in starts:
        clip = audio.cut(waveform, start, front.clip_samples)
        seen = analyse_clip(front, clip)[1]
        total += np.asarray(_probabilities(trained.network, trained.variables, seen))
    return dict(zip(trained.labels, (total / len(starts)).tolist(), strict=True))


def analyse_clip(front: FrontEnd, waveform) -> tuple[jax.Array, jax.Array]:
    """`deconv_jax.spectrogram.analyse` of one clip, compiled where it can be."""
    return analyse(front, waveform) if front.kind == "cqt" else _analyse(front, waveform)


_analyse = jax.jit(analyse, static_argnums=0)


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6))
def auralise_image(front: FrontEnd, image, seen, spectrum, reading: str, rectify: bool, length: int) -> jax.Array:
    """One image, in the rows of the network's input → a waveform of `length` samples, no gain applied."""
    image = lift(front, image, seen, spectrum, reading)
    return auralisation.auralise(
        image, spectrum, reading, rectify=rectify, hop=front.hop, length=length, window=front.window
    )


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(network, variables, seen):
    return network.probabilities(network.apply(variables, seen)[0])


def _swap(new: Path, old: Path) -> None:
    """Puts a finished folder in the place of an earlier one."""
    if not old.exists():
        os.replace(new, old)
        return
    aside = old.parent / f".{os.getpid()}-{uuid.uuid4().hex[:8]}.partial"
    os.replace(old, aside)
    os.replace(new, old)
    shutil.rmtree(aside, ignore_errors=True)


def versions() -> dict[str, str]:
    """Versions of what had a part in the result."""
    packages = ("deconv_jax", "jax", "jaxlib", "flax", "numpy", "soundfile", "soxr", "matplotlib")
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in packages}
