"""What the features of a network are, over many songs: names that hold beside every control, and how many are false.

The rule is that of `deconv_jax.measures.dissection`; here it is applied to a network and to its controls: the same
network with fresh weights, with these and its batch norm estimated anew, with its kernels or the weights within its
filters shuffled, and, where there is one, trained on shuffled labels. Names are chosen on every other song and scored
on the rest.
"""

import dataclasses
import functools
import hashlib
import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from deconv_jax.data import stems
from deconv_jax.data.stems import StemSong
from deconv_jax.errors import SettingError
from deconv_jax.measures import dissection, randomised
from deconv_jax.measures.dissection import Names, Scores
from deconv_jax.music import stem_files
from deconv_jax.network.model import Network
from deconv_jax.network.trained import Trained
from deconv_jax.results.dissection_music import Grid, Material, gather
from deconv_jax.system import files

log = logging.getLogger(__name__)

TOGETHER = 16
"""Clips that go through a network at once."""

SHUFFLED = "shuffled labels"
"""Name of the control that was trained on them."""

_ON = 32
"""Clips on which batch norm is estimated anew."""

_MADE_BY = 1
"""Raise it with any change of what is measured: parts of an earlier run then count no more."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a network is dissected.

    Attributes:
      clips: of every song, spread evenly over it.
      removed: in how many of these each stem is taken out.
      seeds: of every kind of control.
      layers: 1-based; all if empty.
    """

    clips: int = 6
    removed: int = 2
    seeds: int = 3
    layers: tuple[int, ...] = ()


STANDARD = Settings()


@dataclasses.dataclass(frozen=True)
class Layer:
    """What was found of one layer.

    Attributes:
      names: of its features, and their limits.
      own: what was measured of them.
      songs: of each feature and concept, on how many of the songs that names are scored on it falls without the stem by
        more than without the others, and on how many it was tried, shape (features, concepts, 2).
      false: for each control, how many of its features pass each step of the rule among the other controls.
      others: what was measured of the features of each control.
    """

    names: Names
    own: Scores
    songs: np.ndarray
    false: list[dict[str, int]]
    others: list[Scores]


@dataclasses.dataclass(frozen=True)
class Dissection:
    """What the features of a network are.

    Attributes:
      concepts: what they may be named after.
      layers: by number.
      controls: names of the controls, in the order of `Layer.false`.
      descriptors: names of the simple descriptors.
      about: enough to make it again: network, settings, songs.
      failed: a line for every song that could not be used.
    """

    concepts: list[str]
    layers: dict[int, Layer]
    controls: list[str]
    descriptors: list[str]
    about: dict[str, Any]
    failed: list[str]


def songs(root, cache_dir, songs_per_genre: int, sample_rate: int) -> list[StemSong]:
    """Songs with stems below a folder; without one, built-in ones, played where they have not been yet."""
    if root:
        return stems.find(root)
    folders = stem_files.build(cache_dir, songs_per_genre, sample_rate)
    return [StemSong(folder.name, {path.stem: path for path in sorted(folder.iterdir())}) for folder in folders]


def dissect(
    trained: Trained,
    songs: Sequence[StemSong],
    settings: Settings = STANDARD,
    *,
    null: Trained | None = None,
    parts: Path | None = None,
    progress: bool = True,
) -> Dissection:
    """Finds out which features respond to which stems.

    Args:
      trained: the network.
      songs: with their stems (`deconv_jax.data.stems.find`); none that it was trained on.
      settings: see `Settings`.
      null: the same network trained on shuffled labels, one control more.
      parts: a folder in which what was measured of each network is kept, so that a run that was killed goes on.
      progress: show bars.

    Raises:
      InputError: fewer than two songs can be used. SettingError: a layer does not exist, or `null` is another network.
    """
    layers = check(trained, settings, null)
    material, failed = gather(trained, songs, settings.clips, settings.removed, layers, progress)
    return of_material(trained, material, failed, settings, null=null, parts=parts, progress=progress)


def of_material(
    trained: Trained,
    material: Material,
    failed: list[str],
    settings: Settings = STANDARD,
    *,
    null: Trained | None = None,
    parts: Path | None = None,
    progress: bool = True,
) -> Dissection:
    """As `dissect`, of what `dissection_music.gather` made of the songs with the same, checked settings."""
    grids = [array for grid in material.grids.values() for array in (grid.bins, grid.labels)]
    heard = content_of(material.seen, material.without, material.songs, material.clip, material.concept, *grids)
    about = about_run(trained, settings, null, material.names, len(material.songs), heard)
    about["trials"] = len(material.clip)
    networks = [own(trained), *controls(trained, material.seen, settings.seeds, null)]

    def one(_: str, network: Network, variables: Any) -> Measured:
        return measure(network, variables, material, progress)

    measured = each(networks, one, about, parts, progress)
    simple = describe(material)
    found = {layer: _layer(layer, material, measured, simple[layer]) for layer in material.grids}
    return Dissection(material.concepts, found, [name for name, _ in networks[1:]], material.descriptors, about, failed)


