"""Tables, figures and claims: measures of planted cases, and the command as a user types it."""

import csv
import dataclasses
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy import stats
from test_cli import command, fails, run  # noqa: F401  # the tiny network is a fixture

from deconv_jax.decision import attribution
from deconv_jax.errors import InputError
from deconv_jax.experiments import agreement, claims, cue_networks, cue_ways, cues, faithfulness, signals
from deconv_jax.experiments import run as experiments
from deconv_jax.measures import kernels, likeness
from deconv_jax.measures.invariance import Average
from deconv_jax.music import stimuli
from deconv_jax.network import receptive_field
from deconv_jax.network.model import Network, paper_network
from deconv_jax.network.receptive_field import PRINTED
from deconv_jax.network.spec import Block
from deconv_jax.network.trained import Trained
from deconv_jax.pictures import paper
from deconv_jax.results import ways_back
from deconv_jax.sound.front_end import FrontEnd
from deconv_jax.system import runtime
from deconv_jax.training import workdir

RATE = 11025


# --- Table 1 and Figure 4 -------------------------------------------------------------------


def test_table_1_is_the_papers_but_for_the_number_its_rule_does_not_give():
    found = receptive_field.extents(paper_network().blocks, FrontEnd())
    for extent, (ms, hz) in zip(found, PRINTED, strict=True):
        assert extent.rule_ms == pytest.approx(ms, abs=1)  # the paper rounds 1137.8 down
        if extent.layer == 5:
            assert (round(extent.rule_hz), hz) == (1055, 1270)
        else:
            assert round(extent.rule_hz) == hz
    assert [(e.true_frames, e.true_bins) for e in found] == [(n, n) for n in (3, 8, 18, 38, 78)]
    assert [round(e.true_ms) for e in found] == [93, 209, 441, 906, 1834]
    assert receptive_field.is_the_papers(paper_network(maps=8).blocks, FrontEnd())
    assert not receptive_field.is_the_papers(paper_network().blocks, FrontEnd(hop=128))


def test_extents_of_another_network():
    """Frequency and time of their own, and overlapping pools; reckoned by hand."""
    blocks = (Block(kernel=(5, 3), pool=(3, 3), stride=(2, 3)), Block(kernel=(3, 3), pool=(2, 2)))
    first, second = receptive_field.extents(blocks, FrontEnd(sample_rate=1000, n_fft=100, hop=50))
    assert (first.true_bins, first.true_frames, first.rule_bins, first.rule_frames) == (5, 3, 5, 3)
    assert (second.rule_bins, second.rule_frames) == (6, 9)
    # A pooled cell sees 5 + 2 bins and 3 + 2 frames; its neighbours lie 2 bins and 3 frames further.
    assert (second.true_bins, second.true_frames) == (7 + 2 * 2, 5 + 2 * 3)
    assert second.rule_ms == pytest.approx(8 * 50 + 100)
    assert second.rule_hz == pytest.approx(7 * 10)


def test_kernels_are_labelled_by_what_they_do():
    along_time = np.tile([-1.0, 0, 1], (3, 1))
    planted = [along_time, along_time.T, np.full((3, 3), 0.2), [[1, 0, -1], [0, 0, 0], [-1, 0, 1]], np.zeros((3, 3))]
    found = kernels.measure(np.moveaxis(np.array([*planted, along_time / 1000]), 0, -1)[:, :, None])
    assert found.labels.tolist() == ["onset", "harmonic", "low-pass", "mixed", "dead", "dead"]
    np.testing.assert_allclose(found.shares, [*np.eye(4), np.zeros(4), np.eye(4)[0]], atol=1e-12)
    np.testing.assert_allclose(found.along_time[0], [-3, 0, 3])
    np.testing.assert_allclose(found.along_frequency[1], [-3, 0, 3])


