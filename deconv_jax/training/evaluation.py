"""How good is it: results by clip and by song, how sure they are, and the baselines that a network has to beat."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import librosa
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from deconv_jax.data.store import Clips
from deconv_jax.measures.intervals import interval
from deconv_jax.system import files

MEASURES = ("accuracy", "balanced_accuracy", "macro_f1")
RESAMPLES = 1000
GROUPS_NEEDED = 10
"""Artists of each genre from which on artists are resampled and not songs."""


def by_song(probabilities: np.ndarray, clips: Clips) -> tuple[np.ndarray, np.ndarray]:
    """Mean probabilities of each song's clips, shape (songs, classes), and the songs' labels, shape (songs,)."""
    _, first, song = np.unique(clips.songs, return_index=True, return_inverse=True)
    sums = np.zeros((len(first), probabilities.shape[1]))
    np.add.at(sums, song, probabilities)
    return sums / np.bincount(song)[:, None], clips.labels[first]


def scores(probabilities: np.ndarray, labels: np.ndarray) -> dict:
    """The three `MEASURES`, and confusion counts (true, predicted).

    Args:
      probabilities: shape (n, classes); labels: shape (n,).
    """
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((probabilities.shape[1],) * 2, int)
    np.add.at(confusion, (labels, predicted), 1)
    found = {name: float(value) for name, value in measures(confusion).items()}
    return {"n": len(labels)} | found | {"confusion": confusion.tolist()}


def measures(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """The three `MEASURES` of confusion matrices.

    Balanced accuracy is the mean recall of the classes that occur; macro-F1 the mean F1 of the classes that occur or
    are predicted, as scikit-learn's.

    Args:
      confusion: counts (true, predicted), shape (…, classes, classes), each with one count at least.

    Returns:
      Measure → values, shape (…).
    """
    confusion = np.asarray(confusion, float)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, either = confusion.sum(axis=-1), confusion.sum(axis=-1) + confusion.sum(axis=-2)
    recall, f1 = right / np.maximum(true, 1), 2 * right / np.maximum(either, 1)
    return {
        "accuracy": right.sum(axis=-1) / true.sum(axis=-1),
        "balanced_accuracy": recall.sum(axis=-1) / (true > 0).sum(axis=-1),
        "macro_f1": f1.sum(axis=-1) / (either > 0).sum(axis=-1),
    }


def compare(predictions: dict[str, np.ndarray], clips: Clips, groups: list[str], seed: int) -> tuple[dict, dict]:
    """Results of several systems on the same clips, with 95 % confidence intervals, and how far the first is ahead.

    Intervals are percentiles of 1,000 resamples of the songs (Efron and Tibshirani 1993, chapter 13), each drawn with
    replacement among the songs of one genre, so that every resample has as many of each; a song takes all its clips
    along, since clips of a song are alike. If the clips are of at least 10 artists of each genre, artists are drawn
    in the place of songs, for songs of an artist are alike too. With fewer artists that cannot be done: the interval
    then tells how much the result hangs on these songs, not what other artists would give, and is too narrow for that.
    Percentile intervals of few songs are too narrow in any case, and where all songs of a genre come out right, or
    all wrong, its share of the interval has no width at all. What the choice of training songs and of the seed adds
    is not in them either: folds (`config.data.fold`) and seeds show that.

    Args:
      predictions: system → probabilities of every clip, shape (clips, classes); the network first.
      clips: their labels and songs.
      groups: artist of every song that `clips.songs` counts, "" where it is not known.
      seed: of the resamples; they are the same for all systems.

    Returns:
      System → "by_clip" and "by_song", each as `scores` with "interval": measure → (low, high).
      How the first compares with the others: "resampled" ("songs" or "artists"), "units" (how many), and, if there
      is more than one system, "by_clip" and "by_song", each with "baseline" (that of the greatest balanced accuracy,
      which favours it a little: it is chosen on the same songs), "balanced_accuracy" (the first's minus its) and
      "interval" (of that, over the same resamples); "each" has the same two numbers for every baseline.
    """
    units, resampled = _units(clips, groups)
    weights = _resamples(units, clips.labels, seed)
    results: dict[str, dict] = {}
    drawn: dict[str, dict] = {}
    for system, probabilities in predictions.items():
        song_probabilities, song_labels = by_song(probabilities, clips)
        _, first = np.unique(clips.songs, return_index=True)
        kinds = {
            "by_clip": (probabilities, clips.labels, units),
            "by_song": (song_probabilities, song_labels, units[first]),
        }
        results[system], drawn[system] = {}, {}
        for kind, (some, labels, unit) in kinds.items():
            classes = some.shape[1]
            confusion = np.zeros((weights.shape[1], classes, classes), np.float32)
            np.add.at(confusion, (unit, labels, some.argmax(axis=1)), 1)
            resampled_confusion = (weights @ confusion.reshape(len(confusion), -1)).reshape(-1, classes, classes)
            drawn[system][kind] = measures(resampled_confusion)
            intervals = {name: interval(values) for name, values in drawn[system][kind].items()}
            results[system][kind] = scores(some, labels) | {"interval": intervals}
    difference: dict = {"resampled": resampled, "units": int(weights.shape[1])}
    network, *others = predictions
    for kind in ("by_clip", "by_song") if others else ():
        value = {system: results[system][kind]["balanced_accuracy"] for system in predictions}
        draws = {system: drawn[system][kind]["balanced_accuracy"] for system in predictions}
        each = {
            other: {
                "balanced_accuracy": value[network] - value[other],
                "interval": interval(draws[network] - draws[other]),
            }
            for other in others
        }
        best = max(others, key=lambda system: value[system])
        difference[kind] = {"baseline": best} | each[best] | {"each": each}
    return results, difference


def results(predictions: dict[str, np.ndarray], clips: Clips, groups: list[str], seed: int) -> dict:
    """`compare` as reports have it: "test" of the network, "baselines" of the others, and the "difference"."""
    found, difference = compare(predictions, clips, groups, seed)
    return {"test": found.pop("network"), "baselines": found, "difference": difference}


@dataclasses.dataclass(frozen=True)
class Tested:
    """What all systems said of the test part, so that folds can be pooled; kept as `predictions.npz`.

    Attributes:
      predictions: system → probabilities, shape (clips, classes); the network first.
      labels, songs: as in `Clips`.
      names, artists: of every song that `songs` counts.
    """

    predictions: dict[str, np.ndarray]
    labels: np.ndarray
    songs: np.ndarray
    names: list[str]
    artists: list[str]

    FILE: ClassVar = "predictions.npz"

    def write(self, workdir: Path) -> None:
        """Writes it into a run's folder, whole."""
        arrays = {"systems": list(self.predictions), "probabilities": np.stack(list(self.predictions.values()))}
        arrays |= {k: getattr(self, k) for k in ("labels", "songs", "names", "artists")}
        with files.replacing(workdir / self.FILE) as temporary, open(temporary, "wb") as file:
            np.savez(file, allow_pickle=False, **{k: np.asarray(v) for k, v in arrays.items()})

    @classmethod
    def read(cls, workdir: Path) -> "Tested":
        with np.load(workdir / cls.FILE, allow_pickle=False) as stored:
            predictions = dict(zip(stored["systems"].tolist(), stored["probabilities"], strict=True))
            names, artists = stored["names"].tolist(), stored["artists"].tolist()
            return cls(predictions, stored["labels"], stored["songs"], names, artists)

    @classmethod
    def pooled(cls, tests: Sequence["Tested"]) -> "Tested":
        """Several test parts, with the same systems, as one."""
        first = np.cumsum([0, *(len(t.names) for t in tests)])
        return cls(
            {s: np.concatenate([t.predictions[s] for t in tests]) for s in tests[0].predictions},
            np.concatenate([t.labels for t in tests]),
            np.concatenate([t.songs + n for t, n in zip(tests, first, strict=False)]),
            [name for t in tests for name in t.names],
            [artist for t in tests for artist in t.artists],
        )

    def results(self, seed: int) -> dict:
        """`results` of it."""
        clips = Clips(np.zeros((len(self.labels), 0), np.int16), self.labels, self.songs)
        return results(self.predictions, clips, self.artists, seed)


def _units(clips: Clips, groups: list[str]) -> tuple[np.ndarray, str]:
    """What is resampled: number of the song or artist of each clip, shape (clips,), counted from 0."""
    songs = np.unique(clips.songs, return_inverse=True)[1]
    names = [groups[song] for song in clips.songs]
    if all(names):
        artists = np.unique(names, return_inverse=True)[1]
        held = {(artist, label) for artist, label in zip(artists.tolist(), clips.labels.tolist(), strict=True)}
        counts = np.bincount([label for _, label in held])
        if counts[counts > 0].min() >= GROUPS_NEEDED:
            return artists, "artists"
    return songs, "songs"


def _resamples(units: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """How often each unit is drawn, shape (resamples, units): as many of each genre as there are.

    The genre of a unit (an artist may have several) is that of most of its clips.
    """
    count = units.max() + 1
    held = np.zeros((count, labels.max() + 1), int)
    np.add.at(held, (units, labels), 1)
    genre = held.argmax(axis=1)
    rng = np.random.Generator(np.random.PCG64([seed, 3]))
    weights = np.zeros((RESAMPLES, count), np.float32)
    for label in np.unique(genre):
        members = np.flatnonzero(genre == label)
        for row in weights:
            row[members] = np.bincount(rng.integers(len(members), size=len(members)), minlength=len(members))
    return weights


def log_mel(clips: Clips, sample_rate: int) -> np.ndarray:
    """Mean and deviation over time of every clip's log-mel spectrum (64 bands, dB), shape (clips, 128)."""
    rows = []
    with tqdm(total=len(clips.labels), desc="baselines", unit="clip") as bar:
        for first in range(0, len(clips.labels), 64):  # clips may lie on disk
            for waveform in clips.waveforms[first : first + 64]:
                mel = librosa.feature.melspectrogram(
                    y=waveform.astype(np.float32) / 32768, sr=sample_rate, n_fft=1024, hop_length=512, n_mels=64
                )
                level = librosa.power_to_db(mel, top_db=None)
                rows.append(np.concatenate([level.mean(axis=1), level.std(axis=1)]))
                bar.update()
    return np.stack(rows)


def baselines(train: Clips, test: Clips, classes: int, sample_rate: int) -> dict[str, np.ndarray]:
    """What knows no deep learning, trained on the same clips: probabilities of the test clips, shape (clips, classes).

    Returns:
      "majority": the commonest genre of the training clips, always; "mean log-mel": logistic regression on the
      clips' mean log-mel spectra; "log-mel mean and deviation": the same with the deviations over time; "level
      removed": the latter after the mean over all bands was taken out of every clip's mean spectrum, in dB, so that
      it knows nothing of how loud a clip is.
    """
    majority = np.eye(classes)[np.bincount(train.labels, minlength=classes).argmax()]
    predictions = {"majority": np.tile(majority, (len(test.labels), 1))}
    train_rows, test_rows = log_mel(train, sample_rate), log_mel(test, sample_rate)
    half = train_rows.shape[1] // 2
    rows = {
        "mean log-mel": (train_rows[:, :half], test_rows[:, :half]),
        "log-mel mean and deviation": (train_rows, test_rows),
        "level removed": (_without_level(train_rows), _without_level(test_rows)),
    }
    for name, (to_train, to_test) in rows.items():
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000, class_weight="balanced"))
        model.fit(to_train, train.labels)
        probabilities = np.zeros((len(test.labels), classes))
        probabilities[:, model.classes_] = model.predict_proba(to_test)
        predictions[name] = probabilities
    return predictions


def _without_level(rows: np.ndarray) -> np.ndarray:
    """`log_mel` rows whose mean spectra have a mean of 0 dB."""
    half = rows.shape[1] // 2
    return np.concatenate([rows[:, :half] - rows[:, :half].mean(axis=1, keepdims=True), rows[:, half:]], axis=1)
