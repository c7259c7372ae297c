"""Sweeps over collections: numbers against the slow path, parts that come and go, lists, and the page."""

import csv
import dataclasses
import functools
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from compiling import QUICK

from deconv_jax.data.tracks import Track
from deconv_jax.deconvolution.deconvolve import images_and_maps
from deconv_jax.deconvolution.rule import Rule
from deconv_jax.errors import InputError
from deconv_jax.measures import features, randomised
from deconv_jax.network.file import save_network
from deconv_jax.network.model import Network
from deconv_jax.network.receptive_field import reach
from deconv_jax.network.spec import Block
from deconv_jax.network.trained import Trained
from deconv_jax.results import collection, statistics, strongest
from deconv_jax.sound import audio
from deconv_jax.sound.front_end import FrontEnd, analyse
from deconv_jax.system import locks, workers

ROOT = Path(__file__).resolve().parents[1]
FRONT = FrontEnd(sample_rate=4000, n_fft=64, hop=32, clip_seconds=0.5)
NETWORK = Network(blocks=(Block(maps=4), Block(maps=3)), dense=(4,), classes=2)
SETTINGS = collection.Settings((1, 2), clips_per_song=2)
ONE = jax.devices()[:1]
NASTY = "<b>&amp;\n'\".wav"


@functools.cache
def trained(network=NETWORK, seed=0) -> Trained:
    """Random weights; feature 2 of the first layer is dead."""
    variables = dict(jax.jit(network.init)(jax.random.key(seed), jnp.zeros((FRONT.bins, FRONT.clip_frames))))
    variables["params"]["conv1"]["bias"] = jnp.asarray([0.0, 0.0, -1e6, 0.0])
    variables["input"] = {"mean": jnp.zeros((1, 1)), "scale": jnp.full((1, 1), 0.5)}
    return Trained(network, variables, FRONT, ["a", "b"], ROOT, {"config": {}, "report": None})


def noise(rng, clips=5):
    """Clips of noise in which one is silent and one falls silent."""
    waveforms = 0.1 * rng.standard_normal((clips, FRONT.clip_samples)).astype(np.float32)
    waveforms[1] = 0
    waveforms[2, 900:] = 0
    return waveforms


@pytest.fixture(scope="module", autouse=True)
def one_twin():
    """Every run makes the untrained twin, which is mostly compiling: once for each network here."""
    real, made = randomised.twin, {}

    def twin(network, variables, size, seed):
        key = (network, id(variables), size, seed)
        return made.get(key) or made.setdefault(key, real(network, variables, size, seed))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(randomised, "twin", twin)
        yield


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Seven songs below genre and artist, among them one with a nasty name, one too short, and one that is none."""
    folder = tmp_path_factory.mktemp("songs")
    rng = np.random.default_rng(1)
    names = ["a/x/1.wav", "a/x/2.wav", "a/y/3.wav", "b/4.wav", f"b/{NASTY}", "b/5.wav", "b/short.wav"]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        length = 20 if "short" in name else 4000 + 500 * number
        sound = 0.1 * rng.standard_normal(length) * np.linspace(0.2, 1, length)
        with open(folder / name, "wb") as handle:
            soundfile.write(handle, sound, 4000, format="WAV")
    (folder / "b" / "broken.wav").write_bytes(b"RIFF is how it begins")
    return folder


def sweep(trained, songs, out, store, settings, share=(0, 1)):
    """On one device."""
    return collection.sweep(collection.Work(trained, songs, store, settings), out, share, ONE)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(collection, "PART_CLIPS", 4)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Of the clips: that of all tests, so that most of them decode nothing."""
    return tmp_path_factory.mktemp("cache") / "clips"


@pytest.fixture(scope="module")
def swept(songs, store, tmp_path_factory):
    """A whole run, in parts of two songs."""
    out = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collection, "PART_CLIPS", 4)
        found = sweep(trained(), collection.find_tracks([songs]), out, store, SETTINGS)
    return out, found


