"""The listening page: what it is made of, and the page itself in a real browser."""

import base64
import csv
import dataclasses
import io
import json
import re
import shutil
import time
from pathlib import Path
from urllib.parse import unquote, urlparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
from PIL import Image
from test_sound_audio import tone

from deconv_jax.errors import InputError
from deconv_jax.measures import randomised
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block
from deconv_jax.network.trained import Trained
from deconv_jax.page import listening
from deconv_jax.page import network as about_network
from deconv_jax.results import clip_folder, explain
from deconv_jax.sound.front_end import FrontEnd

FRONT = FrontEnd(clip_seconds=1.0)
NAMED = {"songs_falling": 12, "songs": 13}
HOSTILE = "<img src=x onerror=alert(1)>"
AWKWARD = 'a #1%20?&"</script>\\'.replace("/", "\u2215")  # no file name holds a slash


# --- what the page is made of -------------------------------------------------------------------------------------


def test_the_rest_is_what_is_left_and_never_louder(rng):
    original = rng.normal(size=4000)
    for feature in (-0.2 * original, rng.normal(size=4000), np.roll(original, 1), np.zeros(4000)):
        factor, scale, gone = listening.rest(original, feature)
        left = original - factor * feature
        np.testing.assert_allclose(left @ feature, 0, atol=1e-6)  # nothing of the feature is left in it
        np.testing.assert_allclose(1 - left @ left / (original @ original), gone, atol=1e-9)
        assert 0 < scale <= 1
        assert np.abs(scale * left).max() <= np.abs(original).max() * (1 + 1e-12)
    assert listening.rest(original, -0.2 * original)[::2] == pytest.approx((-5, 1))
    assert listening.rest(np.zeros(9), np.zeros(9)) == (0, 1, 0)


# --- pages --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two layers of random weights; feature 2 of layer 1 is dead, and so layer 2 has fewer paths."""
    network = Network(blocks=(Block(maps=6), Block(maps=5)), dense=(4,), classes=2)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((FRONT.bins, FRONT.clip_frames)))["params"]
    params["conv1"]["bias"] = params["conv1"]["bias"].at[2].set(-1e6)
    variables = {"params": params, "input": {"mean": jnp.zeros((1, 1)), "scale": jnp.ones((1, 1))}}
    score = {"by_clip": {"n": 8, "accuracy": 0.75}, "by_song": {"n": 4, "accuracy": 0.5}}
    about = {
        "config": {"name": HOSTILE, "data": {"root": "/somewhere/private/My <music>"}, "train": {}},
        "report": {"test": score, "baselines": {"majority": score}, "songs": {"train": 3}, "clips": {"train": 30}},
    }
    folder = tmp_path_factory.mktemp("weights")
    made = Trained(network, variables, FRONT, ["ballad", "<b>dance"], folder, about)
    name = {"feature": 0, "concept": "pad", "auroc": 0.79, "control": 0.67, "fall": 1.44, "control_fall": 0.86}
    layer = {"features": 6, "counts": {"named": 1}, "false": {"named": 0.25}, "names": [name | NAMED]}
    about = {
        "network": made.fingerprint,
        "controls": [""] * 13,
        "layers": {"1": layer},
        "made_with": {"songs": [""] * 60},
    }
    (folder / "dissected").mkdir()
    (folder / "dissected" / "dissected.json").write_text(json.dumps(about))
    return made


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    beat = tone(1.0, FRONT.sample_rate, 440) * np.tile(np.linspace(1, 0, 2205), 5)
    soundfile.write(folder / f"{HOSTILE}.wav", beat, FRONT.sample_rate)
    soundfile.write(folder / f"{AWKWARD}.wav", tone(0.7, 22050, 1200), 22050)
    (folder / "stems" / HOSTILE).mkdir(parents=True)
    for name, share in (("Pad", np.arange(len(beat)) >= len(beat) / 2), ("lead", np.arange(len(beat)) < len(beat) / 2)):
        soundfile.write(folder / "stems" / HOSTILE / f"{name}.wav", beat * share / 2, FRONT.sample_rate)
    return [folder / f"{HOSTILE}.wav", folder / f"{AWKWARD}.wav"]


@pytest.fixture(scope="module", params=["single", "folder"])
def made(request, trained, clips, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param)
    options = clip_folder.Options((1, 2), duration=1.0, page=request.param, stems=str(clips[0].parent / "stems"))
    return clip_folder.export(trained, clips, out, options)


def embedded(page: str) -> dict[str, str]:
    return dict(re.findall(r'<script type="[^"]+" data-file="([^"]+)">([^<]*)</script>', page))


def sounds(made) -> dict[str, bytes]:
    """Every sound that the page can play, decoded from base64, by its name."""
    text = made.page.read_text()
    found = {n: base64.b64decode(t) for n, t in embedded(text).items() if n.endswith(".flac")}
    for script in made.page.parent.rglob("page/**/*.js"):
        name, content = re.fullmatch(r'deconv\("([^"]+)", "([^"]+)"\);\n', script.read_text()).groups()
        found[name] = base64.b64decode(content)
    return found


