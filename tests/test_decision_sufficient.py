"""Which cells keep an answer: networks whose answer hangs on known ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconv_jax.decision import sufficient as module
from deconv_jax.decision.sufficient import necessary, sufficient
from deconv_jax.errors import SettingError
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block
from deconv_jax.network.trained import Trained
from deconv_jax.sound import front_end
from deconv_jax.sound.front_end import FrontEnd

FRONT = FrontEnd(sample_rate=4000, n_fft=64, hop=32, clip_seconds=0.5)
SIZE = (FRONT.bins, FRONT.clip_frames)
BIN = 10
"""The bin that a tone lies in, and that the network hears."""


def listener(tmp_path, front=FRONT):
    """Class 1 is a bin's mean magnitude beside a constant's, class 0."""
    network = Network((Block(maps=2, kernel=(1, 1), pool=(1, 1)),), dense=(), classes=2)
    frames = front.clip_frames
    heard = np.zeros((front.bins, frames, 2, 2), np.float32)
    heard[BIN % front.bins, :, 0, 1] = 1 / frames
    params = {
        "conv1": {"kernel": jnp.ones((1, 1, 1, 2)), "bias": jnp.zeros(2)},
        "output": {"kernel": jnp.asarray(heard.reshape(-1, 2)), "bias": jnp.asarray([1.0, 0.0])},
    }
    return Trained(network, {"params": params}, front, ["none", "tone"], tmp_path, {"config": {}})


def sounding(amplitude=0.3):
    rng = np.random.default_rng(0)
    time = np.arange(FRONT.clip_samples) / FRONT.sample_rate
    tone = amplitude * np.sin(2 * np.pi * BIN * FRONT.sample_rate / FRONT.n_fft * time)
    return (tone + 0.02 * rng.standard_normal(len(time))).astype(np.float32)


def said(trained, waveform):
    seen = front_end.analyse(trained.front_end, waveform)[1]
    return np.asarray(jax.nn.softmax(trained.network.apply(trained.variables, seen)[0]))


def test_the_tone_alone_keeps_the_answer_and_without_it_the_answer_changes(tmp_path):
    trained, wave = listener(tmp_path), sounding()
    image = np.abs(np.asarray(front_end.analyse(FRONT, wave)[1]))
    kept = sufficient(trained, wave, image, 1, share=0.9)
    assert kept.reached
    assert said(trained, wave)[1] > 0.9
    # To rounding: a batch sums in another order.
    np.testing.assert_allclose(kept.says, said(trained, kept.sound), atol=1e-5)
    np.testing.assert_allclose(kept.rest_says, said(trained, kept.rest), atol=1e-5)
    assert kept.says[1] >= 0.9 * said(trained, wave)[1] * 0.999
    assert kept.mask[BIN].sum() > 0.5 * kept.mask.sum()
    assert kept.share < 3 / FRONT.bins
    np.testing.assert_allclose(kept.sound + kept.rest, wave, atol=1e-6)
    assert kept.energy == pytest.approx(np.sum(kept.sound**2) / np.sum(wave**2), rel=1e-5)
    assert kept.seconds == pytest.approx(min(kept.mask.any(axis=0).sum() * 32 / 4000, 0.5))
    gone = necessary(trained, wave, image, 1)
    assert gone.reached
    assert gone.rest_says[0] > 0.5
    np.testing.assert_allclose(gone.rest_says, said(trained, gone.rest), atol=1e-5)
    assert gone.mask[BIN].sum() > 0.5 * gone.mask.sum()


def test_a_worse_order_needs_more(tmp_path):
    trained, wave = listener(tmp_path), sounding()
    image = np.zeros(SIZE)
    image[BIN] = 1
    best = sufficient(trained, wave, image, 1)
    worst = sufficient(trained, wave, -image, 1)
    random = sufficient(trained, wave, np.random.default_rng(0).random(SIZE), 1)
    assert best.share < 1 / FRONT.bins + 1e-9
    assert best.share < random.share < worst.share
    assert sufficient(trained, wave, image, 1, share=0.5).share < best.share
    assert sufficient(trained, wave, image, 1, share=1).reached


def test_an_answer_is_not_kept_where_another_class_is_likelier(tmp_path):
    trained, wave = listener(tmp_path), sounding()
    image = np.zeros(SIZE)
    image[BIN] = 1
    assert 0.2 * said(trained, wave)[1] < 0.25
    kept = sufficient(trained, wave, image, 1, share=0.2)
    assert 0.5 < kept.says[1] < 0.6  # not .2: that is what the class has at least, and it is to be the answer
    less = sufficient(trained, sounding(0), image, 1, share=0.2)  # it never was: the probability alone counts
    assert less.says[1] < 0.5


def test_where_no_set_does_it_that_is_said(tmp_path):
    trained = listener(tmp_path)
    quiet = sounding(amplitude=0)
    assert np.argmax(said(trained, quiet)) == 0
    gone = necessary(trained, quiet, np.random.default_rng(0).random(SIZE), 0)
    assert not gone.reached
    assert gone.mask.all()
    assert not gone.rest.any()


@pytest.mark.parametrize(
    ("holding", "wanted"),
    [
        (set(range(500, 3000)), (500, 530)),
        (set(range(40, 60)) | set(range(200, 3000)), (40, 41)),
        (set(range(40, 60)) | set(range(70, 90)), (40, 41)),  # it does not rise steadily: more is too much again
        ({7}, (2079, 2079)),  # between two counts of the grid: not found, and the whole clip does
    ],
)
def test_the_first_count_of_a_grid_is_followed_down(holding, wanted):
    cells = SIZE[0] * SIZE[1]

    def asked():
        search = module._search(cells, lambda says, _: says[:, 1] > 0.5)
        tried = next(search)
        try:
            while True:
                tried = search.send(np.array([[1.0, float(c in holding or c == cells)] for c in tried]))
        except StopIteration as end:
            return end.value

    found = asked()
    assert found.reached
    assert wanted[0] <= found.count <= wanted[1]


def test_orders_that_are_asked_together_give_what_each_gives_alone(tmp_path):
    trained, wave, rng = listener(tmp_path), sounding(), np.random.default_rng(0)
    heard = np.abs(np.asarray(front_end.analyse(FRONT, wave)[1]))
    images = [heard, rng.random(SIZE), -heard]
    found = module.least(trained, wave, 1, images, images[:2], share=0.8)
    own = [sufficient(trained, wave, image, 1, share=0.8) for image in images]
    own += [necessary(trained, wave, image, 1) for image in images[:2]]
    for one, other in zip(found, own, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)
        for name in ("sound", "rest", "says", "rest_says"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5)
        assert (one.reached, one.seconds) == (other.reached, other.seconds)
    assert module.least(trained, wave, 1, [], []) == []


@pytest.mark.parametrize(
    "front",
    [
        FrontEnd(4000, 64, 32, 0.5, kind="mel", bands=12, power=2, scale="log10"),
        FrontEnd(4000, 64, 32, 0.5, level="clip"),
    ],
)
def test_any_front_end_hears_the_sound_again(tmp_path, front):
    trained, wave = listener(tmp_path, front), sounding()
    image = np.random.default_rng(0).random((front.bins, front.clip_frames))
    target = int(np.argmax(said(trained, wave)))
    kept = sufficient(trained, wave, image, target)
    assert kept.says[target] >= 0.9 * said(trained, wave)[target] * 0.999
    np.testing.assert_allclose(kept.says, said(trained, kept.sound), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"target": 2}, "classes 0 to 1"), ({"share": 0}, "share"), ({"image": np.ones((3, 4))}, "not of shape .*3, 4")],
)
def test_wrong_arguments_are_named(tmp_path, change, words):
    with pytest.raises(SettingError, match=words):
        sufficient(listener(tmp_path), sounding(), **({"image": np.ones(SIZE), "target": 1} | change))
