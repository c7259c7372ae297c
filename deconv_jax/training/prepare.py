"""What a training run is made of: its music, divided and stored as clips, and the folder that is bound to it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from deconv_jax.data.store import FAILED_SHARE, Clips, Store, load_clips, store_clips, write_skipped
from deconv_jax.data.tracks import (
    PARTS,
    Track,
    fewer_artists,
    index_folder,
    index_table,
    shares_of,
    shuffle_labels,
    split,
)
from deconv_jax.errors import InputError, SettingError
from deconv_jax.music import builtin
from deconv_jax.network.file import upgraded
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block
from deconv_jax.sound.front_end import FrontEnd
from deconv_jax.system import files, hosts, runtime
from deconv_jax.training import workdir as wd
from deconv_jax.training.augmentation import Augment
from deconv_jax.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Music:
    """The music of a run.

    Attributes:
      labels: names of the classes.
      parts: part → tracks, with the labels that are trained.
      clips: part → clips.
      artists: part → artist of every track, "" where it is not known.
      skipped: (name, reason) of what could not be used.
    """

    labels: list[str]
    parts: dict[str, list[Track]]
    clips: dict[str, Clips]
    artists: dict[str, list[str]]
    skipped: list[tuple[str, str]]


def settings(config: dict) -> tuple[Recipe, Augment]:
    """`config.train` and `config.augment`, checked against the network and the front end that are to be trained.

    Raises:
      ValueError: a setting is unknown, wrong, or does not fit; the message names it.
    """
    _check_data(config)
    recipe, augment = _built(Recipe, config, "train"), _built(Augment, config, "augment")
    _check(recipe, augment, wd.network(config, 2), wd.front_end(config))
    return recipe, augment


MOST = 2**32 - 1
"""The largest seed: JAX would take a larger one for another, smaller one."""


def _check_data(config: dict) -> None:
    """Whether the sections and the numbers are there by which music is found, divided and cut."""
    for section in ("front_end", "network", "data"):
        if not isinstance(config.get(section), dict):
            raise SettingError(f"config.{section} is missing; see configs/genre3.py")
    data = config["data"]
    for name, value, least in (
        ("seed", config.get("seed"), 0),
        ("data.seed", data.get("seed", -1), -1),
        ("data.artists", data.get("artists", 0), 0),
        ("data.clips_per_song", data.get("clips_per_song"), 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST:
            raise SettingError(f"config.{name} must be a whole number from {least} to {MOST:,}, not {value!r}")
    if "root" not in data:
        raise SettingError("config.data.root is missing; see configs/genre3.py")
    shares_of(data.get("split", ()))


def _built(kind, config: dict, section: str) -> Any:
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in config.get(section, {}).items()}
    known = [f.name for f in dataclasses.fields(kind)]
    if unknown := sorted(set(fields) - set(known)):
        raise SettingError(f"config.{section}.{unknown[0]} is unknown; known are {', '.join(known)}")
    return kind(**fields)


def _check(recipe: Recipe, augment: Augment, network: Network, front_end: FrontEnd) -> None:
    if network.final != "softmax" or not network.output:
        raise SettingError("config.network: bin/train trains networks with an output layer and softmax only")
    if front_end.kind == "cqt":
        raise SettingError(
            "config.front_end: bin/train computes spectrograms as it goes and has no constant-Q transform"
        )
    if recipe.crop_seconds > front_end.clip_seconds:
        raise SettingError(
            f"config.train.crop_seconds must be at most config.front_end.clip_seconds ({front_end.clip_seconds:g}), "
            f"not {recipe.crop_seconds:g}"
        )
    if recipe.crop_seconds not in (0, front_end.clip_seconds) and network.head == "flatten":
        raise SettingError(
            "config.train.crop_seconds: a network that flattens its maps fits one length only; train on whole clips, "
            "or with config.network.head=average"
        )


def prepare(config: dict, front_end: FrontEnd, workdir: Path, cache_dir) -> Music:
    """Finds the music, binds the workdir to it, and stores its clips.

    Raises:
      InputError: the music cannot be used, or is not what the run in the workdir was begun with.
    """
    data = config["data"]
    tracks, left_out = _tracks(config, cache_dir)
    chosen = data.get("seed", -1)
    parts = split(tracks, data["split"], config["seed"] if chosen < 0 else chosen, data.get("fold", ""))
    if data.get("artists"):
        parts = fewer_artists(parts, data["artists"], config["seed"])
    labels = sorted({t.label for t in tracks})
    corpus: dict[str, Any] = {"labels": labels, "songs": {p: [t.name for t in ts] for p, ts in parts.items()}}
    artists = {p: [t.group for t in ts] for p, ts in parts.items()}
    if any(map(any, artists.values())):
        corpus["groups"] = artists
    if hosts.first():
        if (workdir / "corpus.json").is_file() and wd.read_json(workdir / "corpus.json", "run") != corpus:
            raise InputError(
                f"{files.shown(workdir)}: was begun with other songs than are there now; "
                "restore them, or name another workdir",
                "workdir",
            )
        # Not before: a first command with a wrong name of a folder must not bind the workdir to it.
        if not (workdir / "config.json").is_file():
            files.write_json(workdir / "config.json", config)
        files.write_json(workdir / "corpus.json", corpus)
    if data.get("shuffle_labels"):
        parts = shuffle_labels(parts, config["seed"])
    clips, skipped = _clips(config, parts, labels, front_end, workdir, cache_dir)
    skipped = left_out + skipped
    if hosts.first():
        write_skipped(workdir / "skipped.csv", skipped)
    for name, reason in skipped:
        logging.warning("skipped %s: %s", name, reason)
    return Music(labels, parts, clips, artists, skipped)


def _clips(config: dict, parts, labels: list[str], front_end: FrontEnd, workdir: Path, cache_dir):
    """`load_clips`; of several processes, each stores its share of the songs before all open the store."""
    folder = Path(cache_dir or runtime.cache_dir()) / "clips"
    store = Store(folder, front_end.sample_rate, front_end.clip_samples, config["data"]["clips_per_song"])
    if hosts.joined():
        songs = [track for tracks in parts.values() for track in tracks]
        store_clips(songs, store, hosts.share())
        hosts.barrier("stored")
    listing = workdir / "skipped.csv" if hosts.first() else None
    failed_share = config["data"].get("failed_share", FAILED_SHARE)
    clips, skipped = load_clips(parts, labels, store, failed_share, listing=listing)
    counts = np.asarray([len(clips[part].labels) for part in PARTS])
    if np.any(hosts.from_first(counts) != counts):
        raise InputError(f"{files.shown(folder.parent)}: holds other clips here than where process 0 runs", "cache_dir")
    return clips, skipped


_ADDED = {"shuffle_labels": False, "index": "", "fold": "", "split_by": "artist", "seed": -1, "artists": 0}
"""Settings of config.data that came after the first version, and what they were before."""


def _before() -> dict[str, dict[str, Any]]:
    """Section → settings that came after the first version, and what they were before."""
    kinds: dict[str, Any] = {"front_end": FrontEnd, "block": Block, "train": Recipe, "augment": Augment}
    fields = {name: {f.name: f.default for f in dataclasses.fields(kind)} for name, kind in kinds.items()}
    networks = {name: getattr(Network, name) for name in ("head", "final", "output")}
    return fields | {"network": networks, "data": _ADDED}


def check_same_run(workdir: Path, config: dict) -> bool:
    """Checks that the run that is here already, if there is one, is this one; True if it was to have fewer epochs.

    Where the learning rate is constant, no step depends on how many there will be: such a run can go on, and ends as
    if it had been begun with so many.
    """
    path = workdir / "config.json"
    if not path.is_file():
        if (workdir / "fold1").is_dir():
            raise InputError(f"{files.shown(workdir)}: holds folds; name another for a single run", "workdir")
        return False
    config = upgraded(json.loads(json.dumps(config)), "config")
    there = upgraded(wd.read_json(path, "run"), files.shown(path))
    _complete(there, config)
    if "failed_share" in config["data"]:
        there["data"]["failed_share"] = config["data"]["failed_share"]  # changes nothing that is trained
    if "keep_all" in config["train"]:
        there["train"]["keep_all"] = config["train"]["keep_all"]  # nor does this: from now on they are kept, or not
    if _goes_on(there, config):
        return True
    if there != config:
        changed = sorted(k for k in _flat(there).items() ^ _flat(config).items())
        name = changed[0][0]
        raise InputError(
            f"{files.shown(workdir)}: holds a run with another config.{name} "
            f"({_flat(there).get(name, 'none')} there, {_flat(config).get(name, 'none')} now); name another workdir, "
            "or delete this one",
            "workdir",
        )
    return False


def lengthen(workdir: Path, config: dict) -> None:
    """Makes a run one of more epochs."""
    logging.info("This run goes on to epoch %d", config["train"]["epochs"])
    (workdir / "report.json").unlink(missing_ok=True)  # first: a run without it is made to its end
    files.write_json(workdir / "config.json", config)


def _goes_on(there: dict, config: dict) -> bool:
    """Whether a run is the beginning of one with more epochs and the same settings otherwise."""
    train = config["train"]
    fewer, more = there["train"].get("epochs"), train.get("epochs")
    longer = isinstance(fewer, int) and isinstance(more, int) and fewer < more
    same = there | {"train": there["train"] | {"epochs": more}} == config
    return longer and same and not train.get("steps", 0) and train.get("schedule", "constant") == "constant"


def _complete(there: dict, config: dict) -> None:
    """Adds to a run's settings those that there were none of when it was begun: it goes on."""
    before = json.loads(json.dumps(_before()))
    places = [(there.setdefault(name, {}), config[name], before[name]) for name in before if name in config]
    for name, block in config["network"].items():
        if isinstance(block, dict) and isinstance(there["network"].get(name), dict):
            places.append((there["network"][name], block, before["block"]))
    for found, given, defaults in places:
        for name in given.keys() & defaults.keys():
            found.setdefault(name, defaults[name])


