"""Figures 3 and 5 to 8: chosen features of a layer for several excerpts, trained and before training."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deconv_jax import audio, deconvolution, features, invariance
from deconv_jax.errors import InputError
from deconv_jax.experiments import figures, output
from deconv_jax.experiments.output import made_with, seed, untrained, write_bytes, write_csv
from deconv_jax.training.workdir import Trained, write_json

log = logging.getLogger(__name__)

MOST_EXCERPTS = 8
"""Columns that a sheet of features has room for."""


def feature_sheets(
    trained: Trained,
    paths: Sequence[Path],
    out: Path,
    layers: Sequence[int],
    chosen: Sequence[int] | None = None,
    offset: float = 0.0,
    count: int = 4,
) -> list[str]:
    """Writes features_layerN.png for every layer, features.csv and features.json.

    Args:
      trained: the network.
      paths: sound files, at most `MOST_EXCERPTS`; those that cannot be used are left out.
      layers: 1-based.
      chosen: features; if left out, `count` of the most active and most distinct of each layer.
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
        deconvolution.check_features(trained.network.blocks, layer, chosen)
    waveforms, names, failed = [], [], []
    for path in paths:
        try:
            waveform = audio.read(path, front.sample_rate, offset, front.clip_seconds)
            if not np.any(waveform):
                raise InputError(f"{audio.shown(path)}: is silent there; choose a part with sound by --offset")
        except InputError as error:
            failed.append(str(error))
            continue
        waveforms.append(audio.cut(waveform, 0, front.clip_samples))
        names.append(audio.shown(path.stem))
    if not names:
        raise InputError(f"no sound file could be used; first reason: {failed[0]}")
    magnitudes = output.magnitudes(np.stack(waveforms), front)
    before = untrained(trained, seed(trained))
    rows = []
    for layer in tqdm(layers, desc="features", unit="layer"):
        numbers = np.array(chosen) if chosen else _choose(trained, magnitudes, layer, count)
        if not numbers.size:
            log.warning("layer %d: no feature is activated by these excerpts; its sheet is left out", layer)
            continue
        after: list[np.ndarray] = []
        start: list[np.ndarray] = []
        for name, magnitude in zip(names, magnitudes, strict=True):
            for stack, variables in ((after, trained.variables), (start, before)):
                found = deconvolution.sweep(trained.network, variables, magnitude, layer, numbers.tolist())
                images, maps = (np.asarray(array) for array in found)
                stack.append(images)
                if variables is trained.variables:
                    measures = features.measure(images, maps, front.frequencies())
            for index, number in enumerate(numbers):
                trio = np.stack([after[-1][index], start[-1][index], magnitude])
                alike = invariance.correlation_matrix(trio)
                rows.append(
                    {
                        "layer": layer,
                        "feature": int(number),
                        "excerpt": name,
                        "active_fraction": measures.active[index],
                        "energy": measures.energy[index],
                        "centroid_hz": measures.centroid[index],
                        "correlation_with_before_training": float(alike[0, 1]),
                        "correlation_with_input": float(alike[0, 2]),
                        "correlation_of_before_training_with_input": float(alike[1, 2]),
                    }
                )
        title = f"Layer {layer}: what {len(numbers)} features responded to"
        sheet = figures.feature_sheet(
            names, list(magnitudes), after, start, numbers.tolist(), front.frequencies(), front.clip_seconds, title
        )
        write_bytes(out / f"features_layer{layer}.png", sheet)
    if rows:
        write_csv(out / "features.csv", rows)
        rule = "as asked" if chosen else "the strongest quarter of a layer, of these the most unlike each other"
        about = {"choice": rule, "files": [audio.shown(p) for p in paths], "offset": offset, "failed": failed}
        write_json(out / "features.json", about | {"features": rows} | made_with(trained))
    return failed


def _choose(trained: Trained, magnitudes: np.ndarray, layer: int, count: int) -> np.ndarray:
    """The most active and most distinct features over all excerpts, each excerpt counting alike."""
    shares, alike = [], []
    for magnitude in magnitudes:
        images = np.asarray(deconvolution.deconvolve(trained.network, trained.variables, magnitude, layer))
        energy = np.sum(images**2, axis=(1, 2), dtype=np.float64)
        shares.append(energy / (energy.sum() or 1.0))
        alike.append(np.nan_to_num(invariance.correlation_matrix(images)))
    return features.distinct(np.mean(shares, axis=0), np.mean(alike, axis=0), count)
