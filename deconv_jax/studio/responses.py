"""Where features respond: which of them do in a box of a stretch, and when one of them does most in a song.

A cell of a pooled map lies where the middle of its receptive field is, which may be far wider than a cell
(`deconv_jax.network.receptive_field`). Activations are those of the network, and so of its front end: where that makes
every clip equally loud, a quiet song responds like a loud one.
"""

import dataclasses
import functools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from deconv_jax.measures import features
from deconv_jax.measures.dissection import footprints
from deconv_jax.network.receptive_field import centres
from deconv_jax.network.spec import resolved
from deconv_jax.network.trained import Trained
from deconv_jax.results import statistics
from deconv_jax.results.explain import row_magnitudes
from deconv_jax.sound import audio
from deconv_jax.studio.hearing import Stretch

# --- a box → features -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Box:
    """What responded in a box of seconds by Hz.

    Attributes:
      cells, of: how many of the layer's cells have their middle in it, and how many there are.
      nearest: no middle lies in it, and the nearest cell stands for it.
      shares: of every feature's activation above zero, the share that lies in these cells; NaN for an inactive one.
      ratios: these, as multiples of the cells' share: 1 where a feature responds there as anywhere.
      sound: the ratio of the magnitudes themselves, averaged over each cell: 2 where the sound is twice as strong.
    """

    cells: int
    of: int
    nearest: bool
    shares: np.ndarray
    ratios: np.ndarray
    sound: float


def in_box(
    trained: Trained, stretch: Stretch, layer: int, maps: np.ndarray, seconds: Sequence[float], hertz: Sequence[float]
) -> Box:
    """Measures how much of what a layer's features respond to lies in a box.

    Args:
      trained, stretch: the network and what it heard.
      layer: 1-based.
      maps: of the layer, shape (features, layer freq, layer time).
      seconds, hertz: (from, to); seconds from the beginning of the stretch.
    """
    front, size = trained.front_end, stretch.clip.seen.shape
    rows, frames = centres(trained.network.blocks[:layer], size)
    found = np.interp(rows, np.arange(size[0]), front.frequencies())
    inside = [_within(at, *some) for at, some in ((found, hertz), (frames * front.hop / front.sample_rate, seconds))]
    here = np.ix_(np.arange(len(maps)), *(chosen for chosen, _ in inside))
    above = np.maximum(np.asarray(maps, np.float64), 0)
    along_frequency, along_time = footprints(trained.network.blocks, (size[0], size[1]), layer)
    heard = along_frequency @ row_magnitudes(front, stretch.clip.waveform) @ along_time.T
    cells, of = len(inside[0][0]) * len(inside[1][0]), above[0].size
    with np.errstate(invalid="ignore"):
        shares = above[here].sum(axis=(1, 2)) / above.sum(axis=(1, 2))
    sound = heard[here[1:]].reshape(-1).mean() / max(heard.mean(), np.finfo(float).tiny)
    nearest = any(outside for _, outside in inside)
    return Box(cells, of, nearest, shares, shares * of / cells, float(sound))


def _within(places: np.ndarray, *ends: float) -> tuple[np.ndarray, bool]:
    """Which places lie between two ends, or else the one nearest to their middle, and whether that is so."""
    chosen = np.flatnonzero((places >= min(ends)) & (places <= max(ends)))
    return (chosen, False) if chosen.size else (np.array([np.abs(places - sum(ends) / 2).argmin()]), True)


def maps_of(trained: Trained, variables: Any, stretch: Stretch, layer: int) -> np.ndarray:
    """A layer's pooled maps of a stretch with other weights, shape (features, layer freq, layer time)."""
    size = stretch.clip.seen.shape
    part = trained.network.clone(blocks=resolved(trained.network.blocks[:layer], (size[0], size[1])))
    return np.moveaxis(np.asarray(_forward(part, variables, stretch.clip.seen)), -1, 0)


@functools.partial(jax.jit, static_argnums=0)
def _forward(network: Any, variables: Any, seen: Any) -> jax.Array:
    return network.apply(variables, seen, head=False)[1][-1].pooled


# --- a feature → moments --------------------------------------------------------------------

KEPT = 16
"""Candidates that are kept of every feature and song."""

HELD = 2000
"""Songs whose moments are held, at most: 0.1 MB each for five layers of 64 features."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """When the features of a song respond most.

    Attributes:
      layers: layer → (activations, seconds, louder), each of shape (features, KEPT), float32, strongest first; 0 and
        NaN where there are fewer. `louder` is the share of the song that is less loud than it is there.
    """

    layers: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]

    def strongest(self, layer: int, feature: int, count: int) -> list[tuple[float, float, float]]:
        """(activation, second, louder) of a feature's strongest moments, `features.APART` from each other."""
        found: list[tuple[float, float, float]] = []
        for value, second, louder in zip(*(column[feature].tolist() for column in self.layers[layer]), strict=True):
            if value > 0 and len(found) < count and all(abs(second - s) >= features.APART for _, s, _ in found):
                found.append((value, second, louder))
        return found


def moments_of(trained: Trained, song: np.ndarray) -> Iterator[float | Moments]:
    """Hears a song (samples,) clip by clip, and says when each feature responds most.

    Yields:
      The share that is heard, after every clip, and at last the moments: peaks over time of a map's maximum over
      frequency, as `deconv_jax.results.statistics.moments` has them.
    """
    front = trained.front_end
    starts = range(0, len(song), front.clip_samples)
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for number, start in enumerate(starts, 1):
        clip = audio.cut(song, start, front.clip_samples).astype(np.float32)
        for layer, (heights, seconds) in statistics.moments(trained, clip[None]).items():
            found.setdefault(layer, []).append((heights[0], seconds[0] + start / front.sample_rate))
        yield number / len(starts)
    yield Moments({layer: _kept(parts, song, front.sample_rate) for layer, parts in found.items()})


def _kept(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], song: np.ndarray, rate: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The strongest of all clips' moments, and how loud the song is there."""
    heights, seconds = (np.concatenate(some, axis=1) for some in zip(*parts, strict=True))
    heights = np.where(seconds < len(song) / rate, heights, 0)  # not in the silence that fills the last clip
    first = np.argsort(-heights, axis=1, kind="stable")[:, :KEPT]
    heights, seconds = (np.take_along_axis(some, first, axis=1).astype(np.float32) for some in (heights, seconds))
    step = max(1, round(features.APART * rate))
    edges = np.arange(0, len(song), step)
    power = np.add.reduceat(np.square(song, dtype=np.float64), edges) / np.diff(edges, append=len(song))
    rank = np.searchsorted(np.sort(power), power) / len(power)
    there = np.minimum(np.nan_to_num(seconds) * rate // step, len(power) - 1).astype(int)
    return heights, seconds, rank[there].astype(np.float32)


class Index:
    """Moments of songs by network and song; those that were not asked for the longest go first."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, str], Moments | str] = OrderedDict()

    def get(self, network: str, song: str) -> Moments | str | None:
        """The moments of a song; why it could not be heard; None where it was not tried."""
        if (network, song) in self._held:
            self._held.move_to_end((network, song))
        return self._held.get((network, song))

    def put(self, network: str, song: str, found: Moments | str) -> None:
        self._held[network, song] = found
        while len(self._held) > HELD:
            self._held.popitem(last=False)
