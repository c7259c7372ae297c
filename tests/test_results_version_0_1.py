"""What version 0.1 made is still read, or told apart with one line: a network file, a run, a sweep, a clip, its page.

`version_0_1.zip` holds what 0.1's own commands made of eight tiny sounds: a run of one epoch whose network takes the
logarithm of its input by itself, as it did then, with logits and images of `CLIP`; a sweep; a clip's folder without its
pictures and sounds; and the beginning of the page beside it.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from deconv_jax.data.tracks import Track
from deconv_jax.deconvolution.deconvolve import deconvolve
from deconv_jax.errors import InputError
from deconv_jax.page import listening
from deconv_jax.results import clip_folder, collection
from deconv_jax.sound import audio
from deconv_jax.sound.front_end import analyse
from deconv_jax.training import loop, workdir

CLIP = np.random.default_rng(1).uniform(-0.3, 0.3, 800).astype(np.float32)


@pytest.fixture
def made(tmp_path):
    with zipfile.ZipFile(Path(__file__).with_name("version_0_1.zip")) as archive:
        archive.extractall(tmp_path)
    return tmp_path


@pytest.mark.parametrize("place", ["run", "run/network"])
def test_a_run_and_a_network_file_give_what_they_gave(made, place):
    trained, expected = workdir.load(made / place), np.load(made / "expected.npz")
    assert (trained.front_end.scale, trained.front_end.factor, trained.labels) == ("log1p", 1e4, ["noise", "tone"])
    seen = analyse(trained.front_end, CLIP)[1]
    logits, _ = trained.network.apply(trained.variables, seen)
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-5)
    images = deconvolve(trained.network, trained.variables, seen, 2)
    np.testing.assert_allclose(images, expected["images"], atol=1e-5 * np.abs(expected["images"]).max())


@pytest.mark.parametrize("today", [False, True])
def test_a_finished_run_ends_with_its_report(made, today):
    """By the command that began it, and by the one that says the same today; its music is not asked for any more."""
    config = json.loads((made / "run" / "config.json").read_text())
    if today:
        del config["network"]["log"]
        config["front_end"] |= {"scale": "log1p", "factor": 1e4}
    assert loop.train(config, made / "run") == json.loads((made / "run" / "report.json").read_text())
    config["train"]["batch_size"] += 1
    with pytest.raises(InputError, match=r"holds a run with another config\.train\.batch_size"):
        loop.train(config, made / "run")


def test_a_sweep_is_told_apart_and_its_table_can_be_read(made):
    trained, track = workdir.load(made / "run"), Track(made / "0.wav", "0.wav", "tone")
    with pytest.raises(InputError, match="holds a sweep that another version") as error:
        collection.sweep(
            collection.Work(trained, [track], made / "clips", collection.Settings((1,), 1)), made / "swept"
        )
    assert "\n" not in str(error.value)
    table = pq.read_table(made / "swept" / "statistics.parquet")
    assert table.schema.names == collection.schema().names
    assert len(table) == 16


def test_a_clip_is_made_anew_and_its_page_is_known_as_ours(made):
    out = made / "auralised"
    listening.check_place(out)
    audio.write(made / "0.wav", CLIP, 4000)
    options = clip_folder.Options([1], reading="mask", page="none")
    found = clip_folder.export(workdir.load(made / "run"), [made / "0.wav"], out, options)
    assert (found.folders, found.failed) == ([out / "0"], [])
    assert json.loads((out / "0" / "manifest.json").read_text())["options"]["layers"] == [1]
