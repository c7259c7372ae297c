"""Dissection over songs with stems: what is heard, what is kept, the files, and what a network carries."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deconv_jax.data import stems, tracks
from deconv_jax.data.stems import StemSong
from deconv_jax.errors import InputError, SettingError
from deconv_jax.importers import named
from deconv_jax.measures import dissection as rule
from deconv_jax.music import builtin, stem_files
from deconv_jax.network.file import load_network, save_network
from deconv_jax.network.model import Network, initial_variables
from deconv_jax.network.spec import Block
from deconv_jax.results import clip_folder, dissected, dissection, dissection_clips, dissection_music, taken_out
from deconv_jax.results.dissection import Settings
from deconv_jax.sound import audio
from deconv_jax.sound.front_end import FrontEnd, analyse

ROOT = Path(__file__).resolve().parents[1]
RATE = 4000
FRONT = FrontEnd(sample_rate=RATE, n_fft=128, hop=64, clip_seconds=0.5, level="clip")
SETTINGS = Settings(clips=2, removed=1, seeds=1)


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """Four songs of 1.5 s: a tone and noise in turns of 0.1 s, and in two of them a click as well."""
    root, rng = tmp_path_factory.mktemp("songs"), np.random.default_rng(0)
    t = np.arange(int(1.5 * RATE)) / RATE
    for number in range(4):
        turn = (t * 5 + number / 4).astype(int) % 2
        sounds = {
            "tone": np.sin(2 * np.pi * 300 * (number + 1) * t) * turn,
            "noise": rng.normal(0, 0.3, len(t)) * (1 - turn),
        }
        if number > 1:
            sounds["Click"] = np.where(np.arange(len(t)) % 700 == 0, 0.9, 0)
        folder = root / f"song {number}"
        folder.mkdir()
        for name, sound in sounds.items():
            soundfile.write(folder / f"{name}.wav", 0.3 * sound, RATE, subtype="FLOAT")
        soundfile.write(folder / "mixture.wav", 0.3 * sum(sounds.values()), RATE, subtype="FLOAT")
    return root


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    made = Network((Block(maps=3), Block(maps=4)), dense=(), classes=2, head="average")
    variables = initial_variables(made, (FRONT.bins, FRONT.clip_frames), 5)
    return load_network(save_network(tmp_path_factory.mktemp("net"), made, variables, FRONT, ["a", "b"]))


@pytest.fixture(scope="module")
def found(music, network, tmp_path_factory):
    parts = tmp_path_factory.mktemp("parts")
    return dissection.dissect(network, stems.find(music), SETTINGS, parts=parts, progress=False), parts


def test_songs_with_stems_are_found_and_the_whole_is_left_out(music, tmp_path):
    songs = stems.find(music)
    assert [song.name for song in songs] == [f"song {n}" for n in range(4)]
    assert stems.concepts(songs) == ["noise", "tone", "click"]
    sounds = stems.read(songs[3], RATE)
    assert set(map(len, sounds.values())) == {int(1.5 * RATE)}
    whole = soundfile.read(music / "song 3" / "mixture.wav")[0]
    np.testing.assert_allclose(sum(sounds.values()), whole, atol=1e-6)
    with pytest.raises(InputError, match="is no folder"):
        stems.find(tmp_path / "none")
    shutil.copytree(music / "song 0", tmp_path / "one")
    (tmp_path / "packed.stem.mp4").touch()
    with pytest.raises(InputError, match=r"holds 1 song\(s\) with stems.*packed.stem.mp4"):
        stems.find(tmp_path)


def test_the_layout_of_musdb(tmp_path):
    sound = np.random.default_rng(2).normal(0, 0.1, (RATE, 2))
    for part, song in (("train", "A - One"), ("train", "B - Two"), ("test", "C - Three")):
        (tmp_path / part / song).mkdir(parents=True)
        for name in ("mixture", "vocals", "drums", "bass", "other"):
            soundfile.write(tmp_path / part / song / f"{name}.wav", sound, 2 * RATE)
    songs = stems.find(tmp_path)
    assert [song.name for song in songs] == ["test/C - Three", "train/A - One", "train/B - Two"]
    assert set(songs[0].stems) == {"vocals", "drums", "bass", "other"}
    assert {len(sound) for sound in stems.read(songs[0], RATE).values()} == {RATE // 2}
    assert stems.of_file(tmp_path / "test" / "C - Three" / "mixture.wav", tmp_path).stems == songs[0].stems


def test_a_stem_is_taken_out_and_the_rest_stays_as_loud(music):
    sounds = stems.read(stems.find(music)[2], RATE)
    waves = np.stack(list(sounds.values()))[:, : FRONT.clip_samples]
    mix, rows, seen = (np.asarray(a) for a in dissection_music.heard(FRONT, waves))
    whole = np.asarray(analyse(FRONT, waves.sum(axis=0))[1])
    np.testing.assert_allclose(seen[0], whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mix, whole, rtol=1e-4, atol=1e-5)
    alone = np.asarray(analyse(FrontEnd(**{**vars(FRONT), "level": "none"}), waves.sum(axis=0) - waves[1])[1])
    level = np.asarray(analyse(FrontEnd(**{**vars(FRONT), "level": "none"}), waves.sum(axis=0))[1]).mean()
    np.testing.assert_allclose(seen[2], alone / level, rtol=1e-2, atol=1e-3)
    np.testing.assert_array_equal(rows[4:], seen[1:])
    logs = FrontEnd(
        **{
            **vars(FRONT),
            "level": "none",
            "scale": "decibel",
            "reference": 0.0,
            "range": 60.0,
            "kind": "mel",
            "bands": 8,
        }
    )
    seen = np.asarray(dissection_music.heard(logs, waves)[2])
    np.testing.assert_allclose(seen[0], np.asarray(analyse(logs, waves.sum(axis=0))[1]), atol=2e-3)
    assert seen.min() >= -60 - 1e-3  # below the mix's peak, whatever is taken out


def test_what_dominates_is_what_sounds(music, network):
    material, failed = dissection_music.gather(network, stems.find(music), 2, 1, (1, 2), progress=False)
    assert failed == []
    assert material.seen.shape == (8, FRONT.bins, FRONT.clip_frames)
    assert sorted(set(material.songs.tolist())) == [0, 1, 2, 3]
    grid = material.grids[1]
    assert grid.bins.shape == (8, 32, 16)
    assert grid.simple.shape == (len(material.descriptors), 8, 32, 16)
    noise, tone = (material.concepts.index(name) for name in ("noise", "tone"))
    for clip in range(8):
        labels = grid.labels[clip]
        row = round(300 * (material.songs[clip] + 1) / RATE * FRONT.n_fft / 2 - 0.25)
        assert np.isin(labels[row], (tone, -1)).mean() > 0.4  # the tone's row, where it sounds
        assert (labels[-6:] == noise).sum() > 2 * (labels[-6:] == tone).sum()  # a tone's edges click
    assert len(material.clip) == len(material.without) >= 8  # in one clip of every song, each stem that sounds there


def test_a_dissection_goes_on_where_it_was_stopped(found, music, network, monkeypatch):
    whole, parts = found
    assert len(list(parts.iterdir())) == 5  # the network and four controls
    monkeypatch.setattr(dissection, "measure", lambda *_: pytest.fail("was measured before"))
    again = dissection.dissect(network, stems.find(music), SETTINGS, parts=parts, progress=False)
    assert list(map(str, dissected.rows(again))) == list(map(str, dissected.rows(whole)))
    more = dataclasses.replace(SETTINGS, seeds=2)  # of these the first are known
    monkeypatch.setattr(dissection, "measure", lambda *_: measured.append(1) or dict(np.load(next(parts.iterdir()))))
    measured = []
    again = dissection.dissect(network, stems.find(music), more, null=network, parts=parts, progress=False)
    assert (len(measured), len(again.controls)) == (5, 9)
    monkeypatch.setattr(dissection, "measure", lambda *_: pytest.fail("has to be measured"))
    other = dataclasses.replace(SETTINGS, clips=1)
    with pytest.raises(pytest.fail.Exception):
        dissection.dissect(network, stems.find(music), other, parts=parts, progress=False)
    one, two, *rest = stems.find(music)
    renamed = [dataclasses.replace(two, name=one.name), dataclasses.replace(one, name=two.name), *rest]
    with pytest.raises(pytest.fail.Exception):  # of the same names, and other sounds
        dissection.dissect(network, renamed, SETTINGS, parts=parts, progress=False)


def test_measures_are_those_of_the_rule(found, music, network):
    whole, _ = found
    material, _ = dissection_music.gather(network, stems.find(music), 2, 1, (1, 2), progress=False)
    measured = dissection.measure(network.network, network.variables, material)
    maps = np.asarray(network.network.apply(network.variables, material.seen)[1][0].pooled)
    grid, odd = material.grids[1], material.songs % 2 == 1
    used = odd[:, None, None] & (grid.bins >= 0)
    given = dissection_strata(grid)[used], grid.labels[used], len(material.concepts)
    want = rule.level_auroc(np.moveaxis(maps, -1, 0)[:, used], *given)
    np.testing.assert_allclose(measured["1/scored_on"], want, atol=1e-3)
    np.testing.assert_allclose(whole.layers[1].own.scored_on, measured["1/scored_on"], atol=1e-6)
    trial = 0
    without = np.asarray(network.network.apply(network.variables, material.without[trial])[1][0].pooled)
    where = grid.labels[material.clip[trial]] == material.concept[trial]
    lost = (maps[material.clip[trial]] - without)[where].mean(axis=0) / maps[grid.bins >= 0].std(axis=0)
    np.testing.assert_allclose(measured["1/lost"][trial], lost, rtol=1e-3, atol=1e-4)
    assert whole.layers[1].songs[..., 1].max() == 2  # songs 1 and 3


def dissection_strata(grid):
    return rule.row_strata(grid.bins)


def test_files_hold_every_feature_and_a_network_carries_them(found, network, tmp_path):
    about = dissected.write(tmp_path, found[0])
    rows = (tmp_path / "dissected.csv").read_text().splitlines()
    assert len(rows) == 1 + (3 + 4) * 3
    assert (tmp_path / "dissected.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "dissected.json").read_text()) == about
    assert about["layers"]["2"]["features"] == 4
    assert dissected.said(about)[0] == "4 songs, 8 clips, named after 3: noise, tone, click; 4 controls."
    assert dissected.carried(network) is None
    assert clip_folder._settings(network)["dissected"] is None
    folder = network.checkpoint / "dissected"
    folder.mkdir()
    name = {"feature": 2, "concept": "tone", "auroc": 0.8}
    about["layers"]["1"]["names"] = [name]
    (folder / "dissected.json").write_text(json.dumps(about))
    assert dissected.names(dissected.carried(network), 1, [0, 2]) == [None, name]
    assert clip_folder._settings(network)["dissected"]  # what was explained before is explained anew, with names
    assert dissected.names(dissected.carried(network), 3, [0]) == [None]
    (folder / "dissected.json").write_text(json.dumps(about | {"network": "another"}))
    assert dissected.carried(network) is None
    (folder / "dissected.json").write_text("[1]")
    assert dissected.carried(network) is None
    shutil.rmtree(folder)


def test_the_package_knows_its_networks_dissections_wherever_they_lie(tmp_path):
    trained = named.load("real3")
    elsewhere = dataclasses.replace(trained, checkpoint=tmp_path)
    assert dissected.carried(elsewhere) == dissected.carried(trained)
    paths = named.ZOO.glob("*/dissected/dissected.json")
    about = {path.parent.parent.name: json.loads(path.read_text()) for path in paths}
    assert len({one["network"] for one in about.values()}) == len(about)
    for name, one in about.items():
        count = sum(layer["counts"]["named"] for layer in one["layers"].values())
        assert count == sum(len(layer["names"]) for layer in one["layers"].values())
        rows = (named.ZOO / name / "dissected" / "dissected.csv").read_text().splitlines()
        assert len(rows) - 1 == len(one["concepts"]) * sum(layer["features"] for layer in one["layers"].values())
        assert sum(row.endswith(",named") for row in rows) == count


def test_a_null_of_another_shape_is_refused(found, music, network):
    other = dataclasses.replace(network, network=network.network.clone(blocks=(Block(maps=3),)))
    with pytest.raises(SettingError, match="same layers"):
        dissection.dissect(network, stems.find(music), SETTINGS, null=other, progress=False)
    with pytest.raises(SettingError, match="layer 3 does not exist"):
        dissection.dissect(network, stems.find(music), Settings(layers=(3,)), progress=False)
    with pytest.raises(SettingError, match="seeds must be at least 1"):
        dissection.dissect(network, stems.find(music), Settings(seeds=0), progress=False)


def test_the_command_dissects(music, network, tmp_path):
    flags = [f"--network={network.checkpoint}", f"--stems={music}", f"--out={tmp_path / 'out'}", "--quick", "--layer=1"]
    command = [sys.executable, ROOT / "bin" / "dissect"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "4 songs, 8 clips, named after 3: noise, tone, click; 4 controls." in done.stdout
    made = {"dissected.csv", "dissected.json", "dissected.png", "parts"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == made


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    """Sounds in two folders: tones, and noise."""
    root, rng = tmp_path_factory.mktemp("tags"), np.random.default_rng(1)
    t = np.arange(int(0.8 * RATE)) / RATE
    for name, made in (("tone", lambda f: np.sin(2 * np.pi * f * t)), ("noise", lambda _: rng.normal(0, 0.3, len(t)))):
        (root / name).mkdir()
        for number in range(8):
            soundfile.write(root / name / f"{number}.wav", 0.3 * made(200 + 100 * number), RATE, subtype="FLOAT")
    return tracks.index_folder(root)


def test_features_tell_tags_of_whole_clips(tagged, network, tmp_path):
    settings = Settings(clips=1, seeds=1)
    found = dissection_clips.dissect_clips(network, tagged, settings, parts=tmp_path, progress=False)
    assert found.concepts == ["noise", "tone"]
    assert found.controls[-5:] == [f"tags shuffled {n}" for n in range(1, 6)]
    layer = found.layers[1]
    assert layer.own.fall is None
    np.testing.assert_allclose(layer.own.scored_on[:, 0], 1 - layer.own.scored_on[:, 1])  # two tags
    seen = [analyse(FRONT, audio.cut(audio.read(t.path, RATE), 0, FRONT.clip_samples))[1] for t in tagged]
    means = np.asarray(network.network.apply(network.variables, np.stack(seen))[1][0].pooled).mean(axis=(1, 2))
    odd = [n for n in range(16) if n % 8 % 2]
    tone = np.array([[tagged[n].label == "tone" for n in odd]])
    np.testing.assert_allclose(layer.own.scored_on[:, 1:], rule.clip_auroc(means[odd].T, tone), atol=1e-6)
    assert max(one["named"] for one in layer.false) <= 3
    about = dissected.write(tmp_path, found)
    assert "fall without" not in dissected.said(about)[1]
    assert about["layers"]["1"]["counts"]["named"] == about["layers"]["1"]["counts"]["described"]
    with pytest.raises(InputError, match="a tag at least must have songs with and without it"):
        dissection_clips.dissect_clips(network, tagged[:9], settings, progress=False)


def test_a_silent_song_is_told_of(tagged, tmp_path):
    soundfile.write(tmp_path / "quiet.wav", np.zeros(RATE), RATE)
    quiet = tracks.Track(tmp_path / "quiet.wav", "quiet.wav", "tone")
    clips, failed = dissection_clips._clips(FRONT, [quiet, tagged[0]], 1, False)
    assert (clips.tracks.tolist(), failed) == ([1], ["quiet.wav: is silent where its clips are"])


def test_columns_of_tags_are_concepts_with_songs_that_lack_them(tagged, network, tmp_path):
    lines = ["file,mood,loud,quiet"]
    for n, track in enumerate(tagged):
        lines.append(f"{track.path},{['calm', 'sad', ''][n % 3]},{int(n > 7)},{['', 'TRUE'][n % 2]}")
    lines.append("gone.wav,calm,0,TRUE")
    (tmp_path / "tracks.csv").write_text("\n".join(lines))
    music = dissected.Music(index=str(tmp_path / "tracks.csv"), tags=["mood", "loud", "quiet"])
    listed, _ = dissected._tagged(music)
    assert [track.tags for track in listed[6:10]] == [
        ("mood: calm",), ("mood: sad", "quiet"), ("loud",), ("mood: calm", "loud", "quiet")
    ]  # fmt: skip
    about = dissected.make(network, music, tmp_path / "out", Settings(clips=1, seeds=1))
    assert about["concepts"] == ["loud", "mood: calm", "mood: sad", "quiet"]
    assert [line.partition(":")[0] for line in about["failed"]] == ["gone.wav"]
    with pytest.raises(InputError, match="has no column 'key'; its first columns are file, mood, loud, quiet"):
        dissected._tagged(dataclasses.replace(music, tags=["key"]))
    with pytest.raises(SettingError, match="root and tags go with index"):
        dissected.make(network, dissected.Music(tags=["mood"]), tmp_path, SETTINGS)


def test_tags_are_dealt_out_among_artists(tagged):
    some = [dataclasses.replace(track, group=f"{track.label} {n % 8 // 2}") for n, track in enumerate(tagged)]
    halves = dissection_clips._halves(some)
    of = dissection_clips._dealt(some, halves, 1)
    assert (of != np.arange(16)).any()
    assert (halves[of] == halves).all()
    given = {}
    for n, track in enumerate(some):
        given.setdefault(track.group, set()).add(some[of[n]].group)
    assert all(len(groups) == 1 for groups in given.values())  # an artist's songs get one other's tags


def test_an_artist_is_in_one_half(tagged):
    some = [dataclasses.replace(track, group=f"{track.label} {n // 3}") for n, track in enumerate(tagged)]
    halves = dissection_clips._halves(some)
    assert {halves[n] == halves[m] for n in range(16) for m in range(16) if some[n].group == some[m].group} == {True}
    assert set(halves[:8]) == set(halves[8:]) == {0, 1}
    assert dissection_clips._halves(tagged).tolist() == [0, 1] * 8


@pytest.mark.parametrize("name", ["builtin3", "genre3", "real3"])
def test_packaged_networks_carry_a_dissection_of_themselves(name):
    about = dissected.carried(named.load(name))
    assert about
    assert set(about["layers"]) == set("12345")
    for layer in about["layers"].values():
        assert len(layer["names"]) == layer["counts"]["named"]
        assert layer["counts"]["named"] <= layer["counts"]["described"] <= layer["features"]
        for one in layer["names"]:
            assert one["auroc"] > max(one["control"], one["simple"])
            assert one["fall"] > one["control_fall"]


def test_a_mix_is_made_with_and_without_stems_as_loud_as_the_clip(music, tmp_path):
    song = stems.of_file(music / "song 2" / "mixture.wav", music)  # in its own folder
    assert song == stems.of_file(tmp_path / "song 2.mp3", music)  # in one of its name
    assert song == dataclasses.replace(stems.of_file("any.wav", music / "song 2"), name="song 2")  # the only one
    assert stems.of_file("any.wav", music) is None
    assert "tone" not in stems.of_file(music / "song 2" / "tone.wav", music).stems  # a song is no stem of itself
    clip = 2 * audio.read(music / "song 2" / "mixture.wav", RATE, 0.5, 0.5)
    mix, without = taken_out.mixes(song, clip, RATE, 0.5, ["noise", "drums", "noise"])
    noise = 2 * audio.read(music / "song 2" / "noise.wav", RATE, 0.5, 0.5)
    np.testing.assert_allclose(mix, clip, atol=1e-5)
    assert list(without) == ["noise"]
    np.testing.assert_allclose(without["noise"], clip - noise, atol=1e-5)
    assert taken_out.mixes(stems.find(music)[1], clip, RATE, 0.5, ["noise"]) is None  # another song's
    silent = StemSong("", {**song.stems, "pad": tmp_path / "pad.wav"})
    soundfile.write(silent.stems["pad"], np.zeros(100), RATE)
    assert taken_out.mixes(silent, clip, RATE, 0.5, ["pad"])[1] == {"pad": None}
    late = np.roll(clip, 40)  # a coder's delay
    assert taken_out.likeness(late, clip, 50) > 0.9 > taken_out.likeness(late, clip, 20)


def test_stems_of_a_built_in_song_are_known_by_its_place(tmp_path, monkeypatch):
    played = []
    monkeypatch.setattr(stem_files, "write", lambda folder, rate: played.append(rate) or Path(folder).mkdir())
    song = builtin.files(tmp_path, 2)[1]
    made = tmp_path / f"{song.parents[1].name.replace('builtin', 'stems')}-11025" / song.stem
    for other in (tmp_path / "ballad" / song.name, song.with_name("ballad_x.flac"), song.with_name("song.flac")):
        assert stem_files.of_song(other) is None
    assert stem_files.of_song(song) == {}
    (made / "hats.flac").touch()
    assert stem_files.of_song(song) == {"hats": made / "hats.flac"}
    assert played == [11025]