def test_kernel_shares_divide_the_energy_and_follow_the_degrees_of_freedom(rng):
    found = kernels.measure(rng.normal(size=(3, 3, 1, 4000)))
    np.testing.assert_allclose(found.shares.sum(axis=1), 1)
    np.testing.assert_allclose(found.shares.mean(axis=0), [2 / 9, 2 / 9, 1 / 9, 4 / 9], atol=0.01)


@pytest.mark.parametrize(("size", "features"), [((3, 3), 64), ((5, 2), 32)])
def test_one_random_layer_in_twenty_at_most_is_called_unlike_random_layers(rng, size, features):
    """Four labels are four chances to be called so; at 2.5 % a side for each, 64 kernels were with probability .105."""
    expected, layers = kernels.chance(size, features, seed=1), 3000
    labels = kernels.measure(rng.uniform(-1, 1, (*size, 1, layers * features))).labels.reshape(layers, features)
    counts = np.stack([np.sum(labels == label, axis=1) for label in kernels.LABELS], axis=1)
    np.testing.assert_allclose(counts.mean(axis=0), expected.mean, atol=0.006 * features)  # four standard errors
    assert 0.01 < expected.unlike(counts).any(axis=1).mean() <= 0.05
    assert expected.unlike([features, 0, 0, 0]).tolist() == [True, expected.low[1] > 0, False, True]


def test_distinct_features_are_strong_and_unlike():
    activity = np.array([0.0, 5.0, 4.9, 3.0, 2.0, 0.1])
    correlation = np.eye(6)
    correlation[1, 2] = correlation[2, 1] = 0.99
    correlation[1, 4] = correlation[4, 1] = -0.5
    # Candidates are the strongest quarter, at least `count`: 1, 2 and 3 here; 3 is least like 1, then 2 is left.
    assert likeness.distinct(activity, correlation, 3).tolist() == [1, 3, 2]
    assert likeness.distinct(activity, correlation, 4).tolist()[:3] == [1, 3, 4]
    assert likeness.distinct(activity, correlation, 9).tolist() == [1, 3, 5, 4, 2]  # 0 is inactive
    assert likeness.distinct(np.zeros(4), np.full((4, 4), np.nan), 2).tolist() == []


# --- signals --------------------------------------------------------------------------------


def test_model_signals_are_written_once_and_read_back(tmp_path):
    some = stimuli.factorial(stimuli.INSTRUMENTS[:1], stimuli.CHORDS[:2], stimuli.KEYS[:2])
    folder = tmp_path / "signals"
    signals.write_stimuli(folder, some, RATE)
    names = sorted(p.name for p in folder.glob("*.wav"))
    assert names[0] == "000_pure-sine_intervals_Eb2.wav"
    before = (folder / names[0]).stat().st_mtime_ns
    signals.write_stimuli(folder, some, RATE)
    assert (folder / names[0]).stat().st_mtime_ns == before
    sounds, failed = signals.read(folder, RATE, 2.0)
    assert not failed
    assert sounds.attributes == [s.attributes for s in some]
    assert sounds.waveforms.shape == (4, 2 * RATE)
    np.testing.assert_allclose(sounds.waveforms[0], stimuli.synthesise(some[0])[: 2 * RATE], atol=1e-7)
    with (folder / "hits.csv").open() as handle:
        hits = list(csv.DictReader(handle))
    assert len(hits) == 2 * (12 + 6)
    assert hits[1]["midi"] == "51 53"
    signals.write_stimuli(folder, some[:2], RATE)  # another recipe takes its place
    assert len(list(folder.glob("*.wav"))) == 2
    _, failed = signals.read(folder, RATE, 4.0)
    assert failed == []
    (folder / "recipe.json").unlink()
    with pytest.raises(InputError, match="holds no model signals"):
        signals.write_stimuli(folder, some, RATE)


