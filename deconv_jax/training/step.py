"""One compiled step of training, spectrograms and augmentation included, and the predictions of a network."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from deconv_jax.data.store import Clips
from deconv_jax.network.model import Network, initial_variables
from deconv_jax.network.trained import Trained
from deconv_jax.sound.front_end import FrontEnd, analyse
from deconv_jax.system import runtime
from deconv_jax.system.devices import Devices, ahead, all_devices
from deconv_jax.training.augmentation import Augment, change_rows, change_waveforms, magnitudes_of
from deconv_jax.training.recipe import Recipe
from deconv_jax.training.teachers import opinion
from deconv_jax.training.workdir import State


def make_train_step(
    network: Network,
    optimiser: optax.GradientTransformation,
    front_end: FrontEnd,
    class_weights: np.ndarray,
    seed: int,
    devices: Devices | None = None,
    size: int | None = None,
    recipe: Recipe | None = None,
    augment: Augment | None = None,
    teachers: Sequence[Trained] = (),
) -> Callable[[State, Any, Any], tuple[State, jax.Array, jax.Array]]:
    """One compiled step of gradient descent, spectrograms included.

    Args:
      class_weights: weight of each class in the loss, shape (classes,), so that a rare genre counts as much as a
        common one.
      seed: of dropout and augmentation; the step's number is folded in.
      devices: that share the batch; None for one.
      size: clips of a batch; what comes after them only fills up the devices, and counts for nothing.
      recipe: length of crops, label smoothing and averaging of weights.
      augment: changes of the clips.
      teachers: networks whose mean probabilities are learnt in the place of the labels.

    Returns:
      A function (state, waveforms int16 (clips, samples), labels (clips,)) → (state, loss, number right).
    """
    recipe, augment = recipe or Recipe(), augment or Augment()
    heard = _heard(front_end, devices, recipe, augment, size)
    said = opinion(teachers)

    def step(state, waveforms, labels, taught, begun, weights):
        clips = len(labels) if size is None else size
        key = jax.random.fold_in(jax.random.wrap_key_data(begun), state["step"])
        magnitude = heard(waveforms, labels, key)
        targets = said(taught, magnitude) if teachers else None

        def loss_of(params):
            variables = {k: v for k, v in state.items() if k in ("input", "batch_stats")} | {"params": params}
            (logits, _), changed = network.apply(
                variables, magnitude, train=True, counted=clips, rngs={"dropout": key}, mutable=["batch_stats"]
            )
            losses = _losses(logits, labels, recipe.label_smoothing, targets)
            return jnp.mean((losses * weights[labels])[:clips]), (logits, changed)

        (loss, (logits, changed)), gradient = jax.value_and_grad(loss_of, has_aux=True)(state["params"])
        updates, opt_state = optimiser.update(gradient, state["opt_state"], state["params"])
        right = jnp.sum((logits.argmax(axis=-1) == labels)[:clips])
        params = optax.apply_updates(state["params"], updates)
        new = state | changed | {"params": params, "opt_state": opt_state, "step": state["step"] + 1}
        if recipe.average:
            decay = jnp.minimum(recipe.average, (1.0 + state["step"]) / (10.0 + state["step"]))
            kept = {k: new[k] for k in state["average"]}
            new["average"] = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state["average"], kept)
        return new, loss, right

    options = runtime.KEEP_BARRIERS if jax.default_backend() == "cpu" else None
    out = None if devices is None else devices.whole()
    compiled = jax.jit(step, donate_argnums=0, out_shardings=out, compiler_options=options)
    taught = [teacher.variables if devices is None else devices.replicate(teacher.variables) for teacher in teachers]
    # Arguments, not constants: other seeds, folds and music of the same sizes find the program compiled.
    more = taught, np.asarray(jax.random.key_data(jax.random.key(seed))), np.asarray(class_weights, np.float32)
    return lambda state, waveforms, labels: compiled(state, waveforms, labels, *more)


def _losses(logits: jax.Array, labels: jax.Array, smoothing: float, targets: jax.Array | None) -> jax.Array:
    if targets is not None:
        return optax.softmax_cross_entropy(logits, targets)
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def _heard(front_end: FrontEnd, devices: Devices | None, recipe: Recipe, augment: Augment, size: int | None):
    """(waveforms int16, labels, key) → what the network sees of the batch in training."""
    each_clip = (lambda function: function) if devices is None else devices.each_clip
    if not (augment.any or recipe.crop_seconds):
        whole = each_clip(lambda waveforms: analyse(front_end, waveforms)[1])
        return lambda waveforms, labels, key: whole(waveforms)
    samples = round(recipe.crop_seconds * front_end.sample_rate) or front_end.clip_samples
    rows_of = each_clip(lambda waveforms: magnitudes_of(front_end, waveforms))

    def changed(waveforms, labels, key):
        count = len(labels) if size is None else size
        waves, rows = jax.random.split(jax.random.fold_in(key, 1))
        sound = jnp.asarray(waveforms, jnp.float32) / 32768
        sound = change_waveforms(sound, labels, samples, augment, waves, count)
        return change_rows(front_end, rows_of(sound), augment, rows, count)

    return changed


def predict(
    network: Network, variables, front_end: FrontEnd, clips: Clips, batch: int = 16, devices: Devices | None = None
) -> np.ndarray:
    """Probabilities of every clip, shape (clips, classes).

    Args:
      variables: on the devices, if there are several (`Devices.replicate`).
      batch: clips at a time.
      devices: that share a batch, each with the same share; by default all there are.
    """
    devices = devices or all_devices()
    apply = _probabilities(network, front_end, devices)
    size = devices.rows(batch)
    indices = np.arange(len(clips.labels))
    batches = (indices[first : first + size] for first in range(0, len(indices), size))

    def read(some):
        return devices.deal(
            size, (front_end.clip_samples,), np.int16, lambda first, last: clips.waveforms[some[first:last]]
        )

    rows = [np.asarray(apply(variables, waveforms)) for waveforms in ahead(read, batches)]
    return np.concatenate(rows)[: len(indices)]


@functools.lru_cache(maxsize=8)
def _probabilities(network: Network, front_end: FrontEnd, devices: Devices) -> Callable:
    heard = devices.each_clip(lambda waveforms: analyse(front_end, waveforms)[1])
    return jax.jit(lambda v, w: jax.nn.softmax(network.apply(v, heard(w))[0]), out_shardings=devices.whole())


def initial_state(
    network: Network, optimiser, front_end: FrontEnd, clips: Clips, seed: int, recipe: Recipe | None = None
) -> State:
    """Fresh weights, and the input's mean and scale from clips spread over the training part.

    The linear magnitude is divided by one number, its root mean square, and stays a magnitude: the phase reading
    of auralisation needs one. A logarithm of it is standardised for each frequency.
    """
    some = clips.waveforms[np.unique(np.linspace(0, len(clips.labels) - 1, 256).astype(int))]
    rows = [np.asarray(analyse(front_end, some[i : i + 16])[1], np.float64) for i in range(0, len(some), 16)]
    magnitude = np.concatenate(rows)
    if not front_end.linear:
        mean = magnitude.mean(axis=(0, 2))[:, None]
        scale = np.maximum(magnitude.std(axis=(0, 2)), 1e-3)[:, None]
    else:
        mean, scale = np.zeros((1, 1)), np.sqrt(np.mean(magnitude**2)).reshape(1, 1)
    weights = initial_variables(network, (front_end.bins, front_end.clip_frames), seed)
    state: State = weights | {
        "input": {"mean": jnp.asarray(mean, jnp.float32), "scale": jnp.asarray(scale, jnp.float32)},
        "opt_state": optimiser.init(weights["params"]),
        "step": jnp.zeros((), jnp.int32),
    }
    if recipe and recipe.average:
        state["average"] = jax.tree.map(np.asarray, weights)
    return state
