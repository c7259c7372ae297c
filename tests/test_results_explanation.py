"""An explanation shows itself: what a notebook gets, held against the arrays that it is made of."""

import base64
import io
import re
import sys
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from PIL import Image

import deconv_jax
from deconv_jax.decision.sufficient import says_of
from deconv_jax.deconvolution.deconvolve import deconvolve
from deconv_jax.errors import InputError, SettingError
from deconv_jax.measures import randomised
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block
from deconv_jax.network.trained import Trained
from deconv_jax.page import notebook
from deconv_jax.results import explanation
from deconv_jax.sound import auralisation
from deconv_jax.sound.front_end import FrontEnd

FRONT = FrontEnd(sample_rate=4000, n_fft=64, hop=32, clip_seconds=0.5)
HOSTILE = '<img src=x onerror=alert(1)> & "it\'s"'
DEAD = 2


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Random weights; feature 2 is dead."""
    network = Network(blocks=(Block(maps=20),), dense=(3,), classes=3)
    variables = dict(jax.jit(network.init)(jax.random.key(0), jnp.zeros((FRONT.bins, FRONT.clip_frames))))
    variables["params"]["conv1"]["bias"] = jnp.zeros(20).at[DEAD].set(-1e6)
    return Trained(network, variables, FRONT, ["a", HOSTILE, "c"], tmp_path_factory.mktemp("none"), {"config": {}})


@pytest.fixture(scope="module")
def wave():
    n = FRONT.clip_samples
    return (0.1 * np.random.default_rng(0).standard_normal(n) * np.linspace(0.1, 1, n)).astype(np.float32)


@pytest.fixture(scope="module")
def result(trained, wave):
    return deconv_jax.explain(trained, wave, sample_rate=FRONT.sample_rate)


class Parts(HTMLParser):
    """Elements with their attributes, the text, and what is inside as data: addresses."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.open = [], "", []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += "" if self.open[-1:] == ["style"] else data

    def inside(self, tag):
        return [base64.b64decode(attrs["src"].partition(",")[2]) for name, attrs in self.elements if name == tag]


def played(content):
    return soundfile.read(io.BytesIO(content), dtype="float32")[0]


def check_html(html):
    """It loads nothing, runs nothing, and what came from outside is text."""
    parts = Parts(html)
    assert {tag for tag, _ in parts.elements} <= {"div", "style", "p", "figure", "figcaption", "img", "audio", "span"}
    for _, attrs in parts.elements:
        assert not [name for name in attrs if name.startswith("on")]
        assert attrs.get("src", "data:").startswith("data:")
    assert not re.search(r"https?:|url\(|@import", html)
    return parts


def test_features_come_in_the_order_of_what_they_do_and_sound_as_the_functions_make_them(result, trained, wave):
    parts = check_html(result._repr_html_())
    target = result.answer.target
    order = np.argsort(result.layer.effects[:, target], kind="stable")[: explanation.MOST]
    np.testing.assert_array_equal(result.order()[: explanation.MOST], order)
    assert [int(n) for n in re.findall(r"^Feature (\d+)$", parts.text, re.MULTILINE)] == order.tolist()
    sounds = [played(content) for content in parts.inside("audio")]
    np.testing.assert_allclose(sounds[0], wave, atol=2**-15)  # 16 bits
    active = [n for n in order if not result.layer.measures.inactive[n]]
    assert len(sounds) == 1 + len(active)
    seen = result.clip.seen
    images = np.asarray(deconvolve(trained.network, trained.variables, seen, 1))
    for number, sound in zip(active, sounds[1:], strict=True):
        own = auralisation.auralise(images[number], result.clip.spectrum, hop=FRONT.hop, length=len(wave))
        own = auralisation.match_gain(np.asarray(own), wave).waveform
        np.testing.assert_allclose(sound, own, atol=1e-3 * np.abs(own).max() + 2**-15, err_msg=str(number))
    pictures = [Image.open(io.BytesIO(content)) for content in parts.inside("img")]
    assert {picture.size for picture in pictures} == {(FRONT.clip_frames, FRONT.bins)}


def test_nothing_is_embedded_but_what_is_shown(result):
    few, many = check_html(result.show(3).html), check_html(result.show(1000).html)
    assert len(few.inside("img")) == 4
    silent = int(result.layer.measures.inactive.sum())
    assert result.layer.measures.inactive[DEAD]
    assert (len(many.inside("img")), len(many.inside("audio"))) == (21, 21 - silent)
    assert "inactive: silence" in many.text
    assert "show(20) shows all 20" in few.text
    assert "shows all" not in many.text


