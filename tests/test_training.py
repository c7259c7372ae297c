"""Training on a tiny corpus of tones and noise: it learns, stops, goes on, and reports."""

import contextlib
import copy
import functools
import json
import runpy
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import optax
import pytest
import soundfile

from deconv_jax.cli import values
from deconv_jax.data import store
from deconv_jax.data.tracks import Track
from deconv_jax.errors import InputError, SettingError
from deconv_jax.network import model, spec, trained
from deconv_jax.sound import front_end
from deconv_jax.system import files
from deconv_jax.training import checkpoints, evaluation, folds, loop, prepare, step, summary, workdir
from deconv_jax.training.augmentation import Augment
from deconv_jax.training.recipe import Batches, Recipe

CONFIG = {
    "name": "tiny",
    "seed": 0,
    "front_end": {"sample_rate": 11025, "n_fft": 128, "hop": 64, "clip_seconds": 0.2},
    "network": {
        "block1": {"maps": 6, "dropout": 0.1},
        "block2": {"maps": 6, "pool": (4, 4), "dropout": 0.1},
        "dense": [16],
        "dropout": 0.1,
        "log": False,
    },
    "data": {"root": "", "songs_per_genre": 1, "clips_per_song": 4, "split": [0.6, 0.2, 0.2]},
    "train": {"epochs": 4, "batch_size": 8, "learning_rate": 0.02, "checkpoint_steps": 4},
}


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    root = tmp_path_factory.mktemp("music")
    rng = np.random.default_rng(0)
    for genre in ("noise", "tone"):
        (root / genre).mkdir()
        for number in range(10):
            t = np.arange(11025) / 11025
            wave = 0.3 * np.sin(2 * np.pi * rng.uniform(300, 3000) * t)
            wave = wave if genre == "tone" else rng.uniform(-0.3, 0.3, len(t))
            soundfile.write(root / genre / f"{number}.wav", wave, 11025)
    (root / "tone" / "broken.wav").write_text("no sound")
    return root


def config(music, **train):
    settings = copy.deepcopy(CONFIG)
    settings["data"]["root"] = str(music)
    settings["train"] |= train
    return settings