def test_signals_that_are_too_short_are_left_out_and_named(tmp_path):
    some = stimuli.factorial(stimuli.INSTRUMENTS[:1], stimuli.CHORDS[:2], stimuli.KEYS[:2])
    signals.write_stimuli(tmp_path / "signals", some, RATE)
    sounds, failed = signals.read(tmp_path / "signals", RATE, 4.0)
    assert [a["chord"] for a in sounds.attributes] == ["intervals"] * 2
    assert len(failed) == 2
    assert "lasts 2.00 s, less than the 4 s" in failed[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("name,key\na.wav,1\n", "column file"),
        ("file\na.wav\n", "column for each attribute"),
        ("file,key,key\na.wav,1,2\n", "columns"),
        ("file,key\na.wav\n", "row 2"),
        ("file,key\na.wav,1,2\n", "row 2"),
        ("file,key\nnone.wav,1\nnone.wav,2\n", "0 signal.* at least 2 .*none.wav"),
        (b"file,key\n\xff\xfe,1\n", "no readable table"),
    ],
)
def test_tables_that_cannot_be_used_are_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "signals.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=f"signals.csv.*{message}"):
        signals.read(tmp_path, RATE, 1.0)


# --- claims ---------------------------------------------------------------------------------


def planted(means, spread=0.01):
    """(layer, attribute) → estimate with independent draws about each mean."""
    rng = np.random.default_rng(0)
    return {cell: claims.Estimate(mean, rng.normal(mean, spread, 500)) for cell, mean in means.items()}


def papers_result():
    names, first, last = ("key", "chord", "instrument"), (0.5, 0.3, 0.2), (0.65, 0.6, 0.57)
    return {(layer, n): m for layer, row in ((1, first), (5, last)) for n, m in zip(names, row, strict=True)}


def verdicts(cells):
    return {c.text: claims.judge(c, cells)["verdict"] for c in claims.claims(["instrument", "chord", "key"], [1, 5])}


def test_the_papers_own_result_makes_every_claim_hold_and_its_opposite_none():
    found = verdicts(planted(papers_result(), 0.002))
    assert len(found) == 6
    assert set(found.values()) == {"holds"}
    opposite = {cell: 1 - mean for cell, mean in papers_result().items()}
    found = verdicts(planted(opposite, 0.002))
    assert found.pop("all three are similar (within 0.1) in layer 5") == "holds"
    assert set(found.values()) == {"does not hold"}
    assert set(verdicts(planted(papers_result(), 1.0)).values()) == {"undecided"}
    apart = papers_result() | {(5, "key"): 0.9}
    assert verdicts(planted(apart, 0.002))["all three are similar (within 0.1) in layer 5"] == "does not hold"


def test_claims_are_decided_for_the_input_where_it_has_an_answer():
    one = {
        name: claims.Estimate(0.1 * n, np.full(10, 0.1 * n)) for n, name in enumerate(("instrument", "chord", "key"))
    }
    cells = {(layer, name): one[name] for layer in (1, 5) for name in one}
    found = {c.text: claims.judge(c, cells) for c in claims.claims(list(one), [1, 5])}
    assert found["key matters least in every layer"]["verdict"] == "holds"
    assert found["layer 5 is more robust to chord than layer 1"] is None
    everything = [c.text for c in claims.claims(["player", "take"], [1, 2])]
    assert everything == [
        "layer 2 is more robust to player than layer 1",
        "layer 2 is more robust to take than layer 1",
        "all attributes are similar (within 0.1) in layer 2",
    ]
    assert claims.claims(["player"], [3]) == []