def test_every_feature_has_pictures_and_sounds_of_the_right_length_never_louder(made, trained):
    assert not made.failed
    found = sounds(made)
    # Two clips: the original, each feature and its twin, and why; of one the mix with and without a named stem.
    assert len(found) == 2 * (1 + 2 * (6 + 5) + 5) + 2
    page = made.page.read_text()
    inside = embedded(page)
    for folder in made.folders:
        address = next(n for n in inside if n.endswith("clip.json") and json.loads(inside[n])["name"] == folder.name)
        clip = json.loads(inside[address])
        root = address.removesuffix("clip.json")
        original, _ = soundfile.read(io.BytesIO(found[f"{root}original.flac"]))
        written, _ = soundfile.read(folder / "original.wav")
        np.testing.assert_allclose(original, written, atol=2**-15)
        with (folder / "features.csv").open() as handle:
            table = {(r["layer"], r["feature"]): r for r in csv.DictReader(handle)}
        rows = [(layer, r) for layer, some in clip["layers"].items() for r in some["features"]]
        assert len(rows) == len(table) == 11
        for layer, row in rows:
            stem = f"{root}layer{layer}/f{row['feature']:03d}"
            for name in (stem, f"{stem}.untrained"):
                sound, rate = soundfile.read(io.BytesIO(found[f"{name}.flac"]))
                assert (len(sound), rate) == (FRONT.clip_samples, FRONT.sample_rate)
                assert np.abs(sound).max() <= np.abs(original).max() + 2**-14
                assert np.sqrt(np.mean(sound**2)) <= np.sqrt(np.mean(original**2)) + 2**-14
                if f"{name}.png" not in inside:
                    assert (folder / "page" / f"{name.removeprefix(root)}.png").is_file()
            sound, _ = soundfile.read(io.BytesIO(found[f"{stem}.flac"]))
            assert sound.any() != bool(row["inactive"])
            factor, scale = row["rest"]
            assert np.abs(scale * (original - factor * sound)).max() <= np.abs(original).max() * 1.001
            entry = table[layer, str(row["feature"])]
            effects = [float(entry[f"effect_{label}"]) for label in trained.labels]
            np.testing.assert_allclose(row["effects"], effects, rtol=1e-4)
            likeliest = max(clip["prediction"], key=clip["prediction"].get)
            assert float(entry["effect"]) == float(entry[f"effect_{likeliest}"])
            for column in ("energy_share", "difference", "kind", "explained"):
                want = float("nan") if row[column] is None else row[column]
                assert float(entry[column]) == pytest.approx(want, rel=1e-4, nan_ok=True)
        for layer in "12":
            share = [float(r["energy_share"]) for (l, _), r in table.items() if l == layer]
            assert sum(share) == pytest.approx(1, abs=1e-5)
        dead = table["1", "2"]
        assert (dead["inactive"], dead["kind"], dead["difference"], dead["name"]) == ("1", "-1", "nan", "")


def rows_in(folder):
    with (folder / "features.csv").open() as handle:
        return {(r["layer"], r["feature"]): r for r in csv.DictReader(handle)}


def test_a_share_of_the_layers_energy_is_one_of_all_features_whichever_are_wanted(trained, clips, made, tmp_path):
    options = clip_folder.Options(layers=(1,), chosen=(4, 1), duration=1.0, page="none")
    found = rows_in(clip_folder.export(trained, clips[:1], tmp_path, options).folders[0])
    every = rows_in(made.folders[0])
    assert list(found) == [("1", "4"), ("1", "1")]
    for key, row in found.items():
        for name in ("energy_share", "energy", "active_fraction", "gain", "effect"):
            assert float(row[name]) == pytest.approx(float(every[key][name]), rel=1e-4), name


def test_without_a_page_no_twin_is_made_unless_it_is_asked_for(trained, clips, made, tmp_path, monkeypatch):
    real, asked = randomised.twin, []
    monkeypatch.setattr(randomised, "twin", lambda *given: asked.append(given) or real(*given))
    options = clip_folder.Options(layers=(1,), duration=1.0, page="none")
    found = rows_in(clip_folder.export(trained, clips[:1], tmp_path, options).folders[0])
    assert not asked
    every = rows_in(made.folders[0])
    columns = {"difference", "difference_signed"}
    assert {name for name, cell in found["1", "0"].items() if cell == ""} == columns
    assert [row["name"] for row in found.values()] == ["pad", *[""] * 5]
    assert found["1", "0"].keys() == every["1", "0"].keys()
    again = dataclasses.replace(options, untrained=True)
    found = rows_in(clip_folder.export(trained, clips[:1], tmp_path, again).folders[0])
    assert len(asked) == 2
    for name in columns:
        assert float(found["1", "0"][name]) == pytest.approx(float(every["1", "0"][name]), rel=1e-4, abs=1e-6), name
    for wrong, words in (
        ({"page": "single", "untrained": False}, "page=none"),
        ({"layers": (1, 1)}, "of 1, 1 one layer is named twice"),
        ({"stems": "no/folder"}, "stems must be a folder that holds the files' stems, not no/folder"),
        ({"chosen": [3, 3]}, "of 3, 3 one feature is named twice"),
    ):
        with pytest.raises(ValueError, match=words):
            clip_folder.export(trained, clips[:1], tmp_path, dataclasses.replace(options, **wrong))


