"""Figures 9 and 10: how alike images are under a change of key, chord and instrument, beside the controls."""

import dataclasses
import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deconv_jax import __version__
from deconv_jax.deconvolution import deconvolve
from deconv_jax.errors import InputError, SettingError
from deconv_jax.experiments import claims, output, signals
from deconv_jax.experiments.output import made_with, seed, untrained
from deconv_jax.measures import invariance
from deconv_jax.music import stimuli
from deconv_jax.network.model import Network
from deconv_jax.network.trained import Trained, fingerprint
from deconv_jax.pictures import paper
from deconv_jax.sound.front_end import analyse
from deconv_jax.system import files


@dataclasses.dataclass(frozen=True)
class Invariance:
    """What to make of Figure 10.

    Attributes:
      layers: 1-based, ascending.
      view: see `invariance.VIEWS`.
      seconds: of every signal that are compared. The paper's chord signals last 2 s, its interval signals 4 s: all are
        cut to the first 2 s, six hits, before the network hears them, so that all images have one size.
      random_networks: how many networks with random weights stand beside the trained one; the first is the network
        before its training.
      draws: of the bootstrap.
    """

    layers: Sequence[int]
    view: str = "linear"
    seconds: float = 2.0
    random_networks: int = 1
    draws: int = 2000


def figure9(trained: Trained, out: Path) -> None:
    """Writes figure9.png: major, then minor, by the pure sine in G4, as the paper shows it."""
    front = trained.front_end
    both = [stimuli.Stimulus(stimuli.INSTRUMENTS[0], stimuli.CHORDS[i], stimuli.KEYS[3]) for i in (1, 2)]
    waveform = np.concatenate([stimuli.synthesise(s, front.sample_rate) for s in both])
    magnitude = np.abs(np.asarray(analyse(front, waveform)[0]))
    title = "Model signal: pure sine in G4, six positions of major, then of minor"
    seconds = len(waveform) / front.sample_rate
    sheet = paper.signal_sheet(magnitude, front.stft_frequencies(), seconds, title, top=3500.0)
    files.write_bytes(out / "figure9.png", sheet)


def figure10(
    trained: Trained, out: Path, settings: Invariance, null: Trained | None = None, folder: Path | None = None
) -> tuple[list[str], list[str]]:
    """Writes figure10.png, .csv and .json, the model signals, and the correlations on the way.

    Args:
      trained: the network in question.
      out: finished correlations in `out/correlations` are taken from there if network, signals and settings are the
        same.
      settings: see `Invariance`.
      null: a network trained on shuffled labels.
      folder: of one's own signals and their table; if left out, the paper's model signals are made in `out/signals`.

    Returns:
      What was found, in sentences, and one line for every signal that could not be used.

    Raises:
      InputError: the signals or the null network cannot be used. ValueError: a layer does not exist, or the view
        means nothing for this network.
    """
    front = trained.front_end
    for layer in settings.layers:
        deconvolve.check_features(trained.network.blocks, layer, None)
    if settings.view == "mask" and not front.linear:
        raise SettingError("spectrogram=mask multiplies images with the magnitude; this network hears its logarithm")
    if null is not None:
        _check_null(trained, null)
    if folder is None:
        folder = out / "signals"
        signals.write_stimuli(folder, stimuli.paper_stimuli(), front.sample_rate)
    sounds, failed = signals.read(folder, front.sample_rate, settings.seconds)
    pairs = invariance.pairs(sounds.attributes)
    if not pairs:
        raise InputError(
            f"{files.shown(folder / 'signals.csv')}: no two signals differ in one attribute alone; "
            "compared are signals that differ in one column and agree in all others"
        )
    inputs = output.inputs(sounds.waveforms, front)
    measured = _measure(trained, null, inputs, pairs, out / "correlations", settings)
    cells = _estimates(measured, sounds, pairs, settings)
    report = _report(measured, cells, sounds, pairs, settings)
    series = _series(measured, cells, pairs, settings.layers)
    attributes, sentences = list(pairs), report["sentences"]
    counts = ", ".join(f"{len(p)} for {name}" for name, p in pairs.items())
    rule = (
        f"{len(sounds.names)} signals, the first {settings.seconds:g} s of each; pairs that differ in one attribute "
        f"alone: {counts}; {settings.view} images. Bars below: 95 % intervals (pigeonhole bootstrap over the levels of "
        f"all attributes, {settings.draws} draws)."
    )
    title = "Correlation of deconvolved spectrograms, by layer, beside its controls"
    sheet = paper.invariance_sheet(series, attributes, settings.layers, title, "\n".join([rule, "", *sentences]))
    files.write_bytes(out / "figure10.png", sheet)
    files.write_csv(out / "figure10.csv", report["averages"])
    about = {
        "settings": dataclasses.asdict(settings),
        "signals": {"folder": files.shown(folder.absolute()), "used": len(sounds.names), "failed": failed},
        "pairs": {name: len(p) for name, p in pairs.items()},
        "null": str(null.checkpoint) if null else None,
    }
    files.write_json(out / "figure10.json", report | about | made_with(trained))
    return sentences, failed


