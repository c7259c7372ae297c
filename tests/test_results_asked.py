"""What the page can be asked, beside networks whose maps are silenced by their weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconv_jax.measures import randomised
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block
from deconv_jax.network.trained import Trained
from deconv_jax.results import asked, explain
from deconv_jax.sound.front_end import FrontEnd

FRONT = FrontEnd(sample_rate=4000, n_fft=64, hop=32, clip_seconds=0.5)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A network of random weights, and what it says of a song that lasts as long as three of its clips."""
    network = Network(blocks=(Block(maps=5), Block(maps=4)), dense=(6,), classes=4)
    variables = dict(jax.jit(network.init)(jax.random.key(3), jnp.zeros((FRONT.bins, FRONT.clip_frames))))
    trained = Trained(network, variables, FRONT, list("abcd"), tmp_path_factory.mktemp("none"), {"config": {}})
    wave = np.random.default_rng(0).standard_normal(3 * FRONT.clip_samples).astype(np.float32)
    return trained, explain.answer_of(trained, explain.clip_of(FRONT, wave))


def without(trained, answer, out):
    """Probabilities, the mean over parts, of the network whose layer 1 feeds nothing of some features to layer 2."""
    params = trained.variables["params"]
    kernel = params["conv2"]["kernel"].at[:, :, np.asarray(out, int)].set(0)
    changed = {**trained.variables, "params": {**params, "conv2": {**params["conv2"], "kernel": kernel}}}
    logits = [trained.network.apply(changed, part)[0] for part in answer.parts]
    return np.mean([jax.nn.softmax(some) for some in logits], axis=0), np.mean(logits, axis=0)


def test_answers_are_those_of_networks_that_hear_nothing_of_the_features(known):
    trained, answer = known
    features = [3, 0, 2]
    effects = explain.layer_effects(trained, answer, 1)[features]
    twin = randomised.twin(trained.network, trained.variables, (FRONT.bins, FRONT.clip_frames), 5)
    energy = np.array([1.0, 3.0, 2.0])
    found = asked.asked(trained, answer, 1, features, effects, energy, twin)
    assert (found["parts"], found["counts"]) == (3, [1, 2, 3])
    np.testing.assert_allclose(found["before"], answer.mean, atol=1e-6)
    for row, feature in enumerate(features):
        others = [f for f in range(5) if f != feature]
        np.testing.assert_allclose(found["muted"][row], without(trained, answer, [feature])[0], atol=1e-6)
        np.testing.assert_allclose(found["alone"][row], without(trained, answer, others)[0], atol=1e-6)
    assert [order["class"] for order in found["orders"]] == np.argsort(-answer.mean)[:3].tolist()
    for order in found["orders"]:
        assert order["features"].tolist() == [features[n] for n in np.argsort(effects[:, order["class"]])]
        for n, out, left in zip(found["counts"], order["out"], order["left"], strict=True):
            some = order["features"][:n]
            np.testing.assert_allclose(out, without(trained, answer, some)[0], atol=1e-6)
            rest = [f for f in range(5) if f not in some]
            np.testing.assert_allclose(left, without(trained, answer, rest)[0], atol=1e-6)
    curve = found["curve"]
    assert (curve["class"], curve["counts"]) == (answer.target, [0, 1, 2, 3])
    for name, row in (("effect", found["orders"][0]["features"]), ("energy", [0, 2, 3])):
        want = [without(trained, answer, row[:n])[1][answer.target] for n in curve["counts"]]
        np.testing.assert_allclose(curve[name], want, atol=1e-5)
    assert curve["low"][0] == pytest.approx(curve["effect"][0], abs=1e-6)
    assert np.all((curve["low"] <= curve["mean"]) & (curve["mean"] <= curve["high"]))
    assert curve["low"][1] < curve["high"][1]
    of_twin = found["twin"]
    assert of_twin["effect"][1] == pytest.approx(of_twin["low"][1]) or of_twin["effect"][1] < of_twin["low"][1]


def test_a_song_is_asked_in_a_few_parts_and_counts_reach_all():
    parts = [np.zeros((2, 3))] * 9
    few = asked.fewer(explain.Answer(parts, np.arange(9), np.zeros((9, 2)), np.zeros((9, 2))))
    assert few.starts.tolist() == [0, 3, 5, 8]
    assert asked.counts_of(64) == [*range(1, 9), 12, 16, 24, 32, 48, 64]
    assert asked.counts_of(1) == [1]
