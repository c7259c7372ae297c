"""Table 1 and Figure 4: what can be said of a network without any sound."""

import dataclasses
from pathlib import Path

import numpy as np

from deconv_jax.experiments.output import before, made_with, seed, untrained
from deconv_jax.measures import kernels
from deconv_jax.network import receptive_field
from deconv_jax.network.trained import Trained
from deconv_jax.pictures import paper
from deconv_jax.system import files


def table1(trained: Trained, out: Path) -> None:
    """Writes table1.png, .csv and .json."""
    found = receptive_field.extents(trained.network.blocks, trained.front_end)
    papers = receptive_field.is_the_papers(trained.network.blocks, trained.front_end)
    rows = []
    for extent in found:
        row = {"layer": extent.layer, "kernel_bins": extent.kernel[0], "kernel_frames": extent.kernel[1]}
        row |= {k: v for k, v in dataclasses.asdict(extent).items() if k.startswith(("rule", "true"))}
        if papers:
            row |= dict(zip(("paper_ms", "paper_hz"), receptive_field.PRINTED[extent.layer - 1], strict=True))
        rows.append(row)
    files.write_bytes(out / "table1.png", paper.table(found, papers))
    files.write_csv(out / "table1.csv", rows)
    files.write_json(out / "table1.json", {"layers": rows} | made_with(trained))


def figure4(trained: Trained, out: Path) -> str:
    """Writes figure4.png, .csv and .json; returns what the labels say, in a sentence."""
    kernel = np.asarray(trained.variables["params"]["conv1"]["kernel"])
    start = np.asarray(untrained(trained, seed(trained))["params"]["conv1"]["kernel"])
    found, initial = kernels.measure(kernel), kernels.measure(start)
    alive = int(np.sum(found.labels != kernels.DEAD))
    chance = kernels.chance(kernel.shape[:2], alive)
    counts = {label: int(np.sum(found.labels == label)) for label in kernels.LABELS}
    expected = {
        label: {"mean": mean, "low": low, "high": high}
        for label, mean, low, high in zip(kernels.LABELS, chance.mean, chance.low, chance.high, strict=True)
    }
    parts = [f"{counts[label]} {label} ({e['low']:.0f} to {e['high']:.0f} by chance)" for label, e in expected.items()]
    outside = [l for l, unlike in zip(kernels.LABELS, chance.unlike(list(counts.values())), strict=True) if unlike]
    sentence = f"Of {len(found.labels)} first-layer kernels"
    if alive < len(found.labels):
        sentence += f" {len(found.labels) - alive} have no weight to speak of; of the other {alive}"
    sentence += f": {', '.join(parts)}. "
    sentence += (
        f"Unlike random kernels in the number that are {', '.join(outside)}."
        if outside
        else "Random kernels are labelled like this as often: the labels show nothing that was learnt."
    )
    kept = [_cosine(a, b) for a, b in zip(found.weights, initial.weights, strict=True)]
    known = before(trained) == "before training"
    if known:
        sentence += f" Cosine of a kernel and what it was before training: {np.nanmean(kept):.3f} on average."
    rows = []
    for index, label in enumerate(found.labels):
        row = {"feature": index, "label": label, "strength": found.shares[index].max()}
        row |= {f"{name}_share": share for name, share in zip(kernels.LABELS, found.shares[index], strict=True)}
        row |= {f"along_time_{i}": value for i, value in enumerate(found.along_time[index])}
        row |= {f"along_frequency_{i}": value for i, value in enumerate(found.along_frequency[index])}
        if known:
            row |= {"label_before_training": initial.labels[index]}
            row |= {"cosine_with_before_training": kept[index]}
        rows.append(row)
    files.write_bytes(out / "figure4.png", paper.kernel_sheet(found, sentence))
    files.write_csv(out / "figure4.csv", rows)
    about = {"sentence": sentence, "counts": counts, "by_chance": expected, "kernels": rows}
    files.write_json(out / "figure4.json", about | made_with(trained))
    return sentence


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    length = float(np.sqrt(np.sum(one**2) * np.sum(other**2)))
    return float(np.sum(one * other)) / length if length else np.nan
