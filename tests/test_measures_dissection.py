"""The rule by which features get names: comparisons at equal loudness and register, controls, falls."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from deconv_jax.measures import descriptors, dissection, randomised
from deconv_jax.measures.dissection import Scores
from deconv_jax.network.model import Network, convolution, initial_variables, paper_network
from deconv_jax.network.spec import Block


def slow_auroc(values, strata, labels, concept):
    """Every pair of cells by itself, in whole numbers."""
    won = pairs = 0
    for a, b in itertools.product(range(len(values)), repeat=2):
        if strata[a] == strata[b] and labels[a] == concept != labels[b]:
            won += 2 * int(values[a] > values[b]) + int(values[a] == values[b])
            pairs += 2
    return won / pairs if pairs else np.nan


def test_level_auroc_is_that_of_all_pairs_within_a_stratum(rng):
    values = np.round(rng.normal(size=(3, 90)), 1).astype(np.float32)  # many ties, values of both signs
    values[0, :40] = 0
    values[0, 40:60] = -0.0
    strata, labels = rng.choice([2, 5, 7000], 90), rng.integers(-1, 3, 90)
    labels[strata == 5] = 1
    found = dissection.level_auroc(values, strata, labels, 4)
    want = [[slow_auroc(row, strata, labels, concept) for concept in range(4)] for row in values]
    np.testing.assert_allclose(found, want, rtol=1e-13)  # whole numbers up to one division
    assert np.isnan(found[:, 3]).all()


def test_level_auroc_leaves_register_and_loudness_out(rng):
    """A feature that follows both exactly, and a sound that has both, say nothing about each other."""
    bins, rows = rng.integers(0, 5, (40, 8, 10)), np.arange(8)[:, None]
    labels = np.where(rng.random(bins.shape) < (rows + bins) / 12, 0, -1)
    value = (10.0 * rows + bins).ravel()
    raw = dissection.level_auroc(value[None], np.zeros(value.size), labels.ravel(), 1)
    found = dissection.level_auroc(value[None], dissection.row_strata(bins).ravel(), labels.ravel(), 1)
    assert raw[0, 0] > 0.7
    assert found[0, 0] == 0.5


def test_clips_are_told_apart_by_their_tags(rng):
    values, tags = rng.normal(size=(4, 30)), rng.random((2, 30)) < 0.4
    want = [[slow_auroc(v.astype(np.float32), np.zeros(30), t.astype(int), 1) for t in tags] for v in values]
    np.testing.assert_allclose(dissection.clip_auroc(values, tags), want, rtol=1e-13)
    assert dissection.clip_auroc(values, tags[:0]).shape == (4, 0)


def test_footprints_are_means_of_what_lies_between_two_cells():
    blocks, size = paper_network().blocks, (257, 173)
    image = np.random.default_rng(0).random(size)
    for layer in (1, 3):
        f, t = dissection.footprints(blocks, size, layer)
        side = 2**layer
        rows, columns = size[0] // side, size[1] // side
        want = image[: rows * side, : columns * side].reshape(rows, side, columns, side).mean(axis=(1, 3))
        # The receptive field of layer 3 has its middle a few rows to the left of 8 j + 3.5.
        assert f.shape == (rows, 257)
        assert t.shape == (columns, 173)
        np.testing.assert_allclose(f.sum(axis=1), 1)
        if layer == 1:
            np.testing.assert_allclose(f @ image @ t.T, want)
    strided = (Block(kernel=(5, 1), conv_stride=(2, 1), padding="VALID", pool=(1, 4)),)
    f, t = dissection.footprints(strided, (21, 16), 1)
    np.testing.assert_allclose(f[0], np.isin(np.arange(21), (1, 2)) / 2)  # rows 0 to 4, their middle 2 of 2 rows a step
    np.testing.assert_allclose(t, np.repeat(np.eye(4), 4, axis=1) / 4)


def test_the_dominant_sound_has_most_of_the_power():
    powers = np.array([[[3.0, 1, 0, 1]], [[1, 1, 0, 1]], [[1, 1, 0, 3]]])
    np.testing.assert_array_equal(dissection.dominant(powers), [[0, -1, -1, 2]])
    bins = dissection.loudness_bins(np.array([[1.0, 0.5, 0.4, 1e-8, 0]]))
    np.testing.assert_array_equal(bins, [[0, 1, 1, -1, -1]])  # 0, 3.01, 3.98, 80 dB down, silent


def planted(features=5, concepts=3):
    low = Scores(*(np.full((features, concepts), value) for value in (0.6, 0.6, 0.5)))
    simple = Scores(np.full((2, concepts), 0.62), np.full((2, concepts), 0.35))
    return low, simple


def test_a_name_needs_both_halves_descriptors_and_the_fall():
    own, simple = planted()
    control, _ = planted()
    own = Scores(own.chosen_on.copy(), own.scored_on.copy(), own.fall.copy())
    own.chosen_on[:, 1] = [0.8, 0.8, 0.61, 0.8, 0.6]
    own.scored_on[:, 1] = [0.8, 0.6, 0.8, 0.8, 0.9]  # 1 is not above the controls on the second half
    own.fall[:, 1] = [0.9, 0.9, 0.9, 0.4, 0.9]  # 3 falls no more than a control
    found = dissection.names(own, [control, control], simple)
    np.testing.assert_array_equal(found.controls, [1, -1, 1, 1, -1])  # 2 is above controls, not above descriptors
    np.testing.assert_array_equal(found.described, [1, -1, -1, 1, -1])
    np.testing.assert_array_equal(found.named, [1, -1, -1, -1, -1])
    assert found.counts() == {"controls": 3, "described": 2, "named": 1}
    np.testing.assert_allclose(found.simple.scored_on, 0.65)  # .35 tells as well as .65


def test_false_names_are_those_of_each_control_among_the_others():
    control, simple = planted()
    lucky = Scores(*(np.array(a) for a in (control.chosen_on, control.scored_on, control.fall)))
    for array in (lucky.chosen_on, lucky.scored_on, lucky.fall):
        array[2, 0] = 0.9
    found = dissection.false_names([control, lucky, control], simple)
    assert [one["named"] for one in found] == [0, 1, 0]
    # And the network, as good as that, has no name beside a control that is.
    assert dissection.names(lucky, [control, lucky], simple).counts()["controls"] == 0
    assert dissection.false_names([control], simple)[0]["named"] == 0


def test_nothing_measured_is_no_name():
    own, simple = planted()
    nothing = Scores(*(np.full_like(a, np.nan) for a in (own.chosen_on, own.scored_on, own.fall)))
    assert dissection.names(nothing, [own], simple).counts() == {"controls": 0, "described": 0, "named": 0}


def test_falls_are_those_without_the_sound_beyond_those_without_others():
    lost = np.array([[2.0, 1.0], [4.0, 1.0], [1.0, 1.0]])
    found = dissection.falls(lost, cells=np.array([1, 3, 5]), concept=np.array([0, 0, 2]), concepts=3)
    np.testing.assert_allclose(found, [[3.5 - 1, np.nan, 1 - 3.5], [0, np.nan, 0]])
    assert np.isnan(dissection.falls(lost[:0], np.zeros(0), np.zeros(0, int), 2)).all()


def test_a_cell_is_described_beside_its_neighbours():
    power = np.array([[1.0, 10.0, 1.0], [0.1, 1.0, 1e-20]])
    found = dict(zip(descriptors.CELLS, descriptors.cells(power, power / 2), strict=True))
    np.testing.assert_allclose(found["level"], [[0, 10, 0], [-10, 0, -100]])
    np.testing.assert_allclose(found["level above"][0], [-10, 0, -100])
    np.testing.assert_allclose(found["level below"][1], [0, 10, 0])
    np.testing.assert_allclose(found["peak in time"][0], [-5, 10, -5])
    np.testing.assert_allclose(found["harmonic share"][0], 0.5)


@pytest.fixture(scope="module")
def small():
    network = Network((Block(maps=4), Block(maps=5, pool=(1, 2))), dense=())
    return network, initial_variables(network, (12, 16), 3)


def test_shuffled_controls_keep_what_they_say(small):
    _, variables = small
    for number in (1, 2):
        name = f"conv{number}"
        before = np.asarray(variables["params"][name]["kernel"])
        kernels = randomised.shuffled_kernels(variables, 0)["params"][name]["kernel"]
        weights = randomised.shuffled_weights(variables, 0)["params"][name]["kernel"]

        def rows(kernel):
            return sorted(map(tuple, kernel.reshape(9, -1).T.tolist()))

        assert rows(kernels) == rows(before)  # the same kernels, elsewhere
        assert not np.array_equal(kernels, before)
        for f in range(before.shape[-1]):
            assert sorted(weights[..., f].ravel().tolist()) == sorted(before[..., f].ravel().tolist())
        assert rows(weights) != rows(before)
    again = randomised.shuffled_weights(variables, 1)["params"]["conv1"]["kernel"]
    assert not np.array_equal(again, randomised.shuffled_weights(variables, 0)["params"]["conv1"]["kernel"])


@pytest.mark.parametrize("norm", ["none", "before", "after", "pooled"])
def test_renormalised_networks_have_statistics_of_their_own(small, norm):
    network, _ = small
    blocks = tuple(dataclasses.replace(block, norm=norm, epsilon=1e-5) for block in network.blocks)
    network = network.clone(blocks=blocks)
    seen = 3 + np.random.default_rng(1).random((6, 12, 16)).astype(np.float32)
    given = initial_variables(network, (12, 16), 3) | {"input": {"mean": np.ones((12, 1)), "scale": np.float32(2)}}
    made = randomised.renormalised(network, given, seen)
    trained, stats = network.apply(
        given, seen, train=True, rngs={"dropout": jax.random.key(0)}, mutable=["batch_stats"]
    )
    del trained
    if norm == "none":
        first = convolution(blocks[0], made["params"]["conv1"], ((seen - 1) / 2)[..., None])
        np.testing.assert_allclose(np.mean(first, axis=(0, 1, 2)), 0, atol=1e-4)
        np.testing.assert_allclose(np.var(first, axis=(0, 1, 2)), 1, rtol=1e-3)
    else:  # Flax's own statistics of the batch: a tenth of what it holds after one step, beside nine of what it had
        own = stats["batch_stats"]["norm1"]
        np.testing.assert_allclose(
            made["batch_stats"]["norm1"]["mean"], 10 * np.asarray(own["mean"]), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(
            made["batch_stats"]["norm1"]["var"], 10 * (np.asarray(own["var"]) - 0.9), rtol=1e-3, atol=1e-4
        )
    pooled = network.apply(made, seen, head=False)[1][1].pooled
    assert np.isfinite(pooled).all()
    if norm == "pooled":
        np.testing.assert_allclose(np.mean(pooled, axis=(0, 1, 2)), 0, atol=1e-4)
    assert set(made) == set(given)