@pytest.fixture(scope="module")
def finished(music, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, loop.train(config(music), folder)


def test_it_learns_and_reports(finished):
    folder, report = finished
    assert report == workdir.read_json(folder / "report.json", "report")
    assert report["songs"] == {"train": 13, "validation": 4, "test": 4} or sum(report["songs"].values()) == 20
    assert report["test"]["by_clip"]["accuracy"] > 0.9
    assert report["test"]["by_song"]["accuracy"] == 1
    assert report["baselines"]["majority"]["by_clip"]["accuracy"] == pytest.approx(0.5, abs=0.2)
    assert set(report["baselines"]) == {"majority", "mean log-mel", "log-mel mean and deviation", "level removed"}
    assert np.sum(report["test"]["by_song"]["confusion"]) == report["songs"]["test"]
    assert report["skipped"][0][0] == "tone/broken.wav"
    assert (folder / "skipped.csv").read_text().startswith("path,reason\ntone/broken.wav,")
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    corpus = workdir.read_json(folder / "corpus.json", "run")
    songs = [name for names in corpus["songs"].values() for name in names]
    assert len(songs) == len(set(songs)) == 21


def test_a_finished_run_is_not_begun_again(finished, music, monkeypatch):
    folder, report = finished
    monkeypatch.setattr(loop, "prepare", None)
    assert loop.train(config(music), folder) == report


class Killed(BaseException):
    pass


def killed(monkeypatch, moment, settings, folder):
    """Trains, and dies after so many steps."""
    make, left = loop.make_train_step, iter(range(moment))

    def dying(*args, **kwargs):
        step = make(*args, **kwargs)

        def run(*args):
            if next(left, None) is None:
                raise Killed
            return step(*args)

        return run

    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_train_step", dying)
        with pytest.raises(Killed):
            loop.train(settings, folder)


@pytest.mark.parametrize("moments", [(1, 5), (14,)])
def test_an_interrupted_run_ends_with_the_same_numbers(finished, music, tmp_path, monkeypatch, moments):
    """Killed after some steps (between checkpoints, at an epoch's end, repeatedly), it goes on and ends the same."""
    whole = finished[0]
    for moment in moments:
        killed(monkeypatch, moment, config(music), tmp_path)
        assert not (tmp_path / "report.json").exists()
    report = loop.train(config(music), tmp_path)
    assert report == workdir.read_json(whole / "report.json", "report")
    assert (tmp_path / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    one, other = (workdir.load(folder).variables["params"] for folder in (tmp_path, whole))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def recipe(music):
    """All that configs/genre3.py:augmented does, in small."""
    settings = config(music, steps=30, validation_steps=12, checkpoint_steps=5, learning_rate=0.01)
    settings["front_end"]["level"] = "clip"
    for name in ("block1", "block2"):
        settings["network"][name] |= {"norm": "before", "dropout": 0.0}
    settings["network"] |= {"dense": [], "head": "average", "dropout": 0.0}
    settings["train"] |= {"optimiser": "adamw", "weight_decay": 0.01, "warmup_steps": 3, "schedule": "cosine"}
    settings["train"] |= {"label_smoothing": 0.05, "average": 0.9, "sampling": "artists", "crop_seconds": 0.1}
    settings["augment"] = {"speed": 0.1, "mix": 0.5, "gain_db": 3.0, "eq_db": 6.0}
    settings["augment"] |= {"time_mask": 0.2, "frequency_mask": 0.1}
    return settings


def test_the_recipe_learns_and_goes_on_with_the_same_bits(music, tmp_path, monkeypatch, caplog):
    """Batch norm, averaged weights, crops and changes: killed twice, once between checkpoints, it ends the same.

    So do the weights of every validation, which the killed run is asked to keep from its second start on.
    """
    caplog.set_level("INFO")
    keeping = recipe(music)
    keeping["train"]["keep_all"] = True
    report = loop.train(keeping, tmp_path / "calm")
    assert report["test"]["by_clip"]["accuracy"] > 0.9
    assert report["steps"] == 30
    lines = (tmp_path / "calm" / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in lines.splitlines()] == [12, 24, 30]
    for moment, settings in ((8, recipe(music)), (13, keeping)):
        killed(monkeypatch, moment, settings, tmp_path / "killed")
    assert loop.train(keeping, tmp_path / "killed") == report
    assert loop.train(recipe(music), tmp_path / "killed") == report  # nor is it another run without it
    assert (tmp_path / "killed" / "metrics.jsonl").read_text() == lines
    weights = [(tmp_path / name / "network" / "weights.safetensors").read_bytes() for name in ("calm", "killed")]
    assert weights[0] == weights[1]

    trained, shipped = workdir.load(tmp_path / "calm"), workdir.load(network=tmp_path / "calm" / "network")
    assert [b.norm for b in trained.network.blocks] == ["none", "none"]
    assert shipped.front_end.level == "clip"
    jax.tree.map(np.testing.assert_array_equal, shipped.variables["params"], trained.variables["params"])
    best = checkpoints.ocp.StandardCheckpointer().restore(trained.checkpoint / "default")
    assert set(best["batch_stats"]) == {"norm1", "norm2"}
    last = next((tmp_path / "calm" / "checkpoints" / "last").glob("[0-9]*"))
    own = workdir.load(None, last)  # at the end the cosine is down: the averaged weights are nearly the last ones
    assert own.variables["params"]["conv1"]["kernel"].shape == (3, 3, 1, 6)

    kept = [workdir.checkpoints(tmp_path / name) for name in ("calm", "killed")]
    assert [*kept[0]] == [*kept[1]] == [0, 12, 24, 30]
    assert workdir.epochs(tmp_path / "calm") == {0: 0, 12: 1, 24: 2, 30: 3}
    by_step = [[workdir.load(checkpoint=path).fingerprint for path in found.values()] for found in kept]
    assert by_step[0] == by_step[1]
    assert len(set(by_step[0])) == 4
    assert own.fingerprint == workdir.load(checkpoint=tmp_path / "calm" / "checkpoints" / "kept" / "30").fingerprint
    stored = checkpoints.ocp.StandardCheckpointer().restore(tmp_path / "calm/checkpoints/kept/12/default")
    assert set(stored) == {"params", "batch_stats", "input", "step"}  # nothing of the optimiser
    untrained = workdir.load(checkpoint=kept[0][0])  # the report tells of the best one's tests
    assert ("test" in untrained.about["report"], "test" in trained.about["report"]) == (False, True)
    with contextlib.closing(checkpoints.Keeper(tmp_path / "late", keep_all=True)) as keeper:
        keeper.began(stored | {"step": np.int32(0)}, [{"step": 12}])
    assert "Weights of validations up to step 12 were not kept; from now on they are" in caplog.text
    assert [*workdir.checkpoints(tmp_path / "late")] == [0]


def run_steps(finished):
    """Steps up to the first epoch's end."""
    return json.loads((finished[0] / "metrics.jsonl").read_text().splitlines()[0])["step"]


def test_a_killed_save_ahead_of_the_last_checkpoint_is_taken_back(finished, music, tmp_path, monkeypatch):
    """Best is saved before last: a run killed between the two has a best that the resumed run makes anew."""
    manager = checkpoints.ocp.CheckpointManager
    save = manager.save

    def dying(self, step, *args, **kwargs):
        if "last" in str(self.directory) and step == run_steps(finished):
            raise Killed
        return save(self, step, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(manager, "save", dying)
        with pytest.raises(Killed):
            loop.train(config(music), tmp_path)
    assert loop.train(config(music), tmp_path) == finished[1]


def test_the_loss_turning_nan_stops_the_run_and_names_the_step(music, tmp_path, monkeypatch):
    monkeypatch.setattr(jax.config, "update", jax.config.update)
    jax.config.update("jax_debug_nans", False)
    try:
        with pytest.raises(FloatingPointError, match=r"step \d+: the loss is (nan|inf).*learning_rate"):
            loop.train(config(music, learning_rate=1e30), tmp_path)
    finally:
        jax.config.update("jax_debug_nans", True)


def test_a_field_that_there_is_none_of_is_named():
    with pytest.raises(ValueError, match=r"config\.front_end\.n_ftt is unknown; known are sample_rate, n_fft"):
        workdir.front_end({"front_end": {"n_ftt": 512}, "network": {}})
    with pytest.raises(ValueError, match=r"config\.network\.block1\.kernels is unknown; known are maps, kernel"):
        workdir.network({"network": {"block1": {"kernels": [3, 3]}, "dense": []}}, 2)


def test_another_config_in_the_same_workdir_is_refused(finished, music):
    with pytest.raises(InputError, match=r"another config\.train\.epochs \(4 there, 3 now\)"):
        loop.train(config(music, epochs=3), finished[0])
    with pytest.raises(InputError, match=r"another config\.train\.batch_size \(8 there, 4 now\)"):
        loop.train(config(music, epochs=7, batch_size=4), finished[0])


def test_a_run_of_fewer_epochs_goes_on_as_if_begun_with_more(finished, music, tmp_path, monkeypatch):
    """Finished, then wanted longer, killed on the way and gone on with; a wish that fails leaves it as it was."""
    loop.train(config(music, epochs=2), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.json")}
    with monkeypatch.context() as patch:
        patch.setattr(loop, "prepare", mock.Mock(side_effect=InputError("unplugged")))
        with pytest.raises(InputError, match="unplugged"):
            loop.train(config(music), tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.glob("*.json")} == before
    killed(monkeypatch, 1, config(music), tmp_path)
    report = loop.train(config(music), tmp_path)
    assert report == finished[1]
    assert (tmp_path / "metrics.jsonl").read_text() == (finished[0] / "metrics.jsonl").read_text()
    for name in ("network/weights.safetensors", "config.json", "report.png"):
        assert (tmp_path / name).read_bytes() == (finished[0] / name).read_bytes()


def test_a_run_whose_steps_depend_on_their_number_does_not_go_on(music, tmp_path):
    loop.train(config(music, epochs=1, schedule="cosine"), tmp_path)
    with pytest.raises(InputError, match=r"another config\.train\.epochs \(1 there, 2 now\)"):
        loop.train(config(music, epochs=2, schedule="cosine"), tmp_path)


def test_a_network_trained_on_shuffled_labels_learns_them_only(music, tmp_path):
    """What a part's labels are decides what is learnt, and only config.data.shuffle_labels differs."""
    settings = config(music, epochs=2)
    settings["data"]["shuffle_labels"] = True
    report = loop.train(settings, tmp_path)
    right = report["test"]["by_clip"]["accuracy"]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["train_accuracy"] < 0.9
    assert right < 0.9
    settings["data"]["shuffle_labels"] = False
    with pytest.raises(InputError, match=r"config\.data\.shuffle_labels \(true there, false now\)"):
        loop.train(settings, tmp_path)


def test_a_run_from_before_labels_could_be_shuffled_goes_on(finished, music):
    settings = config(music)
    settings["data"]["shuffle_labels"] = False
    assert loop.train(settings, finished[0]) == finished[1]
    settings["data"]["shuffle_labels"] = True
    with pytest.raises(InputError, match=r"shuffle_labels \(false there, true now\)"):
        loop.train(settings, finished[0])


def test_what_was_trained_is_found_again(finished):
    trained = workdir.load(finished[0])
    assert trained.labels == ["noise", "tone"]
    assert trained.variables["input"]["scale"].shape == (1, 1)
    assert trained.about["report"]["test"]["by_clip"]["n"] > 0
    again = workdir.load(None, trained.checkpoint)
    jax.tree.map(np.testing.assert_array_equal, again.variables, trained.variables)
    last = next((finished[0] / "checkpoints" / "last").glob("[0-9]*"))
    assert workdir.load(None, last).checkpoint == last


def test_a_log_network_standardises_every_bin(music, tmp_path):
    settings = config(music, epochs=2)
    settings["network"]["log"] = True  # as a config of version 0.1 says it
    loop.train(settings, tmp_path)
    trained = workdir.load(tmp_path)
    assert trained.front_end.scale == "log1p"
    assert trained.variables["input"]["scale"].shape == (65, 1)
    settings["front_end"] |= {"scale": "log1p", "factor": 1e4}  # as it is said today: the same run
    del settings["network"]["log"]
    assert loop.train(settings, tmp_path)["labels"] == trained.labels


def test_folders_without_a_run_or_a_checkpoint_are_refused(finished, music, tmp_path):
    with pytest.raises(InputError, match=r"^workdir .*holds no training run"):
        workdir.load(tmp_path)
    with pytest.raises(InputError, match=r"^checkpoint .*does not exist"):
        workdir.load(finished[0], tmp_path / "12")
    (tmp_path / "13").mkdir()
    with pytest.raises(InputError, match=r"^checkpoint .*is no checkpoint"):
        workdir.load(finished[0], tmp_path / "13")
    for name in ("config.json", "corpus.json"):
        (tmp_path / name).write_bytes((finished[0] / name).read_bytes())
    with pytest.raises(InputError, match="holds no checkpoint yet"):
        workdir.load(tmp_path)
    (tmp_path / "corpus.json").write_text("{}")
    with pytest.raises(InputError, match=r"corpus\.json: is not what bin/train wrote"):
        workdir.load(tmp_path)
    with pytest.raises(SettingError, match="name a workdir, a checkpoint or a network"):
        workdir.load()


def test_a_checkpoint_of_another_architecture_is_refused_by_its_weight(finished, tmp_path):
    other = workdir.read_json(finished[0] / "config.json", "run")
    other["network"]["block2"]["maps"] = 7
    files.write_json(tmp_path / "config.json", other)
    (tmp_path / "corpus.json").write_bytes((finished[0] / "corpus.json").read_bytes())
    with pytest.raises(InputError, match=r"another architecture: weight params/conv2/bias is \(6,\).*needs \(7,\)"):
        workdir.load(tmp_path, workdir.load(finished[0]).checkpoint)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("train", "epochs"), 0, r"config\.train\.epochs"),
        (("train", "learning_rate"), -1, r"config\.train\.learning_rate"),
        (("network", "block1"), {"maps": 0}, r"config\.network\.block1: block\.maps"),
        (("network", "block4"), {"maps": 3}, r"block4 but no block3"),
        (("front_end", "n_fft"), 127, "n_fft"),
        (("data", "split"), [0.5, 0.1, 0.1], r"config\.data\.split"),
        (("data", "split"), [float("nan"), 0.1, 0.1], r"config\.data\.split"),
        (("data", "split"), 0.5, r"config\.data\.split"),
        (("data", "artists"), -3, r"config\.data\.artists"),
        (("data", "clips_per_song"), 0, r"config\.data\.clips_per_song"),
        (("network", "head"), "averge", r"config\.network\.head must be one of flatten"),
        (("network", "dropout"), 1.0, r"config\.network\.dropout"),
        (("network", "heads"), "max", r"config\.network\.heads is unknown"),
        (("train", "enough"), 98.0, r"config\.train\.enough"),
        ((), -1, r"config\.seed must be a whole number from 0"),
    ],
)
def test_impossible_settings_are_refused_by_name(music, tmp_path, place, value, message):
    settings = config(music)
    functools.reduce(dict.get, place[:-1], settings)[place[-1] if place else "seed"] = value
    with pytest.raises(SettingError, match=message):
        loop.train(settings, tmp_path / "run")


def test_a_table_with_artists_is_divided_by_them_and_reported(music, tmp_path):
    """No artist in two parts, also in corpus.json; a row without a file among the skipped; intervals to print."""
    rows = [f"{g}/{n}.wav,{g},{g[0]}{n % 5}" for g in ("noise", "tone") for n in range(10)]
    (tmp_path / "tracks.csv").write_text("\n".join(["path,genre,artist", *rows, "tone/none.wav,tone,x"]))
    settings = config("", epochs=1)
    settings["data"] |= {"index": str(tmp_path / "tracks.csv"), "root": str(music), "fold": "2/5", "split_by": "artist"}
    report = loop.train(settings, tmp_path / "run")
    corpus = workdir.read_json(tmp_path / "run" / "corpus.json", "run")
    parts = [set(groups) for groups in corpus["groups"].values()]
    assert [len(groups) for groups in parts] == [6, 2, 2]
    assert len(set.union(*parts)) == 10
    assert {p: len(names) for p, names in corpus["songs"].items()} == {"train": 12, "validation": 4, "test": 4}
    assert report["artists"] == {"train": 6, "validation": 2, "test": 2}
    assert "no file" in dict(report["skipped"])["tone/none.wav"]
    text = summary.report_text(report)
    assert "16 test clips" in text
    assert "over 4 songs" in text
    assert text.count("[") == 2 * (5 * 2 + 4) + 1
    old = {k: v for k, v in report.items() if k != "difference"}
    for result in (old["test"], *old["baselines"].values()):
        for kind in ("by_clip", "by_song"):
            result[kind] = {k: result[kind][k] for k in ("n", "accuracy", "balanced_accuracy", "confusion")}
    assert "[" not in summary.report_text(old)
    settings["data"]["split_by"] = "album"
    with pytest.raises(ValueError, match=r"config\.data\.split_by must be artist or song"):
        loop.train(settings, tmp_path / "other")


def test_a_run_from_before_there_were_tables_goes_on(finished, music):
    settings = config(music)
    settings["data"] |= {"index": "", "fold": "", "split_by": "artist", "shuffle_labels": False}
    assert loop.train(settings, finished[0]) == finished[1]
    settings["data"]["fold"] = "1/3"
    with pytest.raises(InputError, match=r'config\.data\.fold \("" there, "1/3" now\)'):
        loop.train(settings, finished[0])


def test_folds_are_pooled_over_every_song_and_a_curve_counts_artists(music, tmp_path):
    """The pooled report is that of all test parts put together; the same command again changes nothing."""
    rows = [f"{g}/{n}.wav,{g},{g[0]}{n % 5}" for g in ("noise", "tone") for n in range(10)]
    (tmp_path / "tracks.csv").write_text("\n".join(["path,genre,artist", *rows]))
    settings = config("", epochs=1)
    settings["data"] |= {"index": str(tmp_path / "tracks.csv"), "root": str(music), "fold": "", "artists": 0}
    report = folds.train_folds(settings, tmp_path / "run", 3)
    assert report["songs"] == 20
    assert report["artists"] == 10
    assert [fold["fold"] for fold in report["folds"]] == ["1/3", "2/3", "3/3"]
    for kind in ("by_clip", "by_song"):
        for system, whole in ({"network": report["test"]} | report["baselines"]).items():
            parts = [{"network": fold["test"], **fold["baselines"]}[system][kind] for fold in report["folds"]]
            assert whole[kind]["n"] == sum(part["n"] for part in parts)
            np.testing.assert_array_equal(whole[kind]["confusion"], np.sum([p["confusion"] for p in parts], axis=0))
    systems = {"majority", "mean log-mel", "log-mel mean and deviation", "level removed"}
    assert set(report["baselines"]) == set(report["difference"]["by_song"]["each"]) == systems
    text = summary.report_text(report)
    assert "80 test clips" in text
    assert text.count("network - ") == 2 * len(systems)
    tested = [set(evaluation.Tested.read(tmp_path / "run" / f"fold{n}").names) for n in (1, 2, 3)]
    assert sum(map(len, tested)) == len(set.union(*tested)) == 20
    assert report == workdir.read_json(tmp_path / "run" / "report.json", "report")
    # A fold that was finished before predictions were kept is tested anew, not trained.
    (tmp_path / "run" / "fold2" / evaluation.Tested.FILE).unlink()
    assert folds.train_folds(settings, tmp_path / "run", 3) == report
    with pytest.raises(InputError, match="holds folds"):
        loop.train(settings, tmp_path / "run")
    with pytest.raises(InputError, match="holds a single run"):
        folds.train_folds(settings, tmp_path / "run" / "fold1", 3)
    with pytest.raises(ValueError, match="at least 3"):
        folds.train_folds(settings, tmp_path / "other", 2)

    settings["data"]["fold"] = "1/5"
    curve = folds.learning_curve(settings, tmp_path / "curve", [1, 0])
    assert [row["artists"] for row in curve] == [1] * 5 + ["all"] * 5
    few, all_ = (workdir.read_json(tmp_path / "curve" / n / "corpus.json", "") for n in ("artists1", "artists_all"))
    assert len(set(few["groups"]["train"])) == 2
    assert set(few["songs"]["train"]) < set(all_["songs"]["train"])
    assert few["songs"]["test"] == all_["songs"]["test"]
    assert (tmp_path / "curve" / "curve.csv").read_text().count("\n") == 11
    assert "all" in summary.curve_text(curve)
    assert values.counts("2,all") == [2, 0]


@pytest.mark.parametrize("moment", [4, 6, 24])  # a checkpoint between validations, a validation, the last of all
def test_an_update_to_nan_is_told_of_and_nothing_of_it_is_kept(finished, music, tmp_path, monkeypatch, moment):
    """The loss of a step is that before its update: what the update makes of the weights has to be looked at too."""
    make = loop.make_train_step

    def spoiling(*args, **kwargs):
        step, count = make(*args, **kwargs), iter(range(1, 100))

        def run(*args):
            state, loss, right = step(*args)
            if next(count) == moment:
                state["params"] = jax.tree.map(lambda p: p * np.nan, state["params"])
            return state, loss, right

        return run

    jax.config.update("jax_debug_nans", False)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "make_train_step", spoiling)
            with pytest.raises(FloatingPointError, match=rf"step {moment}: the .* nothing of it was kept\. Lower con"):
                loop.train(config(music), tmp_path)
    finally:
        jax.config.update("jax_debug_nans", True)
    assert not any((tmp_path / "checkpoints" / name / str(moment)).exists() for name in ("best", "last"))
    assert loop.train(config(music), tmp_path) == finished[1]  # it goes on from what was kept before


