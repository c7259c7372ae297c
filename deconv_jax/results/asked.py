"""What the page can be asked of a layer: what the network says without some features, or with some alone.

A page computes nothing, so it holds answers that were got before: every feature silenced, every feature alone, and the
first few of an order, taken out or left in. Beside them stand the curves that show whether an order means something:
random orders, the order of energy, and the same of a network that never learnt, whose features have effects too.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from deconv_jax.decision.effects import scaled_logits
from deconv_jax.network.model import Network
from deconv_jax.network.trained import Trained
from deconv_jax.results.explain import Answer, layer_effects

CLASSES = 3
"""Likeliest classes for which features are taken out in their order."""

RANDOM = 8
"""Random orders, each of all features of the layer."""

PARTS = 4
"""Clip lengths of a song that are asked, spread over it."""


def counts_of(features: int) -> list[int]:
    """Numbers of features for which an order is asked: 1 to 8, then 12, 16, 24, 32 …, and all."""
    some = [*range(1, 9), *(k * 2**n for n in range(2, 30) for k in (3, 4))]
    return [n for n in some if n < features] + [features]


def fewer(answer: Answer) -> Answer:
    """At most `PARTS` of the parts that the network answers for."""
    some = np.unique(np.round(np.linspace(0, len(answer.parts) - 1, PARTS)).astype(int))
    return Answer([answer.parts[n] for n in some], answer.starts[some], answer.logits[some], answer.probabilities[some])


def asked(
    trained: Trained,
    answer: Answer,
    layer: int,
    features: Sequence[int] | np.ndarray,
    effects: np.ndarray,
    energy: np.ndarray,
    twin: Any = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Answers for sets of features of a layer.

    Args:
      trained, answer, layer: what is asked; a song's `fewer`.
      features: that can be taken out; others of the layer stay in, or are out where some are alone.
      effects: of these features, shape (features, classes).
      energy: of these features, shape (features,).
      twin: variables of an untrained network; none for no curve of it.
      seed: of the random orders.

    Returns:
      Plain values: `parts`, how many were asked; `counts`; `before`, probabilities (classes,); `muted` and `alone`,
      (features, classes); `orders`, for each of the likeliest classes its number, its `features` and probabilities
      (counts, classes) with so many `out` and `left`; `curve` and `twin`, see `_curve`.
    """
    numbers, maps = np.asarray(features), trained.network.blocks[layer - 1].maps
    counts = counts_of(len(numbers))
    likeliest = np.argsort(-answer.mean, kind="stable")[:CLASSES].tolist()
    orders = [numbers[np.argsort(effects[:, target], kind="stable")] for target in likeliest]
    single = _chosen([[f] for f in numbers], maps)
    first = [_chosen((order[:n] for n in counts), maps) for order in orders]
    scales = [np.ones((1, maps), np.float32), 1 - single, single]
    scales += [rows for some in first for rows in (1 - some, some)]
    logits = _logits(trained, trained.variables, answer, layer, np.concatenate(scales))
    said = _probabilities(trained, logits)
    before, muted, alone, *taken = np.split(said, np.cumsum([len(rows) for rows in scales])[:-1])
    both = {"effect": orders[0], "energy": numbers[np.argsort(-energy, kind="stable")]}
    curve = _curve(trained, trained.variables, answer, layer, likeliest[0], both, seed)
    return {
        "parts": len(answer.parts),
        "counts": counts,
        "before": before[0],
        "muted": muted,
        "alone": alone,
        "orders": [
            {"class": target, "features": order, "out": out, "left": left}
            for target, order, out, left in zip(likeliest, orders, taken[::2], taken[1::2], strict=True)
        ],
        "curve": curve,
        "twin": None if twin is None else _twins_curve(trained, twin, answer, layer, len(numbers), seed),
    }


def _curve(
    trained: Trained, variables: Any, answer: Answer, layer: int, target: int, orders: dict[str, np.ndarray], seed: int
) -> dict[str, Any]:
    """The logit of a class with the first features of orders taken out, each of the same length.

    Returns:
      `class`; `counts`, from 0; a list of logits for each of the orders; `mean`, `low` and `high` of random ones.
    """
    maps = trained.network.blocks[layer - 1].maps
    rng = np.random.default_rng(seed)
    length = len(next(iter(orders.values())))
    counts = [0, *counts_of(length)]
    rows = [*orders.values(), *(rng.permutation(maps) for _ in range(RANDOM))]
    scales = 1 - _chosen((row[:n] for row in rows for n in counts), maps)
    logits = _logits(trained, variables, answer, layer, scales)[..., target].mean(axis=0).reshape(len(rows), -1)
    own, random = logits[: len(orders)], logits[len(orders) :]
    band = {"mean": random.mean(axis=0), "low": random.min(axis=0), "high": random.max(axis=0)}
    return {"class": target, "counts": counts, **dict(zip(orders, own, strict=True)), **band}


def _twins_curve(trained: Trained, twin: Any, answer: Answer, layer: int, length: int, seed: int) -> dict:
    """The same of an untrained network, for the class that it finds likeliest, in the order of its own effects."""
    other = dataclasses.replace(trained, variables=twin)
    ones = np.ones((1, trained.network.blocks[layer - 1].maps), np.float32)
    target = int(np.argmax(_probabilities(trained, _logits(trained, twin, answer, layer, ones))))
    order = np.argsort(layer_effects(other, answer, layer)[:, target], kind="stable")[:length]
    return _curve(trained, twin, answer, layer, target, {"effect": order}, seed)


def _chosen(sets: Iterable[Any], maps: int) -> np.ndarray:
    """1 where a feature is in a set: (sets, maps)."""
    rows = [np.asarray(one, int) for one in sets]
    found = np.zeros((len(rows), maps), np.float32)
    for scale, one in zip(found, rows, strict=True):
        scale[one] = 1
    return found


def _probabilities(trained: Trained, logits: np.ndarray) -> np.ndarray:
    """The mean over parts, (settings, classes)."""
    return np.asarray(_said(trained.network, logits), np.float64).mean(axis=0)


@functools.partial(jax.jit, static_argnums=0)
def _said(network: Network, logits: Any) -> jax.Array:
    return network.probabilities(logits)


def _logits(trained: Trained, variables: Any, answer: Answer, layer: int, scales: np.ndarray) -> np.ndarray:
    """(parts, settings, classes)."""
    return np.stack(
        [np.asarray(scaled_logits(trained.network, variables, part, layer, scales)) for part in answer.parts]
    )
