"""What in the input spoke for a class: images (freq, time) of a network's answer, by many methods.

None of them says why. Each answers a question of its own, and where they disagree the question is what differs:

- `gradient` (Simonyan et al. 2014): how the logit would change with a little more in a cell. Says nothing about what
  is there, and is as rough as the network's kinks.
- `gradient_x_input` (Shrikumar et al. 2017): that times what is there. The whole change only where the network is
  linear, and without biases.
- `integrated_gradients` (Sundararajan et al. 2017): the same, averaged on the straight way from a baseline: adds up to
  the change of the logit. The sounds on that way are fades that nobody plays, and another baseline is another answer.
- `guided` (Springenberg et al. 2015, section 3.4): only what passes up through every rectifier. Looks clean, and hardly
  depends on the class or on the upper layers (Adebayo et al. 2018; Nie et al. 2018).
- `deconvnet` (Zeiler & Fergus 2014; `deconv_jax.deconvolution`): the deconvolved images of a layer's features, each
  times what it does for the class (`deconv_jax.decision.effects`, its sign turned). What made features respond is taken
  for what they were needed for, and effects of features do not add up.
- `grad_cam` (Selvaraju et al. 2017): the layer's maps, weighted by the mean gradient of the logit in each. As coarse as
  the layer, and where a flattened head weighs every place by itself, its mean is a poor summary.
- `smoothgrad` (Smilkov et al. 2017): the gradient, averaged over clips with noise. Smoother, and about noisier
  clips: noise is a sound too. On linear magnitudes it lost a thin tone that the plain gradient finds, and found three
  of six planted cues not at all (`BUILD.md`).
- `lrp` (`deconv_jax.decision.relevance`): the logit shared out, layer by layer. Which rule stands where is a choice,
  and the image follows it; its first-layer rules blur it on purpose.
- `occlusion` (Zeiler & Fergus 2014, section 4.2): how much of the logit goes with a patch. An intervention, and the
  network meets a hole that no music has; what stands in for what is never found out.

`magnitude` is what the network is given, as in `effects`: what the front end made of the sound, after its level and
scale. Dividing by a clip's level is no step of the network: what a cell does to its clip's level is not counted.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from deconv_jax.decision.effects import check_length, effects, from_layer
from deconv_jax.decision.relevance import COMPOSITES, relevance
from deconv_jax.deconvolution.deconvolve import batch_of, check_features, deconvolve
from deconv_jax.deconvolution.plain import clips_together
from deconv_jax.deconvolution.rule import DECONVNET, Rule
from deconv_jax.errors import SettingError
from deconv_jax.network.activations import RECTIFIERS, check_method
from deconv_jax.network.folding import fold
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Dense, layer_sizes


@dataclasses.dataclass(frozen=True)
class Attribution:
    """What in the input spoke for a class, and how it was found.

    Attributes:
      image: shape (…, freq, time), float32, in the rows that the network sees. Above zero: speaks for the class.
      logit: the class's, shape (…).
      owed: what the image ought to add up to, shape (…), of methods that promise it: the change of the logit from the
        baseline of "integrated_gradients", the logit itself of "lrp". None of others.
      method, options: what was asked for; an option that was left out stands with what it is then.
    """

    image: jax.Array
    logit: jax.Array
    owed: jax.Array | None
    method: str
    options: Mapping[str, Any]

    @property
    def gap(self) -> jax.Array | None:
        """By how much the image adds up to more than is owed, shape (…); None where nothing is."""
        return None if self.owed is None else self.image.sum(axis=(-2, -1)) - self.owed


def attribute(
    network: Network,
    variables: Any,
    magnitude: Any,
    target: int | Sequence[int],
    *,
    method: str = "integrated_gradients",
    **options: Any,
) -> Attribution:
    """What in these clips spoke for a class.

    Args:
      network, variables: as in `network.apply`.
      magnitude: spectrogram, shape (freq, time), or a batch (clips, freq, time), of the length that the dense layers
        were made for.
      target: 0-based class, whose logit is explained; or one for every clip.
      method: one of `METHODS`; the head of this module says what each asks, and what it does not tell.
      **options: of the method:

        - "integrated_gradients": `baseline`, 0 or an array that is broadcast to (clips, freq, time), in the unit of
          `magnitude`: where the front end's scale is a logarithm, silence is what it makes of zeros. `steps`, 64: of
          the Gauss-Legendre quadrature.
        - "deconvnet": `layer`, 1-based, the last if left out. `rule`: how signals walk back. `replacement`: what stands
          in a map's place, as in `effects`.
        - "grad_cam": `layer`, as above. `relu`, True: whether what speaks against the class is left out.
        - "smoothgrad": `noise`, 0.15: its standard deviation in shares of the clip's range. `samples`, 32. `seed`.
        - "lrp": `composite`, "gamma_flat", "gamma_box" or "epsilon". `epsilon`, 1e-6, and `gamma`, 0.25, of the rules.
          `box`, (0, None): lowest and highest magnitude for "gamma_box", None for the clip's own.
        - "occlusion": `patch`, (16, 16): bins and frames. `stride`, the patch's size if left out, from one patch to the
          next. `fill`, 0 or an array as `baseline`. A cell has the mean over the patches that cover it.

    Returns:
      An `Attribution`. Its unit: a logit for every unit of magnitude ("gradient", "guided", "smoothgrad"), logits for
      every cell ("gradient_x_input", "integrated_gradients", "lrp"), for every patch ("occlusion"), or one that says
      nothing ("deconvnet", "grad_cam").

    Raises:
      ValueError: no such method, option, class or layer; the clip has another length than the dense layers; or the
        method has no rule for an activation.

    Example:

        >>> import jax
        >>> import numpy as np
        >>> from deconv_jax import Block, Network, attribute
        >>> network = Network(blocks=(Block(maps=4),), dense=(), classes=2)
        >>> seen = np.ones((16, 20), np.float32)
        >>> variables = network.init(jax.random.key(0), seen)
        >>> found = attribute(network, variables, seen, 0, method="integrated_gradients", steps=8)
        >>> found.image.shape, abs(float(found.gap)) < 1e-4
        ((16, 20), True)
    """
    given = _options(_METHODS, method, options)
    batch, single = batch_of(magnitude)
    size = (batch.shape[1], batch.shape[2])
    check_length(network, variables, layer_sizes(network.blocks, size)[-1], size)
    model = _Model(network, variables, _logits_of(network), clips_together(network.blocks, size))
    return _by_clips(model, batch, single, target, _METHODS[method], method, given)


_Logits = Callable[[Any, jax.Array], jax.Array]
"""(variables, batch) → (clips, classes)."""

_Found = tuple[jax.Array, jax.Array | None]
"""Images of a batch, and what they ought to add up to."""


def attribute_function(
    function: Callable[[jax.Array], jax.Array],
    magnitude: Any,
    target: int | Sequence[int],
    *,
    method: str = "integrated_gradients",
    chunk: int = 8,
    **options: Any,
) -> Attribution:
    """What in these clips spoke for a class of any model: your own Flax model, or any function.

    Args:
      function: one clip (freq, time) → logits (classes,); deterministic, and with a gradient for all methods but
        "occlusion". It is compiled once for every function object.
      magnitude, target, method, options: as in `attribute`; the methods are `FUNCTION_METHODS`.
      chunk: clips, or points of a mean, run together. Changes memory, not results.

    Raises:
      ValueError: as `attribute`; or the function returns anything but one row of logits.
    """
    given = _options(_FUNCTION_METHODS, method, options)
    batch, single = batch_of(magnitude)
    found = jax.eval_shape(function, jax.ShapeDtypeStruct(batch.shape[1:], jnp.float32))
    if not isinstance(found, jax.ShapeDtypeStruct) or len(found.shape) != 1:
        raise SettingError(f"function must return logits, shape (classes,), of one clip (freq, time), not {found}")
    model = _Model(None, None, _logits_of_function(function), _count("chunk", chunk))
    return _by_clips(model, batch, single, target, _FUNCTION_METHODS[method], method, given)


class _Model(NamedTuple):
    """What is explained: logits(variables, batch) → (clips, classes), and how many clips of it bound the memory."""

    network: Network | None
    variables: Any
    logits: _Logits
    together: int


@functools.lru_cache(maxsize=32)
def _logits_of(network: Network, back: str = "gradient") -> _Logits:
    """The network's logits as one and the same function whenever it is asked for, so that nothing is compiled twice."""

    def logits(variables: Any, batch: jax.Array) -> jax.Array:
        found: Any = network.apply(variables, batch, back=back)
        return found[0]

    return logits