def test_there_is_always_a_whole_best(finished, music, tmp_path, monkeypatch):
    """An earlier best stays until metrics and last state of the next one are written; a kill between loses neither."""
    manager, moments = checkpoints.ocp.CheckpointManager, []
    save, delete = manager.save, manager.delete
    history = [json.loads(line) for line in (finished[0] / "metrics.jsonl").read_text().splitlines()]
    bests = [
        h["step"]
        for n, h in enumerate(history)
        if h["validation_loss"] < min([9, *(k["validation_loss"] for k in history[:n])])
    ]
    assert len(bests) > 1

    def there():
        folder = tmp_path / "checkpoints" / "best"
        return {int(p.name) for p in folder.iterdir() if p.name.isdigit() and (p / "_CHECKPOINT_METADATA").is_file()}

    def watched(call, dying=None):
        def run(self, step, *args, **kwargs):
            moments.append(there())
            if dying and "last" in str(self.directory) and step == dying:
                raise Killed
            result = call(self, step, *args, **kwargs)
            moments.append(there())
            return result

        return run

    with monkeypatch.context() as patch:
        patch.setattr(manager, "save", watched(save, dying=bests[1]))
        patch.setattr(manager, "delete", watched(delete))
        with pytest.raises(Killed):
            loop.train(config(music), tmp_path)
        assert there() == set(bests[:2])
        patch.setattr(manager, "save", watched(save))
        assert loop.train(config(music), tmp_path) == finished[1]
    begun = moments.index({bests[0]})
    assert all(moments[begun:])
    for before, after in zip(moments[begun:], moments[begun + 1 :], strict=False):
        assert before & after or after > before
    assert there() == {finished[1]["best_step"]}


