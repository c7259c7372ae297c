"""Correlations under a change of attributes: against NumPy, on planted features, and with known answers."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from deconv_jax.deconvolution.deconvolve import deconvolve
from deconv_jax.measures import intervals, invariance, likeness
from deconv_jax.music import stimuli
from deconv_jax.network.model import Network, initial_variables
from deconv_jax.network.spec import Block

LEVELS = {"instrument": 7, "chord": 8, "key": 4}


def table(levels):
    names = list(levels)
    return [dict(zip(names, map(str, row), strict=True)) for row in itertools.product(*map(range, levels.values()))]


def test_pairs_of_the_papers_signals_are_as_many_as_it_says():
    attributes = [s.attributes for s in stimuli.paper_stimuli()]
    pairs = invariance.pairs(attributes)
    assert {name: len(p) for name, p in pairs.items()} == {"instrument": 672, "chord": 784, "key": 336}
    for name, some in pairs.items():
        for i, j in some:
            assert [k for k in attributes[i] if attributes[i][k] != attributes[j][k]] == [name]
    everything = np.concatenate(list(pairs.values()))
    assert len(np.unique(np.sort(everything, axis=1), axis=0)) == len(everything)


def test_recordings_are_paired_by_any_attribute_and_duplicates_are_no_pair():
    rows = [("a", "1"), ("a", "1"), ("a", "2"), ("b", "2"), ("c", "3")]
    pairs = invariance.pairs([{"player": p, "take": t} for p, t in rows])
    assert {k: v.tolist() for k, v in pairs.items()} == {"player": [[2, 3]], "take": [[0, 2], [1, 2]]}


def test_correlation_matrix_is_numpys(rng):
    images = rng.normal(3.0, 1.0, (6, 9, 7)).astype(np.float32) * np.array([1e-12, 1, 1e6, 1, 1, 1])[:, None, None]
    images[3] = 0
    images[4] = 2.5
    found = likeness.correlation_matrix(images)
    there = [0, 1, 2, 5]
    want = np.corrcoef(images[there].astype(np.float64).reshape(4, -1))
    np.testing.assert_allclose(found[np.ix_(there, there)], want, atol=2e-6)
    assert np.isnan(found[[3, 4]]).all()
    assert np.isnan(found[:, [3, 4]]).all()


@pytest.fixture(scope="module")
def small():
    """A network, and magnitudes of five signals of which the last is silent."""
    # Pools of another shape take the plain path, which compiles in a fraction of the time.
    network = Network(blocks=(Block(maps=5, pool=(2, 3)), Block(maps=6, pool=(3, 2))), dense=(4,), classes=2)
    params = initial_variables(network, (21, 18), seed=3)["params"]
    scale = {"mean": jnp.zeros((1, 1)), "scale": jnp.full((1, 1), 2.0)}
    magnitudes = np.abs(np.random.default_rng(1).normal(size=(5, 21, 18))).astype(np.float32)
    magnitudes[4] = 0
    return network, {"params": params, "input": scale}, magnitudes


def seen(images, magnitudes, view):
    if view == "mask":
        return images * magnitudes[:, None]
    if view == "decibel":
        largest = np.abs(images).max(axis=(2, 3), keepdims=True)
        return 20 * np.log10(np.maximum(np.abs(images) / np.where(largest > 0, largest, 1), 10**-3.5))
    return images


@pytest.mark.parametrize("view", invariance.VIEWS)
@pytest.mark.parametrize("memory", [1, 2**20])
def test_streamed_correlations_are_those_of_all_images_at_once(small, view, memory):
    network, variables, magnitudes = small
    pairs = np.array(list(itertools.combinations(range(5), 2)))
    made = []
    found = invariance.feature_correlations(
        network, variables, magnitudes, 2, pairs, view, batch=2, memory=memory, advance=made.append
    )
    assert found.shape == (6, 10)
    assert sum(made) == 5 * 6
    images = np.asarray(deconvolve(network, variables, magnitudes, 2), np.float64)
    rows = seen(images, magnitudes, view)
    for feature in range(6):
        for value, (i, j) in zip(found[feature], pairs, strict=True):
            if images[i, feature].any() and images[j, feature].any():
                want = np.corrcoef(rows[i, feature].ravel(), rows[j, feature].ravel())[0, 1]
                assert value == pytest.approx(want, abs=1e-5)
            else:
                assert np.isnan(value)
    assert np.isnan(found[:, pairs[:, 1] == 4]).all()  # silence has no variance
    assert np.isfinite(found).any()


def test_the_inputs_own_correlations(small):
    _, _, magnitudes = small
    pairs = np.array([[0, 1], [2, 3], [3, 4]])
    for view in invariance.VIEWS:
        found = invariance.input_correlations(magnitudes, pairs, view)
        rows = seen(magnitudes[:, None].astype(np.float64), magnitudes, view)[:, 0]
        want = [np.corrcoef(rows[i].ravel(), rows[j].ravel())[0, 1] for i, j in pairs[:2]]
        np.testing.assert_allclose(found[0, :2], want, atol=1e-5)
        assert np.isnan(found[0, 2])
    with pytest.raises(ValueError, match="view must be one of"):
        invariance.input_correlations(magnitudes, pairs, "log")


def test_features_that_ignore_the_key_have_key_correlation_one(rng):
    """A planted network: its kernels pass what is loud and its biases stop what is soft, and the key is soft."""
    attributes = table({"instrument": 3, "chord": 2, "key": 3})
    loud = {k: 5 * (rng.uniform(size=(16, 12)) < 0.2) for k in itertools.product("012", "01")}
    soft = {k: 0.5 * rng.uniform(size=(16, 12)) for k in "012"}
    magnitudes = np.stack(
        [np.maximum(loud[a["instrument"], a["chord"]], soft[a["key"]]) for a in attributes], dtype=np.float32
    )
    kernel = np.zeros((3, 3, 1, 2), np.float32)
    kernel[1, 1, 0] = 1.0, 2.0
    network = Network(blocks=(Block(maps=2, pool=(2, 3)),), dense=(4,), classes=2)
    params = {"conv1": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray([-1.0, -2.0])}}
    pairs = invariance.pairs(attributes)
    for name, some in pairs.items():
        found = invariance.feature_correlations(network, {"params": params}, magnitudes, 1, some)
        own = invariance.input_correlations(magnitudes, some)
        if name == "key":
            np.testing.assert_allclose(found, 1, atol=1e-6)
            assert own.max() < 0.999
        else:
            assert found.max() < 0.9


def test_averages_leave_out_and_count_what_does_not_exist():
    found = invariance.average(np.array([[0.5, np.nan, 0.7], [0.1, 0.3, np.nan]], np.float32))
    assert (found.values, found.left_out) == (4, 2)
    assert found.mean == pytest.approx(0.4)
    assert found.deviation == pytest.approx(np.std([0.5, 0.7, 0.1, 0.3]))
    nothing = invariance.average(np.full((2, 3), np.nan))
    assert nothing[2:] == (0, 6)
    assert np.isnan(nothing.mean)


def test_bootstrap_draws_are_weighted_means_and_equal_pairs_have_no_spread(rng):
    attributes = table({"a": 3, "b": 4})
    pairs = invariance.pairs(attributes)
    weights = invariance.bootstrap_weights(attributes, pairs, draws=50)
    values = rng.normal(size=(3, len(pairs["b"]))).astype(np.float32)
    values[0, 2] = np.nan
    found = invariance.bootstrap(values, weights["b"])
    for draw, weight in zip(found, weights["b"], strict=True):
        rows = np.broadcast_to(weight, values.shape)
        there = np.isfinite(values)
        if weight.any():
            assert draw == pytest.approx(np.average(values[there], weights=rows[there]), abs=1e-6)
        else:
            assert np.isnan(draw)
    same = invariance.bootstrap(np.full((2, len(pairs["a"])), 0.25, np.float32), weights["a"])
    np.testing.assert_allclose(same[np.isfinite(same)], 0.25)
    assert intervals.interval(np.full(5, np.nan)) == pytest.approx((np.nan, np.nan), nan_ok=True)


def test_a_pair_counts_as_often_as_its_levels_were_drawn():
    attributes = table({"a": 3, "b": 4})
    pairs = invariance.pairs(attributes)
    weights = invariance.bootstrap_weights(attributes, pairs, draws=200, seed=1)
    for name, other in (("a", "b"), ("b", "a")):
        weight = weights[name]
        for column, (i, j) in enumerate(pairs[name]):
            mirrored = [
                k
                for k, (m, n) in enumerate(pairs[name])
                if {attributes[m][name], attributes[n][name]} == {attributes[i][name], attributes[j][name]}
            ]
            # Pairs of the same two levels differ only by how often their common level was drawn.
            total = weight[:, mirrored].sum(axis=1)
            draws = len({a[other] for a in attributes}) - 1  # drawn: one fewer than there are
            single = weight[:, column]
            assert np.all((total == 0) | (single <= total))
            assert np.all(total % draws == 0)


@pytest.mark.parametrize("attribute", list(LEVELS))
def test_intervals_cover_a_known_value(attribute):
    """Instruments, chords, keys, signals and pairs all move the correlations about a mean of 0.5.

    Nominal are 95 %; a bootstrap over signals as if they were independent, the obvious one, covers far less.
    """
    rng = np.random.default_rng(7)
    attributes = table(LEVELS)
    pairs = invariance.pairs(attributes)
    index = pairs[attribute]
    levels = {name: np.array([int(a[name]) for a in attributes]) for name in LEVELS}
    repeats, covered, naive = 150, 0, 0
    weights = invariance.bootstrap_weights(attributes, {attribute: index}, draws=400)[attribute]
    drawn = rng.multinomial(len(attributes), np.full(len(attributes), 1 / len(attributes)), 400)
    independent = (drawn[:, index[:, 0]] * drawn[:, index[:, 1]]).astype(np.float32)
    for _ in range(repeats):
        value = 0.5 + rng.normal(0, 0.1, len(index))
        for name, count in LEVELS.items():
            effect = rng.normal(0, 0.1, count)[levels[name]]
            both = effect[index[:, 0]] + effect[index[:, 1]]
            value += both / np.sqrt(2) if name == attribute else effect[index[:, 0]]
        signal = rng.normal(0, 0.1, len(attributes))
        value += signal[index].sum(axis=1) / np.sqrt(2)
        low, high = intervals.interval(invariance.bootstrap(value[None], weights))
        covered += low <= 0.5 <= high
        low, high = intervals.interval(invariance.bootstrap(value[None], independent))
        naive += low <= 0.5 <= high
    assert 0.83 < covered / repeats <= 1
    assert naive / repeats < 0.6


def test_memory_bounds_the_number_of_features_at_once(small, monkeypatch):
    network, variables, magnitudes = small
    groups = []

    def spy(network, variables, batch, layer, features):
        groups.append(len(features))
        return jnp.zeros((len(batch), len(features), *batch.shape[1:]))

    monkeypatch.setattr(invariance.deconvolve, "deconvolve", spy)
    one = 4 * magnitudes.size
    for memory, size in ((1, 1), (2 * one, 2), (4 * one, 3), (100 * one, 6)):
        groups.clear()
        found = invariance.feature_correlations(network, variables, magnitudes, 2, np.array([[0, 1]]), memory=memory)
        assert set(groups) == {size}
        assert found.shape == (6, 1)
        assert np.isnan(found).all()
