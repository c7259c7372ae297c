"""A sound file → a folder of sounds, pictures and numbers, and one page for all: the far end of the way.

What there is to write comes from `deconv_jax.results.explain`.
"""

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from deconv_jax.errors import InputError, SettingError
from deconv_jax.measures import features, randomised
from deconv_jax.network.trained import Trained
from deconv_jax.page import listening
from deconv_jax.pictures import spectrograms
from deconv_jax.results import asked, dissected, explain, taken_out, why
from deconv_jax.results.explain import Answer, Clip, Layer
from deconv_jax.sound import audio, auralisation
from deconv_jax.sound.front_end import FrontEnd
from deconv_jax.system import files, locks, runtime

log = logging.getLogger(__name__)


MUCH = 8
"""Files that one page has inside at most, if it may be otherwise."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What to make of every clip.

    Attributes:
      layers: 1-based layers.
      chosen: features wanted: "all", "top:N" (the first N of the order) or a list of 0-based numbers.
      by: the order of features: by "effect" on the likeliest class, those first that speak most for it, or "energy".
      reading, rectify, gain: see `deconv_jax.sound.auralisation`.
      offset: seconds to skip in every file.
      duration: seconds to explain; None for the whole file.
      page: the listening page: "single" file, beside the clips' "folder", or "none"; None for "folder" where there is
        much to show: all layers, whole files, or more than eight of them.
      method, norm_back: see `deconv_jax.deconvolution.deconvolve`.
      untrained: compare every feature with those of an untrained twin, which takes twice as long again; None for
        where there is a page, which shows them. Without, the table's columns on it are empty.
      why: explain the answer too: what spoke for it, the sound that keeps it, and what is left without that.
      stems: a folder with the stems of the files, as `deconv_jax.data.stems.of_file` finds them: the page plays the mix
        with and without the one that a feature is named after. Those of built-in songs are known.
    """

    layers: Sequence[int]
    chosen: str | Sequence[int] = "all"
    by: str = "effect"
    reading: str = "phase"
    rectify: bool = False
    gain: str = "match"
    offset: float = 0.0
    duration: float | None = 4.0
    page: str | None = "single"
    method: str = "deconvnet"
    norm_back: str = "transpose"
    untrained: bool | None = None
    why: bool = True
    stems: str | None = None


@dataclasses.dataclass(frozen=True)
class Made:
    """What `export` left: the folders, the page (None without), and a line for every file that could not be used.

    The page has everything inside, or what lies `beside` it.
    """

    folders: list[Path]
    page: Path | None
    failed: list[str]
    beside: bool = False

    def said(self) -> list[str]:
        """What there is now, in lines."""
        lines = [str(folder.absolute()) for folder in self.folders]
        if self.page:
            about = "keep it beside its folders" if self.beside else "all in one file"
            lines.append(f"The page to look and listen, {self.page.stat().st_size / 1e6:.1f} MB, {about}:")
            lines.append(str(self.page.absolute()))
        return lines


def check(trained: Trained, options: Options) -> None:
    """Compares the options with the network before any work is done.

    Raises:
      ValueError: as `explain.check`, or a page is asked for without the twins that it shows.
    """
    if options.untrained is False and options.page != "none":
        raise SettingError("the page shows each feature beside its twin's: leave twins out with page=none")
    if options.stems and not Path(options.stems).is_dir():
        raise SettingError(f"stems must be a folder that holds the files' stems, not {files.shown(options.stems)}")
    explain.check(trained, options.layers, options.chosen, options.reading, options.method)


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
    if options.page is None:
        all_layers = len(options.layers) == len(trained.network.blocks) > 1
        much = all_layers or options.duration is None or len(paths) > MUCH
        options = dataclasses.replace(options, page="folder" if much else "single")
    check(trained, options)
    with locks.writing(out, "out") as folder:
        return _export(trained, paths, folder, options, offsets)


def _export(trained: Trained, paths: Sequence[Path], out: Path, options: Options, offsets) -> Made:
    if options.page != "none":
        listening.check_place(out)
    twins = explain.twins(trained) if options.untrained or options.page != "none" else []
    made = Made([], None, [], options.page == "folder")
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
            made = dataclasses.replace(made, page=listening.write(out, trained, pages, options.page or ""))
    finally:
        shutil.rmtree(inside, ignore_errors=True)
    return made