def check(trained: Trained, settings: Settings, null: Trained | None) -> tuple[int, ...]:
    """Compares settings with the network before any work is done; returns the layers, or raises SettingError."""
    layers = settings.layers or tuple(range(1, len(trained.network.blocks) + 1))
    if wrong := [n for n in layers if not 1 <= n <= len(trained.network.blocks)]:
        raise SettingError(f"layer {wrong[0]} does not exist: the network has 1 to {len(trained.network.blocks)}")
    for name in ("clips", "removed", "seeds"):
        if getattr(settings, name) < 1:
            raise SettingError(f"{name} must be at least 1, not {getattr(settings, name)}")
    if null and (null.network.blocks, null.front_end) != (trained.network.blocks, trained.front_end):
        raise SettingError("the network trained on shuffled labels must have the same layers and the same front end")
    return layers


def about_run(
    trained: Trained, settings: Settings, null: Trained | None, names: Sequence[str], clips: int, content: str
) -> dict[str, Any]:
    """What results depend on; `content` tells songs of the same names apart (`content_of`)."""
    return {
        "network": trained.fingerprint,
        "null": null and null.fingerprint,
        "settings": dataclasses.asdict(settings),
        "songs": list(names),
        "clips": clips,
        "content": content,
        "made_by": _MADE_BY,
    }


