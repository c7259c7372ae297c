"""What the paper says about its Figure 10, decided by intervals, for a network and for its controls (section 4.2).

A claim is a set of contrasts, differences of mean correlations that should be above zero (or, for "similar", close to
it). It holds if every interval says so, does not hold if one interval says the opposite, and is undecided otherwise.
A claim that holds for random weights or for the raw input as well says nothing about what was learnt.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from deconv_jax.measures.intervals import interval

SIMILAR = 0.1
"""Mean correlations within this of each other are called similar; the paper gives no number."""

HOLDS, FAILS, OPEN = "holds", "does not hold", "undecided"

Cell = tuple[int, str]
"""(layer, attribute)."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean correlation, or a difference of two, and its bootstrap draws, shape (draws,)."""

    mean: float
    draws: np.ndarray

    def __sub__(self, other: "Estimate") -> "Estimate":
        return Estimate(self.mean - other.mean, self.draws - other.draws)

    @property
    def interval(self) -> tuple[float, float]:
        low, high = interval(self.draws)
        return low, high


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement about mean correlations.

    Attributes:
      text: in words.
      contrasts: (more, less): the first is said to be larger than the second, or similar to it.
      similar: whether "similar" is meant.
    """

    text: str
    contrasts: tuple[tuple[Cell, Cell], ...]
    similar: bool = False


def claims(attributes: Sequence[str], layers: Sequence[int]) -> list[Claim]:
    """The paper's claims, where there are a key, a chord and an instrument; else those that any attribute allows.

    Args:
      attributes: that have pairs.
      layers: that were measured, ascending.
    """
    first, last = layers[0], layers[-1]
    found = []
    papers = {"key", "chord", "instrument"} <= set(attributes)
    if papers:
        others = ("chord", "instrument")
        found.append(
            Claim(
                "key matters least in every layer",
                tuple(((layer, "key"), (layer, other)) for layer in layers for other in others),
            )
        )
        lowest = tuple(((first, other), (first, "instrument")) for other in ("key", "chord"))
        found.append(Claim(f"layer {first} is most sensitive to the instrument", lowest))
    if len(layers) > 1:
        for name in ("chord", "instrument") if papers else attributes:
            text = f"layer {last} is more robust to {name} than layer {first}"
            found.append(Claim(text, (((last, name), (first, name)),)))
    if papers:
        text = f"in layer {last} chords are more correlated than instruments"
        found.append(Claim(text, (((last, "chord"), (last, "instrument")),)))
    if len(attributes) > 1:
        names = ("key", "chord", "instrument") if papers else tuple(attributes)
        every = tuple(((last, a), (last, b)) for i, a in enumerate(names) for b in names[i + 1 :])
        which = "all three" if papers else "all attributes"
        found.append(Claim(f"{which} are similar (within {SIMILAR:g}) in layer {last}", every, similar=True))
    return found


def judge(claim: Claim, cells: Mapping[Cell, Estimate]) -> dict | None:
    """Decides a claim for one network.

    Args:
      claim: what is claimed.
      cells: (layer, attribute) → estimate. The raw input has no layers: it stands at every layer alike.

    Returns:
      verdict, and every contrast with its estimate and interval; None where nothing can be compared, as with layers
      of the raw input.
    """
    contrasts, verdicts = [], []
    for more, less in claim.contrasts:
        if cells[more] is cells[less]:
            return None
        difference = cells[more] - cells[less]
        low, high = difference.interval
        if not np.isfinite([low, high]).all():
            verdict = OPEN
        elif claim.similar:
            inside = low >= -SIMILAR and high <= SIMILAR
            verdict = HOLDS if inside else FAILS if low > SIMILAR or high < -SIMILAR else OPEN
        else:
            verdict = HOLDS if low > 0 else FAILS if high < 0 else OPEN
        verdicts.append(verdict)
        names = [f"layer {layer} {attribute}" for layer, attribute in (more, less)]
        contrasts.append({"difference": " - ".join(names), "mean": difference.mean, "low": low, "high": high})
    all_hold = all(v == HOLDS for v in verdicts)
    verdict = HOLDS if all_hold else FAILS if FAILS in verdicts else OPEN
    return {"verdict": verdict, "contrasts": contrasts}


def in_words(judged: list[dict], network: str, controls: Sequence[str]) -> list[str]:
    """Sentences for people.

    Args:
      judged: per claim: claim (text), and network → what `judge` returned.
      network: name of the network that the sentences are about.
      controls: names of the others.
    """
    lines = []
    for entry in judged:
        found = entry["networks"]
        parts = [f"{network}: {found[network]['verdict']}"]
        parts += [f"{name}: {found[name]['verdict']}" for name in controls if found.get(name)]
        lines.append(f"“{entry['claim']}” - {'; '.join(parts)}.")
    holding = [e for e in judged if e["networks"][network]["verdict"] == HOLDS]
    shared = [e for e in holding if any((e["networks"].get(c) or {}).get("verdict") == HOLDS for c in controls)]
    counts = {v: sum(e["networks"][network]["verdict"] == v for e in judged) for v in (HOLDS, FAILS, OPEN)}
    summary = (
        f"Of {len(judged)} claims, {counts[HOLDS]} hold for the {network} network, {counts[FAILS]} do not, and "
        f"{counts[OPEN]} cannot be decided."
    )
    if holding:
        summary += (
            f" Of those that hold, {len(shared)} hold for a control as well and so are no evidence of what was learnt."
            if shared
            else " Those that hold do so for no control."
        )
    return [summary, *lines]


def change_beside(
    cells: Mapping[Cell, Estimate], other: Mapping[Cell, Estimate], attributes: Sequence[str], layers: Sequence[int]
) -> list[dict]:
    """How much more one network gains in robustness from its first to its last layer than another, per attribute."""
    first, last = layers[0], layers[-1]
    rows = []
    for name in attributes:
        here, there = cells[last, name] - cells[first, name], other[last, name] - other[first, name]
        extra = here - there
        low, high = extra.interval
        rows.append({"attribute": name, "here": here.mean, "there": there.mean, "low": low, "high": high})
    return rows


def change_in_words(rows: list[dict], layers: Sequence[int], beside: str) -> str:
    """What `change_beside` found, as a sentence; not a number where a network has no two images to compare."""
    parts = []
    for row in rows:
        words = f"{row['here']:+.2f} against {row['there']:+.2f} (difference {row['low']:+.2f} to {row['high']:+.2f})"
        known = np.isfinite([row["here"], row["there"]]).all()
        parts.append(f"{row['attribute']} {words if known else 'unknown, one network having no two images to compare'}")
    return f"Change from layer {layers[0]} to {layers[-1]}, beside {beside}: {'; '.join(parts)}."


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Mean over networks, draw by draw."""
    draws = np.mean([e.draws for e in estimates], axis=0)
    return Estimate(float(np.mean([e.mean for e in estimates])), draws)
