"""Measures against scikit-learn's, and intervals against resampling by loops."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from deconv_jax.data.store import Clips
from deconv_jax.measures import intervals
from deconv_jax.training import evaluation


def clips_of(labels, per_song=3):
    songs = np.repeat(np.arange(len(labels)), per_song)
    return Clips(np.zeros((len(songs), 1), np.int16), np.repeat(labels, per_song), songs)


def predictions(clips, rng, right):
    """Probabilities that name the right class of three for about a share of the songs, the same for their clips."""
    hit = rng.random(clips.songs.max() + 1) < right
    named = np.where(hit[clips.songs], clips.labels, (clips.labels + 1) % 3)
    return 0.9 * np.eye(3)[named] + 0.1 * rng.dirichlet(np.ones(3), len(named))


def test_scores_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
    result = evaluation.scores(probabilities, np.array([0, 0, 1, 1]))
    assert result.pop("macro_f1") == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert result == {"n": 4, "accuracy": 0.75, "balanced_accuracy": 0.75, "confusion": [[2, 0], [1, 1]]}


def test_measures_of_many_confusions_are_those_of_scikit_learn(rng):
    """Classes that do not occur, or are predicted only, among them."""
    pairs = [(rng.integers(0, high, 12), rng.integers(0, 4, 12)) for high in (4, 4, 3, 2, 1)]
    confusion = np.zeros((len(pairs), 4, 4))
    for n, (true, predicted) in enumerate(pairs):
        np.add.at(confusion, (n, true, predicted), 1)
    found = evaluation.measures(confusion)
    for n, (true, predicted) in enumerate(pairs):
        recalls = [np.mean(predicted[true == label] == label) for label in np.unique(true)]
        wanted = {
            "accuracy": accuracy_score(true, predicted),
            "balanced_accuracy": np.mean(recalls),
            "macro_f1": f1_score(true, predicted, average="macro", zero_division=0),
        }
        one = evaluation.scores(np.eye(4)[predicted], true)
        for name, value in wanted.items():
            assert found[name][n] == pytest.approx(value, abs=1e-12)
            assert one[name] == pytest.approx(value, abs=1e-12)
    true, predicted = pairs[0]
    assert found["balanced_accuracy"][0] == pytest.approx(balanced_accuracy_score(true, predicted), abs=1e-12)


def test_by_song_is_the_mean_of_its_clips(rng):
    clips = Clips(np.zeros((5, 1), np.int16), np.array([1, 1, 0, 0, 0]), np.array([4, 4, 2, 2, 2]))
    probabilities = rng.dirichlet(np.ones(3), 5)
    means, labels = evaluation.by_song(probabilities, clips)
    np.testing.assert_allclose(means, [probabilities[2:].mean(axis=0), probabilities[:2].mean(axis=0)], atol=1e-15)
    assert labels.tolist() == [0, 1]


def test_intervals_are_those_of_songs_drawn_one_by_one(rng):
    """A plain loop that draws whole songs within each genre finds the same interval, but for chance in the drawing."""
    labels = np.repeat([0, 1, 2], [20, 30, 10])
    clips = clips_of(labels)
    network = predictions(clips, rng, 0.7)
    results, difference = evaluation.compare({"network": network}, clips, [""] * 60, seed=0)
    assert difference == {"resampled": "songs", "units": 60}
    balanced = []
    for _ in range(500):
        drawn = np.concatenate(
            [rng.choice(np.flatnonzero(labels == label), (labels == label).sum()) for label in range(3)]
        )
        rows = np.concatenate([np.flatnonzero(clips.songs == song) for song in drawn])
        hit = network[rows].argmax(axis=1) == clips.labels[rows]
        balanced.append(np.mean([hit[clips.labels[rows] == label].mean() for label in range(3)]))
    found = results["network"]["by_clip"]["interval"]["balanced_accuracy"]
    np.testing.assert_allclose(found, np.quantile(balanced, [0.025, 0.975]), atol=0.03)  # about 4 standard errors
    for kind in ("by_clip", "by_song"):
        for name, (low, high) in results["network"][kind]["interval"].items():
            assert low <= results["network"][kind][name] <= high
    again, _ = evaluation.compare({"network": network}, clips, [""] * 60, seed=0)
    assert again == results
    assert evaluation.compare({"network": network}, clips, [""] * 60, seed=1)[0] != results


def test_the_difference_is_paired(rng):
    """Two systems that err on the same songs but one: each is unsure, and yet the one is surely not behind."""
    clips = clips_of(np.repeat([0, 1, 2], 20))
    base = predictions(clips, rng, 0.6)
    better = base.copy()
    wrong = np.unique(clips.songs[base.argmax(axis=1) != clips.labels])[:8]
    rows = np.isin(clips.songs, wrong)
    better[rows] = np.eye(3)[clips.labels[rows]]
    worst = np.roll(np.eye(3)[clips.labels], 1, axis=1)
    results, difference = evaluation.compare({"network": better, "a": worst, "b": base}, clips, [""] * 60, seed=0)
    for kind in ("by_clip", "by_song"):
        own = results["network"][kind]["interval"]["balanced_accuracy"]
        low, high = difference[kind]["interval"]
        assert difference[kind]["baseline"] == "b"
        assert difference[kind]["balanced_accuracy"] == pytest.approx(8 / 60, abs=0.02)
        assert 0 < low < difference[kind]["balanced_accuracy"] < high
        assert high - low < own[1] - own[0]
    same, none = evaluation.compare({"network": base, "b": base}, clips, [""] * 60, seed=0)
    assert none["by_clip"]["interval"] == [0, 0]
    assert same["network"] == same["b"]


def test_artists_are_drawn_where_there_are_enough_of_each_genre(rng):
    """Songs of an artist that stand and fall together make intervals wider: drawing songs would hide that."""
    labels = np.repeat([0, 1, 2], 40)
    clips = clips_of(labels, per_song=1)
    artists = [f"{song // 4}" for song in range(120)]
    hit = np.repeat(rng.random(30) < 0.6, 4)
    network = np.eye(3)[np.where(hit, labels, (labels + 1) % 3)]
    wide, about = evaluation.compare({"network": network}, clips, artists, seed=0)
    narrow, songs = evaluation.compare({"network": network}, clips, [*artists[:-1], ""], seed=0)
    assert (about["resampled"], about["units"]) == ("artists", 30)
    assert (songs["resampled"], songs["units"]) == ("songs", 120)
    width = [np.diff(r["network"]["by_song"]["interval"]["accuracy"])[0] for r in (wide, narrow)]
    assert width[0] > 1.5 * width[1]  # twice as wide, by the theory: four songs of an artist count as one
    few = evaluation.compare({"network": network}, clips, [f"{song // 5}" for song in range(120)], seed=0)[1]
    assert few["resampled"] == "songs"  # 8 artists of each genre


def test_intervals_hold_what_they_promise(rng):
    """Of 30 test parts of 120 songs each, 28 or 29 should have an interval with the true accuracy in it."""
    clips = clips_of(np.repeat([0, 1, 2], 40), per_song=1)
    held = 0
    for _ in range(30):
        weights = evaluation._resamples(clips.songs, clips.labels, 0)
        hits = (rng.random(120) < 0.7).astype(np.float32)
        low, high = intervals.interval(weights @ hits / 120)
        held += low <= 0.7 <= high
    assert held >= 25
