"""Explaining a clip, without any file: what is asked for, beside the functions that it is made of."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deconv_jax.decision.effects import effects
from deconv_jax.deconvolution import deconvolve as deconvolution
from deconv_jax.deconvolution import windows
from deconv_jax.deconvolution.deconvolve import deconvolve
from deconv_jax.errors import SettingError
from deconv_jax.measures import features, randomised
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block
from deconv_jax.network.trained import Trained
from deconv_jax.results import explain
from deconv_jax.sound.front_end import FrontEnd

FRONT = FrontEnd(sample_rate=4000, n_fft=64, hop=32, clip_seconds=0.5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Random weights; feature 2 is dead."""
    network = Network(blocks=(Block(maps=5),), dense=(3,), classes=2)
    variables = dict(jax.jit(network.init)(jax.random.key(0), jnp.zeros((FRONT.bins, FRONT.clip_frames))))
    variables["params"]["conv1"]["bias"] = jnp.asarray([0.0, 0.0, -1e6, 0.0, 0.0])
    return Trained(network, variables, FRONT, ["a", "b"], tmp_path_factory.mktemp("none"), {"config": {}})


@pytest.fixture(scope="module")
def clip():
    wave = 0.1 * np.random.default_rng(0).standard_normal(FRONT.clip_samples) * np.linspace(0.1, 1, FRONT.clip_samples)
    return explain.clip_of(FRONT, wave.astype(np.float32))


def test_a_layer_holds_what_its_functions_give(trained, clip):
    layer = explain.layer_of(trained, clip, 1)
    want = np.asarray(deconvolve(trained.network, trained.variables, clip.seen, 1))
    np.testing.assert_allclose(layer.images, want, atol=1e-5 * np.abs(want).max())  # a sweep sums in another order
    assert layer.loudest == np.abs(layer.images).max()
    assert layer.energy_share.sum() == pytest.approx(1)
    assert layer.measures.inactive.tolist() == [False, False, True, False, False]
    assert layer.untrained is None
    assert [len(peaks) > 0 for peaks in layer.peaks] == [True, True, False, True, True]
    assert all(0 <= peak <= 0.5 for peaks in layer.peaks for peak in peaks)


@pytest.mark.parametrize(("chosen", "numbers"), [([4, 0], [4, 0]), ([4, 3, 2, 1, 0], [4, 3, 2, 1, 0]), ("top:2", None)])
def test_what_is_said_of_a_feature_does_not_depend_on_which_others_are_wanted(trained, clip, chosen, numbers):
    every = explain.layer_of(trained, clip, 1)
    some = explain.layer_of(trained, clip, 1, chosen=chosen)
    answer = explain.answer_of(trained, clip)
    numbers = np.argsort(every.effects[:, answer.target])[:2].tolist() if numbers is None else numbers
    assert some.features.tolist() == numbers
    for name in ("images", "maps", "energy_share", "effects"):  # to rounding: another number of features is summed
        np.testing.assert_allclose(getattr(some, name), getattr(every, name)[numbers], rtol=1e-5, err_msg=name)
    for name, values in features.columns(some.measures).items():
        np.testing.assert_allclose(values, features.columns(every.measures)[name][numbers], rtol=1e-5, err_msg=name)
    assert [p.tolist() for p in some.peaks] == [every.peaks[n].tolist() for n in numbers]


def test_effects_are_those_of_every_part_of_a_song(trained, clip):
    song = explain.clip_of(FRONT, np.concatenate([clip.waveform, 0.3 * clip.waveform[::-1]]))
    answer = explain.answer_of(trained, song)
    assert len(answer.parts) > 1
    want = np.mean([effects(trained.network, trained.variables, part, 1) for part in answer.parts], axis=0)
    layer = explain.layer_of(trained, song, 1, answer=answer)
    np.testing.assert_allclose(layer.effects, want, atol=1e-6)
    assert not layer.effects[2].any()  # dead
    order = np.argsort(want[:, answer.target]).tolist()
    assert explain.layer_of(trained, song, 1, chosen="top:3").features.tolist() == order[:3]
    loud = np.argsort(-layer.measures.energy)[:3].tolist()
    assert explain.layer_of(trained, song, 1, chosen="top:3", by="energy").features.tolist() == loud
    assert loud != order[:3]


