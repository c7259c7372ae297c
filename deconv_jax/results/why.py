"""Why a network gave its answer, in sound: what spoke for it, what keeps it, what is left without, and their nulls.

Of a song it is the one clip length for which the network is surest of the answer. Every sound goes through the front
end and the network again, and the answer to it stands beside it.
"""

import dataclasses
from typing import Any

import numpy as np

from deconv_jax.decision.attribution import attribute
from deconv_jax.decision.sufficient import Cells, least, says_of
from deconv_jax.network.trained import Trained
from deconv_jax.results.explain import Answer, Clip, row_magnitudes
from deconv_jax.sound import audio, auralisation, blocks

SHARE = 0.9
"""Of the class's probability that the sound which keeps the answer has at least."""

METHOD = "integrated_gradients"
STEPS = 16
"""Beside 128 steps, of `real3` on the paper's two excerpts: correlation .999, .98 of the 5 % strongest cells the same,
and what the image adds up to is off by .5 % of what it owes."""


@dataclasses.dataclass(frozen=True)
class Sound:
    """A sound and the probabilities that the network gives for it."""

    waveform: np.ndarray
    says: np.ndarray


@dataclasses.dataclass(frozen=True)
class Why:
    """Why an answer was given.

    Attributes:
      target: the class, the likeliest of the whole clip where none was asked for.
      start: sample at which the clip length begins that is explained; `whole`: that, and what the network says of it.
      image: the class's attribution, shape (freq, time); `attributed`: the sound of its positive part.
      kept, gone: the least that keeps the answer, and the least without which it changes, in the order of `image`;
        `gone` is None for a class that is not the answer: nothing has to go for it not to be.
      kept_nulls, gone_nulls: the same in other orders, by name: "random weights" (the attribution of an untrained
        network, where there is one), "loudest first", "random order"; no `gone_nulls` where nothing has to go.
    """

    target: int
    start: int
    whole: Sound
    image: np.ndarray
    attributed: Sound
    kept: Cells
    gone: Cells | None
    kept_nulls: dict[str, Cells]
    gone_nulls: dict[str, Cells]

    @property
    def sounds(self) -> dict[str, Sound]:
        """All sounds by name."""
        found = {
            "attribution": self.attributed,
            "keeps": Sound(self.kept.sound, self.kept.says),
            "without": Sound(self.kept.rest, self.kept.rest_says),
        }
        if self.gone:
            found["goes"] = Sound(self.gone.sound, self.gone.says)
            found["changed"] = Sound(self.gone.rest, self.gone.rest_says)
        return found


def why(
    trained: Trained,
    clip: Clip,
    answer: Answer,
    twin: Any = None,
    reading: str = "phase",
    seed: int = 0,
    target: int | None = None,
) -> Why:
    """Explains a class of a clip.

    Args:
      trained, clip, answer: what is explained.
      twin: variables of an untrained network; none for no null of it.
      reading: of the attribution's sound, see `deconv_jax.sound.auralisation`.
      seed: of the random order.
      target: 0-based class; the likeliest of the clip if left out.
    """
    front, target = trained.front_end, answer.target if target is None else target
    start = int(answer.starts[int(np.argmax(answer.probabilities[:, target]))]) * front.hop
    wave = audio.cut(clip.waveform, start, front.clip_samples)
    heard = blocks.analyse(front, wave)
    silence = blocks.analyse(front, np.zeros_like(wave)).seen

    def image_of(variables: Any) -> np.ndarray:
        how: dict[str, Any] = {"method": METHOD, "steps": STEPS, "baseline": silence}
        return np.asarray(attribute(trained.network, variables, heard.seen, target, **how).image)

    image = image_of(trained.variables)
    raw = blocks.auralise(front, [image], heard, len(wave), reading, rectify=True)[0]
    attributed = auralisation.match_gain(raw, wave).waveform
    orders = {
        "loudest first": row_magnitudes(front, wave),
        "random order": np.random.default_rng(seed).random(image.shape),
    }
    if twin is not None:
        orders = {"random weights": image_of(twin)} | orders
    said = says_of(trained, np.stack([wave, attributed]))
    is_answer = target == answer.target
    images = [image, *orders.values()]
    found = least(trained, wave, target, images, images if is_answer else [], share=SHARE)
    kept, gone = found[: len(images)], found[len(images) :]
    return Why(
        target=target,
        start=start,
        whole=Sound(wave, said[0]),
        image=image,
        attributed=Sound(attributed, said[1]),
        kept=kept[0],
        gone=gone[0] if is_answer else None,
        kept_nulls=dict(zip(orders, kept[1:], strict=True)),
        gone_nulls=dict(zip(orders, gone[1:], strict=True)) if is_answer else {},
    )


def pictures(found: Why, trained: Trained) -> dict[str, np.ndarray]:
    """What spoke for the class, and which cells of the clip the sounds are of, by the sounds' names: (freq, time)."""
    rows = row_magnitudes(trained.front_end, found.whole.waveform)
    shown = {"attribution": np.maximum(found.image, 0), "keeps": rows * found.kept.mask}
    return shown | ({"goes": rows * found.gone.mask} if found.gone else {})


def numbers(found: Why, trained: Trained) -> dict[str, Any]:
    """What tables and pages say of it, as plain values; probabilities are in the order of the labels."""

    def held(cells: Cells) -> dict[str, Any]:
        return {"cells": cells.share, "energy": cells.energy, "seconds": cells.seconds, "reached": cells.reached}

    return {
        "class": trained.labels[found.target],
        "method": METHOD,
        "share": SHARE,
        "start": found.start / trained.front_end.sample_rate,
        "length": trained.front_end.clip_seconds,
        "whole": found.whole.says,
        "sounds": {name: sound.says for name, sound in found.sounds.items()},
        "kept": held(found.kept),
        "gone": held(found.gone) if found.gone else None,
        "kept_nulls": {name: held(cells) for name, cells in found.kept_nulls.items()},
        "gone_nulls": {name: held(cells) for name, cells in found.gone_nulls.items()},
    }
