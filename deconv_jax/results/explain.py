"""A clip → what the features of a layer made of it and do for the answer: images, maps, measures, effects.

Nothing here reads a file, prints or keeps anything: folders, pages, figures and notebooks take of it what they need.
Layers come one at a time, since the images of one layer of a whole song are all that memory should bear, and sounds
when they are asked for.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np

from deconv_jax.decision.effects import effects
from deconv_jax.deconvolution import deconvolve
from deconv_jax.deconvolution.rule import Rule
from deconv_jax.errors import InputError, SettingError
from deconv_jax.measures import features, likeness, randomised
from deconv_jax.measures.features import Measures
from deconv_jax.network.activations import check_method
from deconv_jax.network.trained import Trained
from deconv_jax.sound import audio, blocks
from deconv_jax.sound.blocks import Heard
from deconv_jax.sound.front_end import FrontEnd

PEAKS = 5
"""Moments at which a feature is strongest that are kept."""

ORDERS = ("effect", "energy")
"""What features can be ordered by: what they do for the answer, or the energy of their images."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip, and what every layer needs of it.

    Attributes:
      waveform: shape (samples,).
      heard: its spectrum, and what the network sees of it.
    """

    waveform: np.ndarray
    heard: Heard

    @property
    def spectrum(self) -> np.ndarray:
        """Its complex STFT, shape (1 + n_fft // 2, time)."""
        return self.heard.spectrum

    @property
    def seen(self) -> np.ndarray:
        """What the network sees of it, shape (freq, time)."""
        return self.heard.seen


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a network says of a clip: the mean over the clip lengths that fit into it.

    Attributes:
      parts: what the network sees of these, each (freq, time).
      starts: frames at which they begin.
      logits, probabilities: of each part, shape (parts, classes).
    """

    parts: list[np.ndarray]
    starts: np.ndarray
    logits: np.ndarray
    probabilities: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Probability of each class, shape (classes,)."""
        return self.probabilities.mean(axis=0)

    @property
    def target(self) -> int:
        """The likeliest class."""
        return int(np.argmax(self.mean))

    def named(self, labels: Sequence[str]) -> dict[str, float]:
        """Probability of each class by its label."""
        return dict(zip(labels, self.mean.tolist(), strict=True))


@dataclasses.dataclass(frozen=True)
class Untrained:
    """What an untrained twin's layer shows of the same clip.

    Attributes:
      images: of its features of the same numbers, shape (features, freq, time). They correspond to nothing.
      loudest: largest |value| of the images of its whole layer.
      comparison: the layer's features beside it.
    """

    images: np.ndarray
    loudest: float
    comparison: randomised.Comparison


@dataclasses.dataclass(frozen=True)
class Layer:
    """What some features of a layer made of a clip; arrays have shape (features,) and are in the order of `features`.

    Attributes:
      number: of the layer, from 1.
      features: numbers of the features, from 0.
      images: deconvolved, shape (features, freq, time), in the rows and the unit of what the network sees.
      maps: pooled maps that they came from, shape (features, layer freq, layer time).
      measures: of these features.
      energy_share: share of the energy of all images of the layer, of features that are not among these too.
      effects: the change of every class's logit when a feature's map is silenced, shape (features, classes), the mean
        over the parts that the network answers for: see `layer_effects`.
      kinds, kind_r: see `likeness.kinds`.
      peaks: of each feature, seconds at which it is strongest, strongest first.
      untrained: the same of an untrained twin, None where that was not asked for.
    """

    number: int
    features: np.ndarray
    images: np.ndarray
    maps: np.ndarray
    measures: Measures
    energy_share: np.ndarray
    effects: np.ndarray
    kinds: np.ndarray
    kind_r: np.ndarray
    peaks: list[np.ndarray]
    untrained: Untrained | None

    @property
    def loudest(self) -> float:
        """Largest |value| of the images."""
        return float(np.abs(self.images).max(initial=0))


def check(
    trained: Trained,
    layers: Sequence[int],
    chosen: str | Sequence[int] = "all",
    reading: str = "phase",
    method: str = "deconvnet",
) -> None:
    """Compares what is wanted with the network, before any work is done; arguments as in `layer_of` and `sounds`.

    Raises:
      ValueError: layer or feature does not exist or is named twice, the method has no rule for an activation, or the
        phase reading is asked of a network with log input.
    """
    for what, named in (("layer", layers), ("feature", chosen)):
        if not isinstance(named, str) and len(set(named)) < len(named):
            raise SettingError(f"of {', '.join(map(str, named))} one {what} is named twice: name each once")
    for layer in layers:
        deconvolve.check_features(trained.network.blocks, layer, None if isinstance(chosen, str) else chosen)
    check_method(method, (block.activation for block in trained.network.blocks[: max(layers)]))
    if not trained.front_end.linear and reading == "phase":
        raise SettingError(
            "this network hears log magnitudes, so its images are no magnitudes and the phase reading means nothing: "
            "use reading=mask"
        )


def twins(trained: Trained) -> list[dict]:
    """Variables of the two untrained networks that `layer_of` compares with."""
    size = (trained.front_end.bins, trained.front_end.clip_frames)
    return [randomised.twin(trained.network, trained.variables, size, seed) for seed in randomised.SEEDS]


def explainable(front: FrontEnd, waveform: np.ndarray, name: str, duration: float | None = None) -> np.ndarray:
    """A waveform (samples,), padded with silent samples to the length that was asked for, or to a whole clip.

    Args:
      front: what hears it.
      waveform: at the front end's rate.
      name: of the sound, for errors.
      duration: seconds that were asked for; None for all of it.

    Raises:
      InputError: it is shorter than one window, or silent.
    """
    read = len(waveform)
    if read < front.n_fft:
        raise InputError(
            f"{name}: holds {read} sample(s) at {front.sample_rate} Hz; at least {front.n_fft} "
            f"({front.n_fft / front.sample_rate:.3f} s) are needed"
        )
    if not np.any(waveform):
        raise InputError(f"{name}: is silent there; choose a part with sound by offset and duration")
    wanted = front.clip_samples if duration is None else round(duration * front.sample_rate)
    return audio.cut(waveform, 0, max(read, min(wanted, front.clip_samples)))


def clip_of(front: FrontEnd, waveform: np.ndarray) -> Clip:
    """A waveform (samples,) with its spectrum and what the network sees of it."""
    return Clip(waveform, blocks.analyse(front, waveform))


def layer_of(
    trained: Trained,
    clip: Clip,
    layer: int,
    *,
    chosen: str | Sequence[int] = "all",
    by: str = "effect",
    answer: Answer | None = None,
    method: str = "deconvnet",
    norm_back: str = "transpose",
    twins: Sequence[dict] = (),
) -> Layer:
    """Explains a clip by the features of one layer.

    Args:
      trained: the network.
      clip: see `clip_of`.
      layer: 1-based.
      chosen: features wanted: "all", "top:N" (the first N of the order) or a list of 0-based numbers.
      by: the order of "top:N": "effect", those first that speak most for the likeliest class, or "energy".
      answer: what the network says of the clip, if it is known (`answer_of`).
      method, norm_back: see `deconv_jax.deconvolution.deconvolve`.
      twins: variables of two untrained networks (`twins`) to compare with; none for no comparison, which takes twice
        as long again.

    Raises:
      ValueError: see `check`.
    """
    front = trained.front_end

    def deconvolved(run, variables):
        return run(trained.network, variables, clip.seen, layer, rule=Rule(method, norm_back))

    in_unit = functools.partial(clip.heard.in_unit, front)
    # All features, whichever are wanted: a share of the layer's energy is one of all.
    found = deconvolved(deconvolve.images_and_maps, trained.variables)
    images, maps = in_unit(found[0]), np.asarray(found[1])
    measures = features.measure(images, maps, front.frequencies())
    total = measures.energy.sum()
    answer = answer or answer_of(trained, clip)
    changes = layer_effects(trained, answer, layer)
    numbers = _numbers(chosen, changes[:, answer.target] if by == "effect" else -measures.energy)
    if chosen != "all":
        images, maps = images[numbers], maps[numbers]
        measures = features.measure(images, maps, front.frequencies())
    own = randomised.look(images)
    kinds, alike = likeness.kinds(own.levels)
    untrained = None
    if twins:
        # The second twin before the first, whose images are shown: two sets of a whole song's images are enough.
        second = randomised.look(in_unit(deconvolved(deconvolve.deconvolve, twins[1])))
        others = in_unit(deconvolved(deconvolve.deconvolve, twins[0]))
        comparison = randomised.compare(own, randomised.look(others), second)
        loudest = float(np.abs(others).max(initial=0))
        untrained = Untrained(others if chosen == "all" else others[numbers], loudest, comparison)
    apart = round(features.APART * front.sample_rate / front.hop)
    return Layer(
        number=layer,
        features=numbers,
        images=images,
        maps=maps,
        measures=measures,
        energy_share=measures.energy / total if total > 0 else np.zeros(len(numbers)),
        effects=changes[numbers],
        kinds=kinds,
        kind_r=alike,
        peaks=[
            features.envelope_peaks(envelope, PEAKS, apart) * front.hop / front.sample_rate
            for envelope in features.envelopes(images)
        ],
        untrained=untrained,
    )


def _numbers(chosen: str | Sequence[int], rising: np.ndarray) -> np.ndarray:
    if not isinstance(chosen, str):
        return np.asarray(chosen)
    if chosen.startswith("top:"):
        return np.argsort(rising, kind="stable")[: int(chosen[4:])]
    return np.arange(len(rising))


def sounds(
    front: FrontEnd, clip: Clip, images: Iterable[np.ndarray], reading: str = "phase", rectify: bool = False
) -> Iterator[np.ndarray]:
    """Sounds (samples,) of images (freq, time), no gain applied, made together in numbers that memory does not feel.

    Args:
      front, clip: what the images are of.
      images: any number of them, taken as they are needed.
      reading, rectify: see `deconv_jax.sound.auralisation`.
    """
    length = len(clip.waveform)
    together = 16 if length < 2**22 else 2  # six minutes; two shapes to compile
    images = iter(images)
    while some := list(itertools.islice(images, together)):
        whole = some + [np.zeros_like(some[0])] * (together - len(some))
        yield from blocks.auralise(front, whole, clip.heard, length, reading, rectify)[: len(some)]


def answer_of(trained: Trained, clip: Clip) -> Answer:
    """What the network says of a clip; one shorter than the clips that it classifies is padded with silence."""
    front, seen = trained.front_end, clip.seen
    if seen.shape[1] < front.clip_frames:
        seen = blocks.analyse(front, audio.cut(clip.waveform, 0, front.clip_samples)).seen
    count = -(-len(clip.waveform) // front.clip_samples)
    starts = audio.clip_starts(seen.shape[1], front.clip_frames, count)
    parts = [seen[:, start : start + front.clip_frames] for start in starts]
    said = zip(*(_said(trained.network, trained.variables, part) for part in parts), strict=True)
    return Answer(parts, starts, *(np.stack([np.asarray(row, np.float64) for row in rows]) for rows in said))


@functools.partial(jax.jit, static_argnums=0)
def _said(network, variables, seen):
    logits = network.apply(variables, seen)[0]
    return logits, network.probabilities(logits)


def layer_effects(trained: Trained, answer: Answer, layer: int) -> np.ndarray:
    """What every feature of a layer does for every class: `effects`, the mean over the parts, (features, classes).

    A map that is taken out is silenced, not set to its mean: a mean would have to be that of other music, which is not
    at hand, and the mean of the clip itself would leave what a head that averages hears of the last layer as it is.
    """
    found = [effects(trained.network, trained.variables, part, layer) for part in answer.parts]
    return np.mean([np.asarray(one, np.float64) for one in found], axis=0)


def row_magnitudes(front: FrontEnd, waveform) -> np.ndarray:
    """Magnitudes in the rows of the network's input, shape (freq, time), whatever scale it hears them in: pictures."""
    return blocks.analyse(dataclasses.replace(front, scale="linear", power=1, level="none"), waveform).seen


def check_memory(trained: Trained, waveform: np.ndarray, layers: Sequence[int], compared: bool) -> None:
    """Raises SettingError if images of a clip, and of an untrained twin if compared, are more than memory holds."""
    front, most = trained.front_end, max(trained.network.blocks[layer - 1].maps for layer in layers)
    size = 4 * most * front.bins * front.frames(len(waveform)) * (2 if compared else 1)
    seconds = len(waveform) / front.sample_rate
    deconvolve.check_memory(size, f"it lasts {seconds:,.0f} s, and the images of a layer of {most} features")