@functools.lru_cache(maxsize=32)
def _logits_of_function(function: Callable[[jax.Array], jax.Array]) -> _Logits:
    return lambda _, batch: jax.vmap(function)(batch)


_PER_CLIP = ("baseline", "fill")
"""Options that may differ from clip to clip."""


def _options(methods: Mapping[str, Callable[..., _Found]], method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a method, by name."""
    if method not in methods:
        raise SettingError(f"method must be one of {', '.join(methods)}, not {method!r}")
    parameters = inspect.signature(methods[method]).parameters.values()
    known = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    for name in given:
        if name not in known:
            raise SettingError(f'method "{method}" has {_listed(known)}, not {name!r}')
    return known | dict(given)


def _listed(known: Mapping[str, Any]) -> str:
    return f"the options {', '.join(known)}" if known else "no options"


def _by_clips(
    model: _Model,
    batch: Any,
    single: bool,
    target: Any,
    run: Callable[..., _Found],
    method: str,
    options: dict[str, Any],
) -> Attribution:
    """Runs so many clips at once as bound the memory."""
    clips, group = len(batch), min(len(batch), model.together)
    classes = jax.eval_shape(model.logits, model.variables, batch[:1]).shape[-1]
    targets = targets_of(target, clips, classes)
    options = {
        name: _spread_over(batch, name, value) if name in _PER_CLIP else value for name, value in options.items()
    }
    images, logits, owed = [], [], []
    for first in range(0, clips, group):
        rows = np.minimum(np.arange(first, first + group), clips - 1)  # whole groups, so that a rest compiles nothing
        part = {name: value[rows] if name in _PER_CLIP else value for name, value in options.items()}
        clip, chosen = jnp.asarray(batch[rows]), jnp.asarray(targets[rows])
        image, due = run(model, clip, chosen, **part)
        images.append(image)
        logits.append(_logit(model.logits, model.variables, clip, chosen))
        owed.append(due)

    def whole(parts: list[Any]) -> jax.Array:
        joined = jnp.concatenate(parts)[:clips]
        return joined[0] if single else joined

    due = None if owed[0] is None else whole(owed)
    return Attribution(whole(images), whole(logits), due, method, options)


def targets_of(target: Any, clips: int, classes: int) -> np.ndarray:
    """A class for every clip, int32."""
    found = np.asarray(target)
    if found.dtype.kind not in "iu" or found.shape not in ((), (clips,)):
        raise SettingError(
            f"target must be a class, or one for each of {clips} clips, as whole numbers, not {target!r}"
        )
    wrong = found[(found < 0) | (found >= classes)] if found.ndim else found[(found < 0) or (found >= classes), None]
    if wrong.size:
        raise SettingError(f"class {wrong.flat[0]} does not exist: there are classes 0 to {classes - 1}")
    return np.broadcast_to(found, clips).astype(np.int32)


def _spread_over(batch: Any, name: str, value: Any) -> np.ndarray:
    """A number or an array as (clips, freq, time)."""
    try:
        return np.broadcast_to(np.asarray(value, np.float32), batch.shape)
    except ValueError:
        raise SettingError(f"{name} must be broadcast to {batch.shape}, not of shape {np.shape(value)}") from None


@functools.partial(jax.jit, static_argnums=0)
def _logit(logits: _Logits, variables: Any, batch: Any, targets: Any) -> jax.Array:
    """The target's logit, (clips,)."""
    return jnp.take_along_axis(logits(variables, batch), targets[:, None], axis=1)[:, 0]


@functools.partial(jax.jit, static_argnums=0)
def _slope(logits: _Logits, variables: Any, batch: Any, targets: Any) -> jax.Array:
    """The gradient of the target's logit, (clips, freq, time)."""
    return jax.grad(lambda x: _logit(logits, variables, x, targets).sum())(batch)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _mean_slope(
    logits: _Logits,
    point: Callable[[jax.Array, Any, jax.Array], jax.Array],
    chunk: int,
    variables: Any,
    batch: jax.Array,
    targets: jax.Array,
    given: Any,
    places: jax.Array,
    weights: jax.Array,
) -> jax.Array:
    """Σ weights · gradient at point(batch, given, place), `chunk` places at a time."""
    short = -len(places) % chunk
    places = jnp.pad(places, (0, short), mode="edge").reshape(-1, chunk)
    weights = jnp.pad(weights, (0, short)).reshape(-1, chunk)

    def add(total: jax.Array, row: Any) -> tuple[jax.Array, None]:
        slopes = jax.vmap(lambda place: _slope(logits, variables, point(batch, given, place), targets))(row[0])
        return total + jnp.tensordot(row[1], slopes, 1), None

    return lax.scan(add, jnp.zeros_like(batch), (places, weights))[0]


def _gradient(model: _Model, batch: jax.Array, targets: jax.Array) -> _Found:
    return _slope(model.logits, model.variables, batch, targets), None


def _gradient_x_input(model: _Model, batch: jax.Array, targets: jax.Array) -> _Found:
    return batch * _slope(model.logits, model.variables, batch, targets), None


def _integrated_gradients(
    model: _Model, batch: jax.Array, targets: jax.Array, *, baseline: Any = 0.0, steps: int = 64
) -> _Found:
    """∫ gradient dα on the line from the baseline, times the difference (Sundararajan et al. 2017, equation 1)."""
    nodes = np.polynomial.legendre.leggauss(_count("steps", steps))
    chunk = max(1, min(steps, model.together // len(batch)))
    baseline, places, weights = (jnp.asarray(x, jnp.float32) for x in (baseline, (1 + nodes[0]) / 2, nodes[1] / 2))
    slope = _mean_slope(model.logits, _on_the_line, chunk, model.variables, batch, targets, baseline, places, weights)
    start, end = (_logit(model.logits, model.variables, x, targets) for x in (baseline, batch))
    return (batch - baseline) * slope, end - start


def _on_the_line(batch: jax.Array, baseline: Any, place: jax.Array) -> jax.Array:
    return baseline + place * (batch - baseline)


def _smoothgrad(
    model: _Model, batch: jax.Array, targets: jax.Array, *, noise: float = 0.15, samples: int = 32, seed: int = 0
) -> _Found:
    """The mean gradient of noisy clips; all clips meet the same noise, so that none depends on its company."""
    if not noise >= 0:
        raise SettingError(f"noise must be at least 0, not {noise}")
    chunk = max(1, min(_count("samples", samples), model.together // len(batch)))
    size = jnp.float32(noise) * (batch.max(axis=(1, 2), keepdims=True) - batch.min(axis=(1, 2), keepdims=True))
    given, weights = (size, jax.random.key(seed)), jnp.full(samples, 1 / samples)
    places = jnp.arange(samples)
    return _mean_slope(model.logits, _noisy, chunk, model.variables, batch, targets, given, places, weights), None


def _noisy(batch: jax.Array, given: Any, place: jax.Array) -> jax.Array:
    size, key = given
    return batch + size * jax.random.normal(jax.random.fold_in(key, place), (1, *batch.shape[1:]))


def _lrp(
    model: _Model,
    batch: jax.Array,
    targets: jax.Array,
    *,
    composite: str = "gamma_flat",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    box: tuple[float | None, float | None] = (0.0, None),
) -> _Found:
    assert model.network is not None
    if composite not in COMPOSITES:
        raise SettingError(f"composite must be one of {', '.join(COMPOSITES)}, not {composite!r}")
    if not (epsilon > 0 and gamma >= 0):
        raise SettingError(f"epsilon must be above 0, and gamma at least 0, not {epsilon} and {gamma}")
    ends = box if isinstance(box, list | tuple) and len(box) == 2 else (1.0, 0.0)
    if None not in ends and not ends[0] < ends[1]:  # type: ignore[operator]
        raise SettingError(f"box must be the lowest and the highest magnitude, rising, or None, not {box!r}")
    low, high = (
        edge(batch, axis=(1, 2), keepdims=True) if given is None else jnp.full((1, 1, 1), given, jnp.float32)
        for edge, given in zip((jnp.min, jnp.max), box, strict=True)
    )
    network, variables = fold(model.network, model.variables)
    rules = {"composite": composite, "epsilon": epsilon, "gamma": gamma, "low": low, "high": high}
    return relevance(network, variables, batch, targets, **rules), _logit(model.logits, model.variables, batch, targets)


def _occlusion(
    model: _Model,
    batch: jax.Array,
    targets: jax.Array,
    *,
    patch: tuple[int, int] = (16, 16),
    stride: tuple[int, int] | None = None,
    fill: Any = 0.0,
) -> _Found:
    size = (batch.shape[1], batch.shape[2])
    window = _pair("patch", patch)
    window = (min(window[0], size[0]), min(window[1], size[1]))
    steps = window if stride is None else _pair("stride", stride)
    if any(s > n for s, n in zip(steps, window, strict=True)):
        raise SettingError(f"stride must be no larger than the patch {window}, not {steps}")
    first, second = (np.arange(-(-(n - p) // s) + 1) * s for n, p, s in zip(size, window, steps, strict=True))
    places = np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, 2)
    chunk = max(1, min(len(places), model.together // len(batch)))
    short = -len(places) % chunk
    real = jnp.asarray(np.arange(len(places) + short) < len(places), jnp.float32).reshape(-1, chunk)
    rows = jnp.asarray(np.pad(places, [(0, short), (0, 0)], mode="edge")).reshape(-1, chunk, 2)
    return _occluded(model.logits, window, model.variables, batch, targets, jnp.asarray(fill), rows, real), None


@functools.partial(jax.jit, static_argnums=(0, 1))
def _occluded(
    logits: _Logits,
    patch: tuple[int, int],
    variables: Any,
    batch: jax.Array,
    targets: jax.Array,
    fill: jax.Array,
    rows: jax.Array,
    real: jax.Array,
) -> jax.Array:
    """The mean over the patches that cover a cell of the logit with all there minus the logit without the patch."""
    clips, freq, time = batch.shape
    whole = _logit(logits, variables, batch, targets)

    def add(total: Any, row: Any) -> tuple[Any, None]:
        starts, counts = row
        inside = [
            (np.arange(n)[None] >= starts[:, axis, None]) & (np.arange(n)[None] < starts[:, axis, None] + patch[axis])
            for axis, n in enumerate((freq, time))
        ]
        covered = inside[0][:, :, None] & inside[1][:, None]
        holed = jnp.where(covered[:, None], fill[None], batch[None])
        asked = _logit(logits, variables, holed.reshape(-1, freq, time), jnp.tile(targets, len(starts)))
        lost = (whole[None] - asked.reshape(-1, clips)) * counts[:, None]
        weights = covered * counts[:, None, None]
        found = jnp.einsum("pc,pft->cft", lost, covered.astype(jnp.float32), precision="highest")
        return (total[0] + found, total[1] + weights.sum(axis=0)), None

    (total, count), _ = lax.scan(add, (jnp.zeros_like(batch), jnp.zeros((freq, time))), (rows, real))
    return total / count[None]


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise SettingError(f"{name} must be a whole number of at least 1, not {value!r}")
    return int(value)


def _pair(name: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise SettingError(f"{name} must be two whole numbers, of bins and of frames, not {value!r}")
    return _count(name, value[0]), _count(name, value[1])


def methods_of(network: Network) -> list[str]:
    """Those of `METHODS` that have a rule for every activation of a network that they go back through."""
    ruled = ("guided", "deconvnet")
    return [m for m in METHODS if m not in ruled or set(_back_through(network, m)) <= set(RECTIFIERS)]


def _back_through(network: Network, method: str) -> list[str]:
    """Activations that a method with a rule of its own meets: the deconvnet begins below the dense layers."""
    dense = [d.activation for d in network.dense if isinstance(d, Dense)] if method == "guided" else []
    return [*(block.activation for block in network.blocks), *dense]


def _guided(model: _Model, batch: jax.Array, targets: jax.Array) -> _Found:
    network = model.network
    assert network is not None
    check_method("guided", _back_through(network, "guided"))
    return _slope(_logits_of(network, "guided"), model.variables, batch, targets), None


def _deconvnet(
    model: _Model,
    batch: jax.Array,
    targets: jax.Array,
    *,
    layer: int | None = None,
    rule: Rule = DECONVNET,
    replacement: Any = "zero",
) -> _Found:
    network = model.network
    assert network is not None
    layer = len(network.blocks) if layer is None else layer
    change = effects(network, model.variables, batch, layer, replacement=replacement)
    speaks = -jnp.take_along_axis(change, targets[:, None, None], axis=2)[..., 0]
    images = deconvolve(network, model.variables, batch, layer, rule=rule)
    return jnp.einsum("cf,cf...->c...", speaks, images, precision="highest"), None


def _grad_cam(
    model: _Model, batch: jax.Array, targets: jax.Array, *, layer: int | None = None, relu: bool = True
) -> _Found:
    network = model.network
    assert network is not None
    layer = len(network.blocks) if layer is None else layer
    check_features(network.blocks, layer, None)
    return _cam(network, layer, relu, model.variables, batch, targets), None


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _cam(network: Network, layer: int, relu: bool, variables: Any, batch: Any, targets: Any) -> jax.Array:
    """Maps weighted by their mean gradient (equations 1 and 2), bilinear at the input's size."""
    maps, entered, logits = from_layer(network, variables, batch, layer)
    slope = jax.grad(lambda x: jnp.take_along_axis(logits(entered(x)), targets[:, None], axis=1).sum())(maps)
    cam = jnp.einsum("cftm,cm->cft", maps, slope.mean(axis=(1, 2)), precision="highest")
    return jax.image.resize(jax.nn.relu(cam) if relu else cam, batch.shape, "bilinear")


_METHODS: dict[str, Callable[..., _Found]] = {
    "gradient": _gradient,
    "gradient_x_input": _gradient_x_input,
    "integrated_gradients": _integrated_gradients,
    "guided": _guided,
    "deconvnet": _deconvnet,
    "grad_cam": _grad_cam,
    "smoothgrad": _smoothgrad,
    "lrp": _lrp,
    "occlusion": _occlusion,
}

_FUNCTION_METHODS = {
    name: _METHODS[name] for name in ("gradient", "gradient_x_input", "integrated_gradients", "smoothgrad", "occlusion")
}

METHODS = tuple(_METHODS)

FUNCTION_METHODS = tuple(_FUNCTION_METHODS)
"""Those that need no more of a network than its logits and their gradient."""
