"""A dissection as files: a table, a summary, a figure; and what a network that carries one says of its features.

A network carries its dissection in the folder `dissected` beside its weights; of published ones, which are fetched, the
package has it. It counts only for the network that it was made of, which its fingerprint tells.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deconv_jax.data import tracks
from deconv_jax.errors import SettingError
from deconv_jax.importers.named import ZOO
from deconv_jax.measures.dissection import STEPS, Scores
from deconv_jax.network.trained import Trained
from deconv_jax.results import dissection, dissection_clips, dissection_music, ways_back
from deconv_jax.results.dissection import Dissection, Layer, Settings
from deconv_jax.system import files, locks, runtime

FOLDER, SUMMARY, TABLE, FIGURE = "dissected", "dissected.json", "dissected.csv", "dissected.png"
WAYS = "ways.csv"
PARTS = "parts"
"""Folder of what was measured of each network: a run that was stopped, or one with more controls, goes on from it."""


@dataclasses.dataclass(frozen=True)
class Music:
    """By what a network is dissected: one of stems, index and concepts, or built-in songs if none is given.

    Attributes:
      stems: folder of songs with stems.
      index, root: table of tagged songs, and what its paths are relative to.
      tags: names of its columns, if not the label alone (`deconv_jax.data.tracks.index_table`).
      concepts: folder with a folder of sounds for each concept.
      cache_dir, songs: where stems of built-in songs are kept, and how many of each genre there are to be.
    """

    stems: str | None = None
    index: str | None = None
    root: str | None = None
    tags: Sequence[str] = ()
    concepts: str | None = None
    cache_dir: Path = Path()
    songs: int = 20


def make(
    trained: Trained,
    music: Music,
    out: Path,
    settings: Settings,
    null: Trained | None = None,
    ways: ways_back.Settings | None = None,
) -> dict[str, Any]:
    """Dissects a network into a folder, or goes on with it; returns the summary.

    Args:
      trained: the network.
      music: by what.
      out: the folder, made if it is not there.
      settings, null: as in `deconv_jax.results.dissection.dissect`.
      ways: compare ways back of the features with names, or nearly (`deconv_jax.results.ways_back`); their rows are in
        `ways.csv`, and in the summary that is returned.

    Raises:
      InputError: `out` cannot be written, another process writes there, or the music cannot be used. SettingError: as
        `dissect`, more than one kind of music, or ways without stems.
    """
    if sum(map(bool, (music.stems, music.index, music.concepts))) > 1 or (
        (music.root or music.tags) and not music.index
    ):
        raise SettingError("one of stems, index and concepts names the music, and root and tags go with index")
    if ways and (music.index or music.concepts):
        raise SettingError("ways back are compared where it is known when a stem sounds: not by index or concepts")
    with locks.writing(out, "out", [PARTS]) as folder:
        how: dict[str, Any] = {"settings": settings, "null": null, "parts": folder / PARTS}
        if music.index or music.concepts:
            tagged, left_out = _tagged(music)
            found = dissection_clips.dissect_clips(trained, tagged, **how)
            return write(folder, dataclasses.replace(found, failed=[*left_out, *found.failed]))
        layers = dissection.check(trained, settings, null)
        songs = dissection.songs(music.stems, music.cache_dir, music.songs, trained.front_end.sample_rate)
        material, failed = dissection_music.gather(trained, songs, settings.clips, settings.removed, layers)
        found = dissection.of_material(trained, material, failed, **how)
        about = write(folder, found)
        if ways:
            given = trained, songs, material, found
            about["ways"] = ways_back.compare(*given, null=null, wanted=ways, parts=folder / PARTS)
            files.write_csv(folder / WAYS, about["ways"], ways_back.COLUMNS)
        return about


def _tagged(music: Music) -> tuple[list[tracks.Track], list[str]]:
    """The tracks of a table or of folders of sound, and a line for every row of the table that names none."""
    if not music.index:
        return tracks.index_folder(music.concepts), []
    found, skipped = tracks.index_table(music.index, music.root, labelled=not music.tags, tags=music.tags)
    return found, [f"{name}: {reason}" for name, reason in skipped]


def write(folder: Path, found: Dissection) -> dict[str, Any]:
    """Writes table, summary and figure; returns the summary."""
    from deconv_jax.pictures import dissection as pictures  # brings Matplotlib, which a page does without

    about = summary(found)
    files.write_csv(folder / TABLE, rows(found))
    files.write_bytes(folder / FIGURE, pictures.names_figure(about))
    files.write_json(folder / SUMMARY, about)
    return about


def rows(found: Dissection) -> list[dict[str, Any]]:
    """One row for every feature and concept: what was measured of it, and its limits."""
    made = []
    for number, layer in found.layers.items():
        passed = layer.names
        for feature in range(len(layer.own.chosen_on)):
            for concept, name in enumerate(found.concepts):
                steps = [step for step in STEPS if getattr(passed, step)[feature] == concept]
                row = {"layer": number, "feature": feature, "concept": name}
                made.append(row | _numbers(layer, feature, concept) | {"passes": steps[-1] if steps else ""})
    return made


def _numbers(layer: Layer, feature: int, concept: int) -> dict[str, Any]:
    """What was measured of one feature and concept; `control` is the best of all controls, `simple` of descriptors."""

    def of(scores: Scores, *place: int) -> list[float]:
        fall = np.nan if scores.fall is None else scores.fall[place]
        return [float(value) for value in (scores.chosen_on[place], scores.scored_on[place], fall)]

    own, control, simple = (
        of(layer.own, feature, concept),
        of(layer.names.limits, concept),
        of(layer.names.simple, concept),
    )
    falls, of_songs = (int(n) for n in layer.songs[feature, concept])
    return {
        "auroc_chosen_on": own[0],
        "auroc": own[1],
        "control_chosen_on": control[0],
        "control": control[1],
        "simple_chosen_on": simple[0],
        "simple": simple[1],
        "fall": own[2],
        "control_fall": control[2],
        "songs_falling": falls,
        "songs": of_songs,
    }


def summary(found: Dissection) -> dict[str, Any]:
    """The whole in short, as JSON holds it: names, how many each step leaves, and how many are false."""
    layers = {}
    for number, layer in found.layers.items():
        named = np.flatnonzero(layer.names.named >= 0)
        false = dict(zip(found.controls, layer.false, strict=True))
        layers[str(number)] = {
            "features": len(layer.own.chosen_on),
            "counts": layer.names.counts(),
            "false": {step: float(np.mean([one[step] for one in layer.false])) for step in STEPS},
            "false_most": {step: max(one[step] for one in layer.false) for step in STEPS},
            "controls": false,
            "names": [
                {"feature": int(f), "concept": found.concepts[c := int(layer.names.named[f])]}
                | _numbers(layer, int(f), c)
                for f in named
            ],
        }
    about = {
        "network": found.about["network"],
        "concepts": found.concepts,
        "controls": found.controls,
        "descriptors": found.descriptors,
        "layers": layers,
        "made_with": found.about | {"versions": runtime.versions()},
        "failed": found.failed,
    }
    plain: dict[str, Any] = files.plain(about)
    return plain


def said(about: Mapping[str, Any]) -> list[str]:
    """What was found, in sentences."""
    made = about["made_with"]
    texts = _TEXTS if "trials" in made else _TEXTS[:2]
    lines = [
        f"{len(made['songs'])} songs, {made['clips']} clips, named after {len(about['concepts'])}: "
        f"{', '.join(about['concepts'])}; {len(about['controls'])} controls."
    ]
    for number, layer in about["layers"].items():
        passed = zip(texts, STEPS, strict=False)
        steps = "; ".join(f"{text} {layer['counts'][s]} ({layer['false'][s]:.1f})" for text, s in passed)
        named = ", ".join(f"{one['feature']} {one['concept']}" for one in layer["names"])
        about_it = f"Layer {number}, {layer['features']} features (of a control's, by the same rule): {steps}."
        lines.append(f"{about_it} {f'Names: {named}.' if named else 'No names.'}")
    return [*lines, *(ways_back.said(about["ways"]) if "ways" in about else [])]


_TEXTS = ("above all controls", "and above simple descriptors", "and fall without the stem")


def carried(trained: Trained) -> dict[str, Any] | None:
    """The summary that a network carries in its folder, or that the package has of it; None where both have none."""
    for folder in (trained.checkpoint / FOLDER, *sorted(ZOO.glob(f"*/{FOLDER}"))):
        try:
            about = json.loads((folder / SUMMARY).read_text("utf-8"))
        except (OSError, ValueError):
            continue
        ours = isinstance(about, dict) and about.get("network") == trained.fingerprint
        if ours and isinstance(about.get("layers"), dict):
            return about
    return None


def names(about: Mapping[str, Any] | None, layer: int, features: Iterable[int]) -> list[dict[str, Any] | None]:
    """The name of each feature of a layer with its evidence, None where it has none."""
    known = {one["feature"]: one for one in about["layers"].get(str(layer), {}).get("names", [])} if about else {}
    return [known.get(int(feature)) for feature in features]


def of_layer(about: Mapping[str, Any] | None, layer: int) -> dict[str, Any] | None:
    """How many features of a layer have a name, and of a control's by the same rule; None if it was not dissected."""
    found = about["layers"].get(str(layer)) if about else None
    if not about or not found:
        return None
    return {
        "features": found["features"],
        "named": found["counts"]["named"],
        "false": found["false"]["named"],
        "controls": len(about["controls"]),
        "songs": len(about["made_with"]["songs"]),
    }