def test_several_networks_teach_one(music, tmp_path):
    """What is learnt is their mean, not the labels; a teacher that has heard what is held out is refused."""
    for seed in (1, 2):
        settings = recipe(music)
        settings["train"] |= {"steps": 12}
        settings["data"]["seed"] = 0
        loop.train(settings | {"seed": seed}, tmp_path / str(seed))
    taught = recipe(music)
    taught["data"]["seed"] = 0
    names = [str(tmp_path / "1"), str(tmp_path / "2" / "network")]
    taught["train"] |= {"teachers": names, "label_smoothing": 0.0, "steps": 24}
    report = loop.train(taught, tmp_path / "pupil")
    assert report["test"]["by_clip"]["accuracy"] > 0.8
    other = copy.deepcopy(taught)
    other["data"]["seed"] = 5
    with pytest.raises(InputError, match=r"was trained on \d+ song\(s\) that this run holds out.*config\.data\.seed"):
        loop.train(other, tmp_path / "other")
    other = copy.deepcopy(taught)
    other["front_end"]["hop"] = 32
    with pytest.raises(InputError, match="has another front end"):
        loop.train(other, tmp_path / "deaf")


def test_the_loss_of_a_pupil_is_the_cross_entropy_of_its_teachers_mean(rng):
    blocks = (spec.Block(maps=2, dropout=0.0),)
    front = front_end.FrontEnd(800, 16, 8, 0.2)
    network = model.Network(blocks=blocks, dense=(), classes=3, head="average", dropout=0.0)
    clips = store.Clips(
        (9999 * rng.standard_normal((4, 160)) / 4).astype(np.int16), np.array([0, 1, 2, 0]), np.arange(4)
    )
    states = [step.initial_state(network, optax.sgd(0.0), front, clips, seed) for seed in range(3)]
    seen = front_end.analyse(front, clips.waveforms)[1]
    logits = [np.asarray(network.apply({k: s[k] for k in ("params", "input")}, seen)[0], np.float64) for s in states]
    odds = [np.exp(l) / np.exp(l).sum(axis=1, keepdims=True) for l in logits]
    teachers = [
        trained.Trained(network, {k: s[k] for k in ("params", "input")}, front, list("abc"), None, {})
        for s in states[1:]
    ]
    run = step.make_train_step(network, optax.sgd(0.0), front, np.ones(3, np.float32), 0, teachers=teachers)
    _, loss, _ = run(states[0], clips.waveforms, clips.labels)
    wanted = -np.mean(np.sum((odds[1] + odds[2]) / 2 * np.log(odds[0]), axis=1))
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


