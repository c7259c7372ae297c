"""The face for notebooks: a network and a sound → an explanation that shows itself, and can be heard and asked.

It is `deconv_jax.results.explain` with a network by its name, a sound by its path, and HTML at the end. Nothing is
written; what is shown is made when it is shown, and no more of it than is shown.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from deconv_jax.deconvolution.deconvolve import check_features, deconvolve
from deconv_jax.deconvolution.rule import Rule
from deconv_jax.errors import InputError, SettingError
from deconv_jax.network.trained import Trained
from deconv_jax.page import listening, notebook
from deconv_jax.page.notebook import Card, Html
from deconv_jax.pictures import spectrograms
from deconv_jax.results import explain as clips
from deconv_jax.results import why as reasons
from deconv_jax.results.explain import Answer, Clip, Layer
from deconv_jax.sound import audio, auralisation
from deconv_jax.system import files
from deconv_jax.training import workdir

MOST = 16
"""Features that are shown unless more are asked for: about 1 MB of a notebook."""


def explain(
    network: Trained | str | Path,
    sound: Any,
    layer: int | None = None,
    *,
    sample_rate: int | None = None,
    offset: float = 0.0,
    duration: float | None = 4.0,
    reading: str | None = None,
    method: str = "deconvnet",
    norm_back: str = "transpose",
) -> "Explanation":
    """Explains a sound by the features of one layer; a notebook shows what comes out as a player.

    Args:
      network: a name (`deconv_jax.load` knows them), the folder of a run or of a network file, or what `load` gives.
      sound: path of a sound file, or a waveform, shape (samples,), full scale 1.
      layer: 1-based; the last if left out.
      sample_rate: Hz, of a waveform.
      offset: seconds to skip.
      duration: seconds to explain; None for all that there is.
      reading: "phase" or "mask" (`deconv_jax.auralise`); if left out the phase, or the mask where the network hears
        logarithms.
      method, norm_back: how signals walk back (`deconv_jax.Rule`).

    Raises:
      InputError: the network or the sound cannot be used. ValueError: an argument has a value that it cannot take.

    Example::

        result = deconv_jax.explain("real3", "song.mp3", layer=5)
        result            # a notebook shows the 16 features that did most for the answer
        result.show(64)   # more of them
        result[33]        # one: the original, itself, the rest, and an untrained network's
        result.why()      # what made the network give this answer, in sound
    """
    _check_seconds(offset, duration)
    trained = network if isinstance(network, Trained) else _named(network)
    front = trained.front_end
    number = len(trained.network.blocks) if layer is None else layer
    reading = reading or ("phase" if front.linear else "mask")
    if reading not in auralisation.READINGS:
        raise SettingError(f"reading must be one of {', '.join(auralisation.READINGS)}, not {reading!r}")
    clips.check(trained, [number], reading=reading, method=method)
    name, waveform = _waveform(sound, front.sample_rate, sample_rate, offset, duration)
    waveform = clips.explainable(front, waveform, name, duration)
    clips.check_memory(trained, waveform, [number], compared=True)
    clip = clips.clip_of(front, waveform)
    answer = clips.answer_of(trained, clip)
    found = clips.layer_of(trained, clip, number, answer=answer, method=method, norm_back=norm_back)
    return Explanation(trained, name, clip, answer, found, reading, Rule(method, norm_back))


def _check_seconds(offset: Any, duration: Any) -> None:
    """ValueError for what is no stretch: a waveform's negative index would be its end."""
    given = [("offset", offset, "0 to 1e6"), *([] if duration is None else [("duration", duration, "above 0 to 1e6")])]
    for name, value, wanted in given:
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not (number and 0 <= value <= 1e6) or (name == "duration" and not value):
            raise SettingError(f"{name} must be a number of seconds, {wanted}, not {value!r}")


def _named(network: Any) -> Trained:
    if not isinstance(network, str | Path):
        raise SettingError(
            f"network must be a name, a folder, or what deconv_jax.load gives, not {type(network).__name__}; "
            "models of your own go into deconv_jax.deconvolve_function"
        )
    return workdir.load(network, called="network")


