"""A page to hear planted cues: what was planted, what an explanation makes of it, and what keeps the answer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from markupsafe import Markup

from deconv_jax import __version__
from deconv_jax.decision import attribution
from deconv_jax.decision.sufficient import says_of
from deconv_jax.experiments.cue_networks import RANDOM, TRAINED
from deconv_jax.measures.localisation import localised
from deconv_jax.music.cues import CUES, Pair
from deconv_jax.network.trained import Trained
from deconv_jax.page import document
from deconv_jax.pictures.spectrograms import coloured_picture
from deconv_jax.results import explain, why
from deconv_jax.sound import audio
from deconv_jax.sound.auralisation import match_gain
from deconv_jax.sound.front_end import analyse
from deconv_jax.system import files

_SOUNDS = {
    "without": "the same music, as the other class has it",
    "with": "the clip",
    "cue": "what was planted, alone and louder",
    "attribution": "what spoke for the answer (integrated gradients)",
    "keeps": "the least that keeps the answer",
    "left": "what is left of the clip without that",
}


def hear(cue: str, found: Mapping[str, Trained], pairs: Mapping[int, Pair], folder: Path) -> dict[str, Any]:
    """Writes sounds and pictures of one clip in which a cue sounds, below `folder / cue`.

    The clip is of the first song; of the tone's, of the first that is a ballad, which the tone makes another's.

    Returns:
      What the page says of them.
    """
    trained, labels = found[TRAINED], CUES[cue].labels
    number = next((n for n, pair in pairs.items() if pair.genre == labels[0]), next(iter(pairs)))
    pair = pairs[number]
    label = 1 if pair.present(1) else 0
    front, wave = trained.front_end, pair.clips[label]
    clip = explain.clip_of(front, wave)
    told = why.why(trained, clip, explain.answer_of(trained, clip), found[RANDOM].variables)
    waves = {"without": pair.clips[1 - label], "with": wave, "cue": match_gain(pair.stems[label], wave).waveform}
    waves |= {"attribution": told.attributed.waveform, "keeps": told.kept.sound, "left": told.kept.rest}
    said = says_of(trained, np.stack(list(waves.values())))
    place = folder / cue
    for name, sound in waves.items():
        audio.write(place / f"{name}.wav", sound, front.sample_rate)
    order = [trained.labels.index(name) for name in labels]
    orders = {"integrated gradients": told.kept} | told.kept_nulls
    return {
        "cue": cue,
        "about": CUES[cue].about,
        "cheat": CUES[cue].cheat,
        "labels": labels,
        "song": number,
        "genre": pair.genre,
        "own": labels[label],
        "sounds": [
            {"file": f"{cue}/{name}.wav", "name": _SOUNDS[name], "says": row[order].tolist()}
            for name, row in zip(waves, said, strict=True)
        ],
        "enough": {n: {"cells": c.share, "energy": c.energy, "reached": c.reached} for n, c in orders.items()},
        "pictures": _pictures(trained, pair, label, trained.labels.index(labels[label]), place, cue),
    }


def _pictures(trained: Trained, pair: Pair, label: int, target: int, place: Path, cue: str) -> list[dict[str, Any]]:
    """Pictures of the clip, of the truth, and of every method's image, whose scores for this clip stand beside."""
    spectrum, seen = (np.asarray(x) for x in analyse(trained.front_end, jnp.asarray(pair.clips[label])))
    mask = pair.truth(label, trained.front_end)
    images = {"the clip": np.abs(spectrum), "the truth": mask.astype(np.float32)}
    for method in attribution.METHODS:
        found = attribution.attribute(trained.network, trained.variables, seen, target, method=method)
        images[method] = np.asarray(found.image)
    shown = []
    for name, image in images.items():
        file = f"picture_{name.replace(' ', '_')}.png"
        files.write_bytes(place / file, coloured_picture(np.maximum(image, 0)))
        score = localised(image, mask) if name in attribution.METHODS else {}
        shown.append({"file": f"{cue}/{file}", "name": name, "score": score})
    return shown


def write(
    path: Path, heard: Sequence[Mapping[str, Any]], table: Sequence[Mapping[str, Any]], said: Sequence[str]
) -> None:
    """Puts the page together, whole or not at all; its sounds and pictures lie beside it."""
    style = document.style("page", "cues")
    own = [row for row in table if row["network"] in (TRAINED, "") and row["present"]]
    tables = {cue["cue"]: [row for row in own if row["cue"] == cue["cue"]] for cue in heard}
    template = document.environment().get_template("cues.html.j2")
    with files.replacing(path) as partial:
        template.stream(
            policy=document.policy(style, "", images=document.BESIDE, media=document.BESIDE),
            style=Markup(style),
            cues=sorted(heard, key=lambda cue: (not cue["cheat"], cue["cue"] != "tone")),
            tables=tables,
            said=said,
            version=__version__,
        ).dump(str(partial), encoding="utf-8")
