"""Why an answer was given: what is written of it does what it says, heard again from the files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from deconv_jax.decision.sufficient import says_of
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block
from deconv_jax.network.trained import Trained
from deconv_jax.results import clip_folder, explain, why
from deconv_jax.sound import audio
from deconv_jax.sound.front_end import FrontEnd

FRONT = FrontEnd(sample_rate=4000, n_fft=64, hop=32, clip_seconds=0.5)


def small(front, folder):
    network = Network(blocks=(Block(maps=4), Block(maps=3)), dense=(5,), classes=3)
    variables = dict(jax.jit(network.init)(jax.random.key(1), jnp.zeros((front.bins, front.clip_frames))))
    return Trained(network, variables, front, list("abc"), folder, {"config": {}})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return small(FRONT, tmp_path_factory.mktemp("none"))


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """As long as three and a half of the network's clips."""
    path = tmp_path_factory.mktemp("songs") / "song.wav"
    rng, n = np.random.default_rng(0), int(3.5 * FRONT.clip_samples)
    wave = 0.1 * rng.standard_normal(n) * np.linspace(0.2, 1, n)
    soundfile.write(path, wave, FRONT.sample_rate, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def folder(trained, song, tmp_path_factory):
    options = clip_folder.Options(layers=(2,), chosen=(0,), duration=None, page="none", untrained=True)
    return clip_folder.export(trained, [song], tmp_path_factory.mktemp("out"), options).folders[0]


def test_every_sound_has_the_answer_that_stands_beside_it(trained, song, folder):
    said = json.loads((folder / "manifest.json").read_text())["why"]
    assert set(said["kept_nulls"]) == set(said["gone_nulls"]) == {"random weights", "loudest first", "random order"}
    sounds = {name: soundfile.read(folder / "why" / f"{name}.wav", dtype="float32")[0] for name in said["sounds"]}
    assert list(sounds) == ["attribution", "keeps", "without", "goes", "changed"]
    for name, wave in sounds.items():
        # Files have 24 bits, or floats: what is heard again is the same to rounding.
        np.testing.assert_allclose(says_of(trained, wave[None])[0], said["sounds"][name], atol=1e-4, err_msg=name)
    target = trained.labels.index(said["class"])
    start = round(said["start"] * FRONT.sample_rate)
    whole = audio.cut(audio.read(song, FRONT.sample_rate), start, FRONT.clip_samples)
    np.testing.assert_allclose(says_of(trained, whole[None])[0], said["whole"], atol=1e-4)
    assert said["sounds"]["keeps"][target] >= 0.9 * said["whole"][target] * 0.999
    for one, other in (("keeps", "without"), ("goes", "changed")):
        np.testing.assert_allclose(sounds[one] + sounds[other], whole, atol=1e-4)
    kept = np.load(folder / "why.npz")["keeps"]
    assert said["kept"]["cells"] == pytest.approx(kept.mean())
    assert np.sqrt(np.mean(sounds["attribution"] ** 2)) <= np.sqrt(np.mean(whole**2)) * 1.001


def test_of_a_song_the_surest_part_is_explained(trained, song, folder):
    said = json.loads((folder / "manifest.json").read_text())["why"]
    clip = explain.clip_of(FRONT, audio.read(song, FRONT.sample_rate))
    answer = explain.answer_of(trained, clip)
    assert len(answer.parts) > 2
    surest = int(np.argmax(answer.probabilities[:, answer.target]))
    assert said["start"] == pytest.approx(answer.starts[surest] * FRONT.hop / FRONT.sample_rate)
    assert said["class"] == trained.labels[answer.target]


def test_without_a_twin_its_null_is_left_out_and_a_short_clip_is_padded(trained, song):
    clip = explain.clip_of(FRONT, audio.read(song, FRONT.sample_rate)[: FRONT.clip_samples // 2])
    found = why.why(trained, clip, explain.answer_of(trained, clip))
    assert set(found.kept_nulls) == set(found.gone_nulls) == {"loudest first", "random order"}
    assert found.image.shape == (FRONT.bins, FRONT.clip_frames)
    assert all(len(sound.waveform) == FRONT.clip_samples for sound in found.sounds.values())


def test_it_can_be_left_out(trained, song, tmp_path):
    options = clip_folder.Options(layers=(2,), chosen=(0,), duration=0.5, page="none", why=False)
    folder = clip_folder.export(trained, [song], tmp_path, options).folders[0]
    assert not (folder / "why").exists()
    assert json.loads((folder / "manifest.json").read_text())["why"] is None


@pytest.mark.parametrize("kind", ["mel", "cqt"])
def test_of_other_spectra_the_sounds_are_what_was_heard_too(kind, tmp_path):
    front = FrontEnd(4000, n_fft=128, hop=64, clip_seconds=0.5, kind=kind, bands=24, fmin=200.0)
    trained = small(front, tmp_path)
    rng = np.random.default_rng(1)
    clip = explain.clip_of(front, 0.1 * rng.standard_normal(front.clip_samples))
    found = why.why(trained, clip, explain.answer_of(trained, clip), reading="mask")
    assert found.image.shape == found.kept.mask.shape == (front.bins, front.clip_frames)
    for name, sound in found.sounds.items():
        np.testing.assert_allclose(says_of(trained, sound.waveform[None])[0], sound.says, atol=1e-5, err_msg=name)
    for cells in (found.kept, found.gone):
        np.testing.assert_allclose(cells.sound + cells.rest, found.whole.waveform, atol=1e-4)