def test_other_seeds_and_class_weights_are_the_same_program(rng, monkeypatch):
    front = front_end.FrontEnd(800, 16, 8, 0.2)
    network = model.Network(blocks=(spec.Block(maps=2),), dense=(), classes=3, head="average")
    waveforms, labels = (9999 * rng.standard_normal((4, 160)) / 4).astype(np.int16), np.array([0, 1, 2, 0])
    state = step.initial_state(network, optax.sgd(0.1), front, store.Clips(waveforms, labels, np.arange(4)), 0)
    programs, losses, jit = [], [], jax.jit

    def seen(function, **how):
        compiled = jit(function, **how)
        return lambda *given: programs.append(compiled.lower(*given).as_text()) or compiled(*given)

    for seed, weights in ((0, np.ones(3)), (2**40, np.array([1.0, 2.0, 3.0])), (1, np.ones(3))):
        with monkeypatch.context() as patch:
            patch.setattr(jax, "jit", seen)
            run = step.make_train_step(network, optax.sgd(0.1), front, weights, seed, augment=Augment(eq_db=6.0))
        losses.append(float(run(jax.tree.map(np.copy, state), waveforms, labels)[1]))
    assert len(programs) == 3
    assert len(set(programs)) == 1  # compiled once, and kept for every fold
    assert len(set(losses)) == 3