@pytest.mark.parametrize(
    ("config", "music", "shuffled"),
    [
        ({"data": {"songs_per_genre": 4}}, "composed by rule, built in", False),
        ({"data": {"root": "/a/folk", "index": ""}}, "“folk”", False),
        ({"data": {"root": "/a/sounds", "index": "/b/tracks.csv"}}, "“tracks.csv”", False),
        ({"data": {"root": "/a/folk", "shuffle_labels": True}}, "“folk”", True),
        ({"source": {"made_by": "bin/train", "shuffle_labels": True}}, None, True),
        ({"source": {"made_by": "bin/train"}}, None, False),
    ],
)
def test_the_page_says_what_a_network_was_trained_on(trained, config, music, shuffled):
    said = dict(about_network.about(dataclasses.replace(trained, about={"config": config, "report": None})))
    assert said.get("Music") == music
    assert ("at random" in said.get("Labels", "")) == shuffled


def test_the_page_says_its_size_and_holds_no_address_and_no_private_path(made):
    page = made.page.read_text()
    assert "http:" not in page.replace("http://www.w3.org/2000/svg", "")  # a name of a language, not an address
    assert "https:" not in page
    assert "/somewhere" not in page
    assert str(made.page.parent) not in page
    assert "url(" not in re.sub(r'url\("#\$\{name\}"\)', "", page)
    said = float(re.search(r"(?:One file of|This page \()\s*([\d.]+) (?:MB|kB)", page)[1])
    real = made.page.stat().st_size / (1e6 if "MB, sounds" in page else 1e3)
    assert said == pytest.approx(real, rel=0.02)


def test_hostile_names_are_text_in_the_markup(made):
    page = made.page.read_text()
    outside = re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL)
    assert "<img" not in outside
    assert outside.count("&lt;img src=x onerror=alert(1)&gt;") >= 2
    assert "<b>dance" not in page
    assert len(re.findall("<script", page)) == len(re.findall("</script>", page))


