"""How a network is trained: the fields of `config.train`, the optimiser that they describe, and what a step draws.

The defaults are the paper's run as it always was here: Adam, every clip once in an epoch, nothing averaged.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import optax

from deconv_jax.data.store import Clips
from deconv_jax.data.tracks import Track
from deconv_jax.errors import SettingError

OPTIMISERS = ("adam", "adamw")
SCHEDULES = ("constant", "cosine")
SAMPLINGS = ("clips", "artists")
KEEPS = ("best", "last")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings of a training run.

    Attributes:
      epochs: how often every clip is seen, if `steps` is 0.
      steps: length of the training in steps, in place of epochs.
      validation_steps: steps from one validation to the next, and so from one line of metrics.jsonl to the next; 0:
        as many as it takes to see every clip once.
      batch_size: clips of a step.
      learning_rate: the highest one.
      optimiser: "adam", or "adamw" with `weight_decay` of the kernels (Loshchilov & Hutter 2019).
      schedule: "constant", or "cosine": down to nothing at the last step; either after `warmup_steps` in which the
        rate rises from nothing.
      label_smoothing: share of each label that is spread over all classes.
      average: decay of the running average of the weights that is validated and kept; 0 for none. In the first steps
        it is shorter: (1 + step) / (10 + step) if that is less.
      sampling: "clips": each once in an epoch, in an order of its own. "artists": a class by turns, then an artist of
        it, a song of theirs and a clip of that, each uniformly.
      crop_seconds: length of the random stretch of a clip that is seen; 0 for the whole clip.
      patience: validations without a lower loss after which training ends; 0: never before its time.
      enough: share of the validation part's clips, named right at two validations running, at which training ends; 0:
        never before its time.
      keep: the weights that are kept: those of the "best" validation loss, or the "last".
      keep_all: beside them, those of every validation, and those before training: what a run heard as it learnt.
      teachers: folders of runs or of network files (or names of networks). If there are any, what is learnt are not
        the labels but the mean of these networks' probabilities for the same, changed, clip (Hinton et al. 2015).
      checkpoint_steps: steps from one checkpoint to the next, besides those at validations.
    """

    epochs: int = 3
    steps: int = 0
    validation_steps: int = 0
    batch_size: int = 16
    learning_rate: float = 1e-3
    optimiser: str = "adam"
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: str = "constant"
    label_smoothing: float = 0.0
    average: float = 0.0
    sampling: str = "clips"
    crop_seconds: float = 0.0
    patience: int = 0
    enough: float = 0.0
    keep: str = "best"
    keep_all: bool = False
    checkpoint_steps: int = 200
    teachers: tuple = ()

    def __post_init__(self):
        least = {"epochs": 1, "batch_size": 1, "checkpoint_steps": 1}
        for field in dataclasses.fields(self):
            name, value = f"config.train.{field.name}", getattr(self, field.name)
            if field.type is int and not (isinstance(value, int) and value >= least.get(field.name, 0)):
                raise SettingError(f"{name} must be at least {least.get(field.name, 0)}, not {value}")
            if field.type is bool and not isinstance(value, bool):
                raise SettingError(f"{name} must be True or False, not {value!r}")
            if field.type is float and not (isinstance(value, int | float) and 0 <= value < np.inf):
                raise SettingError(f"{name} must be at least 0, not {value}")
        if not self.learning_rate > 0:
            raise SettingError(f"config.train.learning_rate must be above 0, not {self.learning_rate}")
        choices = {"optimiser": OPTIMISERS, "schedule": SCHEDULES, "sampling": SAMPLINGS, "keep": KEEPS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise SettingError(
                    f"config.train.{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}"
                )
        if not isinstance(self.teachers, tuple) or not all(isinstance(name, str) for name in self.teachers):
            raise SettingError(
                f"config.train.teachers must be folders of networks, as in ('runs/a', 'runs/b'), not {self.teachers!r}"
            )
        if self.teachers and self.label_smoothing:
            raise SettingError("config.train.label_smoothing means nothing with config.train.teachers: set one of them")
        for name in ("label_smoothing", "average"):
            if getattr(self, name) >= 1:
                raise SettingError(f"config.train.{name} must be below 1, not {getattr(self, name)}")
        if self.enough > 1:
            raise SettingError(f"config.train.enough is a share, at most 1, not {self.enough}")
        if self.weight_decay and self.optimiser != "adamw":
            raise SettingError("config.train.weight_decay needs config.train.optimiser=adamw")
        if self.validation_steps and not self.steps:
            raise SettingError("config.train.validation_steps needs config.train.steps in place of epochs")

    def rounds(self, clips: int) -> tuple[int, int]:
        """Steps from one validation to the next, and of the whole training, for so many training clips."""
        epoch = clips // min(self.batch_size, clips)
        return self.validation_steps or epoch, self.steps or self.epochs * epoch

    def optimiser_for(self, steps: int) -> optax.GradientTransformation:
        """The optimiser of a training of so many steps."""
        rate: float | Callable = self.learning_rate
        if self.schedule == "cosine":
            rate = optax.cosine_decay_schedule(self.learning_rate, max(1, steps - self.warmup_steps))
        if self.warmup_steps:
            rising = optax.linear_schedule(0.0, self.learning_rate, self.warmup_steps)
            after = rate if callable(rate) else optax.constant_schedule(rate)
            # From the first step on: one at a rate of nothing would be for nothing.
            rate = _shifted(optax.join_schedules([rising, after], [self.warmup_steps]))
        if self.optimiser == "adam":
            return optax.adam(rate)
        return optax.adamw(
            rate, weight_decay=self.weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
        )


def _shifted(schedule: Callable) -> Callable:
    return lambda count: schedule(count + 1)


class Batches:
    """Which clips each step sees; a function of seed and step alone.

    Args:
      clips: of the training part; tracks: its songs, for their artists.
      size: clips of a batch; seed: of the draws; sampling: as in `Recipe`.
    """

    def __init__(self, clips: Clips, tracks: list[Track], size: int, seed: int, sampling: str):
        self.count, self.size, self.seed, self.sampling = len(clips.labels), size, seed, sampling
        self._order: tuple[int, np.ndarray] | None = None
        if sampling == "artists":
            self._tree = _by_artist(clips, tracks)

    def __getitem__(self, step: int) -> np.ndarray:
        """Indices of the clips of a step, counted from 0; shape (size,)."""
        if self.sampling == "artists":
            return self._drawn(np.random.Generator(np.random.PCG64([self.seed, 4, step])))
        steps = self.count // self.size
        epoch, index = divmod(step, steps)
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(self.count)
        return np.sort(self._order[1][index * self.size : (index + 1) * self.size])

    def _drawn(self, rng: np.random.Generator) -> np.ndarray:
        classes = len(self._tree)
        turns = np.concatenate([rng.permutation(classes) for _ in range(-(-self.size // classes))])[: self.size]
        chosen = []
        for label in turns:
            artists = self._tree[label]
            songs = artists[rng.integers(len(artists))]
            clips = songs[rng.integers(len(songs))]
            chosen.append(clips[rng.integers(len(clips))])
        return np.sort(np.asarray(chosen))


def _by_artist(clips: Clips, tracks: list[Track]) -> list[list[list[np.ndarray]]]:
    """Classes → artists → songs → indices of their clips; a song without an artist is by one of its own."""
    tree: dict[int, dict[str | int, list[np.ndarray]]] = {}
    edges = np.flatnonzero(np.diff(clips.songs)) + 1
    for some in np.split(np.arange(len(clips.songs)), edges):
        label, song = int(clips.labels[some[0]]), int(clips.songs[some[0]])
        tree.setdefault(label, {}).setdefault(tracks[song].group or song, []).append(some)
    return [list(tree[label].values()) for label in sorted(tree)]