def test_words_say_what_a_control_shows_as_well():
    cells = planted(papers_result(), 0.002)
    flat = planted(dict.fromkeys(papers_result(), 0.5), 0.002)
    judged = []
    for claim in claims.claims(["instrument", "chord", "key"], [1, 5]):
        found = {"trained": claims.judge(claim, cells), "random": claims.judge(claim, flat)}
        judged.append({"claim": claim.text, "networks": found})
    words = claims.in_words(judged, "trained", ["random"])
    assert words[0].startswith("Of 6 claims, 6 hold for the trained network, 0 do not, and 0 cannot be decided.")
    assert "1 hold for a control as well" in words[0]  # that all three are similar
    assert len(words) == 7
    change = claims.change_beside(cells, flat, ["key", "chord"], [1, 5])
    assert change[1]["here"] == pytest.approx(0.3)
    assert change[1]["there"] == pytest.approx(0)
    assert change[1]["low"] < 0.3 < change[1]["high"]
    dead = flat | {(5, "chord"): claims.Estimate(np.nan, np.full(500, np.nan))}
    said = claims.change_in_words(
        claims.change_beside(cells, dead, ["key", "chord"], [1, 5]), [1, 5], "shuffled labels"
    )
    assert "nan" not in said
    assert "; chord unknown, one network having no two images to compare." in said
    assert re.search(r"shuffled labels: key \+0\.\d\d against [+-]0\.\d\d \(difference", said)


def test_the_sheet_shows_networks_that_never_had_a_value():
    cells = {(layer, name): Average(np.nan, np.nan, 0, 4) for layer in (1, 2) for name in ("a", "b$x$")}
    empty = dict.fromkeys(cells, (np.nan, np.nan))
    one = paper.Series("trained", "trained", cells, empty)
    sheet = paper.invariance_sheet([one], ["a", "b$x$"], [1, 2], "title $x$", "caption\n$y$")
    assert sheet.startswith(b"\x89PNG")


# --- the command ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Six tones that differ in player and take, one file that is none, and their table."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    rows = ["file,player,take"]
    for player, base in (("ann", 220), ("bob", 500)):
        for take in range(3):
            time = np.arange(RATE) / RATE
            wave = 0.3 * np.sin(2 * np.pi * base * (1 + take) * time) * (time % 0.5) + rng.normal(0, 0.01, RATE)
            soundfile.write(folder / f"{player}{take}.wav", wave, RATE)
            rows.append(f"{player}{take}.wav,{player},{take}")
    (folder / "broken.wav").write_text("no sound")
    (folder / "signals.csv").write_text("\n".join([*rows, "broken.wav,cid,0"]))
    return folder