def test_an_interrupted_run_leaves_earlier_clips_whole_and_the_earlier_page(trained, clips, tmp_path, monkeypatch):
    options = clip_folder.Options(layers=(2,), chosen=(0,), duration=1.0)
    before = clip_folder.export(trained, clips[:1], tmp_path, options).page.read_bytes()
    answer_of, calls = explain.answer_of, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return answer_of(*arguments)

    monkeypatch.setattr(explain, "answer_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        clip_folder.export(trained, clips, tmp_path, options)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([HOSTILE, "index.html"])
    assert (tmp_path / HOSTILE / "manifest.json").is_file()
    assert (tmp_path / "index.html").read_bytes() == before


def test_a_page_of_others_is_left_alone(trained, clips, tmp_path):
    options = clip_folder.Options(layers=(2,), chosen=(0,), duration=1.0)
    (tmp_path / "index.html").write_text("<p>mine</p>")
    with pytest.raises(InputError, match=r"was not made by auralise.*page=none"):
        clip_folder.export(trained, clips[:1], tmp_path, options)
    assert [p.name for p in tmp_path.iterdir()] == ["index.html"]
    made = clip_folder.export(trained, clips[:1], tmp_path, clip_folder.Options((2,), (0,), duration=1.0, page="none"))
    assert made.page is None
    assert (tmp_path / "index.html").read_text() == "<p>mine</p>"
    assert not (made.folders[0] / "page").exists()


@pytest.fixture(scope="module")
def tagger(tmp_path_factory, clips):
    """The page of a tagger from elsewhere: log-mel bands, batch norm with statistics of its own, no report."""
    front = FrontEnd(16000, 512, 256, 1.0, kind="mel", bands=24, power=2, scale="log10")
    network = Network((Block(maps=4, kernel=(5, 3), norm="before"),), dense=(), classes=14, final="sigmoid")
    variables = dict(jax.jit(network.init)(jax.random.key(0), jnp.zeros((front.bins, front.clip_frames))))
    variables["batch_stats"] = {"norm1": {"mean": jnp.ones(4), "var": jnp.full(4, 4.0)}}
    labels = [f"tag {n}" for n in range(14)]
    about = {"config": {"source": {"made_by": "somebody", "file": "weights.h5"}}, "report": None}
    trained = Trained(network, variables, front, labels, tmp_path_factory.mktemp("tagger"), about)
    options = clip_folder.Options((1,), duration=1.0, reading="mask", method="guided")
    return trained, clip_folder.export(trained, clips[:1], tmp_path_factory.mktemp("tags"), options)


def test_a_twins_batch_norm_stands_as_before_any_training(tagger):
    trained, _ = tagger
    front = trained.front_end
    twin = randomised.twin(trained.network, trained.variables, (front.bins, front.clip_frames), 5)
    norm = {**twin["params"]["norm1"], **twin["batch_stats"]["norm1"]}
    for name, want in (("scale", 1), ("bias", 0), ("mean", 0), ("var", 1)):
        np.testing.assert_array_equal(norm[name], np.full(4, want))


def test_the_page_of_a_tagger_has_rows_in_hertz_and_says_what_is_not_known(tagger):
    trained, made = tagger
    assert not made.failed
    page = made.page.read_text()
    known = json.loads(re.search('id="network">(.*?)</script>', page)[1])
    np.testing.assert_allclose(known["frequencies"], trained.front_end.frequencies(), atol=1e-3)
    assert known["layers"]["1"]["true"][1:] == [None, 5]  # mel bands are no Hz
    assert "comes with no test report" in page
    assert "Network file written" in page
    assert "How it was trained" not in page
    assert "log 24 mel bands (energy)" in page
    inside = embedded(page)
    clip = json.loads(next(text for name, text in inside.items() if name.endswith("clip.json")))
    assert sum(clip["prediction"].values()) > 2  # tags are independent: they do not add up to one
    for name in ("original", "layer1/f000", "layer1/f003.untrained"):
        text = next(text for n, text in inside.items() if n.endswith(f"{name}.png"))
        assert Image.open(io.BytesIO(base64.b64decode(text))).size == (trained.front_end.clip_frames, 24)


# --- in a browser -------------------------------------------------------------------------------------------------


def test_a_networks_card_says_how_good_it_is(tagger, clips, tmp_path):
    options = clip_folder.Options((1,), (0,), duration=1.0, reading="mask", method="guided")

    def page(out: str, **card) -> str:
        about = tagger[0].about | {"card": {"what": "right in .75 <of> clips", "not_for": "No judge of music."} | card}
        made = clip_folder.export(dataclasses.replace(tagger[0], about=about), clips[:1], tmp_path / out, options)
        return " ".join(made.page.read_text().split())

    words = page("words")
    assert "<dt>From its card</dt><dd>right in .75 &lt;of&gt; clips. No judge of music.</dd>" in words
    assert "no test report" not in words
    assert "Network file written" not in words

    def row(name: str, clip: float, song: float) -> dict:
        return {"name": name, "by_clip": {"balanced_accuracy": clip}, "by_song": {"balanced_accuracy": song}}

    rows = [row("network", 0.942, 0.989), row("level removed", 0.86, 0.978)]
    numbers = page("numbers", results=[{"on": "songs <never> heard", "clips": 1900, "songs": 90, "rows": rows}])
    assert re.findall(r'class="name">(.*?)</span>.*?class="value">(.*?)</span>', numbers) == [
        ("this network", "94 %"),
        ("the same, level removed", "86 %"),
    ]
    assert (
        "Genre named right, mean over the genres, by clip, on 1,900 clips of 90 songs; songs &lt;never&gt; heard. "
        "By song: this network 99 %, the same, level removed 98 %.</p>" in numbers
    )
    assert "<dt>From its card</dt><dd>right in .75 &lt;of&gt; clips. No judge of music.</dd>" in numbers


class Visit:
    """A page that was opened from its file, and everything that must not happen on it."""

    def __init__(self, browser, path: Path, **settings):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **settings})
        self.context.set_default_timeout(10_000)
        self.context.add_init_script(
            "window.started = 0; window.buffers = []; const start = AudioBufferSourceNode.prototype.start;"
            "AudioBufferSourceNode.prototype.start = function (...a) {"
            "  window.started++; window.buffers.push(this.buffer); return start.apply(this, a); };"
        )
        self.page = self.context.new_page()
        self.wrong, self.asked = [], []
        self.page.on("console", lambda m: self.wrong.append(m.text))
        self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
        self.page.on("dialog", lambda d: (self.wrong.append(f"dialog {d.message}"), d.dismiss()))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(".card[aria-current=true]")

    def time(self) -> float:
        return float(self.page.input_value("#seek"))

    def chosen(self) -> int:
        return int(self.page.get_attribute("#grid .card[aria-current=true]", "data-feature"))

    def order(self) -> list[int]:
        return [int(c.get_attribute("data-feature")) for c in self.page.query_selector_all("#grid .card")]

    def source(self) -> str:
        return self.page.input_value("input[name=source]:checked")

    def check(self):
        outside = [u for u in self.asked if not u.startswith(("file:", "data:", "blob:"))]
        assert (self.wrong, outside) == ([], [])


