"""A sound file → a folder of sounds, pictures and numbers, and one page for all: the far end of the way."""

import dataclasses
import functools
import hashlib
import itertools
import json
import logging
import platform
import shutil
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jax
import numpy as np
from tqdm import tqdm

from deconv_jax.deconvolution import deconvolve
from deconv_jax.errors import InputError, SettingError
from deconv_jax.measures import descriptors, features, likeness, randomised
from deconv_jax.network.activations import check_method
from deconv_jax.network.trained import Trained
from deconv_jax.page import listening
from deconv_jax.pictures import spectrograms
from deconv_jax.sound import audio, auralisation
from deconv_jax.sound.front_end import FrontEnd, analyse, lift, undo_level
from deconv_jax.system import files, locks

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to make of every clip.

    Attributes:
      layers: 1-based layers.
      chosen: features wanted: "all", "top:N" (the N of most energy) or a list of 0-based numbers.
      reading, rectify, gain: see `deconv_jax.sound.auralisation`.
      offset: seconds to skip in every file.
      duration: seconds to explain; None for the whole file.
      page: the listening page: "single" file, beside the clips' "folder", or "none".
      method, norm_back: see `deconv_jax.deconvolution.deconvolve`.
      untrained: compare every feature with those of an untrained twin, which takes twice as long again; None for
        where there is a page, which shows them. Without, the table's columns on it are empty.
    """

    layers: Sequence[int]
    chosen: str | Sequence[int] = "all"
    reading: str = "phase"
    rectify: bool = False
    gain: str = "match"
    offset: float = 0.0
    duration: float | None = 4.0
    page: str = "single"
    method: str = "deconvnet"
    norm_back: str = "transpose"
    untrained: bool | None = None


@dataclasses.dataclass(frozen=True)
class Made:
    """What `export` left: the folders, the page (None without), and a line for every file that could not be used."""

    folders: list[Path]
    page: Path | None
    failed: list[str]


def check(trained: Trained, options: Options) -> None:
    """Compares the options with the network before any work is done.

    Raises:
      ValueError: layer or feature does not exist or is named twice, the method has no rule for an activation, the
        phase reading is asked of a network with log input, or a page without the twins that it shows.
    """
    for what, named in (("layer", options.layers), ("feature", options.chosen)):
        if not isinstance(named, str) and len(set(named)) < len(named):
            raise SettingError(f"of {', '.join(map(str, named))} one {what} is named twice: name each once")
    if options.untrained is False and options.page != "none":
        raise SettingError("the page shows each feature beside its twin's: leave twins out with --page=none")
    for layer in options.layers:
        wanted = None if isinstance(options.chosen, str) else options.chosen
        deconvolve.check_features(trained.network.blocks, layer, wanted)
    check_method(options.method, (b.activation for b in trained.network.blocks[: max(options.layers)]))
    if not trained.front_end.linear and options.reading == "phase":
        raise SettingError(
            "this network hears log magnitudes, so its images are no magnitudes and the phase reading means nothing: "
            "use --reading=mask"
        )


def export(
    trained: Trained, paths: Sequence[Path], out, options: Options, offsets: Sequence[float] | None = None
) -> Made:
    """Explains every file into a folder of its own below `out`, and writes one page for all of them.

    A clip whose folder is there already, made of the same file with the same network, options and versions, is kept:
    a run that was interrupted goes on. (Not for a single page, whose files are in no folder.)

    Args:
      trained: the network.
      paths: sound files. One that cannot be used is reported and left out; the others are done.
      out: made if it is not there.
      options: what to make.
      offsets: seconds to skip in each file, in place of the one in `options`.

    Raises:
      InputError: `out` cannot be written, or another process writes there. ValueError: see `check`.
    """
    check(trained, options)
    with locks.writing(out, "--out") as folder:
        return _export(trained, paths, folder, options, offsets)


def _export(trained: Trained, paths: Sequence[Path], out: Path, options: Options, offsets) -> Made:
    if options.page != "none":
        listening.check_place(out)
    front = trained.front_end
    twins = []
    if options.untrained or options.page != "none":
        size = (front.bins, front.clip_frames)
        twins = [randomised.twin(trained.network, trained.variables, size, seed) for seed in randomised.SEEDS]
    made = Made([], None, [])
    settings = _settings(trained)
    pages: list[listening.Files] = []
    names = files.folder_names((path.stem for path in paths), ["index.html"])
    inside = files.temporary(out)  # what a single page is put together from
    try:
        for path, name, offset in zip(paths, names, offsets or [options.offset] * len(paths), strict=True):
            some = dataclasses.replace(options, offset=offset)
            root = out / name / "page" if options.page == "folder" else inside / name
            page = listening.Files(root, f"{quote(name)}/page", options.page == "folder")
            try:
                wanted = settings | _of_file(path, some)
                if options.page != "single" and _made_before(out / name, wanted):
                    log.info("%s: made before", files.shown(out / name))
                else:
                    _export_clip(trained, twins, path, out / name, page, some, wanted)
                made.folders.append(out / name)
                pages.append(page)
            except InputError as error:
                made.failed.append(str(error))
                log.error("%s", error)
        if options.page != "none" and pages:
            made = dataclasses.replace(made, page=listening.write(out, trained, pages, options.page))
    finally:
        shutil.rmtree(inside, ignore_errors=True)
    return made


@dataclasses.dataclass(frozen=True)
class _Clip:
    """One clip on its way: where its files go, and what every layer needs of it.

    Attributes:
      name, folder, page: for its files; no page, no files of it.
      waveform: shape (samples,).
      spectrum: its complex STFT, shape (1 + n_fft // 2, time).
      seen: what the network sees of it, shape (freq, time).
      series: its descriptors, on the same frames.
    """

    name: str
    folder: Path
    page: listening.Files | None
    waveform: np.ndarray
    spectrum: np.ndarray
    seen: np.ndarray
    series: dict[str, np.ndarray]


def _settings(trained: Trained) -> dict[str, Any]:
    """What the results of all clips depend on, as the manifests have it."""
    return {
        "front_end": dataclasses.asdict(trained.front_end),
        "untrained_seeds": randomised.SEEDS,
        "checkpoint": str(trained.checkpoint),
        "network": trained.fingerprint,
        "training": trained.about["config"],
        "versions": versions(),
    }


def _of_file(path: Path, options: Options) -> dict[str, Any]:
    """What one clip depends on besides."""
    try:
        digest = ""
        if path.is_file():
            with open(path, "rb") as handle:
                digest = hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:  # reading it says what is wrong
        digest = ""
    return {
        "source": files.shown(path.absolute()),
        "source_sha256": digest,
        "options": dataclasses.asdict(options),
    }


def _made_before(folder: Path, wanted: dict[str, Any]) -> bool:
    """Whether a folder, which is always whole, was made of the same with the same."""
    try:
        there = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(there, dict) and all(
        there.get(k) == v for k, v in json.loads(json.dumps(files.plain(wanted))).items()
    )


def _export_clip(
    trained: Trained, twins, path: Path, folder: Path, page: listening.Files, options: Options, wanted: dict[str, Any]
) -> None:
    front = trained.front_end
    waveform, read = _load(path, trained, options)
    if folder.exists() and not (folder / "manifest.json").is_file():
        raise InputError(f"{files.shown(folder)}: is there already and was not made by auralise; name another --out")
    with files.replacing_folder(folder) as partial:
        spectrum, seen = map(np.asarray, analyse_clip(front, waveform))
        audio.write(partial / "original.wav", waveform, front.sample_rate)
        seconds = len(waveform) / front.sample_rate
        magnitude = np.abs(spectrum)
        sheet = spectrograms.SpectrogramSheet(front.stft_frequencies(), seconds, "loudest of the clip")
        (partial / "original.png").write_bytes(sheet.draw(magnitude, magnitude.max(), f"{folder.name}: original"))
        if options.page == "folder":
            page = dataclasses.replace(page, root=partial / "page")
        clip = _Clip(
            folder.name,
            partial,
            None if options.page == "none" else page,
            waveform,
            spectrum,
            seen,
            descriptors.describe(magnitude, front),
        )
        if clip.page:
            clip.page.picture("original", row_magnitudes(front, waveform))
            clip.page.sound("original", waveform / _full_scale(waveform), front.sample_rate)
        rows, layers = [], {}
        for layer in options.layers:
            found, layers[layer] = _export_layer(trained, twins, clip, layer, options)
            rows += found
        files.write_csv(partial / "features.csv", rows)
        prediction = _predict(trained, waveform)
        manifest = {
            **wanted,
            "samples_read": read,
            "samples": len(waveform),
            "sample_rate": front.sample_rate,
            "prediction": prediction,
            "inactive": {
                str(l): [r["feature"] for r in rows if r["layer"] == l and r["inactive"]] for l in options.layers
            },
        }
        files.write_json(partial / "manifest.json", manifest)
        if clip.page:
            clip.page.numbers(
                {
                    "name": folder.name,
                    "file": files.shown(path.name),
                    "offset": options.offset,
                    "read": read / front.sample_rate,
                    "seconds": seconds,
                    "reading": options.reading,
                    "rectify": options.rectify,
                    "prediction": prediction,
                    "layers": layers,
                }
            )


def _load(path: Path, trained: Trained, options: Options) -> tuple[np.ndarray, int]:
    """The clip, padded with silent samples to the shortest length that can be explained, and the samples read."""
    front = trained.front_end
    waveform = audio.read(path, front.sample_rate, options.offset, options.duration)
    read = len(waveform)
    if read < front.n_fft:
        raise InputError(
            f"{files.shown(path)}: holds {read} sample(s) at {front.sample_rate} Hz; at least {front.n_fft} "
            f"({front.n_fft / front.sample_rate:.3f} s) are needed"
        )
    if not np.any(waveform):
        raise InputError(f"{files.shown(path)}: is silent there; choose a part with sound by --offset and --duration")
    wanted = front.clip_samples if options.duration is None else round(options.duration * front.sample_rate)
    return audio.cut(waveform, 0, max(read, min(wanted, front.clip_samples))), read


def _export_layer(trained, twins, clip: _Clip, layer: int, options: Options) -> tuple[list[dict], dict]:
    """Writes one layer's sounds and pictures; returns the table's rows and what the page knows of the layer."""
    front = trained.front_end
    frequencies, seconds = front.frequencies(), len(clip.waveform) / front.sample_rate
    series = np.stack(list(clip.series.values()))
    how: dict[str, Any] = {"method": options.method, "norm_back": options.norm_back}
    # All features, whichever are wanted: a share of the layer's energy is one of all.
    found = deconvolve.sweep(trained.network, trained.variables, clip.seen, layer, **how)
    images, maps = np.asarray(undo_level(front, found[0], clip.spectrum)), np.asarray(found[1])
    measures = features.measure(images, maps, frequencies)
    total = measures.energy.sum()
    numbers = _chosen(options.chosen, measures)
    if options.chosen != "all":
        images, maps = images[numbers], maps[numbers]
        measures = features.measure(images, maps, frequencies)
    own = randomised.look(images, series)
    kinds, alike = likeness.kinds(own.levels)
    twin_images, beside = np.zeros((0, 0, 0)), None
    if twins:
        # The second twin before the first, whose images are shown: two sets of a whole song's images are enough.
        second = randomised.look(_images(trained, twins[1], clip, layer, **how), series)
        twin_images = _images(trained, twins[0], clip, layer, **how)
        beside = randomised.compare(own, randomised.look(twin_images, series), second)
        del second
    del own

    subfolder = clip.folder / f"layer{layer}"
    subfolder.mkdir()
    np.savez(clip.folder / f"layer{layer}.npz", images=images, features=numbers)
    sheet = spectrograms.SpectrogramSheet(frequencies, seconds, "loudest of the layer")
    overview = spectrograms.layer_sheet(images, numbers, frequencies, seconds, f"{clip.name}: layer {layer}")
    (clip.folder / f"layer{layer}.png").write_bytes(overview)
    reference, twin_reference = (float(np.abs(i).max(initial=0)) for i in (images, twin_images))
    envelopes = features.envelopes(images)
    names = list(clip.series)
    rows, shown = [], []
    sounds = _auralise_each(front, images, clip, options)
    twin_sounds = _auralise_each(front, (twin_images[n] for n in numbers), clip, options)
    progress = tqdm(numbers, desc=f"{clip.name}: layer {layer}", unit="feature", leave=False)
    for index, number in enumerate(progress):
        image, sound = images[index], next(sounds)
        gained = auralisation.match_gain(sound, clip.waveform, options.gain)
        audio.write(subfolder / f"f{number:03d}.wav", gained.waveform, front.sample_rate)
        picture = sheet.draw(image, reference, f"{clip.name}: layer {layer}, feature {number}")
        (subfolder / f"f{number:03d}.png").write_bytes(picture)
        matched = auralisation.match_gain(sound, clip.waveform).waveform
        factor, scale, explained = listening.rest(clip.waveform, matched)
        row = _row(layer, int(number), measures, index, gained.gain)
        row |= {
            "energy_share": measures.energy[index] / total if total > 0 else 0.0,
            "explained": explained,
            "difference": beside.difference[index] if beside else "",
            "difference_signed": beside.difference_signed[index] if beside else "",
            "kind": int(kinds[index]),
            "kind_r": alike[index],
            "descriptor": names[beside.descriptor[index]] if beside and not measures.inactive[index] else "",
            "descriptor_r": beside.r[index] if beside else "",
            "descriptor_r_untrained": beside.r_untrained[index] if beside else "",
            "stands_out": int(beside.stands_out[index]) if beside else "",
        }
        rows.append(row)
        if clip.page is None:
            continue
        stem = f"layer{layer}/f{number:03d}"
        twin_image = twin_images[number]
        full = _full_scale(clip.waveform)
        clip.page.picture(stem, image)
        clip.page.sound(stem, matched / full, front.sample_rate)
        clip.page.picture(f"{stem}.untrained", twin_image)
        twin_sound = auralisation.match_gain(next(twin_sounds), clip.waveform).waveform
        clip.page.sound(f"{stem}.untrained", twin_sound / full, front.sample_rate)
        apart = round(front.sample_rate / front.hop / 4)
        strongest = features.envelope_peaks(envelopes[index], 5, apart) * front.hop / front.sample_rate
        shown.append(
            row
            | {
                "rest": [factor, scale],
                "level": _level(image, reference),
                "untrained_level": _level(twin_image, twin_reference),
                "untrained_inactive": int(not np.any(twin_image)),
                "moments": strongest.tolist(),
            }
        )
    return rows, {"features": shown, "chance": beside.chance if beside else None}


def _chosen(chosen: str | Sequence[int], measures: features.Measures) -> np.ndarray:
    """Numbers of the features that `Options.chosen` means."""
    if not isinstance(chosen, str):
        return np.asarray(chosen)
    if chosen.startswith("top:"):
        return features.strongest(measures, int(chosen[4:]))
    return np.arange(len(measures.energy))


def _images(trained: Trained, variables, clip: _Clip, layer: int, **how) -> np.ndarray:
    images = deconvolve.deconvolve(trained.network, variables, clip.seen, layer, **how)
    return np.asarray(undo_level(trained.front_end, images, clip.spectrum))


def _auralise_each(front: FrontEnd, images, clip: _Clip, options: Options) -> Iterator[np.ndarray]:
    """Sounds (samples,) of images (freq, time), made together in numbers that memory does not feel."""
    together = max(1, min(16, 2**20 // clip.spectrum.size))
    images = iter(images)
    while some := list(itertools.islice(images, together)):
        batch = np.zeros((together, *clip.seen.shape), np.float32)  # whole batches only: one shape to compile
        batch[: len(some)] = some
        length = len(clip.waveform)
        sounds = auralise_images(front, batch, clip.seen, clip.spectrum, options.reading, options.rectify, length)
        yield from np.asarray(sounds)[: len(some)]


def _level(image: np.ndarray, reference: float) -> float:
    """Of an image's loudest value below a reference, dB; 0 where there is nothing."""
    top = float(np.abs(image).max())
    return 20 * float(np.log10(top / reference)) if top > 0 else 0.0


def _full_scale(waveform: np.ndarray) -> float:
    """The peak of a waveform that exceeds full scale, else 1."""
    return max(1.0, float(np.abs(waveform).max()))


def _row(layer: int, number: int, measures: features.Measures, index: int, gain: float) -> dict[str, Any]:
    row = {"layer": layer, "feature": number}
    row |= {name: values[index] for name, values in features.columns(measures).items()}
    return row | {"gain": gain, "inactive": int(measures.inactive[index])}


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
    """`deconv_jax.sound.front_end.analyse` of one clip, compiled where it can be."""
    return analyse(front, waveform) if front.kind == "cqt" else _analyse(front, waveform)


_analyse = jax.jit(analyse, static_argnums=0)


def row_magnitudes(front: FrontEnd, waveform) -> np.ndarray:
    """Magnitudes in the rows of the network's input, shape (freq, time), whatever scale it hears them in: pictures."""
    return np.asarray(analyse_clip(dataclasses.replace(front, scale="linear", power=1, level="none"), waveform)[1])


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6))
def auralise_images(front: FrontEnd, images, seen, spectrum, reading: str, rectify: bool, length: int) -> jax.Array:
    """Images (..., freq, time) in the rows of the network's input → waveforms (..., length), no gain applied."""
    images = lift(front, images, seen, spectrum, reading)
    return auralisation.auralise(
        images, spectrum, reading, rectify=rectify, hop=front.hop, length=length, window=front.window
    )


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(network, variables, seen):
    return network.probabilities(network.apply(variables, seen)[0])


def versions() -> dict[str, str]:
    """Versions of what had a part in the result."""
    packages = ("deconv_jax", "jax", "jaxlib", "flax", "numpy", "soundfile", "soxr", "matplotlib")
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in packages}