def test_the_command_makes_everything_and_goes_on_from_what_is_there(run, recordings, tmp_path):  # noqa: F811
    songs = [recordings / "ann0.wav", recordings / "bob2.wav"]
    flags = [f"--workdir={run}", f"--out={tmp_path}/out", f"--signals={recordings}", "--seconds=0.9"]
    flags += ["--random_networks=2", f"--null_workdir={run}"]
    process = command("experiments", *flags, *songs)
    assert process.returncode == 1  # one of the recordings is none
    assert "Traceback" not in process.stderr
    assert "1 file(s) could not be used" in process.stderr
    assert "broken.wav" in process.stderr
    out = tmp_path / "out"
    made = {p.name for p in out.iterdir()}
    figures_made = ("table1", "figure4", "figure10")
    assert made == {f"{f}.{end}" for f in figures_made for end in ("png", "csv", "json")} | {
        *("figure9.png", "features.csv", "features.json", "features_layer1.png", "features_layer2.png", "correlations"),
    }
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in out.glob("*.png"))
    report = json.loads((out / "figure10.json").read_text())
    assert report["pairs"] == {"player": 3, "take": 6}
    assert report["signals"]["used"] == 6
    assert all(sentence in process.stdout for sentence in report["sentences"])
    with (out / "figure10.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    networks = [("trained", 2), ("null", 2), ("random 1", 2), ("random 2", 2), ("input", 1)]
    assert len(rows) == 2 * sum(n for _, n in networks)
    cells = {(r["network"], r["layer"], r["attribute"]): r for r in rows}
    (path,) = (out / "correlations").glob("trained_layer1_linear_*.npz")
    with np.load(path) as stored:
        missing = np.isnan(stored["correlations"])
    assert missing[2].all()  # this feature is dead: its correlations are left out and counted
    assert not missing.all()
    for name, columns in (("player", slice(0, 3)), ("take", slice(3, 9))):
        row, gone = cells["trained", "1", name], missing[:, columns].sum()
        assert (int(row["left_out"]), int(row["values"])) == (gone, 4 * int(row["pairs"]) - gone)
    assert cells["trained", "1", "take"]["mean"] == cells["null", "1", "take"]["mean"]
    assert cells["random 1", "2", "take"]["mean"] != cells["random 2", "2", "take"]["mean"]
    for row in rows:
        assert float(row["low"]) <= float(row["mean"]) <= float(row["high"])
    table = json.loads((out / "features.json").read_text())["features"]
    assert {r["excerpt"] for r in table} == {"ann0", "bob2"}
    assert {r["layer"] for r in table} == {1, 2}

    kept = {p: p.stat().st_mtime_ns for p in (out / "correlations").glob("*.npz")}
    assert len(kept) == 8
    damaged = sorted(kept)[0]
    damaged.write_bytes(b"half")
    process = command("experiments", "--experiment=invariance", *flags)
    assert process.returncode == 1
    after = {p: p.stat().st_mtime_ns for p in (out / "correlations").glob("*.npz")}
    assert {p for p in kept if after[p] != kept[p]} == {damaged}
    again = json.loads((out / "figure10.json").read_text())
    assert again["averages"] == report["averages"]
    assert not list(out.glob(".*"))


def test_correlations_of_another_view_are_not_taken_for_these(run, recordings, tmp_path):  # noqa: F811
    flags = ["--experiment=invariance", f"--workdir={run}", f"--out={tmp_path}", f"--signals={recordings}"]
    flags += ["--seconds=0.9", "--layer=1", "--random_networks=0"]
    means = []
    for more in ([], ["--spectrogram=decibel"]):
        command("experiments", *flags, *more)
        with (tmp_path / "figure10.csv").open() as handle:
            means.append(next(csv.DictReader(handle))["mean"])
    assert means[0] != means[1]
    assert len(list((tmp_path / "correlations").glob("*.npz"))) == 2


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        (["--experiment=figure11"], 2, ["experiment", "faithfulness|table1|kernels|invariance|cues"]),
        (["--experiment=table1", "song.wav"], 2, ["song.wav", "no sound files"]),
        (["--layer=one"], 2, ["--layer=one"]),
        (["--features=9", "x.wav"], 2, ["feature 9", "0 to"]),
        (["--spectrogram=mel"], 2, ["spectrogram", "linear|decibel|mask"]),
        (["--random_networks=-1"], 2, ["random_networks"]),
        (["--experiment=table1", "--workdir=/nowhere"], 1, ["/nowhere", "bin/train"]),
        (["--experiment=invariance", "--null_workdir=/nowhere"], 1, ["--null_workdir=/nowhere: ", "bin/train"]),
        (["--experiment=invariance", "--signals=/nowhere"], 1, ["/nowhere/signals.csv"]),
        (["--experiment=table1", "--out=/proc/none"], 1, ["--out=/proc/none"]),
    ],
)
def test_wrong_flags_and_places_end_in_one_line(run, tmp_path, flags, status, words):  # noqa: F811
    more = [] if "--workdir" in " ".join(flags) else [f"--workdir={run}"]
    fails(command("experiments", *more, *flags, cwd=tmp_path), status, *words)


def test_signals_without_a_pair_are_refused(run, recordings, tmp_path):  # noqa: F811
    folder = tmp_path / "unrelated"
    folder.mkdir()
    (folder / "signals.csv").write_text(f"file,a,b\n{recordings}/ann0.wav,1,1\n{recordings}/bob1.wav,2,2\n")
    flags = ["--experiment=invariance", f"--signals={folder}", "--seconds=0.5", f"--workdir={run}", "--out=out"]
    fails(command("experiments", *flags, cwd=tmp_path), 1, "signals.csv", "no two signals differ in one attribute")


