"""Does the network depend on what an attribution points at? Measures of images, by asking the network again.

The measures are those of Paissan et al. 2024 (Listenable Maps for Audio Classifiers, ICML, section 4.1 and arXiv
2403.13086), as the authors' code has them (SpeechBrain, recipes/ESC50/interpret/interpreter_brain.py), and the areas
under the deletion and insertion curves (Petsiuk et al. 2018, section 3.2). With f the probability of the class that is
explained, X the clip, M a mask of 0 to 1, all on what the network sees:

- AI, average increase, %: clips for which f(X ⊙ M) > f(X). More is better.
- AD, average drop, %: max(0, f(X) - f(X ⊙ M)) / f(X). Less is better.
- AG, average gain, %: max(0, f(X ⊙ M) - f(X)) / (1 - f(X)). More is better.
- FF, faithfulness on spectra: f(X) - f(X ⊙ (1 - M)). More is better.
- Fid-In, input fidelity: clips of whose X ⊙ M the network says what it says of X. More is better.
- sparseness: the Gini index of |M| (Chalasani et al. 2020, section 3), 0 for all cells alike, towards 1 for one cell.
- complexity: the entropy of |M| / Σ|M| (Bhatt et al. 2020, definition 5), in nats. Less is better.
- deletion, insertion: f, averaged over the share of cells that were taken out of X, or put into the fill, in the order
  of the image, by steps of equal numbers of cells. Less, and more, is better.

What they do not tell. A clip with cells silenced is no clip that the network has met: f may change because of the
holes themselves. So no number means much by itself: hold it against that of random masks with as many cells, of the
clip's own energy, and of a network that never learnt. A mask of ones has the best AD and Fid-In, and the worst FF; the
mask's own sum stands beside them. Where it is known what decides (planted cues, `BUILD.md`) FF and deletion followed it
in four cues of six; of AI, AD, AG, Fid-In and insertion nothing can be said, so they are no grounds to trust an image.
How a mask is made of an image decides as much as the image does, and numbers of other papers are of other masks, other
networks and other data.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deconv_jax.decision.attribution import targets_of
from deconv_jax.decision.effects import check_length
from deconv_jax.deconvolution.deconvolve import batch_of
from deconv_jax.deconvolution.plain import clips_together
from deconv_jax.errors import SettingError
from deconv_jax.network.model import Network
from deconv_jax.network.spec import layer_sizes

MASKS = ("quantile", "maximum", "given")


@dataclasses.dataclass(frozen=True)
class Masking:
    """How an image becomes a mask.

    Attributes:
      how: "maximum": the part of the image above zero, divided by the clip's largest; "quantile": 1 for the `share` of
        cells with the largest values, 0 elsewhere (cells that are not above zero are never among them); "given": the
        image is a mask already, of 0 to 1.
      share: of all cells, for "quantile".
      positive: whether what speaks against the class counts as nothing; else its size counts.
    """

    how: str = "quantile"
    share: float = 0.1
    positive: bool = True

    def __post_init__(self) -> None:
        if self.how not in MASKS:
            raise SettingError(f"how must be one of {', '.join(MASKS)}, not {self.how!r}")
        if not 0 < self.share <= 1:
            raise SettingError(f"share must be above 0 and at most 1, not {self.share}")


@dataclasses.dataclass(frozen=True)
class Faithfulness:
    """The measures of every clip, each of shape (clips,), float32; their means over clips are what papers report.

    Attributes:
      ai, ad, ag: %; ff, fid_in, sparseness, complexity, deletion, insertion: see the head of this module.
      covered: the mean of the mask over its cells.
      target: the class whose probability they are about.
      masking, steps, fill: how they were made.
    """

    ai: np.ndarray
    ad: np.ndarray
    ag: np.ndarray
    ff: np.ndarray
    fid_in: np.ndarray
    sparseness: np.ndarray
    complexity: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray
    covered: np.ndarray
    target: np.ndarray
    masking: Masking
    steps: int
    fill: float


MEASURES = ("ai", "ad", "ag", "ff", "fid_in", "sparseness", "complexity", "deletion", "insertion", "covered")


def faithfulness(
    network: Network,
    variables: Any,
    magnitude: Any,
    image: Any,
    target: Any = None,
    *,
    masking: Masking | None = None,
    steps: int = 20,
    fill: float = 0.0,
) -> Faithfulness:
    """Whether the network depends on what images point at.

    Args:
      network, variables: as in `network.apply`.
      magnitude: what the network sees, shape (freq, time) or (clips, freq, time), of the length that the dense layers
        were made for.
      image: one image for every clip, such as `attribute(...).image`, same shape.
      target: class, or one for every clip; the class that the network finds most probable if left out, as in the paper.
      masking: how images become masks; `Masking()` if left out.
      steps: steps of the deletion and insertion curves.
      fill: what stands in a cell that is taken out, in the unit of `magnitude`: where the front end's scale is a
        logarithm, silence is what it makes of zeros. A mask between 0 and 1 fades from the one to the other.

    Returns:
      The measures, clip by clip.

    Raises:
      ValueError: the image has another shape than the clips, or is not finite; a "given" mask is not within 0 to 1; no
        such class; or the clip has another length than the dense layers.
    """
    masking = Masking() if masking is None else masking
    batch, _ = batch_of(magnitude)
    images, _ = batch_of(image, "image")
    if images.shape != batch.shape:
        raise SettingError(f"image must have the clips' shape {np.shape(magnitude)}, not {np.shape(image)}")
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise SettingError(f"steps must be a whole number of at least 1, not {steps!r}")
    size = (batch.shape[1], batch.shape[2])
    check_length(network, variables, layer_sizes(network.blocks, size)[-1], size)
    ask = functools.partial(answers_of, network, variables)
    before = ask(batch)
    chosen = before.argmax(axis=1) if target is None else targets_of(target, *before.shape)
    masks = mask_of(images, masking)

    def probability(answers: np.ndarray) -> np.ndarray:
        return answers[np.arange(len(chosen)), chosen]

    inside, outside = ask(fill + masks * (batch - fill)), ask(fill + (1 - masks) * (batch - fill))
    curves = _curves(lambda x: probability(ask(x)), batch, images, steps, fill)
    return Faithfulness(
        *kept_and_lost(before, inside, outside, chosen),
        sparseness(masks),
        complexity(masks),
        *curves,
        masks.mean(axis=(1, 2)),
        chosen,
        masking,
        int(steps),
        fill,
    )


_TINY = np.float32(1e-10)


_Five = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def kept_and_lost(before: np.ndarray, inside: np.ndarray, outside: np.ndarray, chosen: np.ndarray) -> _Five:
    """AI, AD, AG, FF and Fid-In, each (clips,), of probabilities (clips, classes) of clips, what masks keep and leave.

    Args:
      before, inside, outside: of X, X ⊙ M and X ⊙ (1 - M).
      chosen: the class of each clip, (clips,).
    """
    p, p_in, p_out = (answers[np.arange(len(chosen)), chosen] for answers in (before, inside, outside))
    return (
        100 * (p_in > p).astype(np.float32),
        100 * np.maximum(p - p_in, 0) / (p + _TINY),
        100 * np.maximum(p_in - p, 0) / (1 - p + _TINY),
        p - p_out,
        (before.argmax(axis=1) == inside.argmax(axis=1)).astype(np.float32),
    )


def mask_of(images: Any, masking: Masking) -> np.ndarray:
    """Masks of 0 to 1 from images, both (…, freq, time), float32."""
    found = np.asarray(images, np.float32)
    if masking.how == "given":
        if found.min() < 0 or found.max() > 1:
            raise SettingError(f"a mask must be of 0 to 1, not of {found.min():g} to {found.max():g}")
        return found
    found = np.maximum(found, 0) if masking.positive else np.abs(found)
    if masking.how == "maximum":
        largest = found.max(axis=(-2, -1), keepdims=True)
        return found / np.where(largest > 0, largest, 1)
    flat = found.reshape(*found.shape[:-2], -1)
    count = max(1, round(masking.share * flat.shape[-1]))
    best = np.argsort(-flat, axis=-1, kind="stable")[..., :count]
    mask = np.zeros_like(flat)
    np.put_along_axis(mask, best, 1, axis=-1)
    return (mask * (flat > 0)).reshape(found.shape)


def sparseness(masks: Any) -> np.ndarray:
    """Gini index of the cells' sizes, (…, freq, time) → (…): Σ (2i - n - 1) a_i / (n Σ a), a rising, i from 1.

    Every size is raised by 1e-7, as Quantus does, so that a mask of zeros has one: 0.
    """
    sizes = _flat(masks) + 1e-7
    sizes = np.sort(sizes, axis=-1)
    count = sizes.shape[-1]
    weights = 2 * np.arange(1, count + 1) - count - 1
    return ((sizes @ weights) / (count * sizes.sum(axis=-1))).astype(np.float32)


def complexity(masks: Any) -> np.ndarray:
    """Entropy of the cells' shares in the sum of all sizes, (…, freq, time) → (…), nats; 0 for a mask of zeros."""
    sizes = _flat(masks)
    total = sizes.sum(axis=-1, keepdims=True)
    shares = sizes / np.where(total > 0, total, 1)
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=-1).astype(np.float32)