def content_of(*arrays: np.ndarray) -> str:
    """20 digits of the SHA-256 of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:20]


Made = Callable[[], tuple[Network, Any]]
Measured = dict[str, np.ndarray]


def own(trained: Trained) -> tuple[str, Made]:
    """The network itself beside its `controls`."""
    return "network", lambda: (trained.network, trained.variables)


def each(
    networks: Sequence[tuple[str, Made]],
    measure: Callable[[str, Network, Any], Measured],
    about: Mapping[str, Any],
    parts: Path | None,
    progress: bool,
) -> list[Measured]:
    """What is measured of each network, by its name, kept in `parts` from one run to the next."""
    measured = []
    for name, made in tqdm(networks, desc="networks", unit="network", disable=not progress):
        place = parts and parts / f"{_digest(about, name)}.npz"
        found = _kept(place)
        if found is None:
            found = measure(name, *made())
            if place:
                _keep(place, found)
        measured.append(found)
    return measured


def _digest(about: Mapping[str, Any], name: str) -> str:
    """Of all that what is measured of one network depends on: not of how many others there are."""
    settings = {**about["settings"], "seeds": None}
    null = about["null"] if name == SHUFFLED else None
    return files.digest([files.plain({**about, "settings": settings, "null": null}), name])[:20]


def _kept(place: Path | None) -> Measured | None:
    if place is None or not place.is_file():
        return None
    try:
        with np.load(place, allow_pickle=False) as held:
            return dict(held)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):  # damaged: measured anew
        return None


def _keep(place: Path, found: Measured) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(place) as partial, open(partial, "wb") as handle:
        np.savez(handle, **found)  # type: ignore[arg-type]


def controls(trained: Trained, seen: np.ndarray, seeds: int, null: Trained | None = None) -> list[tuple[str, Made]]:
    """Networks without what the network learnt: names, and functions that make (network, variables).

    Args:
      trained: the network.
      seen: what it sees of clips, on which batch norm is estimated anew.
      seeds: of every kind.
      null: a network trained on shuffled labels.
    """
    network, given = trained.network, trained.variables
    size, some = seen.shape[1:], seen[:: max(1, len(seen) // _ON)][:_ON]

    def fresh(seed: int) -> Any:
        return randomised.twin(network, given, size, randomised.SEEDS[0] + seed)

    def normed(variables: Callable[[int], Any], seed: int) -> tuple[Network, Any]:
        return network, randomised.renormalised(network, variables(seed), some)

    kinds: dict[str, Callable[[int], tuple[Network, Any]]] = {
        "random weights": lambda seed: (network, fresh(seed)),
        "random weights, renormalised": functools.partial(normed, fresh),
        "kernels shuffled": functools.partial(normed, functools.partial(randomised.shuffled_kernels, given)),
        "weights shuffled": functools.partial(normed, functools.partial(randomised.shuffled_weights, given)),
    }
    found: list[tuple[str, Made]] = [
        (f"{kind} {seed + 1}", functools.partial(make, seed)) for seed in range(seeds) for kind, make in kinds.items()
    ]
    return [*found, (SHUFFLED, lambda: (null.network, null.variables))] if null else found


# --- one network ----------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=(0, 3))
def _maps(network, variables, seen, layers):
    trace = network.apply(variables, seen, head=False)[1]
    return [trace[layer - 1].pooled for layer in layers]


def _batches(
    network: Network, variables: Any, seen: np.ndarray, grids: Mapping[int, Grid]
) -> Iterator[tuple[int, dict]]:
    """(first clip, layer → maps (clips, freq, columns, features)) of batches of clips (clips, freq, time)."""
    layers = tuple(grids)
    part = network.clone(blocks=network.blocks[: max(layers)])
    for first in range(0, len(seen), TOGETHER):
        some = seen[first : first + TOGETHER]
        whole = np.pad(some, ((0, TOGETHER - len(some)), (0, 0), (0, 0)))
        maps = _maps(part, variables, whole, layers)
        yield first, {l: np.asarray(m)[: len(some), :, grids[l].columns] for l, m in zip(layers, maps, strict=True)}


def measure(network: Network, variables: Any, material: Material, progress: bool = False) -> Measured:
    """What is measured of one network.

    Returns:
      `layer/chosen_on`, `layer/scored_on`, AUROCs of shape (features, concepts), and `layer/lost`: by how many
      deviations every feature falls in each trial where the stem dominated, shape (trials, features).
    """
    variables = {name: value for name, value in variables.items() if name in ("params", "batch_stats", "input")}
    maps = {
        layer: np.empty((network.blocks[layer - 1].maps, *grid.bins.shape), np.float32)
        for layer, grid in material.grids.items()
    }
    total = len(material.seen) + len(material.without)
    with tqdm(total=total, desc="clips", unit="clip", leave=False, disable=not progress) as bar:
        for first, found in _batches(network, variables, material.seen, material.grids):
            for layer, some in found.items():
                maps[layer][:, first : first + len(some)] = np.moveaxis(some, -1, 0)
            bar.update(TOGETHER)
        lost = {l: np.zeros((len(material.clip), len(m)), np.float32) for l, m in maps.items()}
        for first, found in _batches(network, variables, material.without, material.grids):
            for layer, some in found.items():
                trials = range(first, first + len(some))
                lost[layer][trials] = _lost(material, layer, maps[layer], some, trials)
            bar.update(TOGETHER)
    measured = {}
    for layer, grid in material.grids.items():
        used = maps[layer][:, grid.bins >= 0]
        deviation = used.std(axis=1, dtype=np.float64)
        measured[f"{layer}/lost"] = lost[layer] / np.where(deviation > 0, deviation, np.inf)
        for half, name in ((0, "chosen_on"), (1, "scored_on")):
            measured[f"{layer}/{name}"] = _half(material, grid, maps[layer], half)
        del maps[layer], used
    return {name: np.asarray(value, np.float32) for name, value in measured.items()}


def _lost(material: Material, layer: int, maps: np.ndarray, without: np.ndarray, trials: range) -> np.ndarray:
    """Mean of (map - map without the stem) over the cells in which it dominates, (trials, features)."""
    clips, labels = material.clip[trials], material.grids[layer].labels
    where = (labels[clips] == material.concept[trials][:, None, None]).astype(np.float32)
    before = np.einsum("fnij,nij->nf", maps[:, clips], where, optimize=True)
    after = np.einsum("nijf,nij->nf", without, where, optimize=True)
    return (before - after) / np.maximum(where.sum(axis=(1, 2)), 1)[:, None]


def _half(material: Material, grid: Grid, values: np.ndarray, half: int) -> np.ndarray:
    """AUROCs on the songs at even (0) or odd (1) places: values (features, clips, freq, columns)."""
    used = (material.songs % 2 == half)[:, None, None] & (grid.bins >= 0)
    given = dissection.row_strata(grid.bins)[used], grid.labels[used], len(material.concepts)
    return dissection.level_auroc(values[:, used], *given)


def describe(material: Material) -> dict[int, Scores]:
    """The simple descriptors in the place of features, by layer."""
    return {
        layer: Scores(*(_half(material, grid, grid.simple, half) for half in (0, 1)))
        for layer, grid in material.grids.items()
    }


# --- one layer ------------------------------------------------------------------------------


def _layer(layer: int, material: Material, measured: Sequence[Measured], simple: Scores) -> Layer:
    own, *others = (_scores(layer, material, found) for found in measured)
    names = dissection.names(own, others, simple)
    songs, false = _songs(layer, material, measured[0]), dissection.false_names(others, simple)
    return Layer(names, own, songs, false, others)


def _scores(layer: int, material: Material, found: Measured) -> Scores:
    cells = _cells(material.grids[layer], material)
    scored = np.flatnonzero((material.songs[material.clip] % 2 == 1) & (cells > 0))
    lost = found[f"{layer}/lost"][scored]
    given = cells[scored], material.concept[scored], len(material.concepts)
    return Scores(found[f"{layer}/chosen_on"], found[f"{layer}/scored_on"], dissection.falls(lost, *given))


def _cells(grid: Grid, material: Material) -> np.ndarray:
    """In how many cells the stem that is taken out dominates, of each trial."""
    return (grid.labels[material.clip] == material.concept[:, None, None]).sum(axis=(1, 2))


def _songs(layer: int, material: Material, found: Measured) -> np.ndarray:
    """`Layer.songs`."""
    cells, song = _cells(material.grids[layer], material), material.songs[material.clip]
    count = np.zeros((found[f"{layer}/chosen_on"].shape[0], len(material.concepts), 2), int)
    for number in range(1, len(material.names), 2):
        here = np.flatnonzero((song == number) & (cells > 0))
        if here.size:
            falls = dissection.falls(
                found[f"{layer}/lost"][here], cells[here], material.concept[here], len(material.concepts)
            )
            with np.errstate(invalid="ignore"):
                count[..., 0] += falls > 0
            count[..., 1] += np.isfinite(falls)
    return count