# --- faithfulness ---------------------------------------------------------------------------


def test_measures_of_masks_follow_their_formulas():
    """A network whose logits are (4 · mean of the cells, 0) and a clip of ones: any order gives the same."""
    block = Block(maps=1, kernel=(1, 1), pool=(1, 1), stride=(1, 1))
    network = Network((block,), dense=(), classes=2, dropout=0.0, head="average")
    params = {
        "conv1": {"kernel": np.ones((1, 1, 1, 1), np.float32), "bias": np.zeros(1, np.float32)},
        "output": {"kernel": np.array([[4.0, 0.0]], np.float32), "bias": np.zeros(2, np.float32)},
    }
    front = FrontEnd(sample_rate=RATE, n_fft=16, hop=8, clip_seconds=0.01)
    trained = Trained(network, {"params": params}, front, ["a", "b"], Path(), {"config": {}})
    rows = np.ones((1, 10, 20), np.float32)
    before = np.array([[1 / (1 + np.exp(-4.0)), 0]])
    ranks = faithfulness._ranks(np.zeros((1, 10, 20)), np.random.default_rng(0))
    assert sorted(ranks.ravel()) == pytest.approx(
        np.arange(200) / 200
    )  # ties fall at random, and every cell has a place
    found = faithfulness._measure(trained, rows, before, ranks, faithfulness.Settings(share=0.25, steps=4))
    p = 1 / (1 + np.exp(-4.0 * np.array([0, 0.25, 0.5, 0.75, 1])))
    np.testing.assert_allclose(found["insertion curve"], [p], rtol=1e-5)
    np.testing.assert_allclose(found["deletion curve"], [p[::-1]], rtol=1e-5)
    np.testing.assert_allclose(found["insertion"], [(p[0] / 2 + p[1:4].sum() + p[4] / 2) / 4], rtol=1e-5)
    np.testing.assert_allclose(found["AD"], [100 * (p[4] - p[1]) / p[4]], rtol=1e-5)
    np.testing.assert_allclose(found["FF"], [p[4] - p[3]], rtol=1e-5)
    assert (found["AI"], found["AG"], found["Fid-In"], found["energy"]) == (0, 0, 1, 0.25)


def test_cells_come_in_the_order_of_the_image():
    image = np.array([[[3.0, -1.0], [0.5, 7.0]]])
    ranks = faithfulness._ranks(image, np.random.default_rng(0))
    np.testing.assert_array_equal(ranks, [[[0.25, 0.75], [0.5, 0]]])