def test_training_ends_when_patience_is_over_and_the_first_of_the_best_is_kept():
    history = [{"step": n, "validation_loss": loss} for n, loss in enumerate([3.0, 2.0, 2.0, 2.5, 2.1])]
    assert loop._best_step(history, Recipe()) == 1
    assert loop._best_step(history, Recipe(keep="last")) == 4
    assert [loop._is_over(history[:n], Recipe(patience=2)) for n in range(6)] == [False] * 4 + [True] * 2
    assert not loop._is_over(history, Recipe())


def test_training_ends_when_enough_is_right_at_two_validations_running():
    history = [{"validation_loss": 1.0, "validation_accuracy": right} for right in (0.99, 0.97, 0.98, 1.0, 0.5)]
    over = [loop._is_over(history[:n], Recipe(enough=0.98)) for n in range(6)]
    assert over == [False, False, False, False, True, False]
    assert not loop._is_over(history[:4], Recipe())


def test_warm_up_and_cosine_follow_their_formulas():
    recipe = Recipe(steps=20, learning_rate=0.5, schedule="cosine", warmup_steps=4)
    optimiser = recipe.optimiser_for(20)
    weights = {"kernel": np.ones((1, 1), np.float32)}
    state, sizes = optimiser.init(weights), []
    for _ in range(20):
        # Adam's steps are as large as the rate where the gradient stays the same.
        update, state = optimiser.update(weights, state, weights)
        sizes.append(-float(update["kernel"][0, 0]))
    wanted = [0.5 * n / 4 for n in (1, 2, 3)] + [0.25 * (1 + np.cos(np.pi * n / 16)) for n in range(17)]
    np.testing.assert_allclose(sizes, wanted, atol=1e-5)
    decayed = Recipe(optimiser="adamw", weight_decay=0.1, learning_rate=0.5).optimiser_for(9)
    biased = weights | {"bias": np.ones(1, np.float32)}
    update, _ = decayed.update(jax.tree.map(np.zeros_like, biased), decayed.init(biased), biased)
    assert float(update["kernel"][0, 0]) == pytest.approx(-0.05)
    assert float(update["bias"][0]) == 0