def test_pictures_of_a_layer_share_one_scale(result):
    parts = Parts(result.show(20).html)
    tops = np.abs(result.layer.images).max(axis=(1, 2))
    for number, content in zip(result.order(), parts.inside("img")[1:], strict=True):
        level = -70 if tops[number] == 0 else max(-70, 20 * np.log10(tops[number] / tops.max()))
        assert np.asarray(Image.open(io.BytesIO(content))).max() == 3 * np.rint(level + 70)


def test_one_feature_stands_beside_the_rest_and_an_untrained_networks(result, trained, wave):
    number = int(result.order()[0])
    feature = result[number]
    parts = check_html(feature._repr_html_())
    sounds = [played(content) for content in parts.inside("audio")]
    assert len(sounds) == len(parts.inside("img")) == 4
    for sound, wanted in zip(sounds, (wave, feature.sound, feature.rest, feature.untrained_sound), strict=True):
        np.testing.assert_allclose(sound, wanted, atol=2**-15)
    # What is left has nothing of the feature's sound in it.
    assert abs(np.dot(feature.rest, feature.sound)) < 1e-5 * np.linalg.norm(wave) * np.linalg.norm(feature.sound)
    twin = randomised.twin(trained.network, trained.variables, (FRONT.bins, FRONT.clip_frames), randomised.SEEDS[0])
    want = np.asarray(deconvolve(trained.network, twin, result.clip.seen, 1))[number]
    np.testing.assert_allclose(feature.untrained_image, want, atol=1e-5 * np.abs(want).max())
    assert list(feature.effects) == trained.labels
    np.testing.assert_array_equal(list(feature.effects.values()), result.layer.effects[number])
    assert [one.number for one in result] == result.order().tolist()


def test_a_dead_feature_is_shown_as_silence(result):
    feature = result[DEAD]
    assert not feature.sound.any()
    np.testing.assert_allclose(feature.rest, result.clip.waveform)
    check_html(feature._repr_html_())


def test_the_answer_is_asked_for_in_sound(result, trained):
    reasons = result.why()
    parts = check_html(reasons._repr_html_())
    assert list(reasons.sounds) == ["attribution", "keeps", "without", "goes", "changed"]
    assert len(parts.inside("audio")) == 6
    kept = reasons.sounds["keeps"]
    np.testing.assert_allclose(says_of(trained, kept.waveform[None])[0], kept.says, atol=1e-5)
    assert "In other orders, as much" in parts.text
    chance = reasons.found.kept_nulls["random order"].share <= reasons.found.kept.share
    assert ("is no sign of what it hangs on" in parts.text) == chance
    other = next(label for label in trained.labels if label != trained.labels[result.answer.target])
    asked = result.why(other)
    assert asked.found.target == trained.labels.index(other)
    assert asked.found.gone is None
    assert list(asked.sounds) == ["attribution", "keeps", "without"]
    assert len(check_html(asked._repr_html_()).inside("audio")) == 4


def test_a_file_and_a_waveform_of_another_rate_are_explained_alike(trained, wave, result, tmp_path):
    path = tmp_path / f"{HOSTILE.replace('/', '')}.wav"
    soundfile.write(path, wave, FRONT.sample_rate, subtype="FLOAT")
    found = deconv_jax.explain(trained, path, layer=1)
    np.testing.assert_allclose(found.layer.images, result.layer.images, atol=1e-5 * result.layer.loudest)
    assert HOSTILE in check_html(found._repr_html_()).text
    twice = np.repeat(wave, 2)
    half = deconv_jax.explain(trained, twice, sample_rate=2 * FRONT.sample_rate, duration=0.25, offset=0.125)
    assert half.clip.waveform.shape == (FRONT.sample_rate // 4,)
    assert "the waveform" in repr(half)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"network": object()}, "network must be a name.*deconvolve_function"),
        ({"network": "no-such-network"}, "no-such-network"),
        ({"sound": np.zeros((2, 4000))}, r"shape \(2, 4000\).*take the mean"),
        ({"sound": np.zeros(4000, int)}, "floats"),
        ({"sample_rate": None}, "sample_rate is missing"),
        ({"sound": "a.wav"}, "a file has its own"),
        ({"sample_rate": 4000.5}, "whole number"),
        ({"sound": np.zeros(4000)}, "silent"),
        ({"offset": 9.0}, "nothing of it is left"),
        ({"offset": -0.25}, "offset must be a number of seconds"),
        ({"duration": -0.25}, "duration must be a number of seconds"),
        ({"duration": 0}, "duration must be a number of seconds"),
        ({"offset": float("nan")}, "offset must be a number of seconds"),
        ({"sample_rate": float("nan")}, "whole number"),
        ({"layer": 2}, "layer 2"),
        ({"reading": "loud"}, "reading must be"),
        ({"method": "best"}, "method must be"),
    ],
)
def test_what_cannot_be_explained_is_said(trained, wave, given, says):
    wanted = {"network": trained, "sound": wave, "sample_rate": FRONT.sample_rate} | given
    with pytest.raises((InputError, SettingError), match=says):
        deconv_jax.explain(**wanted)