def _flat(masks: Any) -> np.ndarray:
    sizes = np.abs(np.asarray(masks, np.float64))
    return sizes.reshape(*sizes.shape[:-2], -1)


def _curves(ask: Any, batch: np.ndarray, images: np.ndarray, steps: int, fill: float) -> tuple[np.ndarray, np.ndarray]:
    """Areas under the probabilities with so many of the first cells taken out, or alone left in, by the trapezium."""
    order = np.argsort(-images.reshape(len(images), -1), axis=1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.broadcast_to(np.arange(order.shape[1]), order.shape), axis=1)
    place = place.reshape(batch.shape)
    found = []
    for count in np.linspace(0, order.shape[1], steps + 1).round():
        first = place < count
        found.append([ask(np.where(first, np.float32(fill), batch)), ask(np.where(first, batch, np.float32(fill)))])
    deletion, insertion = np.trapezoid(np.asarray(found), dx=1 / steps, axis=0).astype(np.float32)
    return deletion, insertion


def answers_of(network: Network, variables: Any, batch: Any) -> np.ndarray:
    """Probabilities for clips (clips, freq, time) → (clips, classes), so many at once as bound the memory."""
    batch = np.asarray(batch, np.float32)
    clips, (freq, time) = len(batch), batch.shape[1:]
    group = min(clips, clips_together(network.blocks, (freq, time)))
    padded = np.pad(batch, [(0, -clips % group), (0, 0), (0, 0)], mode="edge")
    found = [_probabilities(network, variables, padded[n : n + group]) for n in range(0, clips, group)]
    return np.concatenate([np.asarray(x) for x in found])[:clips]


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(network: Network, variables: Any, batch: Any) -> jax.Array:
    found: Any = network.apply(variables, jnp.asarray(batch))
    return network.probabilities(found[0])