def _check_null(trained: Trained, null: Trained) -> None:
    theirs = (null.network.blocks, null.front_end)
    if theirs != (trained.network.blocks, trained.front_end):
        raise InputError(
            f"{files.shown(null.checkpoint)}: the null network has other blocks or another front end; "
            "train it with the same config, but for config.data.shuffle_labels"
        )


Correlations = dict[str, dict[int, np.ndarray]]
"""Network → layer → correlations, shape (features, pairs), the attributes' pairs one after the other."""


def _measure(
    trained: Trained, null: Trained | None, inputs: np.ndarray, pairs: dict, kept: Path, settings: Invariance
) -> Correlations:
    """Every network's correlations, from `kept` where they are there already, and the input's as layer 0."""
    networks = {"trained": trained.variables}
    if null is not None:
        networks["null"] = null.variables
    for number in range(settings.random_networks):
        networks[f"random {number + 1}"] = untrained(trained, seed(trained) + number)
    every = np.concatenate(list(pairs.values()))
    given = hashlib.sha256(inputs.tobytes() + every.tobytes() + settings.view.encode()).digest()
    kept.mkdir(exist_ok=True)
    maps = [trained.network.blocks[layer - 1].maps for layer in settings.layers]
    bar = tqdm(total=len(networks) * len(inputs) * sum(maps), desc="deconvolving", unit="image", smoothing=0.05)
    found: Correlations = {name: {} for name in networks}
    with bar:
        for layer, count in zip(settings.layers, maps, strict=True):
            for name, variables in networks.items():
                bar.set_postfix_str(f"layer {layer}, {name}")
                key = _digest(trained.network, variables, layer, given)
                path = kept / f"{name.replace(' ', '')}_layer{layer}_{settings.view}_{key[:12]}.npz"
                values = _kept(path, (count, len(every)))
                if values is not None:
                    bar.update(len(inputs) * count)
                else:
                    values = invariance.feature_correlations(
                        trained.network, variables, inputs, layer, every, settings.view, advance=bar.update
                    )
                    with files.replacing(path) as partial, open(partial, "wb") as handle:
                        np.savez(handle, correlations=values, pairs=every)
                found[name][layer] = values
    found["input"] = {0: invariance.input_correlations(inputs, every, settings.view)}
    return found


def _digest(network: Network, variables, layer: int, given: bytes) -> str:
    """Names everything that the correlations of a layer depend on: network, weights, signals, pairs and view."""
    part = network.clone(blocks=network.blocks[:layer])
    known = fingerprint(part, deconvolve.used_variables(variables, layer))
    return hashlib.sha256(given + f"{__version__} {known}".encode()).hexdigest()


