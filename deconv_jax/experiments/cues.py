"""Do explanations point at what an answer hangs on? Where it is known: planted cues (`deconv_jax.music.cues`).

For every cue a network learns to tell two classes that differ in it alone. If it names unheard songs right, something
of the cue is what decides: everything else is the same in both classes of the same song. Every method's image of its
right answer is then scored against where the cue sounds (`deconv_jax.measures.localisation`). Beside them stand cells
in random order, the input's own energy, and the same method's image of a network with random weights and of one whose
labels were dealt out at random: what these find as well, nobody has learnt.

What this is not. The cue sounds in many cells, and a network may need few of them, or their neighbours, or that a cell
is empty: an image that is true to the network can score low. Which of two methods scores higher on the same network
and clip is still a fair question. Clips whose class is told by an absence stand apart: where the cue would be is the
only truth that they have, and a method that multiplies by the input has nothing to show there.

Beside the scores stand measures that know no truth (`deconv_jax.decision.faithfulness`), and whether they follow it:
over methods and cues, and among the methods of each cue.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from deconv_jax.decision import attribution
from deconv_jax.decision.faithfulness import faithfulness
from deconv_jax.decision.sufficient import sufficient
from deconv_jax.experiments import agreement, cue_page, cue_ways
from deconv_jax.experiments.agreement import FAITHFUL, mean_of
from deconv_jax.experiments.cue_networks import RANDOM, SHUFFLED, TRAINED, Settings, accuracy, networks
from deconv_jax.measures.intervals import interval
from deconv_jax.measures.localisation import MEASURES, localised
from deconv_jax.music.cues import CUES, VERSION, Pair, planted
from deconv_jax.network.trained import Trained
from deconv_jax.pictures import truth
from deconv_jax.sound.front_end import analyse
from deconv_jax.system import files, runtime

NOISE, ENERGY, SUFFICIENT = "random order", "energy of the input", "sufficient"
"""Two controls that know no network, and the smallest sound that keeps the answer, in integrated gradients' order."""


def cues(out: Path, cache_dir: Path, wanted: Settings) -> list[str]:
    """Writes cues.png, .csv and .json, cues_clips.csv, cues_ways.csv, and networks, scores, sounds and a page.

    Args:
      out: folder, which is there, for the tables; the rest is below `out/cues`. What an interrupted run left in it is
        gone on with.
      cache_dir: where songs and clips are kept.
      wanted: see `Settings`.

    Returns:
      What was found, in sentences.
    """
    folder, rows, ways, learnt, heard = out / "cues", [], [], [], []
    sentences: list[str] = []
    for name in wanted.cues:
        found, report = networks(name, wanted, folder / name, cache_dir)
        linear = max(result["by_clip"]["accuracy"] for result in report["baselines"].values())
        entry = {"cue": name, "about": CUES[name].about, "cheat": CUES[name].cheat, "asked": len(found) > 1}
        learnt.append(entry | {"right": accuracy(report), "linear": linear, "steps": report["steps"]})
        if len(found) > 1:
            pairs, others = _pairs(name, wanted), _pairs(name, wanted, wanted.explained)
            asked = functools.partial(_scores, name, found, pairs, wanted)
            backs = functools.partial(cue_ways.compare, name, found, others, pairs, wanted)
            rows += _kept(folder / name / "scores.json", asked, found, pairs, wanted)
            ways += _kept(folder / name / "ways.json", backs, found, pairs, wanted)
            heard.append(cue_page.hear(name, found, pairs, folder))
        sentences = _write(out, learnt, rows, ways, heard, wanted)  # after each, for those who do not wait for all
    return sentences


def _write(
    out: Path, learnt: list[dict], rows: list[dict], ways: list[dict], heard: list[dict], wanted: Settings
) -> list[str]:
    """Tables, figure and page of the cues so far; returns what was found, in sentences."""
    table = _table(rows, wanted)
    own = [row for row in rows if row["network"] == TRAINED and row["present"]]
    follows = agreement.follows(own, wanted.draws)
    sentences = [*_learnt(learnt, wanted), *_said(table), *_followed(follows), *cue_ways.said(ways)]
    if rows:
        files.write_csv(out / "cues_clips.csv", rows)
        files.write_csv(out / "cues.csv", table)
        files.write_csv(out / "cues_ways.csv", ways, cue_ways.COLUMNS)
        asked = {entry["cue"]: entry["about"] for entry in learnt if entry["asked"]}
        files.write_bytes(out / "cues.png", truth.cue_sheet(table, follows, asked, "\n".join(sentences)))
    cue_page.write(out / "cues" / "index.html", heard, table, sentences)
    about = {"sentences": sentences, "networks": learnt, "methods": table, "follows": follows, "ways": ways}
    files.write_json(
        out / "cues.json", about | {"settings": dataclasses.asdict(wanted), "versions": runtime.versions()}
    )
    return sentences