def test_batches_take_classes_by_turns_and_artists_songs_and_clips_uniformly():
    """One artist with most of the clips is drawn as often as each of the others; a step's batch is its own."""
    tracks = [
        Track(None, str(n), "a" if n < 5 else "b", ["x", "x", "x", "y", ""][n] if n < 5 else "z") for n in range(6)
    ]
    songs = np.repeat(np.arange(6), [8, 8, 8, 2, 2, 4])
    clips = store.Clips(np.zeros((32, 1), np.int16), np.repeat([0, 1], [28, 4]), songs)
    batches = Batches(clips, tracks, 6, 3, "artists")
    drawn = np.stack([batches[step] for step in range(600)])
    assert np.all((clips.labels[drawn] == 0).sum(axis=1) == 3)
    share = np.bincount(songs[drawn].ravel(), minlength=6) / drawn.size
    assert share == pytest.approx([1 / 18, 1 / 18, 1 / 18, 1 / 6, 1 / 6, 1 / 2], abs=0.02)
    np.testing.assert_array_equal(Batches(clips, tracks, 6, 3, "artists")[17], drawn[17])
    assert np.any(Batches(clips, tracks, 6, 4, "artists")[17] != drawn[17])


@pytest.mark.parametrize("name", ["genre3.py", "genre3.py:log", "genre3.py:augmented", "genre3.py:builtin", "music.py"])
def test_every_config_can_be_trained(name):
    file, _, variant = name.partition(":")
    get = runpy.run_path(str(Path(__file__).parents[1] / "configs" / file))["get_config"]
    settings = json.loads((get(variant) if variant else get()).to_json())
    recipe, augment = prepare.settings(settings)
    assert (recipe.steps > 0) == (augment != Augment()) == (variant in ("augmented", "builtin") or file == "music.py")
    assert loop.wd.network(settings, 3).classes == 3


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("train", "optimiser", "sgd", "optimiser must be one of adam, adamw"),
        ("train", "momentum", 0.9, r"config\.train\.momentum is unknown; known are epochs"),
        ("train", "average", 1.0, "average must be below 1"),
        ("train", "weight_decay", 0.1, "weight_decay needs"),
        ("train", "crop_seconds", 9.0, r"at most config\.front_end\.clip_seconds"),
        ("train", "crop_seconds", 0.1, "flattens its maps"),
        ("augment", "pitch", 1, r"config\.augment\.pitch is unknown"),
    ],
)
def test_wrong_recipes_are_refused_by_field(music, section, field, value, message):
    settings = config(music)
    settings.setdefault(section, {})[field] = value
    with pytest.raises(SettingError, match=message):
        prepare.settings(settings)
