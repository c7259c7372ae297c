"""Figures 3 and 5 to 8: chosen features of a layer for several excerpts, trained and untrained."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deconv_jax.deconvolution import deconvolve
from deconv_jax.errors import InputError
from deconv_jax.experiments import output
from deconv_jax.experiments.output import before, made_with, seed, untrained
from deconv_jax.measures import features, likeness
from deconv_jax.network.trained import Trained
from deconv_jax.pictures import paper
from deconv_jax.results import explain
from deconv_jax.sound import audio
from deconv_jax.sound.front_end import FrontEnd
from deconv_jax.system import files

log = logging.getLogger(__name__)

CHOSEN = 4
"""Features of a layer that are shown where none are named."""

MOST_EXCERPTS = 8
"""Columns that a sheet of features has room for."""


def feature_sheets(
    trained: Trained,
    paths: Sequence[Path],
    out: Path,
    layers: Sequence[int],
    chosen: Sequence[int] | None = None,
    offset: float = 0.0,
) -> list[str]:
    """Writes features_layerN.png for every layer, features.csv and features.json.

    Args:
      trained: the network.
      paths: sound files, at most `MOST_EXCERPTS`; those that cannot be used are left out.
      layers: 1-based.
      chosen: features; if left out, `CHOSEN` of the most active and most distinct of each layer.
      offset: seconds to skip in every file.

    Returns:
      One line for every file that could not be used.

    Raises:
      InputError: too many files, or none can be used.
    """
    if len(paths) > MOST_EXCERPTS:
        raise InputError(f"{len(paths)} sound files are named: a sheet has room for {MOST_EXCERPTS}; name fewer")
    front = trained.front_end
    for layer in layers:
        deconvolve.check_features(trained.network.blocks, layer, chosen)
    names, waveforms, failed = _read(paths, front, offset)
    inputs = output.inputs(waveforms, front)
    initial_variables, called = untrained(trained, seed(trained)), before(trained)
    pictured = [explain.row_magnitudes(front, waveform) for waveform in waveforms]
    rows: list[dict] = []
    for layer in tqdm(layers, desc="features", unit="layer"):
        numbers = list(chosen) if chosen else _choose(trained, inputs, layer).tolist()
        if not numbers:
            log.warning("layer %d: no feature is activated by these excerpts; its sheet is left out", layer)
            continue
        excerpts = []
        for name, original, seen in zip(names, pictured, inputs, strict=True):
            found = deconvolve.images_and_maps(trained.network, trained.variables, seen, layer, numbers)
            images, maps = (np.asarray(array) for array in found)
            initial = np.asarray(deconvolve.deconvolve(trained.network, initial_variables, seen, layer, numbers))
            excerpts.append(paper.Excerpt(name, original, images, initial))
            measures = features.measure(images, maps, front.frequencies())
            about = {"layer": layer, "excerpt": name}
            for index, number in enumerate(numbers):
                alike = likeness.correlation_matrix(np.stack([images[index], initial[index], seen]))
                rows.append(about | _row(number, measures, index, alike, called))
        title = f"Layer {layer}: what {len(numbers)} features responded to"
        sheet = paper.feature_sheet(excerpts, numbers, front.frequencies(), front.clip_seconds, title, called)
        files.write_bytes(out / f"features_layer{layer}.png", sheet)
    if rows:
        files.write_csv(out / "features.csv", rows)
        rule = "as asked" if chosen else "the strongest quarter of a layer, of these the most unlike each other"
        about = {"choice": rule, "files": [files.shown(p) for p in paths], "offset": offset, "failed": failed}
        files.write_json(out / "features.json", about | {"features": rows} | made_with(trained))
    return failed


def _read(paths: Sequence[Path], front: FrontEnd, offset: float) -> tuple[list[str], np.ndarray, list[str]]:
    """Names and waveforms (clips, samples) of the files that can be used, and a line for each that cannot."""
    names, waveforms, failed = [], [], []
    for path in paths:
        try:
            waveform = audio.read(path, front.sample_rate, offset, front.clip_seconds)
            if not np.any(waveform):
                raise InputError(f"{files.shown(path)}: is silent there; choose a part with sound by offset")
        except InputError as error:
            failed.append(str(error))
            continue
        waveforms.append(audio.cut(waveform, 0, front.clip_samples))
        names.append(files.shown(path.stem))
    if not names:
        raise InputError(f"no sound file could be used; first reason: {failed[0]}")
    return names, np.stack(waveforms), failed


def _row(number: int, measures: features.Measures, index: int, alike: np.ndarray, called: str) -> dict:
    """One feature and excerpt, and how alike (3, 3) its image, an untrained network's and the input itself are."""
    other = called.replace(" ", "_")
    return {
        "feature": number,
        "active_fraction": measures.active[index],
        "energy": measures.energy[index],
        "centroid_hz": measures.centroid[index],
        f"correlation_with_{other}": float(alike[0, 1]),
        "correlation_with_input": float(alike[0, 2]),
        f"correlation_of_{other}_with_input": float(alike[1, 2]),
    }


def _choose(trained: Trained, inputs: np.ndarray, layer: int) -> np.ndarray:
    """The most active and most distinct features over all excerpts, each excerpt counting alike."""
    shares, alike = [], []
    for seen in inputs:
        images = np.asarray(deconvolve.deconvolve(trained.network, trained.variables, seen, layer))
        energy = np.sum(images**2, axis=(1, 2), dtype=np.float64)
        shares.append(energy / (energy.sum() or 1.0))
        alike.append(np.nan_to_num(likeness.correlation_matrix(images)))
    return likeness.distinct(np.mean(shares, axis=0), np.mean(alike, axis=0), CHOSEN)
