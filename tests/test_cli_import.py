"""bin/import_network and the flags of bin/auralise that belong to networks from elsewhere, as a user types them."""

import json

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file
from test_cli import command, fails
from test_sound_audio import tone

SPEC = """
front_end: {sample_rate: 8000, n_fft: 256, hop: 128, clip_seconds: 0.5, kind: mel, bands: 24, power: 2, scale: log10}
labels: [calm, loud, "<i>"]
final: sigmoid
layers:
  - conv: {weights: a, padding: 1}
  - relu
  - max_pool: {window: [2, 3], stride: 2}
  - conv: {weights: b, padding: same}
  - elu
  - global_average
  - dense: {weights: c}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A spec, weights, a sound, and the network that bin/import_network makes of them."""
    folder = tmp_path_factory.mktemp("import")
    rng = np.random.default_rng(0)
    state = {"a.weight": (4, 1, 3, 3), "a.bias": (4,), "b.weight": (3, 4, 3, 3), "c.weight": (3, 3), "c.bias": (3,)}
    save_file({k: rng.standard_normal(v).astype("f") for k, v in state.items()}, folder / "w.safetensors")
    (folder / "spec.yaml").write_text(SPEC)
    soundfile.write(folder / "tone.wav", tone(1.0, 8000, 700), 8000)
    process = command("import_network", "--out=net", "--spec=spec.yaml", "w.safetensors", cwd=folder)
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == str(folder / "net")
    return folder


def test_an_imported_mel_network_is_heard_and_names_its_tags(folder, tmp_path):
    flags = [f"--network={folder}/net", f"--out={tmp_path}", "--reading=mask", "--duration=full"]
    process = command("auralise", *flags, "--layer=1", "--method=guided", folder / "tone.wav")
    assert process.returncode == 0, process.stderr
    made = tmp_path / "tone"
    manifest = json.loads((made / "manifest.json").read_text())
    assert list(manifest["prediction"]) == ["calm", "loud", "<i>"]
    assert all(0 < p < 1 for p in manifest["prediction"].values())
    assert manifest["options"]["method"] == "guided"
    assert manifest["checkpoint"] == str(folder / "net")
    assert manifest["front_end"]["kind"] == "mel"
    sounds = [soundfile.read(p)[0] for p in sorted((made / "layer1").glob("*.wav"))]
    assert [len(s) for s in sounds] == [8000] * 4
    assert any(s.any() for s in sounds)
    with np.load(made / "layer1.npz") as stored:
        assert stored["images"].shape == (4, 24, 63)


@pytest.mark.parametrize(
    ("name", "flags", "status", "words"),
    [
        ("auralise", ["--network=net", "tone.wav"], 2, ["log magnitudes", "use reading=mask"]),
        ("auralise", ["--network=net", "--reading=mask", "--layer=2", "tone.wav"], 2, ["elu", "gradient"]),
        ("auralise", ["--method=magic", "tone.wav"], 2, ["method", "deconvnet|guided|gradient"]),
        ("import_network", ["--spec=spec.yaml", "w.safetensors"], 2, ["--out"]),
        ("import_network", ["--out=x", "w.safetensors"], 2, ["spec is missing", "--help"]),
        ("import_network", ["--out=x"], 2, ["one file or folder"]),
        ("import_network", ["--out=x", "--spec=spec.yaml", "tone.wav"], 2, ["--kind=auto: tone.wav", ".keras"]),
        ("import_network", ["--out=x", "--spec=tone.wav", "w.safetensors"], 1, ["--spec=tone.wav"]),
        ("import_network", ["--out=/proc/x", "--spec=spec.yaml", "w.safetensors"], 1, ["--out=/proc/x"]),
        ("import_network", ["--out=x", "--model=MTT_big", "m.whl"], 2, ["MTT_vgg|MSD_vgg"]),
    ],
)
def test_wrong_flags_and_files_end_in_one_line(folder, name, flags, status, words):
    if name == "auralise" and "--layer=2" not in flags:
        flags = [*flags, "--layer=1"]
    fails(command(name, *flags, cwd=folder), status, *words)
    assert not (folder / "x").exists()


def test_help_shows_a_spec():
    process = command("import_network", "--help")
    assert process.returncode == 0
    for word in ("front_end:", "--spec", "--model", "musicnn"):
        assert word in process.stdout


def test_networks_are_listed_by_name(tmp_path):
    process = command("auralise", "--network=list", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    assert "MTT_vgg" in process.stdout
    assert not list(tmp_path.iterdir())
