"""What pages say of a network: numbers for their scripts, how it was trained, and how often it is right."""

import contextlib
import datetime
from pathlib import Path
from typing import Any

import numpy as np

from deconv_jax.measures import randomised
from deconv_jax.network.receptive_field import extents
from deconv_jax.network.trained import Trained
from deconv_jax.pictures import spectrograms
from deconv_jax.sound import levels
from deconv_jax.system import files

KERNEL_CELLS = 100
"""Largest first-layer kernel that the page prints as a table."""

_NAMES = {
    "majority": "always the same genre",
    "mean log-mel": "linear model on mean log-mel spectra",
    "log-mel mean and deviation": "the same with deviations",
    "level removed": "the same, level removed",
}


def facts(trained: Trained) -> dict:
    """Numbers of the network that a page's script needs."""
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
    if not trained.about.get("card"):  # a file of the package is as old as its installation
        with contextlib.suppress(OSError):  # the folder may be gone by now, and the network still be here
            written = datetime.datetime.fromtimestamp(trained.checkpoint.stat().st_mtime, datetime.UTC)
            what = "Weights written" if "train" in config else "Network file written"
            rows.append((what, f"{written:%-d %B %Y, %H:%M} UTC"))
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


def tested(trained: Trained) -> dict | None:
    """How often the network is right beside its baselines, on music that it never heard; None where that is not known.

    From its card where it has one, since a network file keeps the network's own result only, and otherwise from the
    report of its run.

    Returns:
      "clips", "songs"; "measure", what the numbers are, "on", of which music; "rows": "name", "own", "clip", "song".
    """
    report, measure = _report(trained), "accuracy"
    known: dict[str, Any] = {"measure": "Genre named right", "on": "songs never heard"}
    results: dict[str, dict] = {}
    if report and "test" in report:
        results = {"network": report["test"], **report.get("baselines", {})}
        known |= {"clips": report["test"]["by_clip"]["n"], "songs": report["test"]["by_song"]["n"]}
    card = trained.about.get("card") or {}
    if carded := next((result for result in card.get("results", []) if "rows" in result), None):
        measure, results = "balanced_accuracy", {row["name"]: row for row in carded["rows"]}
        known = {key: carded[key] for key in ("on", "clips", "songs")}
        known["measure"] = "Genre named right, mean over the genres"
    rows = [
        {
            "name": "this network" if name == "network" else _NAMES.get(name, name),
            "own": name == "network",
            "clip": result["by_clip"][measure],
            "song": result["by_song"][measure],
        }
        for name, result in results.items()
    ]
    return known | {"rows": rows} if rows else None