def until(holds):
    """Waits until something holds. Playwright's own waiting evaluates text in the page, which the page forbids."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it did not come true within 20 seconds"
        time.sleep(0.02)


@pytest.fixture
def visit(browser, made):
    visit = Visit(browser, made.page)
    yield visit
    visit.check()
    visit.context.close()


def test_the_page_opens_by_itself_and_shows_every_feature(visit, made):
    page = visit.page
    assert page.inner_text("#clip-name") == HOSTILE
    assert page.inner_text("[data-clip='1']") == AWKWARD
    assert page.inner_text("#prediction").count("<b>dance") == 1
    assert page.locator("img[src='x']").count() == 0
    assert page.title().startswith(HOSTILE)
    page.uncheck("#group")
    for layer, count in ((1, 6), (2, 5)):
        page.click(f"role=tab[name='Layer {layer}']")
        assert page.get_attribute(f"role=tab[name='Layer {layer}']", "aria-selected") == "true"
        assert sorted(visit.order()) == list(range(count))
        inactive = page.locator("#grid .card.inactive").count()
        assert page.locator("#grid .card img").count() == count - inactive
        for image in page.query_selector_all("#grid .card img"):
            image.scroll_into_view_if_needed()
            until(lambda i=image: i.evaluate("i => i.complete && i.naturalWidth > 0"))
    page.click("role=tab[name='Layer 1']")
    assert visit.order()[-1] == 2  # the inactive one comes last
    page.click(".card[data-feature='2']")
    assert page.locator("#feature-plot .blank").is_visible()
    assert "Inactive" in page.inner_text("#measured")
    assert "Dissected over 60 songs, 1 of the 6 of the layer has a name" in page.inner_text("#summary")
    for feature in (0, 1, 3, 4, 5):
        page.click(f".card[data-feature='{feature}']")
        name = "pad: 0.79, best of 13 controls 0.67; falls 1.4 without pad" if feature == 0 else "No name: no stem"
        assert page.inner_text("#measured").startswith(name)
        assert page.locator("#kernel td").count() == 9
    page.click("#elsewhere .card")
    assert page.inner_text("#clip-name") == AWKWARD
    assert visit.chosen() == 5
    used = [u for u in visit.asked if u.endswith(".js")]
    assert not used  # no sound is loaded before it is wanted


def test_sounds_decode_in_the_browser_at_their_right_length(visit, made):
    lengths = visit.page.evaluate(
        """async ([texts, rate]) => Promise.all(texts.map(async (text) => {
          const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
          return (await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes.buffer)).length;
        }))""",
        [[base64.b64encode(s).decode() for s in sounds(made).values()], FRONT.sample_rate],
    )
    assert lengths == [FRONT.clip_samples] * len(sounds(made))


def test_keys_do_what_the_page_says(visit):
    page = visit.page
    page.uncheck("#group")
    page.evaluate("document.activeElement.blur()")
    order = visit.order()
    assert visit.chosen() == order[0]  # what speaks most for the answer
    effects = {r["feature"]: effect_on_answer(page, 0, r) for r in rows_of(page, 0, 2)}
    assert [effects[f] for f in order] == sorted(effects.values())
    page.keyboard.press("ArrowRight")
    assert visit.chosen() == order[1]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert visit.chosen() == order[0]
    page.set_viewport_size({"width": 560, "height": 800})  # so narrow that there are rows
    page.keyboard.press("ArrowDown")
    below = visit.chosen()
    assert below not in order[:2]
    page.keyboard.press("ArrowUp")
    assert visit.chosen() == order[0]
    for key, name in (("1", "original"), ("3", "rest"), ("4", "untrained"), ("2", "feature")):
        page.keyboard.press(key)
        assert visit.source() == name
    page.keyboard.press("Space")
    until(lambda: visit.time() > 0.1)
    assert page.get_attribute("#play", "aria-label") == "Pause"
    page.keyboard.press("Space")
    assert page.get_attribute("#play", "aria-label") == "Play"
    where = visit.time()
    page.wait_for_timeout(150)
    assert visit.time() == where
    page.keyboard.press("l")
    assert not page.is_checked("#loop")
    page.keyboard.press("Space")  # plays to the end, once
    until(lambda: page.get_attribute("#play", "aria-pressed") == "false")
    assert visit.time() == 0
    page.keyboard.press("f")
    assert page.get_attribute("#favourite", "aria-pressed") == "true"
    page.keyboard.press("n")
    page.keyboard.type("1 f n")  # letters, not keys
    assert page.input_value("#note") == "1 f n"
    assert (page.get_attribute("#favourite", "aria-pressed"), visit.source()) == ("true", "feature")
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    assert page.get_attribute("#favourite", "aria-pressed") == "false"


def test_switching_keeps_the_position_and_does_not_start_again(visit):
    page = visit.page
    page.uncheck("#group")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    until(lambda: visit.time() > 0.2)
    started = page.evaluate("started")
    assert started == 4  # the original, the feature, the rest and the twin run together
    for key in "1324":
        moved, passed = page.evaluate(
            """async (key) => {
              const now = () => [Number(document.getElementById('seek').value), performance.now() / 1000];
              const frame = () => new Promise(requestAnimationFrame);
              await frame();
              const [where, when] = now();
              document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
              await frame().then(frame);
              return [(now()[0] - where + 1) % 1, now()[1] - when];
            }""",
            key,
        )
        assert moved < passed + 0.1  # it went on, over the end of the second that repeats too
    assert page.evaluate("started") == started
    assert page.get_attribute("#play", "aria-pressed") == "true"
    page.keyboard.press("ArrowRight")  # another feature goes on where the last one was
    until(lambda: page.evaluate("started") == 8)
    head = page.evaluate("document.querySelector('#feature-plot .head').style.transform")
    assert re.fullmatch(r"translateX\([\d.]+px\)", head)
    page.keyboard.press("Space")
    page.mouse.click(*_inside(page, "#feature-plot .field", 0.75))
    assert visit.time() == pytest.approx(0.75, abs=0.02)
    page.click("#moments button >> nth=0")
    assert visit.time() == pytest.approx(float(page.inner_text("#moments button >> nth=0").split()[0]), abs=0.011)


def _inside(page, selector: str, share: float) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    return box["x"] + share * box["width"], box["y"] + box["height"] / 2


def test_feature_and_rest_make_up_the_original_again(visit):
    page = visit.page
    row = next(r for r in rows_of(page, 0, 2) if r["feature"] == visit.chosen())
    page.keyboard.press("Space")
    until(lambda: page.evaluate("started") == 4)
    original, feature, rest, twin = np.array(page.evaluate("buffers.map((b) => Array.from(b.getChannelData(0)))"))
    assert len(original) == FRONT.clip_samples
    factor, scale = row["rest"]
    np.testing.assert_allclose(rest / scale + factor * feature, original, atol=1e-6)
    for sound in (feature, rest, twin):
        assert sound.any()
        assert np.abs(sound).max() <= np.abs(original).max() * 1.001
        assert np.sqrt(np.mean(sound**2)) <= np.sqrt(np.mean(original**2)) * 1.001


def test_the_panel_is_asked_about_sets_of_features(visit):
    page = visit.page
    rows = {r["feature"]: r for r in rows_of(page, 0, 2)}
    asked = json.loads(page.locator("script[data-file$='clip.json']").first.text_content())["layers"]["2"]["asked"]
    said = lambda: page.locator("#ask-says .value").all_inner_texts()  # noqa: E731
    percents = lambda p: sorted(f"{100 * v:.{1 if 100 * v < 9.95 else 0}f}\u202f%" for v in p)  # noqa: E731
    assert sorted(said()) == percents(asked["before"])
    target = int(page.input_value("#ask-class"))
    assert asked["before"][target] == max(asked["before"])
    sides = [
        [int(f) for f in page.locator(f"#ask-sides section >> nth={n} >> li .name").all_inner_texts()] for n in (0, 1)
    ]
    order = sorted(rows, key=lambda f: rows[f]["effects"][target])
    assert sides[0] + sides[1][::-1] == [f for f in order if rows[f]["effects"][target]]
    first = order[0]
    page.click(f"role=button[name='Mute feature {first}']")
    assert page.get_attribute(f"role=button[name='Mute feature {first}']", "aria-pressed") == "true"
    assert sorted(said()) == percents(asked["muted"][list(rows).index(first)])
    page.click(f"role=button[name='Mute feature {order[2]}']")
    assert "not computed" in page.inner_text("#ask-says")
    page.click("#ask-reset")
    page.focus("#ask-few")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    mine = next(o for o in asked["orders"] if o["class"] == target)
    assert sorted(said()) == percents(mine["out"][1])
    page.click("label:has(input[value=alone])")
    assert sorted(said()) == percents(mine["left"][1])
    page.click("#ask-hear")
    until(lambda: page.evaluate("started") == 1)
    (heard,) = np.array(page.evaluate("buffers.map((b) => Array.from(b.getChannelData(0)))"))
    sounds = {f: decoded(page, f"layer2/f{f:03d}") * rows[f]["weight"] for f in mine["features"][:2]}
    mix, original = sum(sounds.values()), decoded(page, "original")
    np.testing.assert_allclose(heard / np.linalg.norm(heard), mix / np.linalg.norm(mix), atol=1e-5)
    assert np.linalg.norm(heard) <= np.linalg.norm(original) * 1.001
    page.click("#ask-hear")
    assert page.inner_text("#ask-hear") == "Hear what is left"
    other = 1 - target
    page.select_option("#ask-class", str(other))
    page.uncheck("#group")
    acting = [f for f in rows if not rows[f]["inactive"]]
    assert visit.order()[: len(acting)] == sorted(acting, key=lambda f: rows[f]["effects"][other])
    assert page.locator("#ask-curves svg[role=img]").count() == 2
    assert page.locator("#ask-curves path.way").count() == 5
    assert all(p.is_visible() for p in page.locator("#ask-curves path.way").all())


def test_why_is_heard_beside_the_answer_to_each_sound(visit):
    page = visit.page
    said = json.loads(page.locator("script[data-file$='clip.json']").first.text_content())["why"]
    assert page.locator("#why-sounds li").count() == 6
    assert said["class"] in page.inner_text("#why-title")
    button = page.locator("#why-sounds button").nth(1)
    button.click()
    until(lambda: page.evaluate("started") == 1)
    until(lambda: button.get_attribute("aria-pressed") == "true")
    (heard,) = np.array(page.evaluate("buffers.map((b) => Array.from(b.getChannelData(0)))"))
    np.testing.assert_allclose(heard, decoded(page, "why/keeps"), atol=1e-4)
    page.keyboard.press("1")  # the sounds that run together again
    until(lambda: page.evaluate("started") == 5)
    assert button.get_attribute("aria-pressed") == "false"
    page.click("#play")
    assert page.locator("#why-plot canvas").get_attribute("aria-label").startswith("Spectrogram of what spoke for")


def test_the_mix_is_heard_with_and_without_what_a_feature_is_named_after(visit):
    page = visit.page
    page.click("role=tab[name='Layer 1']")
    page.uncheck("#group")
    page.click(".card[data-feature='0']")
    assert page.inner_text("#measured").endswith("Its image need not sound like the name.")
    named, without = (page.locator(f"role=button[name='Play the mix {word} pad']") for word in ("with", "without"))
    named.click()
    until(lambda: page.evaluate("started") == 1)
    until(lambda: named.get_attribute("aria-pressed") == "true")
    without.click()
    until(lambda: page.evaluate("started") == 2)
    until(lambda: without.get_attribute("aria-pressed") == "true")
    assert named.get_attribute("aria-pressed") == "false"
    mix, left = np.array(page.evaluate("buffers.map((b) => Array.from(b.getChannelData(0)))"))
    original, half = decoded(page, "original"), len(mix) // 2
    np.testing.assert_allclose(mix, original, atol=1e-4)  # the stems add up to half of it
    np.testing.assert_allclose(left[:half], original[:half], atol=1e-4)
    assert np.abs(left[half + 1 :]).max() < 1e-4
    page.click(".card[data-feature='1']")  # it has no name, so that its own sound is heard
    until(lambda: page.evaluate("started") >= 6)
    assert visit.source() == "feature"
    assert page.locator("#stems button").count() == 0
    page.click("#play")
    page.click(".card[data-feature='0']")
    page.click("[data-clip='1']")  # a clip whose stems are not known
    assert page.locator("#stems button").count() == 0


def decoded(page, name: str) -> np.ndarray:
    """A sound of the first clip as the single page, or the folder beside it, holds it."""
    element = page.locator(f"script[data-file$='/page/{name}.flac']")
    if element.count():
        text = element.first.text_content()
    else:
        clip = page.locator("script[data-file$='clip.json']").first.get_attribute("data-file")
        folder = Path(unquote(urlparse(page.url).path)).parent / unquote(clip)
        text = re.search(r'", "([^"]+)"', (folder.parent / f"{name}.js").read_text())[1]
    return soundfile.read(io.BytesIO(base64.b64decode(text)))[0]


def effect_on_answer(page, clip: int, row: dict) -> float:
    prediction = json.loads(page.locator("script[data-file$='clip.json']").nth(clip).text_content())["prediction"]
    return row["effects"][int(np.argmax(list(prediction.values())))]


def rows_of(page, clip: int, layer: int) -> list[dict]:
    return json.loads(page.locator("script[data-file$='clip.json']").nth(clip).text_content())["layers"][str(layer)][
        "features"
    ]


def test_favourites_and_notes_survive_a_reload_and_are_exported(visit):
    page = visit.page
    feature = visit.chosen()
    page.keyboard.press("f")
    page.keyboard.press("n")
    page.keyboard.type('=SUM(1), "kick" <b>')
    page.wait_for_timeout(1000)  # a busy Chromium ends the old process before its last writes have left it
    page.reload()
    page.wait_for_selector(".card[aria-current=true]")
    assert visit.chosen() == feature
    assert page.input_value("#note") == '=SUM(1), "kick" <b>'
    assert page.get_attribute("#favourite", "aria-pressed") == "true"
    page.check("#starred")
    assert visit.order() == [feature]
    with page.expect_download() as download:
        page.click("#export")
    assert download.value.suggested_filename == "favourites.csv"
    with open(download.value.path(), newline="", encoding="utf-8-sig") as handle:
        (row,) = csv.DictReader(handle)
    assert (row["clip"], row["layer"], row["feature"], row["favourite"]) == (HOSTILE, "2", str(feature), "1")
    assert row["note"] == '\'=SUM(1), "kick" <b>'  # no formula for a spreadsheet
    assert 0 < float(row["active_fraction"]) <= 1


def test_a_browser_that_keeps_nothing_is_named(browser, made):
    visit = Visit(browser, made.page)
    visit.page.add_init_script("Storage.prototype.setItem = () => { throw new Error('denied'); };")
    visit.page.reload()
    visit.page.wait_for_selector(".card[aria-current=true]")
    visit.page.keyboard.press("f")
    assert "does not keep notes" in visit.page.inner_text("#kept")
    assert visit.page.get_attribute("#favourite", "aria-pressed") == "true"  # for this visit it holds
    visit.check()
    visit.context.close()


def test_kinds_open_and_close_and_numbers_sort(visit):
    page = visit.page
    page.click("role=tab[name='Layer 1']")
    grouped = visit.order()
    for more in range(page.locator(".more").count()):
        button = page.locator(".more").nth(more)
        button.click()
        assert page.locator(".more").nth(more).get_attribute("aria-expanded") == "true"
    assert sorted(visit.order()) == list(range(6))
    for more in range(page.locator(".more").count()):
        page.locator(".more").nth(more).click()
    assert visit.order() == grouped
    page.uncheck("#group")
    assert page.input_value("#sort") == "effect"
    page.select_option("#sort", "feature")
    assert visit.order() == [0, 1, 3, 4, 5, 2]  # inactive last
    rows = rows_of(page, 0, 1)
    for key in ("active_fraction", "energy_share", "difference"):
        page.select_option("#sort", key)
        values = [next(r[key] for r in rows if r["feature"] == f) for f in visit.order()[:-1]]
        assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_page_without_scrolling_sideways(browser, made, scheme):
    visit = Visit(browser, made.page, viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True)
    page = visit.page
    wide = "document.documentElement.scrollWidth"
    for layer in (1, 2):
        page.tap(f"role=tab[name='Layer {layer}']")
        assert page.evaluate(wide) == 360
    for more in range(page.locator(".more").count()):
        page.locator(".more").nth(more).tap()
    for details in page.query_selector_all("details"):
        details.evaluate("e => { e.open = true; }")
    page.locator("#grid .card").nth(1).tap()
    assert page.evaluate(wide) == 360
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
    assert (brightness < 64) == (scheme == "dark")
    visit.check()
    visit.context.close()


def test_everything_has_a_name_for_those_who_do_not_see_it(visit):
    page = visit.page
    page.uncheck("#group")
    page.evaluate("document.activeElement.blur()")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, textarea, canvas[role=img]')].filter((e) =>
          !(e.ariaLabel || e.textContent.trim() || [...(e.labels ?? [])].some((l) => l.textContent.trim()))
        ).map((e) => e.outerHTML)"""
    )
    assert nameless == []
    label = page.get_attribute(f".card[data-feature='{visit.chosen()}']", "aria-label")
    assert re.search(r"Feature \d: active in .* difference from untrained .* changes by [+−]?\d", label)
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#status").startswith("Feature ")
    page.keyboard.press("3")
    assert page.inner_text("#status").startswith("The rest")
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_folders_page_says_so_when_it_was_moved_away_from_them(browser, made, tmp_path):
    if not (made.folders[0] / "page").exists():
        pytest.skip("a single page has everything inside")
    shutil.copy(made.page, tmp_path / "index.html")
    visit = Visit(browser, tmp_path / "index.html")
    visit.page.wait_for_selector("#feature-plot .blank:visible")
    assert "missing" in visit.page.inner_text("#feature-plot .blank")
    visit.page.keyboard.press("Space")
    until(lambda: "missing" in visit.page.inner_text("#status"))
    visit.context.close()


def test_a_taggers_page_shows_its_bands_and_its_likeliest_tags(browser, tagger):
    visit = Visit(browser, tagger[1].page)
    page = visit.page
    assert page.locator("#prediction .bar").count() == 10
    assert "likeliest of 14" in page.inner_text("#prediction")
    assert "mel bands" in page.inner_text("#facts")
    assert page.inner_text("label:has(input[value=linear])") == "Bands"
    for axis in ("linear", "log"):
        page.click(f"label:has(input[value={axis}])")
        marks = page.locator("#feature-plot .y span")
        until(lambda marks=marks: marks.count() >= 3)
        heights = [float(m.get_attribute("style").split(":")[1].strip(" %;")) for m in marks.all()]
        assert heights == sorted(heights)
        assert all(0 <= h <= 100 for h in heights)
    visit.check()
    visit.context.close()