def _waveform(
    sound: Any, wanted: int, sample_rate: int | None, offset: float, duration: float | None
) -> tuple[str, np.ndarray]:
    """A name for the sound, and its waveform at the rate wanted."""
    if isinstance(sound, str | Path):
        if sample_rate is not None:
            raise SettingError("sample_rate is that of a waveform: a file has its own")
        return files.shown(Path(sound).name), audio.read(sound, wanted, offset, duration)
    wave = np.asarray(sound)
    if wave.dtype.kind != "f" or wave.ndim != 1 or not np.isfinite(wave).all():
        raise SettingError(
            f"sound must be a path, or a waveform of floats, shape (samples,), not {wave.dtype} of shape {wave.shape}: "
            "of several channels, take the mean"
        )
    if sample_rate is None:
        raise SettingError("sample_rate is missing: in how many samples a second is this waveform?")
    if not isinstance(sample_rate, int | float | np.number) or sample_rate % 1 or not 1000 <= sample_rate <= 1_000_000:
        raise SettingError(f"sample_rate must be a whole number of Hz from 1,000 to 1,000,000, not {sample_rate!r}")
    end = None if duration is None else round((offset + duration) * sample_rate)
    part = wave[round(offset * sample_rate) : end]
    if not part.size:
        raise InputError(
            f"the waveform: nothing of it is left after {offset:g} s; it has {len(wave) / sample_rate:g} s"
        )
    return "the waveform", np.asarray(soxr.resample(part.astype(np.float32), sample_rate, wanted), np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Feature:
    """What one feature made of a sound; sounds are (samples,), at the network's rate, as loud as it if they can be.

    Attributes:
      number: from 0.
      image: deconvolved, shape (freq, time), in the rows and the unit of what the network sees.
      sound: of this image.
      rest: the original without as much of that sound as leaves the least.
      explained: share of the original's energy that is gone in the rest.
      effects: the change of every class's logit when the feature is taken out, by label.
      untrained_image, untrained_sound: the same of the feature of this number in a network that never learnt. They
        correspond to nothing: what they show is what this method shows of any network.
    """

    number: int
    image: np.ndarray
    sound: np.ndarray
    rest: np.ndarray
    explained: float
    effects: dict[str, float]
    untrained_image: np.ndarray
    untrained_sound: np.ndarray
    _of: "Explanation"

    def _repr_html_(self) -> str:
        return self._shown.html

    def __repr__(self) -> str:
        return self._shown.plain

    @functools.cached_property
    def _shown(self) -> Html:
        of, front = self._of, self._of.trained.front_end
        seconds = len(of.clip.waveform) / front.sample_rate
        heard = clips.row_magnitudes(front, of.clip.waveform)
        rest = clips.row_magnitudes(front, self.rest)
        twin = float(np.abs(of.untrained).max(initial=0))
        drawn = [
            ("The original", heard, float(heard.max()), "loudest of the clip", of.clip.waveform),
            (f"Feature {self.number}", self.image, of.layer.loudest, "loudest of the layer", self.sound),
            ("The rest", rest, float(heard.max()), "loudest of the clip", self.rest),
            ("An untrained network's", self.untrained_image, twin, "loudest of its layer", self.untrained_sound),
        ]
        cards = []
        for title, image, loudest, scale, sound in drawn:
            sheet = spectrograms.SpectrogramSheet(front.frequencies(), seconds, scale)
            cards.append(Card(title, "", sheet.draw(image, loudest or 1.0, title), of.played(sound)))
        lines = [
            f"Without it: {', '.join(f'{label} {change:+.2f}' for label, change in self.effects.items())} (logits). "
            f"{100 * self.explained:.0f} % of the clip's energy is in it."
        ]
        note = (
            "The sound borrows the original's phase and level. The untrained network's feature has nothing to do with "
        )
        note += "this one but its number: what is alike in both is not learnt."
        return notebook.shown(
            f"Feature {self.number} of layer {of.layer.number}, {of.name}", lines, cards, [note], wide=True
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Reasons:
    """Why a network gave an answer, in sound.

    Attributes:
      found: everything that was found, see `deconv_jax.results.why.Why`.
    """

    found: reasons.Why
    _of: "Explanation"

    @property
    def sounds(self) -> dict[str, reasons.Sound]:
        """All sounds by name, each with the probabilities that the network gives for it."""
        return self.found.sounds

    def _repr_html_(self) -> str:
        return self._shown.html

    def __repr__(self) -> str:
        return self._shown.plain

    @functools.cached_property
    def _shown(self) -> Html:
        trained, found = self._of.trained, self.found
        label, front = trained.labels[found.target], trained.front_end
        images = {"whole": clips.row_magnitudes(front, found.whole.waveform)} | reasons.pictures(found, trained)
        cards = []
        for name, sound in ({"whole": found.whole} | found.sounds).items():
            drawn = b""
            if name in images:
                sheet = spectrograms.SpectrogramSheet(front.frequencies(), front.clip_seconds, "loudest of the picture")
                drawn = sheet.draw(images[name], float(images[name].max()) or 1.0, _SOUNDS[name])
            cards.append(
                Card(
                    _SOUNDS[name],
                    f"The network says: {self._of.said(sound.says, label)}",
                    drawn,
                    self._of.played(sound.waveform),
                )
            )
        numbers = reasons.numbers(found, trained)
        return notebook.shown(
            f"What makes it say {label}: {self._of.name}", _amounts(numbers), cards, [_NULLS], wide=True
        )


_SOUNDS = {
    "whole": "The original",
    "attribution": "What spoke for it",
    "keeps": "Enough to keep the answer",
    "without": "What is left without that",
    "goes": "What has to go",
    "changed": "What is left then",
}

_NULLS = (
    "Little being enough shows what suffices for this network, not what it heard. Other orders say how little that is: "
    "of random weights, of loudness, and by chance."
)


def _amounts(numbers: dict[str, Any]) -> list[str]:
    """What is kept and what has to go, in sentences."""

    def held(cells: dict[str, Any]) -> str:
        shares = f"{100 * cells['cells']:.1f} % of the cells, {100 * cells['energy']:.0f} % of the energy"
        return f"{shares}, in {cells['seconds']:.1f} s"

    def others(nulls: dict[str, Any]) -> str:
        return "; ".join(f"{order}, {held(cells)}" for order, cells in nulls.items())

    name, kept, gone = numbers["class"], numbers["kept"], numbers["gone"]
    lines = [
        f"{held(kept)}, keep {100 * numbers['share']:.0f} % of the probability of {name}. "
        f"In other orders, as much is kept by: {others(numbers['kept_nulls'])}."
    ]
    if numbers["kept_nulls"]["random order"]["cells"] <= kept["cells"]:
        lines += ["No more cells are needed in random order, so what keeps the answer is no sign of what it hangs on."]
    if not gone:
        return lines
    if not gone["reached"]:
        return [*lines, "The answer never changes, however much goes."]
    orders = others({order: cells for order, cells in numbers["gone_nulls"].items() if cells["reached"]})
    beside = f" In other orders it changes without: {orders}." if orders else " In no other order does it change."
    return [*lines, f"Without {held(gone)}, the answer is another.{beside}"]


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """A sound as one layer of a network heard it. A notebook shows it as a player; `result[33]` is one feature.

    Attributes:
      trained: the network.
      name: of the sound.
      clip: what was explained: `clip.waveform`, `clip.spectrum`, `clip.seen`.
      answer: what the network says of it.
      layer: all about its features, as arrays: `layer.images`, `layer.effects` … (`deconv_jax.results.explain.Layer`).
      reading, rule: how the sounds and the images were made.
    """

    trained: Trained
    name: str
    clip: Clip
    answer: Answer
    layer: Layer
    reading: str
    rule: Rule

    @property
    def says(self) -> dict[str, float]:
        """Probability of each class by its label."""
        return self.answer.named(self.trained.labels)

    def order(self, label: str | None = None) -> np.ndarray:
        """Numbers of the features, those first that speak most for a class: the likeliest, or the one that is named."""
        return np.argsort(self.layer.effects[:, self._target(label)], kind="stable")

    def __len__(self) -> int:
        return len(self.layer.features)

    def __iter__(self) -> Iterator[Feature]:
        return (self[int(number)] for number in self.order())

    def __getitem__(self, number: int) -> Feature:
        check_features(self.trained.network.blocks, self.layer.number, [number])
        image, other = self.layer.images[number], self.untrained[number]
        own, twin = self._sounds([image, other])
        factor, scale, explained = listening.rest(self.clip.waveform, own)
        rest = (scale * (self.clip.waveform - factor * own)).astype(np.float32)
        changes = dict(zip(self.trained.labels, self.layer.effects[number].tolist(), strict=True))
        return Feature(int(number), image, own, rest, explained, changes, other, twin, self)

    def sounds(self, numbers: Sequence[int] | None = None) -> np.ndarray:
        """Sounds of all features, or of some by number, as loud as the original if they can be, (features, samples)."""
        if numbers is not None:
            check_features(self.trained.network.blocks, self.layer.number, numbers)
        return np.stack(self._sounds(self.layer.images if numbers is None else self.layer.images[list(numbers)]))

    def show(self, most: int = MOST, label: str | None = None) -> Html:
        """A player of features, those first that speak most for a class.

        Args:
          most: how many; each takes about 60 kB of a notebook.
          label: the class; the likeliest if left out.
        """
        if most < 1:
            raise SettingError(f"most must be at least 1, not {most}")
        numbers, target = self.order(label)[:most], self._target(label)
        name, changes = self.trained.labels[target], self.layer.effects[:, target]
        largest = float(np.abs(changes).max()) or 1.0
        images, loudest = self.layer.images, self.layer.loudest or 1.0
        heard = clips.row_magnitudes(self.trained.front_end, self.clip.waveform)
        original = spectrograms.coloured_picture(heard)
        cards = [Card("The original", self.said(self.answer.mean), original, self.played(self.clip.waveform))]
        for number, sound in zip(numbers, self._sounds(images[numbers]), strict=True):
            drawn = spectrograms.coloured_picture(images[number], reference=loudest)
            inactive = bool(self.layer.measures.inactive[number])
            text = "inactive: silence" if inactive else f"{name} without it: {changes[number]:+.2f}"
            share = None if inactive else float(changes[number]) / largest
            cards.append(Card(f"Feature {number}", text, drawn, b"" if inactive else self.played(sound), share))
        return notebook.shown(
            f"{self.name}: what layer {self.layer.number} heard", self._lines(len(numbers)), cards, [_LIMITS]
        )

    def why(self, label: str | None = None) -> Reasons:
        """What made the network give this answer, or speak for another class, in sound; takes some seconds.

        Args:
          label: the class; the likeliest if left out.
        """
        target, twin = self._target(label), clips.twins(self.trained)[0]
        return Reasons(reasons.why(self.trained, self.clip, self.answer, twin, self.reading, target=target), self)

    def _repr_html_(self) -> str:
        return self.show().html

    def __repr__(self) -> str:
        said = self.said(self.answer.mean)
        return f"<{self.name}, layer {self.layer.number}, {len(self)} features; the network says {said}>"

    @functools.cached_property
    def untrained(self) -> np.ndarray:
        """The images of an untrained network's layer, (features, freq, time): `deconv_jax.measures.randomised.twin`."""
        twin, front = clips.twins(self.trained)[0], self.trained.front_end
        found = deconvolve(self.trained.network, twin, self.clip.seen, self.layer.number, rule=self.rule)
        return self.clip.heard.in_unit(front, found)

    def played(self, waveform: np.ndarray) -> bytes:
        """A sound of this clip as FLAC; where the original exceeds full scale, all are scaled alike."""
        peak = float(np.abs(self.clip.waveform).max())
        return notebook.sound(waveform, self.trained.front_end.sample_rate, max(1.0, peak))

    def said(self, says: np.ndarray, label: str | None = None) -> str:
        """Probabilities (classes,) as text: the likeliest class, and the one that is named where that is another."""
        best = int(np.argmax(says))
        text = f"{self.trained.labels[best]} {100 * says[best]:.0f} %"
        return (
            text
            if label in (None, self.trained.labels[best])
            else f"{text}; {label} {100 * says[self._target(label)]:.0f} %"
        )

    def _target(self, label: str | None) -> int:
        if label is None:
            return self.answer.target
        if label not in self.trained.labels:
            raise SettingError(f"{label!r} is no class of this network: it knows {', '.join(self.trained.labels)}")
        return self.trained.labels.index(label)

    def _sounds(self, images: Any) -> list[np.ndarray]:
        made = clips.sounds(self.trained.front_end, self.clip, images, self.reading)
        return [auralisation.match_gain(sound, self.clip.waveform).waveform for sound in made]

    def _lines(self, count: int) -> list[str]:
        front = self.trained.front_end
        says = sorted(self.says.items(), key=lambda item: -item[1])[:5]
        rows = front.frequencies()
        more = f"; show({len(self)}) shows all {len(self)}" if count < len(self) else ""
        return [
            f"The network says: {', '.join(f'{label} {100 * value:.0f} %' for label, value in says)}.",
            f"{count} features, those first without which the answer loses most{more}. Each picture: "
            f"{rows[0]:,.0f} to {rows[-1]:,.0f} Hz, {len(self.clip.waveform) / front.sample_rate:g} s, one scale.",
        ]


_LIMITS = (
    "A sound is what a feature responded to, with the original's phase and level. It is not why the answer was given: "
    "the number below it is what the answer loses without the feature. An untrained network gives plausible images "
    "too; result[number] has one beside it."
)