def _kept(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """What an earlier run left, if it can be read."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            values = stored["correlations"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
        return None
    return values if values.shape == shape else None


def _parts(pairs: dict[str, np.ndarray]) -> dict[str, slice]:
    """Where each attribute's pairs stand among all."""
    edges = np.cumsum([0, *map(len, pairs.values())])
    return {name: slice(a, b) for name, a, b in zip(pairs, edges[:-1], edges[1:], strict=True)}


def _estimates(measured: Correlations, sounds: signals.Signals, pairs: dict, settings: Invariance) -> dict:
    """Network → (layer, attribute) → estimate; the random networks' mean is "random", the input has every layer."""
    weights = invariance.bootstrap_weights(sounds.attributes, pairs, settings.draws)
    cells: dict[str, dict] = {name: {} for name in measured}
    for attribute, part in _parts(pairs).items():
        for name, layers in measured.items():
            for layer, values in layers.items():
                draws = invariance.bootstrap(values[:, part], weights[attribute])
                cells[name][layer, attribute] = claims.Estimate(invariance.average(values[:, part]).mean, draws)
        for layer in settings.layers:
            cells["input"][layer, attribute] = cells["input"][0, attribute]
    seeds = [name for name in measured if name.startswith("random")]
    if seeds:
        cells["random"] = {cell: claims.average([cells[s][cell] for s in seeds]) for cell in cells[seeds[0]]}
    return cells


def _report(measured: Correlations, cells: dict, sounds: signals.Signals, pairs: dict, settings: Invariance) -> dict:
    """The averages as rows, the paper's claims with their verdicts, and both in sentences."""
    parts = _parts(pairs)
    every = np.concatenate(list(pairs.values()))
    intervals = np.array([a.get("chord") == "intervals" for a in sounds.attributes])
    whole = ~intervals[every].any(axis=1)
    nothing = claims.Estimate(np.nan, np.full(settings.draws, np.nan))  # the input has no layer to compare with
    rows: list[dict] = []
    for name, by_layer in measured.items():
        for layer, values in by_layer.items():
            for attribute, part in parts.items():
                found, here = invariance.average(values[:, part]), cells[name][layer, attribute]
                low, high = here.interval
                row = {"network": name, "layer": layer, "attribute": attribute, "pairs": len(pairs[attribute])}
                row |= found._asdict() | {"low": low, "high": high}
                apart = cells["trained"].get((layer, attribute), nothing) - here
                low, high = apart.interval
                row |= {"trained_minus_this": apart.mean, "difference_low": low, "difference_high": high}
                if intervals.any():
                    row["mean_without_intervals"] = invariance.average(values[:, part][:, whole[part]]).mean
                rows.append(row)
    attributes, layers = list(pairs), list(settings.layers)
    controls = [name for name in ("random", "null", "input") if name in cells]
    judged = []
    for claim in claims.claims(attributes, layers):
        verdicts = {name: claims.judge(claim, cells[name]) for name in ("trained", *controls)}
        judged.append({"claim": claim.text, "networks": {k: v for k, v in verdicts.items() if v}})
    sentences = claims.in_words(judged, "trained", controls)
    beside = {}
    if len(layers) > 1:
        for name in (c for c in controls if c != "input"):
            beside[name] = claims.change_beside(cells["trained"], cells[name], attributes, layers)
            which = {"random": "random weights", "null": "shuffled labels"}[name]
            sentences.append(claims.change_in_words(beside[name], layers, which))
    sentences.append(_left_out(measured, layers[-1]))
    return {"sentences": sentences, "claims": judged, "changes": beside, "averages": rows}


def _left_out(measured: Correlations, layer: int) -> str:
    """A network whose features are often inactive is judged by those that are not: a selection of its own making."""
    shares = [f"{name} {np.isnan(found[layer]).mean():.0%}" for name, found in measured.items() if layer in found]
    sentence = (
        f"Left out in layer {layer}, because one of two images is zero everywhere: {', '.join(shares)} of the "
        "correlations; networks that differ in this are compared on different features."
    )
    seeds = sum(name.startswith("random") for name in measured)
    if seeds:
        sentence += f" The intervals do not hold how networks of other seeds differ; random networks here: {seeds}."
    return sentence


def _series(measured: Correlations, cells: dict, pairs: dict, layers: Sequence[int]) -> list[paper.Series]:
    """What the plot shows: one entry for all networks with random weights."""
    parts = _parts(pairs)
    averages = {
        name: {(layer, a): invariance.average(v[:, part]) for layer, v in found.items() for a, part in parts.items()}
        for name, found in measured.items()
    }
    seeds = [name for name in measured if name.startswith("random")]
    found = []
    for name in ("trained", "random", "null", "input"):
        if name not in cells:
            continue
        intervals = {cell: estimate.interval for cell, estimate in cells[name].items()}
        spread = None
        if name == "random":
            several = {c: [averages[s][c] for s in seeds] for c in averages[seeds[0]]}
            own = {c: invariance.Average(cells[name][c].mean, np.nan, 0, 0) for c in several}
            if len(seeds) > 1:
                spread = {c: (min(a.mean for a in some), max(a.mean for a in some)) for c, some in several.items()}
        elif name == "input":
            own = {(layer, a): averages[name][0, a] for layer in layers for a in parts}
        else:
            own = averages[name]
        many = f"random weights (mean of {len(seeds)}, band: their range)" if spread else "random weights"
        title = {"random": many, "null": "trained on shuffled labels", "input": "the input itself"}.get(name, name)
        differences = None
        if name in ("random", "null"):
            apart = {cell: cells["trained"][cell] - cells[name][cell] for cell in cells["trained"]}
            differences = {cell: (e.mean, *e.interval) for cell, e in apart.items()}
        found.append(paper.Series(title, name, own, intervals, spread, differences))
    return found