def test_faithfulness_writes_a_table_a_figure_and_sounds(run, recordings, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(attribution, "METHODS", ("gradient", "grad_cam"))  # all take 40 s to compile
    paths = [recordings / f"{name}.wav" for name in ("ann0", "bob2", "broken")]
    few = faithfulness.Settings(clips=1, steps=2, sounds=1)
    sentences, failed = faithfulness.faithfulness(workdir.load(run), paths, tmp_path, settings=few)
    assert len(failed) == 1
    assert "broken.wav" in failed[0]
    report = json.loads((tmp_path / "faithfulness.json").read_text())
    assert report["sentences"] == sentences
    rows = {row["method"]: row for row in report["methods"]}
    assert set(rows) == {
        *("random order", "energy of the input"),
        *attribution.METHODS,
        *(f"{method}, random weights" for method in attribution.METHODS),
    }
    assert rows["random order"]["ahead_of_random"] == 0
    assert rows["random order"]["energy"] == pytest.approx(0.1, abs=0.05)
    assert rows["energy of the input"]["energy"] > 0.5
    for row in rows.values():
        assert 0 <= row["insertion"] <= 1
        assert 0 <= row["AD"] <= 100
        assert row["ahead_of_random"] == pytest.approx(rows["random order"]["deletion"] - row["deletion"], abs=1e-6)
        assert row["low"] <= row["ahead_of_random"] <= row["high"]
    assert (tmp_path / "faithfulness.png").read_bytes().startswith(b"\x89PNG")
    sounds = {path.name for path in (tmp_path / "faithfulness" / "ann0_1").iterdir()}
    assert {"original.wav", "gradient.wav", "gradient_rest.wav", "energy_of_the_input.wav"} <= sounds
    assert len(sounds) == 1 + 2 * len(rows)


def test_faithfulness_leaves_out_methods_that_have_no_rule_for_an_activation(run, recordings, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(attribution, "METHODS", ("guided", "gradient", "deconvnet"))
    trained = workdir.load(run)
    blocks = tuple(dataclasses.replace(block, activation="elu") for block in trained.network.blocks)
    smooth = dataclasses.replace(trained, network=trained.network.clone(blocks=blocks))
    few = faithfulness.Settings(clips=1, steps=2, sounds=0)
    sentences, _ = faithfulness.faithfulness(smooth, [recordings / "ann0.wav"], tmp_path, settings=few)
    assert sentences[-1] == "Left out, as an activation of this network is no rectifier: guided, deconvnet."
    found = [row["method"] for row in json.loads((tmp_path / "faithfulness.json").read_text())["methods"]]
    assert found == ["random order", "energy of the input", "gradient", "gradient, random weights"]


# --- planted cues ---------------------------------------------------------------------------

FEW = dataclasses.replace(cue_networks.QUICK, cues=("tone",), layers=1, maps=4, steps=20, explained=2, points=2)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A quick run with one method (all take long to compile): its folders and its sentences."""
    out, cache = tmp_path_factory.mktemp("cues"), tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attribution, "METHODS", ("integrated_gradients",))
        patch.setattr(cue_networks, "QUICK", FEW)
        patch.setattr(runtime, "keep_compiled", lambda: None)
        *sentences, folder = experiments.planted_cues(out, cache, quick=True)
    assert folder == str(out)
    return out, cache, sentences


def test_planted_cues_are_scored_for_every_method_network_and_clip(asked):
    out, _, sentences = asked
    report = json.loads((out / "cues.json").read_text())
    assert report["sentences"] == sentences
    assert [entry["cue"] for entry in report["networks"]] == ["tone"]
    with (out / "cues_clips.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    methods = ("integrated_gradients", cues.SUFFICIENT)
    kinds = {(row["network"], row["method"]) for row in rows}
    networks = (cue_networks.TRAINED, cue_networks.RANDOM, cue_networks.SHUFFLED)
    assert kinds == {("", cues.NOISE), ("", cues.ENERGY)} | {(n, m) for n in networks for m in methods}
    assert len(rows) == len(kinds) * 2 * FEW.explained
    assert {(row["label"], row["present"]) for row in rows} == {("ballad", "0"), ("hip-hop", "1")}
    for row in report["methods"]:
        assert row["songs"] == FEW.explained
        assert row["auroc_low"] <= row["auroc"] <= row["auroc_high"]
        assert (row["ahead"] is None) == (row["network"] != cue_networks.TRAINED)
        if row["ahead"] is not None:
            assert row["ahead"] <= row["learnt"]  # two of the four controls
            assert row["ahead_low"] <= row["ahead"] <= row["ahead_high"]
        if row["method"] == cues.NOISE:
            assert row["auroc"] == pytest.approx(0.5, abs=0.1)
    assert {row["cues"] for row in report["follows"]} == {1}
    assert sentences[-1].startswith("Ways back, 1 cue(s)")
    assert [(row["cue"], row["layer"], row["way"], row["songs"]) for row in report["ways"]] == [
        ("tone", FEW.layers, way, FEW.explained) for way in ways_back.WAYS
    ]
    for row in report["ways"]:
        assert row["control"] in networks[1:]
        assert row["ahead_of_cells"] == pytest.approx(row["energy"] - row["cells"])
        assert 0.001 < row["cells"] < 0.1  # a tone's rows
    assert len((out / "cues_ways.csv").read_text().splitlines()) == 1 + len(ways_back.WAYS)
    assert (out / "cues.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_of_planted_cues_has_its_sounds_and_pictures_beside_it(asked):
    out, _, sentences = asked
    page = (out / "cues" / "index.html").read_text()
    named = re.findall(r'src="([^"]+)"', page)
    assert len(named) == 6 + 2 + 1
    assert all((out / "cues" / name).is_file() for name in named)
    assert "a cheat" in page
    assert all(html.escape(line).replace("&#x27;", "&#39;") in page for line in sentences)
    wave, rate = soundfile.read(out / "cues" / "tone" / "cue.wav")
    assert np.argmax(np.abs(np.fft.rfft(wave))) * rate / len(wave) == pytest.approx(4800, abs=2)


def test_planted_cues_go_on_from_what_is_there(asked, monkeypatch):
    out, cache, sentences = asked
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("scores.json")} | {
        path: path.stat().st_mtime_ns for path in [*cache.rglob("*.flac"), *out.rglob("report.json")]
    }
    monkeypatch.setattr(attribution, "METHODS", ("integrated_gradients",))
    for module, name in ((cues, "_scores"), (cue_ways, "compare")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("is made again"))
    assert cues.cues(out, cache, FEW) == sentences
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_network_that_did_not_learn_its_cue_is_reported_and_left_out(asked, monkeypatch):
    out, cache, _ = asked
    sentences = cues.cues(out, cache, dataclasses.replace(FEW, right=1.01))
    assert sentences[0].endswith("none.")
    assert "Left out" in sentences[1]
    assert "No network was right often enough" in (out / "cues" / "index.html").read_text()


def followed(cue, true, ff):
    """Rows of methods of a cue, by two songs: their scores, and what FF says of them."""
    same = dict.fromkeys([*agreement.FAITHFUL, *agreement.TRUE], 0.5)
    for number, (score, said) in enumerate(zip(true, ff, strict=True)):
        for song, apart in ((0, -0.01), (1, 0.01)):
            row = {"cue": cue, "method": f"method {number}", "song": song, "ap": score + apart, "auroc": np.nan}
            yield same | row | {"ff": said, "deletion": -said}


def test_measures_that_know_no_truth_are_held_against_it_by_rank():
    rows = [*followed("a", (0.1, 0.2, 0.9), (1, 2, 3)), *followed("b", (0.3, 0.2, 0.1), (9, 8, 10))]
    rows.append(rows[0] | {"ap": rows[0]["ap"] - 0.02})  # two clips of one song count as their mean
    found = {(r["measure"], r["truth"]): r for r in agreement.follows(rows, 200)}
    assert found["ff", "ap"]["in_a"] == pytest.approx(1)
    assert found["ff", "ap"]["in_b"] == pytest.approx(-0.5)
    assert found["ff", "ap"]["within_cues"] == pytest.approx(0.25)
    assert (found["ff", "ap"]["within_cues_low"], found["ff", "ap"]["within_cues_high"]) == pytest.approx((-0.5, 1))
    pooled = stats.spearmanr([0.09, 0.2, 0.9, 0.3, 0.2, 0.1], [1, 2, 3, 9, 8, 10])
    assert found["ff", "ap"]["over_all"] == pytest.approx(pooled.statistic)
    assert found["deletion", "ap"]["over_all"] == pytest.approx(found["ff", "ap"]["over_all"])
    assert all(np.isnan(found[pair]["within_cues"]) for pair in (("ai", "ap"), ("ff", "auroc"), ("ff", "f1")))
    assert agreement.follows([], 200) == []