def clips_of(path, count=2):
    """Where a song's clips begin, and what is measured: 16 bits of each."""
    waveform = audio.read(path, FRONT.sample_rate)
    starts = audio.clip_starts(len(waveform), FRONT.clip_samples, count)
    pieces = np.stack([audio.cut(waveform, start, FRONT.clip_samples) for start in starts])
    return starts, np.round(pieces * 32768).astype(np.float32) / 32768


def slow_moments(pooled: np.ndarray, layer: int) -> list[float]:
    """The three highest peaks of one map (freq, time), as `measure_clips` says, by loops."""
    blocks = NETWORK.blocks[:layer]
    profile, stride = pooled.max(axis=0), 2**layer
    column = stride * FRONT.hop / FRONT.sample_rate
    first, last = reach(blocks, axis=1)
    left = []
    for i, value in enumerate(profile):
        before, after = (profile[i - 1] if i else 0), (profile[i + 1] if i + 1 < len(profile) else 0)
        if value > 0 and value > before and value >= after:
            left.append((value, i))
    found = []
    while left and len(found) < 3:
        _, best = max(left, key=lambda peak: (peak[0], -peak[1]))
        found.append(min(max(0, ((first + last) / 2 * FRONT.hop / FRONT.sample_rate) + best * column), 0.5))
        left = [peak for peak in left if abs(peak[1] - best) * column >= features.APART - 1e-9]
    return found + [np.nan] * (3 - len(found))


@pytest.mark.parametrize(("layer", "path"), [(1, "plain"), (2, "winograd")])
def test_numbers_are_those_of_the_slow_path(rng, layer, path):
    model, waveforms = trained(), noise(rng)
    found, moments = statistics.measure_clips(model, waveforms, layer, rule=Rule(path=path), devices=ONE)
    chance = statistics.activations(model, waveforms, [1, 2], ONE)
    seen = analyse(FRONT, waveforms)[1]
    explained = images_and_maps(model.network, model.variables, seen, layer, rule=Rule(path="plain"), devices=ONE)
    for clip, (images, maps) in enumerate(zip(*map(np.asarray, explained), strict=True)):
        wanted = features.measure(images, maps, FRONT.frequencies())
        for field in dataclasses.fields(wanted):
            got, want = getattr(found, field.name)[clip], getattr(wanted, field.name)
            # Sums of some thousand float32 numbers against float64; the two paths' images differ by as much.
            np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-6, err_msg=field.name)
        np.testing.assert_allclose(chance[layer][0][clip], wanted.maximum, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(chance[layer][1][clip], wanted.mean, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(moments[clip], [slow_moments(m, layer) for m in maps], atol=1e-6)
    assert found.inactive[1].all()  # silence
    assert np.isnan(moments[1]).all()
    assert np.isfinite(moments[0]).any()
    if layer == 1:
        assert found.inactive[:, 2].all()
        assert np.nanmax(moments[2]) < 0.3  # the clip falls silent after 900 samples


def test_devices_change_nothing(rng):
    model, waveforms = trained(), noise(rng)
    one, two = (
        statistics.measure_clips(model, waveforms, 1, rule=Rule(path="plain"), devices=jax.devices()[:count])
        for count in (1, 2)  # five clips: one of the devices has one that is silence, and is dropped
    )
    for field in dataclasses.fields(features.Measures):
        got, want = getattr(two[0], field.name), getattr(one[0], field.name)
        assert len(got) == 5
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7, err_msg=field.name)
    np.testing.assert_array_equal(two[1], one[1])  # columns: this noise has no two peaks within rounding of another


def test_loud_and_faint_images_keep_their_energy(rng):
    model = trained()
    how = {"rule": Rule(path="plain"), "devices": ONE}
    waveforms, kernel = noise(rng), model.variables["params"]["conv1"]["kernel"]

    def measured(factor):
        first = {"kernel": factor * kernel, "bias": jnp.zeros(4)}
        variables = {**model.variables, "params": {**model.variables["params"], "conv1": first}}
        return statistics.measure_clips(dataclasses.replace(model, variables=variables), waveforms, 1, **how)[0]

    base = measured(1)
    for factor in (1e-13, 1e13):  # squares of these leave float32
        found = measured(factor)
        np.testing.assert_allclose(found.energy, base.energy * factor**4, rtol=1e-4)
        np.testing.assert_allclose(found.centroid, base.centroid, rtol=1e-4)


def test_a_row_for_every_clip_and_feature(songs, swept):
    out, found = swept
    assert found.table == out / "statistics.parquet"
    assert found.songs == 8
    table = pq.read_table(found.table)
    assert table.schema.names == [f.name for f in collection.schema()]
    rows = table.to_pylist()
    clips = sorted({(r["song"], r["clip"]) for r in rows})
    assert len(rows) == 7 * len(clips)
    assert {r["label"] for r in rows} == {"a", "b"}
    assert {(r["label"], r["group"]) for r in rows} == {("a", "x"), ("a", "y"), ("b", "")}
    assert [(r["layer"], r["feature"]) for r in rows[:7]] == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2)]
    order = [(r["song_number"], r["clip"]) for r in rows]
    assert order == sorted(order)
    # One clip, from the file to the table, by the slow way.
    path = songs / "a" / "x" / "2.wav"
    starts, waveforms = clips_of(path)
    images, maps = images_and_maps(NETWORK, trained().variables, analyse(FRONT, waveforms)[1][1], 2)
    wanted = features.columns(features.measure(np.asarray(images), np.asarray(maps), FRONT.frequencies()))
    mine = [r for r in rows if (r["song"], r["clip"], r["layer"]) == ("a/x/2.wav", 1, 2)]
    assert mine[0]["start_s"] == starts[1] / 4000
    for name, values in wanted.items():
        np.testing.assert_allclose([r[name] for r in mine], values, rtol=2e-4, atol=1e-6, err_msg=name)
    assert not (out / "parts").exists()