def test_what_is_asked_of_an_explanation_must_exist(result):
    with pytest.raises(SettingError, match="'d' is no class of this network"):
        result.why("d")
    with pytest.raises(SettingError, match="most must be at least 1"):
        result.show(0)
    with pytest.raises(SettingError, match="20"):
        result[20]


# --- a spectrogram that plays


def test_any_array_and_sound_are_shown_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "deconv_jax.page.widget", None)  # as if anywidget were not there
    wave = np.sin(np.arange(4000) / 3)
    shown = deconv_jax.listen(wave, 8000, np.eye(5), title=HOSTILE)
    assert isinstance(shown, notebook.Html)
    parts = check_html(shown._repr_html_())
    np.testing.assert_allclose(played(parts.inside("audio")[0]), wave, atol=2**-15)
    assert HOSTILE in parts.text
    assert len(check_html(deconv_jax.listen(wave[:3], 8000).html).inside("img")) == 1  # shorter than a window


@pytest.mark.parametrize(("rate", "played_at"), [(1000, 8000), (3000, 3000), (1_000_000, notebook.HIGHEST)])
def test_a_rate_that_no_browser_plays_becomes_one_that_they_do(rate, played_at):
    sound, found = soundfile.read(io.BytesIO(notebook.sound(np.sin(np.arange(rate) * 600 / rate), rate)))
    assert (found, len(sound)) == (played_at, played_at)  # a second still
    middle = slice(len(sound) // 4, len(sound) // 2)  # away from the filter's edges
    np.testing.assert_allclose(sound[middle], np.sin(np.arange(len(sound))[middle] * 600 / found), atol=1e-2)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"waveform": np.zeros((2, 9))}, "take the mean"),
        ({"waveform": []}, "shape"),
        ({"waveform": [1, np.nan]}, "1 of 2 values"),
        ({"waveform": "song.mp3"}, "not str"),
        ({"waveform": [1j, 2]}, "complex"),
        ({"sample_rate": 0.5}, "sample_rate"),
        ({"sample_rate": np.nan}, "sample_rate"),
        ({"sample_rate": np.inf}, "sample_rate"),
        ({"image": np.zeros(3)}, "image must be"),
        ({"image": np.zeros((3, 2)), "frequencies": [1, 2]}, "one for each of 3 rows"),
        ({"image": np.zeros((2, 2)), "frequencies": [2, 1]}, "must rise"),
        ({"image": np.zeros((2, 2)), "frequencies": [2, np.nan]}, "1 of 2 values"),
    ],
)
def test_what_cannot_be_listened_to_is_said(given, says):
    with pytest.raises(SettingError, match=says):
        deconv_jax.listen(**({"waveform": np.ones(9), "sample_rate": 8000} | given))


def test_the_widget_tells_what_was_chosen_in_seconds_and_hertz():
    pytest.importorskip("anywidget", reason="anywidget is not installed: pip install 'deconv_jax[notebook]'")
    import traitlets

    wave = np.arange(8000, dtype=np.float32) / 8000
    player = deconv_jax.listen(wave, 8000, np.ones((4, 10)), frequencies=[100, 200, 400, 800])
    assert (player.seconds, player.selection) == (1.0, None)
    np.testing.assert_array_equal(player.selected, wave)
    told = []
    player.observe(lambda change: told.append(change.new), "selection")
    player.box = [0.25, 0.5, 0.375, 0.625]  # as the browser tells it: the middle of the second and of the third row
    assert told == [{"start": 0.25, "end": 0.5, "low": 200.0, "high": 400.0}]
    np.testing.assert_array_equal(player.selected, wave[2000:4000])
    player.selection = {"start": 0.1, "end": 0.3}
    np.testing.assert_allclose(player.box, [0.1, 0.3, 0, 1])
    assert len(told) == 2
    player.box = []
    assert player.selection is None
    for wrong in ({"start": 0.3, "end": 0.1}, {"start": 0, "end": 2}, {"start": 0, "end": 1, "no": 1}):
        with pytest.raises(traitlets.TraitError, match="start below end"):
            player.selection = wrong
