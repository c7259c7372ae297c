"""Networks that teach another one: several seeds become one network (distillation)."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from deconv_jax.errors import InputError
from deconv_jax.network.file import DESCRIPTION
from deconv_jax.network.trained import Trained
from deconv_jax.sound.front_end import FrontEnd
from deconv_jax.system import files
from deconv_jax.training import workdir as wd
from deconv_jax.training.prepare import Music


def load_teachers(folders: Sequence[str], music: Music, front_end: FrontEnd) -> list[Trained]:
    """Loads the networks that `config.train.teachers` names.

    Raises:
      InputError: one cannot be loaded, names other labels, hears otherwise, flattens its maps, or was trained on songs
        that this run is validated or tested on.
    """
    held_out = {track.name for part in ("validation", "test") for track in music.parts[part]}
    teachers = []
    for folder in folders:
        what = f"config.train.teachers: {files.shown(folder)}"
        is_run = (Path(folder) / "config.json").is_file()
        teacher = wd.load(folder) if is_run else wd.load(network=folder)
        if teacher.labels != music.labels:
            raise InputError(f"{what}: names {', '.join(teacher.labels)}, and this run {', '.join(music.labels)}")
        if dataclasses.replace(teacher.front_end, clip_seconds=front_end.clip_seconds) != front_end:
            raise InputError(f"{what}: has another front end than config.front_end; teachers hear what is learnt from")
        if teacher.network.head == "flatten" and teacher.front_end != front_end:
            raise InputError(f"{what}: flattens its maps, so it fits its own length of clip only")
        corpus = (Path(folder) if is_run else Path(folder).absolute().parent) / "corpus.json"
        if (is_run or (Path(folder) / DESCRIPTION).is_file()) and corpus.is_file():
            heard = held_out & set(wd.read_json(corpus, "training run")["songs"]["train"])
            if heard:
                raise InputError(
                    f"{what}: was trained on {len(heard)} song(s) that this run holds out, such as {min(heard)}; give "
                    "all runs the same config.data.seed, config.data.fold and config.data.split"
                )
        teachers.append(teacher)
    return teachers


def opinion(teachers: Sequence[Trained]) -> Callable[[list, jax.Array], jax.Array]:
    """(variables of each, what is seen (clips, freq, time)) → their mean probabilities, shape (clips, classes)."""
    networks = [teacher.network for teacher in teachers]

    def mean(variables: list, magnitude: jax.Array) -> jax.Array:
        said = [jax.nn.softmax(n.apply(v, magnitude)[0]) for n, v in zip(networks, variables, strict=True)]
        return jnp.mean(jnp.stack(said), axis=0)

    return mean