def _pairs(cue: str, wanted: Settings, after: int = 0) -> dict[int, Pair]:
    """Number → pair, of the first songs of the test part, or of those after so many."""
    first, count = sum(wanted.pairs[:2]) + after, min(wanted.explained, wanted.pairs[2] - after)
    return {n: planted(cue, n, wanted.seconds) for n in range(first, first + count)}


# --- scores ---------------------------------------------------------------------------------


def _kept(
    path: Path,
    make: Callable[[], list[dict[str, Any]]],
    found: Mapping[str, Trained],
    pairs: Mapping[int, Pair],
    wanted: Settings,
) -> list[dict[str, Any]]:
    """The rows that `make` makes, or what is kept of an earlier run of the same networks, songs and settings."""
    key = files.plain(
        {"networks": {k: t.fingerprint for k, t in found.items()}, "songs": list(pairs), "version": VERSION}
        | {"methods": list(attribution.METHODS), "points": wanted.points, "seconds": wanted.seconds}
    )
    if path.is_file():
        kept = json.loads(path.read_text())
        if kept["of"] == key:
            return [{k: np.nan if v is None else v for k, v in row.items()} for row in kept["rows"]]
    rows = make()
    files.write_json(path, {"of": key, "rows": rows})
    return rows


def _scores(
    cue: str, found: Mapping[str, Trained], pairs: Mapping[int, Pair], wanted: Settings
) -> list[dict[str, Any]]:
    """A row for every network, method and clip; networks' names are "" for controls that know none."""
    own = found[TRAINED]
    front, clips = own.front_end, [(n, label) for n in pairs for label in (0, 1)]
    waves = np.stack([pairs[n].clips[label] for n, label in clips])
    spectra, seen = (np.asarray(x) for x in analyse(front, jnp.asarray(waves)))
    targets = np.array([own.labels.index(CUES[cue].labels[label]) for _, label in clips])
    masks = [pairs[n].truth(label, front) for n, label in clips]
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []

    def score(network: str, method: str, images: np.ndarray) -> None:
        more = _faithful(own, seen, images, targets, wanted) if network in ("", TRAINED) else [{}] * len(clips)
        for (number, label), image, mask, measured in zip(clips, images, masks, more, strict=True):
            about: dict[str, Any] = {
                "cue": cue,
                "network": network,
                "method": method,
                "song": number,
                "label": CUES[cue].labels[label],
            }
            about |= {"present": int(pairs[number].present(label))} | localised(image, mask)
            rows.append(about | {m: measured.get(m, np.nan) for m in FAITHFUL})

    score("", NOISE, rng.random(seen.shape))
    score("", ENERGY, np.abs(spectra) ** 2)
    for name, network in found.items():
        for method, images in _images(network, seen, waves, targets, wanted, f"{cue}: {name}"):
            score(name, method, images)
    return rows


def _images(
    trained: Trained, seen: np.ndarray, waves: np.ndarray, targets: Any, wanted: Settings, title: str
) -> Iterable[tuple[str, np.ndarray]]:
    """Method → images of all clips, (clips, freq, time)."""
    options = {"integrated_gradients": {"steps": wanted.points}, "smoothgrad": {"samples": wanted.points}}
    order = seen
    for method in tqdm(attribution.METHODS, desc=title, unit="method"):
        found = attribution.attribute(
            trained.network, trained.variables, seen, targets, method=method, **options.get(method, {})
        )
        images = np.asarray(found.image)
        order = images if method == "integrated_gradients" else order
        yield method, images
    kept = [sufficient(trained, w, i, int(t)).mask for w, i, t in zip(waves, order, targets, strict=True)]
    yield SUFFICIENT, np.stack(kept).astype(np.float32)


def _faithful(
    trained: Trained, seen: np.ndarray, images: np.ndarray, targets: np.ndarray, wanted: Settings
) -> list[dict[str, float]]:
    """The measures that know no truth, for every clip."""
    found = faithfulness(trained.network, trained.variables, seen, images, targets, steps=wanted.points)
    return [{name: float(getattr(found, name)[n]) for name in FAITHFUL} for n in range(len(seen))]