def _settings(trained: Trained) -> dict[str, Any]:
    """What the results of all clips depend on, as the manifests have it."""
    known = dissected.carried(trained)
    return {
        "front_end": dataclasses.asdict(trained.front_end),
        "untrained_seeds": randomised.SEEDS,
        "checkpoint": str(trained.checkpoint),
        "network": trained.fingerprint,
        "dissected": known and files.digest(known)[:16],
        "training": trained.about["config"],
        "versions": runtime.versions(),
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
        raise InputError(f"{files.shown(folder)}: is there already and was not made by auralise; name another folder")
    try:
        explain.check_memory(trained, waveform, options.layers, bool(twins))
    except SettingError as error:
        raise InputError(f"{files.shown(path)}: {error}; offset and duration choose a part") from None
    with files.replacing_folder(folder) as partial:
        to: listening.Files | None = dataclasses.replace(page, root=partial / "page") if page.scripts else page
        to = None if options.page == "none" else to
        clip = explain.clip_of(front, waveform)
        answer = explain.answer_of(trained, clip)
        _write_original(partial, folder.name, to, front, clip)
        rows, layers = [], {}
        stems = _export_stems(trained, path, clip, to, options) if to else {}
        with ThreadPoolExecutor(1) as beside:  # where one part traces, draws or writes, the other computes
            asking = options.why and beside.submit(_export_why, trained, twins, clip, answer, partial, to, options)
            for number in options.layers:
                given = (clip, answer, number)
                found, layers[number] = _export_layer(trained, twins, *given, partial, folder.name, to, options, stems)
                rows += found
            asks = asking and asking.result()
        files.write_csv(partial / "features.csv", rows)
        prediction = answer.named(trained.labels)
        inactive = {l: [r["feature"] for r in rows if r["layer"] == l and r["inactive"]] for l in options.layers}
        about = {
            "samples_read": read,
            "samples": len(waveform),
            "sample_rate": front.sample_rate,
            "prediction": prediction,
            "inactive": inactive,
            "why": asks or None,
        }
        files.write_json(partial / "manifest.json", wanted | about)
        if to:
            to.numbers(
                {
                    "name": folder.name,
                    "file": files.shown(path.name),
                    "offset": options.offset,
                    "read": read / front.sample_rate,
                    "seconds": len(waveform) / front.sample_rate,
                    "reading": options.reading,
                    "rectify": options.rectify,
                    "by": options.by,
                    "prediction": prediction,
                    "why": asks or None,
                    "layers": layers,
                }
            )


def _load(path: Path, trained: Trained, options: Options) -> tuple[np.ndarray, int]:
    """The clip as `explain.explainable` has it, and the samples read."""
    waveform = audio.read(path, trained.front_end.sample_rate, options.offset, options.duration)
    return explain.explainable(trained.front_end, waveform, files.shown(path), options.duration), len(waveform)


def _write_original(folder: Path, name: str, page: listening.Files | None, front: FrontEnd, clip: Clip) -> None:
    audio.write(folder / "original.wav", clip.waveform, front.sample_rate)
    magnitude, seconds = np.abs(clip.spectrum), len(clip.waveform) / front.sample_rate
    sheet = spectrograms.SpectrogramSheet(front.stft_frequencies(), seconds, "loudest of the clip")
    (folder / "original.png").write_bytes(sheet.draw(magnitude, magnitude.max(), f"{name}: original"))
    if page:
        page.picture("original", explain.row_magnitudes(front, clip.waveform))
        page.sound("original", clip.waveform / _full_scale(clip), front.sample_rate)


def _export_why(
    trained: Trained, twins, clip: Clip, answer: Answer, folder: Path, page: listening.Files | None, options: Options
) -> dict[str, Any]:
    """Explains the answer, and writes its sounds, pictures and masks; returns its numbers."""
    found = why.why(trained, clip, answer, twins[0] if twins else None, options.reading)
    front, length = trained.front_end, len(clip.waveform)
    (folder / "why").mkdir()
    for name, sound in found.sounds.items():
        audio.write(folder / "why" / f"{name}.wav", sound.waveform, front.sample_rate)
        if page:  # where it lies in the clip, since all sounds of a page run together
            placed = np.zeros(max(length, found.start + len(sound.waveform)), np.float32)
            placed[found.start :][: len(sound.waveform)] = sound.waveform
            full = max(_full_scale(clip), float(np.abs(sound.waveform).max()))
            page.sound(f"why/{name}", placed[:length] / full, front.sample_rate)
    sheet = spectrograms.SpectrogramSheet(front.frequencies(), front.clip_seconds, "loudest of the picture")
    label = trained.labels[found.target]
    titles = {"attribution": f"what spoke for {label}", "keeps": "what keeps the answer", "goes": "what has to go"}
    for name, image in why.pictures(found, trained).items():
        top = float(image.max()) or 1.0
        (folder / "why" / f"{name}.png").write_bytes(sheet.draw(image, top, titles[name]))
        if page:
            page.picture(f"why/{name}", image)
    assert found.gone  # of the likeliest class
    np.savez_compressed(folder / "why.npz", attribution=found.image, keeps=found.kept.mask, goes=found.gone.mask)
    return why.numbers(found, trained)


def _export_stems(trained: Trained, path: Path, clip: Clip, page: listening.Files, options: Options) -> dict[str, str]:
    """Writes the mix with and without what features are named after; returns their places, "" for a silent stem."""
    known, every = dissected.carried(trained), range(max(b.maps for b in trained.network.blocks))
    names = [one["concept"] for layer in options.layers for one in dissected.names(known, layer, every) if one]
    song = taken_out.song_of(path, options.stems) if names else None
    rate = trained.front_end.sample_rate
    found = song and taken_out.mixes(song, clip.waveform, rate, options.offset, names)
    if not found:
        return {}
    mix, without = found
    heard = {name: sound for name, sound in without.items() if sound is not None}
    full = max(1.0, *(float(np.abs(sound).max()) for sound in (mix, *heard.values())))
    places = {name: f"stems/{number}" for number, name in enumerate(heard)}
    if heard:
        page.sound("stems/mix", mix / full, rate)
    for name, sound in heard.items():
        page.sound(places[name], sound / full, rate)
    return {name: places.get(name, "") for name in without}


def _export_layer(
    trained: Trained,
    twins,
    clip: Clip,
    answer: Answer,
    number: int,
    folder: Path,
    name: str,
    page,
    options: Options,
    stems: dict[str, str],
) -> tuple[list[dict], dict]:
    """Explains and writes one layer; returns the table's rows and what the page knows of the layer."""
    how: dict[str, Any] = {"chosen": options.chosen, "by": options.by, "answer": answer}
    how |= {"method": options.method, "norm_back": options.norm_back}
    layer = explain.layer_of(trained, clip, number, twins=twins, **how)
    heard = _write_layer(folder, name, page, trained.front_end, clip, layer, options)
    known = dissected.carried(trained)
    names = dissected.names(known, number, layer.features)
    rows = _rows(layer, heard, names, trained, answer.target)
    if not page:
        return rows, {}
    some = (layer.features, layer.effects, layer.measures.energy)
    answers = asked.asked(trained, asked.fewer(answer), number, *some, twins[0] if twins else None)
    said = {"asked": answers, "dissected": dissected.of_layer(known, number)}
    evidence = [one and one | {"without": stems.get(one["concept"])} for one in names]
    return rows, _shown(layer, heard, rows, evidence) | said


@dataclasses.dataclass(frozen=True)
class _Heard:
    """What became of a feature's sound: its gain, that on the page, and what `listening.rest` says of it."""

    gain: float
    matched: float
    factor: float
    scale: float
    explained: float


def _write_layer(
    folder: Path, name: str, page: listening.Files | None, front: FrontEnd, clip: Clip, layer: Layer, options: Options
) -> list[_Heard]:
    """Writes a layer's images, and sounds and pictures of each feature, to the folder and to the page."""
    title, frequencies = f"{name}: layer {layer.number}", front.frequencies()
    seconds, rate = len(clip.waveform) / front.sample_rate, front.sample_rate
    stem = f"layer{layer.number}"
    (folder / stem).mkdir()
    np.savez(folder / f"{stem}.npz", images=layer.images, features=layer.features)
    overview = spectrograms.layer_sheet(layer.images, layer.features, frequencies, seconds, title)
    (folder / f"{stem}.png").write_bytes(overview)
    sheet, loudest = spectrograms.SpectrogramSheet(frequencies, seconds, "loudest of the layer"), layer.loudest
    heard = []
    sounds = explain.sounds(front, clip, layer.images, options.reading, options.rectify)
    for number, image, sound in zip(
        tqdm(layer.features, desc=title, unit="feature", leave=False), layer.images, sounds, strict=True
    ):
        file = f"{stem}/f{number:03d}"
        gained = auralisation.match_gain(sound, clip.waveform, options.gain)
        audio.write(folder / f"{file}.wav", gained.waveform, rate)
        (folder / f"{file}.png").write_bytes(sheet.draw(image, loudest, f"{title}, feature {number}"))
        matched, factor = auralisation.match_gain(sound, clip.waveform)
        heard.append(_Heard(gained.gain, factor, *listening.rest(clip.waveform, matched)))
        if page:
            page.picture(file, image)
            page.sound(file, matched / _full_scale(clip), rate)
    if page and layer.untrained:
        sounds = explain.sounds(front, clip, layer.untrained.images, options.reading, options.rectify)
        for number, image, sound in zip(layer.features, layer.untrained.images, sounds, strict=True):
            matched = auralisation.match_gain(sound, clip.waveform).waveform
            page.picture(f"{stem}/f{number:03d}.untrained", image)
            page.sound(f"{stem}/f{number:03d}.untrained", matched / _full_scale(clip), rate)
    return heard


def _rows(layer: Layer, heard: list[_Heard], names: list[Any], trained: Trained, target: int) -> list[dict[str, Any]]:
    """A layer's rows of features.csv; `names`: its features' (`dissected.names`), `target`: the likeliest class."""
    count, beside = len(heard), layer.untrained and layer.untrained.comparison
    columns = {
        "layer": [layer.number] * count,
        "feature": layer.features.tolist(),
        **features.columns(layer.measures),
        "gain": [h.gain for h in heard],
        "inactive": layer.measures.inactive.astype(int),
        "energy_share": layer.energy_share,
        "effect": layer.effects[:, target],
        "explained": [h.explained for h in heard],
        "difference": beside.difference if beside else [""] * count,
        "difference_signed": beside.difference_signed if beside else [""] * count,
        "kind": layer.kinds,
        "kind_r": layer.kind_r,
        "name": [name["concept"] if name else "" for name in names],
        **{f"effect_{label}": some for label, some in zip(trained.labels, layer.effects.T, strict=True)},
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _shown(layer: Layer, heard: list[_Heard], rows: list[dict[str, Any]], names: list[Any]) -> dict[str, Any]:
    """What the page knows of a layer beside its pictures and sounds."""
    twin = layer.untrained
    assert twin
    shown = []
    kept = [{k: v for k, v in row.items() if not k.startswith("effect")} for row in rows]
    given = zip(heard, kept, layer.effects, layer.images, twin.images, layer.peaks, names, strict=True)
    for h, row, effects, image, other, peaks, name in given:
        more = {
            "effects": effects.tolist(),
            "rest": [h.factor, h.scale],
            "weight": 1 / h.matched,
            "level": _level(image, layer.loudest),
            "untrained_level": _level(other, twin.loudest),
            "untrained_inactive": int(not np.any(other)),
            "moments": peaks.tolist(),
            "evidence": name,
        }
        shown.append(row | more)
    return {"features": shown, "chance": twin.comparison.chance}


def _level(image: np.ndarray, reference: float) -> float:
    """Of an image's loudest value below a reference, dB; 0 where there is nothing."""
    top = float(np.abs(image).max())
    return 20 * float(np.log10(top / reference)) if top > 0 else 0.0


def _full_scale(clip: Clip) -> float:
    """The peak of a waveform that exceeds full scale, else 1."""
    return max(1.0, float(np.abs(clip.waveform).max()))
