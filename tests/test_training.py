"""Training on a tiny corpus of tones and noise: it learns, stops, goes on, and reports."""

import copy
import json

import jax
import numpy as np
import pytest
import soundfile

from deconv_jax.cli import networks
from deconv_jax.errors import InputError
from deconv_jax.system import files
from deconv_jax.training import checkpoints, evaluation, folds, loop, summary, workdir

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


@pytest.mark.parametrize("moments", [(1, 5), (14,)])
def test_an_interrupted_run_ends_with_the_same_numbers(finished, music, tmp_path, monkeypatch, moments):
    """Killed after some steps (between checkpoints, at an epoch's end, repeatedly), it goes on and ends the same."""
    whole = finished[0]
    make = loop.make_train_step
    for moment in moments:
        left = iter(range(moment, 0, -1))

        def dying(*args, left=left, **kwargs):
            step = make(*args, **kwargs)

            def run(*args):
                if next(left, None) is None:
                    raise Killed
                return step(*args)

            return run

        with monkeypatch.context() as patch:
            patch.setattr(loop, "make_train_step", dying)
            with pytest.raises(Killed):
                loop.train(config(music), tmp_path)
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


def test_the_recipe_learns_and_goes_on_with_the_same_bits(music, tmp_path, monkeypatch):
    """Batch norm, averaged weights, crops and changes: killed twice, once between checkpoints, it ends the same."""
    report = loop.train(recipe(music), tmp_path / "calm")
    assert report["test"]["by_clip"]["accuracy"] > 0.9
    assert report["steps"] == 30
    lines = (tmp_path / "calm" / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in lines.splitlines()] == [12, 24, 30]
    make = loop.make_train_step
    for moment in (8, 13):
        left = iter(range(moment))

        def dying(*args, left=left, **kwargs):
            step = make(*args, **kwargs)

            def run(*args):
                if next(left, None) is None:
                    raise Killed
                return step(*args)

            return run

        with monkeypatch.context() as patch:
            patch.setattr(loop, "make_train_step", dying)
            with pytest.raises(Killed):
                loop.train(recipe(music), tmp_path / "killed")
    assert loop.train(recipe(music), tmp_path / "killed") == report
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


def test_another_config_in_the_same_workdir_is_refused(finished, music):
    with pytest.raises(InputError, match=r"another config\.train\.epochs \(4 there, 7 now\)"):
        loop.train(config(music, epochs=7), finished[0])


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
    with pytest.raises(InputError, match=r"holds no training run.*--workdir"):
        workdir.load(tmp_path)
    with pytest.raises(InputError, match=r"--checkpoint=.*does not exist"):
        workdir.load(finished[0], tmp_path / "12")
    (tmp_path / "13").mkdir()
    with pytest.raises(InputError, match=r"--checkpoint=.*is no checkpoint"):
        workdir.load(finished[0], tmp_path / "13")
    for name in ("config.json", "corpus.json"):
        (tmp_path / name).write_bytes((finished[0] / name).read_bytes())
    with pytest.raises(InputError, match="holds no checkpoint yet"):
        workdir.load(tmp_path)


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
    ],
)
def test_impossible_settings_are_refused_by_name(music, tmp_path, place, value, message):
    settings = config(music)
    settings[place[0]][place[1]] = value
    with pytest.raises(ValueError, match=message):
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
    assert networks.counts("2,all") == [2, 0]