# --- tables ---------------------------------------------------------------------------------


def _table(rows: Sequence[Mapping[str, Any]], wanted: Settings) -> list[dict[str, Any]]:
    """A row for every cue, kind of clip, network and method: means over songs, with intervals that resample these.

    "ahead": the least lead in average precision over the controls: random order, energy, and the same method's image of
    the other two networks; with the interval of that least lead. "learnt": the same over these two alone. They
    are there for the trained network only.
    """
    cells: dict[tuple, dict[int, list[Mapping[str, Any]]]] = {}
    for row in rows:
        key = row["cue"], row["present"], row["network"], row["method"]
        cells.setdefault(key, {}).setdefault(row["song"], []).append(row)

    def mean(key: tuple, measure: str) -> np.ndarray:
        """By song."""
        return np.array([np.mean([row[measure] for row in some]) for _, some in sorted(cells[key].items())], float)

    table = []
    for key, found in cells.items():
        cue, present, network, method = key
        drawn = np.random.default_rng(0).integers(len(found), size=(wanted.draws, len(found)))
        entry: dict[str, Any] = {"cue": cue, "present": present, "network": network, "method": method}
        entry |= {"songs": len(found), "size": float(mean_of(mean(key, "size")))}
        for measure in MEASURES:
            values = mean(key, measure)
            low, high = interval(mean_of(values[drawn]))
            entry |= {measure: float(mean_of(values)), f"{measure}_low": low, f"{measure}_high": high}
        entry |= {measure: float(np.mean(mean(key, measure))) for measure in FAITHFUL}
        others = [(RANDOM, method), (SHUFFLED, method)]
        for name, controls in (("learnt", others), ("ahead", [("", NOISE), ("", ENERGY), *others])):
            entry |= {name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan, "of": ""}
            if network == TRAINED:
                leads = np.stack([mean(key, "ap") - mean((cue, present, *c), "ap") for c in controls])
                low, high = interval(mean_of(leads[:, drawn]).min(axis=0))
                least = int(mean_of(leads).argmin())
                entry |= {name: float(mean_of(leads[least])), f"{name}_low": low, f"{name}_high": high}
                entry |= {"of": " ".join(controls[least]).strip()}
        table.append(entry)
    return table


# --- in words -------------------------------------------------------------------------------


def _learnt(learnt: Sequence[Mapping[str, Any]], wanted: Settings) -> list[str]:
    asked = [f"{e['cue']} {e['right']:.3f}" for e in learnt if e["asked"]]
    left = [f"{e['cue']} {e['right']:.3f}" for e in learnt if not e["asked"]]
    clips = f"of {2 * wanted.pairs[2]} held-out clips ({wanted.pairs[2]} songs)"
    lines = [f"Right on so large a share {clips}: {', '.join(asked) or 'none'}."]
    return lines + (
        [f"Left out, as they are right less often than {wanted.right:g}: {', '.join(left)}."] if left else []
    )


def _said(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of each cue, which methods find it, where it sounds."""
    lines = []
    for cue in dict.fromkeys(row["cue"] for row in table):
        some = [row for row in table if row["cue"] == cue and row["present"]]
        own = sorted((row for row in some if row["network"] == TRAINED), key=lambda row: -row["ap"])
        energy = next(row for row in some if row["method"] == ENERGY)
        good, bad = (
            ", ".join(
                f"{row['method'].replace('_', ' ')} {row['ap']:.2f}" for row in own if (row["ahead_low"] > 0) == ahead
            )
            or "none"
            for ahead in (True, False)
        )
        lines.append(
            f"{cue} (in {100 * energy['size']:.1f} % of the cells; average precision of energy {energy['ap']:.2f}): "
            f"ahead of every control {good}; not so {bad}."
        )
    return lines


def _followed(follows: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = [
        f"{row['measure']} {row['within_cues']:+.2f} [{row['within_cues_low']:+.2f}, {row['within_cues_high']:+.2f}]"
        for row in follows
        if row["truth"] == agreement.TRUE[0] and np.isfinite(row["within_cues_low"])
    ]
    title = "Rank correlation with average precision among the methods of a cue, averaged over cues"
    return [f"{title}: {'; '.join(parts)}."] if parts else []
