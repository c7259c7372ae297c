"""Which way back makes a feature sound like the planted cue that its network goes by?

Of a network's last layer the feature is taken that speaks most for the cue's class, by `effects`, on songs that are not
explained; on those that are, the image of its own activation by every way (`deconv_jax.results.ways_back`) is scored by
the share of its energy where the cue dominates. Beside it stand the same of networks that have not learnt it, their
feature chosen by the same rule, the input's own share, and that of the cells.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from deconv_jax.decision.effects import effects
from deconv_jax.experiments.cue_networks import RANDOM, SHUFFLED, TRAINED, Settings
from deconv_jax.music.cues import CUES, Pair
from deconv_jax.network.trained import Trained
from deconv_jax.results import ways_back
from deconv_jax.results.ways_back import WAYS
from deconv_jax.sound.front_end import FrontEnd, analyse

COLUMNS = ("cue", "layer", "feature", *ways_back.COLUMNS[ways_back.COLUMNS.index("way") :])

PATCH = (16, 16)
"""Rows and frames that are silent at a time: those of `attribute`."""


def compare(
    cue: str, found: Mapping[str, Trained], choosing: Mapping[int, Pair], pairs: Mapping[int, Pair], wanted: Settings
) -> list[dict[str, Any]]:
    """Scores every way back from the feature that speaks most for a cue's class; the second, where both have a sound.

    Args:
      cue: which one.
      found: its networks by name.
      choosing: the songs on which features are chosen.
      pairs: those on which they are scored.
      wanted: see `Settings`; its `points` are those of integrated gradients.

    Returns:
      A row for each way: `COLUMNS`.
    """
    own = found[TRAINED]
    layer, label = len(own.network.blocks), int(next(iter(pairs.values())).present(1))
    target = own.labels.index(CUES[cue].labels[label])
    masks = np.stack([pair.truth(label, own.front_end) for pair in pairs.values()])
    first, seen = (_seen(own.front_end, some, label) for some in (choosing, pairs))
    silence = np.asarray(analyse(own.front_end, jnp.zeros(own.front_end.clip_samples))[1])
    how = ways_back.Settings(steps=wanted.points, patch=PATCH)
    features, shares = {}, {}
    for name, network in found.items():
        given = network.network, network.variables
        features[name] = int(np.asarray(effects(*given, first, layer))[..., target].mean(axis=0).argmin())
        drawn = ways_back.images(*given, seen, silence, layer, [features[name]], how)
        shares[name] = {way: ways_back.share(image[:, 0], masks) for way, image in drawn.items()}
    there, even = ways_back.share(seen, masks), masks.mean(axis=(1, 2))
    rows = []
    for way in WAYS:
        controls = {name: shares[name][way] for name in (RANDOM, SHUFFLED)}
        row: dict[str, Any] = {"cue": cue, "layer": layer, "feature": features[TRAINED], "way": way}
        rows.append(row | ways_back.beside(shares[TRAINED][way], controls, there, even, wanted.draws))
    return rows


def said(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was found over all cues, in one sentence."""
    what = "cue(s), the last layer's feature that speaks most for each; energy of the image where the cue dominates"
    return [" ".join(ways_back.said(rows, what))] if rows else []


def _seen(front: FrontEnd, pairs: Mapping[int, Pair], label: int) -> np.ndarray:
    """What a network sees of the clips of one class, (clips, freq, time)."""
    waves = np.stack([pair.clips[label] for pair in pairs.values()])
    return np.asarray(analyse(front, jnp.asarray(waves))[1])