def test_files_that_cannot_be_used_are_listed(swept):
    out, found = swept
    with open(out / "skipped.csv", newline="") as handle:
        listed = list(csv.DictReader(handle))
    assert [row["path"] for row in listed] == ["b/broken.wav", "b/short.wav"]
    assert "is no readable sound file" in listed[0]["reason"]
    assert "is too short" in listed[1]["reason"]
    assert found.skipped == [(row["path"], row["reason"]) for row in listed]


def test_a_killed_run_goes_on_and_ends_the_same(songs, store, swept, small_parts, tmp_path, monkeypatch):
    """And decodes nothing that another run has decoded."""
    monkeypatch.setattr(workers, "run", None)
    tracks = collection.find_tracks([songs])
    whole, real, done = collection._Run._measure_part, collection._write_table, []

    def dies(self, number, *rest):
        if number == 2:
            raise KeyboardInterrupt
        return whole(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(collection._Run, "_measure_part", dies)
        with pytest.raises(KeyboardInterrupt):
            sweep(trained(), tracks, tmp_path, store, SETTINGS)
    parts = sorted((tmp_path / "parts").iterdir())
    assert [p.name for p in parts] == ["00000.parquet", "00001.parquet"]
    parts[1].write_bytes(parts[1].read_bytes()[:-100])  # as after a crash of the machine
    monkeypatch.setattr(collection, "_write_table", lambda path, *rest: (done.append(path.stem), real(path, *rest)))
    found = sweep(trained(), tracks, tmp_path, store, SETTINGS)
    assert done == ["00001", "00002", "00003", "statistics"]
    assert found.table.read_bytes() == swept[1].table.read_bytes()
    done.clear()
    again = sweep(trained(), tracks, tmp_path, store, SETTINGS)
    assert (done, again.clips, again.skipped) == ([], 0, found.skipped)


def test_shares_give_what_one_run_gives(songs, store, swept, small_parts, tmp_path):
    tracks = collection.find_tracks([songs])
    first = sweep(trained(), tracks, tmp_path, store, SETTINGS, (0, 2))
    assert (first.table, first.missing) == (None, 2)
    second = sweep(trained(), tracks, tmp_path, store, SETTINGS, (1, 2))
    assert second.table.read_bytes() == swept[1].table.read_bytes()
    assert (tmp_path / "skipped.csv").read_bytes() == (swept[0] / "skipped.csv").read_bytes()
    assert first.clips + second.clips == swept[1].clips


def test_two_sweeps_are_never_mixed(songs, store, swept, small_parts):
    out, tracks = swept[0], collection.find_tracks([songs])
    before = (out / "statistics.parquet").read_bytes()
    for change, words in (
        ({"settings": dataclasses.replace(SETTINGS, clips_per_song=3)}, "clips_per_song was 2 and now is 3"),
        ({"trained": trained(seed=1)}, "of another network"),
        ({"songs": tracks[:1] + tracks[2:]}, "song 2 was a/x/2.wav and now is a/y/3.wav"),
    ):
        given = {"trained": trained(), "songs": tracks, "settings": SETTINGS} | change
        with pytest.raises(InputError, match=re.escape(words)):
            sweep(out=out, store=store, **given)
    assert (out / "statistics.parquet").read_bytes() == before


def test_a_sweep_by_another_version_is_told_apart_by_that_alone(songs, store, tmp_path):
    """Fingerprints have other rules there: it is not said that network or songs are others."""
    about = {"format": 2, "settings": {"layers": [1]}, "network": "0" * 64, "untrained_seed": 1, "songs": {"count": 8}}
    (tmp_path / "sweep.json").write_text(json.dumps(about))
    (tmp_path / "statistics.parquet").write_bytes(b"0.1's")
    with pytest.raises(InputError) as error:
        sweep(trained(), collection.find_tracks([songs]), tmp_path, store, SETTINGS)
    assert error.value.message == (
        f"{tmp_path}: holds a sweep that another version of this program made; its table can be read, but not "
        "gone on with: name another folder"
    )
    assert (tmp_path / "statistics.parquet").read_bytes() == b"0.1's"


def test_a_second_run_in_the_same_folder_is_refused(songs, store, small_parts, tmp_path):
    tracks = collection.find_tracks([songs])
    for held in (locks.LOCK, ".share-1-of-2.lock"):  # the whole, and a share of it
        with filelock.FileLock(tmp_path / held), pytest.raises(InputError, match="another process is at work there"):
            sweep(trained(), tracks, tmp_path, store, SETTINGS)
    with pytest.raises(ValueError, match="layer 3 does not exist"):
        sweep(trained(), tracks, tmp_path, store, collection.Settings((3,)))
    (tmp_path / "statistics.parquet").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"was not made by bin/sweep"):
        sweep(trained(), tracks, tmp_path, store, SETTINGS)
    assert (tmp_path / "statistics.parquet").read_bytes() == b"mine"