def _flat(tree, prefix="") -> dict[str, str]:
    if not isinstance(tree, dict):
        return {prefix: json.dumps(tree)}
    return {k: v for key, sub in tree.items() for k, v in _flat(sub, f"{prefix}.{key}".lstrip(".")).items()}


def _tracks(config: dict, cache_dir) -> tuple[list[Track], list[tuple[str, str]]]:
    """The tracks that the settings name, and (name, reason) of those that cannot be used."""
    data = config["data"]
    split_by = data.get("split_by", "artist")
    if split_by not in ("artist", "song"):
        raise SettingError(f"config.data.split_by must be artist or song, not {split_by!r}")
    skipped: list[tuple[str, str]] = []
    if data.get("index"):
        tracks, skipped = index_table(data["index"], data["root"] or None)
    elif data["root"]:
        tracks = index_folder(data["root"])
    else:
        tracks = _builtin(data, cache_dir)
    if split_by == "song":
        tracks = [dataclasses.replace(t, group="") for t in tracks]
    return tracks, skipped


def _builtin(data: dict, cache_dir) -> list[Track]:
    songs = builtin.build(cache_dir or runtime.cache_dir(), songs_per_genre=data["songs_per_genre"])
    return index_folder(songs[0].parents[1], keep=set(songs))