def test_a_twin_is_compared_with_as_a_whole_and_shown_by_number(trained, clip):
    twins = explain.twins(trained)
    every = explain.layer_of(trained, clip, 1, twins=twins)
    some = explain.layer_of(trained, clip, 1, chosen=[3, 1], twins=twins)
    size = (FRONT.bins, FRONT.clip_frames)
    other = randomised.twin(trained.network, trained.variables, size, randomised.SEEDS[0])
    images = np.asarray(deconvolve(trained.network, other, clip.seen, 1))
    np.testing.assert_allclose(every.untrained.images, images, rtol=1e-6)
    np.testing.assert_allclose(some.untrained.images, images[[3, 1]], rtol=1e-6)
    assert some.untrained.loudest == pytest.approx(np.abs(images).max())
    for name in ("difference", "difference_signed"):
        values = [getattr(layer.untrained.comparison, name) for layer in (every, some)]
        np.testing.assert_allclose(values[1], values[0][[3, 1]], atol=1e-6, err_msg=name)


def test_sounds_are_made_as_they_are_taken(trained, clip):
    layer, taken = explain.layer_of(trained, clip, 1), []
    sounds = explain.sounds(FRONT, clip, (taken.append(n) or layer.images[n % 5] for n in range(40)))
    first = next(sounds)
    assert len(taken) == 16
    assert first.shape == clip.waveform.shape
    rest = list(sounds)
    assert len(rest) == 39
    np.testing.assert_allclose(rest[4], first, atol=1e-6)
    assert not rest[1].any()


def test_the_prediction_is_the_mean_over_clips(trained, clip):
    assert list(explain.answer_of(trained, clip).named(trained.labels)) == ["a", "b"]
    length = FRONT.clip_frames
    long = explain.clip_of(FRONT, np.tile(clip.waveform, 3)[: 2 * len(clip.waveform) + 100])
    starts = np.round(np.linspace(0, long.seen.shape[1] - length, 3)).astype(int)  # of what is explained
    logits = [trained.network.apply(trained.variables, long.seen[:, s : s + length])[0] for s in starts]
    want = np.mean([jax.nn.softmax(values) for values in logits], axis=0)
    said = explain.answer_of(trained, long)
    np.testing.assert_allclose(said.mean, want, atol=1e-6)
    np.testing.assert_array_equal(said.starts, starts)
    assert said.target == np.argmax(want)


def test_no_length_of_a_song_is_compiled_for(trained, compiled_by):
    rng, twins = np.random.default_rng(0), explain.twins(trained)

    def explained(samples):
        song = explain.clip_of(FRONT, 0.1 * rng.standard_normal(samples).astype(np.float32))
        layer = explain.layer_of(trained, song, 1, twins=twins)
        explain.answer_of(trained, song)
        return len(list(explain.sounds(FRONT, song, layer.images)))

    songs = [windows.WINDOW_FRAMES * FRONT.hop * 3 + more for more in (0, 1, 777, 20_000)]
    for samples in songs[:2]:  # of whole hops, and with a rest
        explained(samples)
    for samples in songs[2:]:
        assert compiled_by(lambda n=samples: explained(n)) == []


def test_a_song_that_memory_does_not_hold_is_refused(trained, monkeypatch):
    monkeypatch.setattr(deconvolution.runtime, "memory", lambda: 10**8)
    explain.check_memory(trained, np.zeros(FRONT.clip_samples), [1], True)
    with pytest.raises(SettingError, match=r"it lasts 3,600 s, and the images of a layer of 5 features take .* GB"):
        explain.check_memory(trained, np.zeros(3600 * FRONT.sample_rate), [1], False)


def test_explaining_touches_no_file():
    assert not re.search(
        r"\b(open|Path|files|print|log|tqdm)\(|import.*\b(files|Path|logging)\b", inspect.getsource(explain)
    )