def sing(path, seed):
    """Half a second and more of noise: files of one size, whatever the seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(3000), 4000)


def test_a_song_is_what_it_holds_and_not_its_name_and_size(store, small_parts, tmp_path):
    """Another song in its place is refused; the same one in another place is not."""
    for number, name in enumerate(("=1+1.wav", "b.wav", "c.wav", "d.wav")):
        for place in ("here", "there"):
            sing(tmp_path / place / name, number)
    here, there = (collection.find_tracks([tmp_path / place]) for place in ("here", "there"))
    settings = collection.Settings((1,), clips_per_song=2)
    out = tmp_path / "out"
    first = sweep(trained(), here, out, store, settings, (0, 2))
    assert (first.table, first.missing) == (None, 1)
    with open(out / "songs.csv", newline="") as handle:
        assert [row["song"] for row in csv.DictReader(handle)] == ["'=1+1.wav", "b.wav", "c.wav", "d.wav"]
    again = sweep(trained(), there, out, store, settings, (0, 2))
    assert (again.clips, again.missing) == (0, 1)
    sing(tmp_path / "there" / "b.wav", 9)
    with pytest.raises(InputError, match=r"holds another sweep: song 2, b\.wav, is another than it was"):
        sweep(trained(), there, out, store, settings, (0, 2))
    found = sweep(trained(), here, out, store, settings, (1, 2))
    before = found.table.read_bytes()
    for lost in (False, True):  # with the store, and without
        with pytest.raises(InputError, match=r"song 2, b\.wav, is another"):
            sweep(trained(), there, out, tmp_path / "none" if lost else store, settings)
        assert found.table.read_bytes() == before
    assert sweep(trained(), here, out, tmp_path / "none", settings).clips == 0


def planted(path):
    """Two features; songs 0 to 3 with 2 clips each, in two row groups."""
    values = np.array([[9, 0], [8, 0], [1, 5], [7, 0], [6, 2], [6, 2], [0, 0], [0, 9]], np.float32)
    twin = np.array([[1, 1]] * 4 + [[2, 3]] * 4, np.float32)
    with pq.ParquetWriter(path, pa.schema([(n, pa.int32()) for n in ("song_number", "clip")] + [
        (n, pa.float32()) for n in ("activation_mean", "untrained_activation_mean")
    ])) as writer:  # fmt: skip
        for rows in (slice(0, 4), slice(4, 8)):
            songs, clips = np.repeat(np.arange(8) // 2, 2), np.repeat(np.arange(8) % 2, 2)
            each = slice(2 * rows.start, 2 * rows.stop)
            columns = (*(a[each].astype(np.int32) for a in (songs, clips)), values[rows].ravel(), twin[rows].ravel())
            writer.write_table(pa.table([pa.array(c) for c in columns], schema=writer.schema))


def test_lists_hold_the_strongest(tmp_path):
    planted(tmp_path / "t.parquet")
    options = strongest.Options(3, "activation_mean")
    own, twin, present = strongest.strongest(tmp_path / "t.parquet", [2], options)
    np.testing.assert_array_equal(own.songs, [[0, 1, 2], [3, 1, 2]])
    np.testing.assert_array_equal(own.clips, [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(own.values, [[9, 7, 6], [9, 5, 2]])
    np.testing.assert_array_equal(twin.songs, [[2, 3, 0], [2, 3, 0]])
    np.testing.assert_array_equal(present, range(4))
    any_number = strongest.strongest(tmp_path / "t.parquet", [2], dataclasses.replace(options, per_song=0))[0]
    np.testing.assert_array_equal(any_number.songs, [[0, 0, 1], [3, 1, 2]])
    long = strongest.strongest(tmp_path / "t.parquet", [2], dataclasses.replace(options, count=9))[0]
    np.testing.assert_array_equal(long.songs, [[0, 1, 2, -1], [3, 1, 2, -1]])  # what does not excite is not listed


def test_lists_are_compared_with_those_of_the_twin():
    own, twin = np.array([[0, 1, 2], [5, -1, -1]]), np.array([[2, 1, 7], [0, 8, 9]])
    np.testing.assert_array_equal(strongest.most_shared(own, twin), [2, 0])
    np.testing.assert_array_equal(strongest.most_shared(own, own, but_itself=True), [0, 0])
    found = strongest.commonest(own, ["rock", "rock", "folk", "", "", "folk"])
    assert found == [("rock", 2, 3), ("folk", 1, 1)]
    assert strongest.commonest(np.array([[-1]]), []) == [("", 0, 0)]


def test_the_page_has_what_it_names_and_escapes_what_it_shows(songs, store, swept):
    out, tracks = swept[0], collection.find_tracks([songs])
    options, work = strongest.Options(count=3), collection.Work(trained(), tracks, store, SETTINGS)
    page = strongest.make(work, out, options)
    assert page == out / "top" / "index.html"
    text = page.read_text("utf-8")
    assert "<b>" not in text
    assert (
        html.escape(collection.find_tracks([songs / "b" / NASTY])[0].name, quote=False)
        in html.unescape(text.replace("&amp;", "&amp;amp;"))
        or "&lt;b&gt;" in text
    )
    named = set(re.findall(r'(?:href|src)="([^"#:]+)"', text))
    assert named
    made = {str(p.relative_to(out / "top")) for p in (out / "top").rglob("*") if p.suffix in (".flac", ".png")}
    assert named == made
    own, _, _ = strongest.strongest(out / "statistics.parquet", [4, 3], options)
    assert text.count('class="entry"') == np.sum(own.songs >= 0) > 0
    # A sound of the strongest clip of feature 1 of layer 2 is that of its image.
    song, clip = own.songs[5, 0], own.clips[5, 0]
    wave = clips_of(tracks[song].path)[1][clip]
    original, _ = soundfile.read(out / "top" / "clips" / f"{song:07d}-{clip:03d}.flac")
    np.testing.assert_allclose(original, wave, atol=2**-15)
    sound, rate = soundfile.read(out / "top" / "layer2" / "f001-01.flac")
    assert (len(sound), rate) == (len(wave), 4000)
    assert 0 < np.sqrt(np.mean(sound**2)) <= np.sqrt(np.mean(wave**2)) * 1.01
    assert "Nothing in the collection excites 2." in text
    # Made once; another list is made anew.
    stamp = page.stat().st_mtime_ns
    assert strongest.make(work, out, options).stat().st_mtime_ns == stamp
    assert strongest.make(work, out, strongest.Options(count=2)).stat().st_mtime_ns != stamp
    with pytest.raises(ValueError, match="by must be one of"):
        strongest.make(work, out, strongest.Options(by="energy"))


def test_the_command_in_two_processes_and_in_one(songs, swept, free_port, tmp_path):
    save_network(tmp_path / "net", NETWORK, trained().variables, FRONT, ["a", "b"])
    flags = [f"--network={tmp_path / 'net'}", "--layer=1", "--clips_per_song=2", f"--cache_dir={tmp_path / 'cache'}"]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": QUICK,
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
    }

    def start(*arguments, slower=0):
        # Parts of two songs, so that there is work for two; the second comes late from every meeting.
        code = "import sys, time; from deconv_jax.results import collection; from deconv_jax.cli import sweep; "
        code += "from deconv_jax.system import hosts; meet = hosts.barrier; "
        code += f"hosts.barrier = lambda name: (meet(name), time.sleep({slower})); "
        code += "collection.PART_CLIPS = 4; sys.exit(sweep.main())"
        command = [sys.executable, "-c", code, *flags, *map(str, arguments)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
        )

    def end(process):
        try:
            said, told = process.communicate(timeout=300)
        finally:
            process.kill()
        assert "Traceback" not in told
        return process.returncode, said, told

    several = ["--distributed", f"--coordinator=127.0.0.1:{free_port()}", "--processes=2"]
    both = [start("--top=1", *several, f"--process={number}", songs, slower=number) for number in range(2)]
    (status, said, told), other = [end(process) for process in both]
    assert (status, other[:2]) == (0, (0, "")), told + other[2]
    assert str(tmp_path / "swept" / "statistics.parquet") in said
    assert str(tmp_path / "swept" / "top" / "index.html") in said
    assert "2 of 8 song(s) could not be used" in told
    assert "storing clips" in told
    assert "storing clips" in other[2]
    assert (tmp_path / "swept" / "skipped.csv").read_bytes() == (swept[0] / "skipped.csv").read_bytes()
    table, alone = (
        pq.read_table(folder / "statistics.parquet", filters=[("layer", "=", 1)]).to_pydict()
        for folder in (tmp_path / "swept", swept[0])
    )
    for name, values in alone.items():
        if isinstance(values[0], float):
            np.testing.assert_allclose(table[name], values, rtol=2e-4, atol=1e-6, err_msg=name)
        else:
            assert table[name] == values, name
    assert len(list((tmp_path / "cache" / "clips").glob("*/*/*.npy"))) == 6
    for arguments, wanted, words in (
        (["--share=3/2"], 2, "--share=3/2"),
        (["--process=1"], 2, "--process belongs to --distributed"),
        (["--top=0", "--failed_share=0.1"], 1, "2 of 8 song(s) could not be used"),  # nothing is left to do
    ):
        status, _, told = end(start(*arguments, songs))
        assert status == wanted
        assert words in told


def test_names_of_songs(songs, tmp_path):
    found = collection.find_tracks([songs / "a", songs / "b" / "4.wav", songs / "b" / "4.wav"])
    assert [(t.name, t.label, t.group) for t in found] == [
        ("x/1.wav", "x", ""), ("x/2.wav", "x", ""), ("y/3.wav", "y", ""), ("4.wav", "", ""), ("4.wav (2)", "", ""),
    ]  # fmt: skip
    assert isinstance(found[0], Track)
    with pytest.raises(InputError, match="holds no sound files"):
        collection.find_songs([tmp_path])
    with pytest.raises(ValueError, match="an index names the songs"):
        collection.find_songs(["a"], index="tracks.csv")
