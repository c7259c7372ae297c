"""The studio: its jobs, its songs, what its server lets in, and the page in a real browser."""

import contextlib
import dataclasses
import gc
import http.client
import io
import json
import os
import re
import struct
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import quote, urlparse

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import websockets.sync.client as sockets
from PIL import Image
from test_page import until
from test_sound_audio import tone
from websockets.exceptions import ConnectionClosed, InvalidStatus

from deconv_jax.decision.effects import effects, pooled_maps, scaled_logits
from deconv_jax.errors import InputError
from deconv_jax.measures import randomised
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block
from deconv_jax.network.trained import Trained
from deconv_jax.page import network as about_network
from deconv_jax.pictures import spectrograms
from deconv_jax.results import explain
from deconv_jax.sound import audio, blocks
from deconv_jax.sound.front_end import FrontEnd
from deconv_jax.studio import hearing, jobs, networks, responses, server, songs
from deconv_jax.studio.notes import Notes
from deconv_jax.studio.window import Studio

FRONT = FrontEnd(clip_seconds=1.0)
HOSTILE = "<img src=x onerror=alert(1)>.wav"
MAPS = 6


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two layers of random weights, the last of them strong enough for an answer to hang on its features."""
    network = Network(blocks=(Block(maps=4), Block(maps=MAPS)), dense=(), classes=3)
    variables = dict(jax.jit(network.init)(jax.random.key(2), jnp.zeros((FRONT.bins, FRONT.clip_frames))))
    params = variables["params"]
    params["output"]["kernel"] = 0.05 * params["output"]["kernel"]
    params["conv2"]["bias"] = params["conv2"]["bias"].at[3].set(-1e6)  # inactive
    return Trained(network, variables, FRONT, ["a", "<b>b", "c"], tmp_path_factory.mktemp("weights"), {"config": {}})


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """Three seconds that change."""
    path = tmp_path_factory.mktemp("songs") / HOSTILE
    wave = np.concatenate([tone(1.0, 22050, f) * np.linspace(1, 0.1, 22050) for f in (440, 1200, 300)])
    soundfile.write(path, wave, 22050)
    return path


# --- jobs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def worker():
    worker = jobs.Worker()
    yield worker
    worker.end()


def job(steps, heard, rank=1, ready=lambda: True):
    return jobs.Job(steps, rank, heard.append, ready)


def test_what_matters_more_comes_between_the_steps_of_a_long_job(worker):
    heard, begun, go = [], threading.Event(), threading.Event()

    def long():
        yield {"n": 0}, b""
        begun.set()
        go.wait(10)
        for n in (1, 2):
            yield {"n": n}, b""

    worker.submit("window", "song", job(long(), heard, rank=3))
    assert begun.wait(10)
    worker.submit("window", "set", job(iter([({"n": "set"}, b"")]), heard, rank=0))
    go.set()
    until(lambda: len(heard) == 4)
    assert [message["n"] for message, _ in heard] == [0, 1, "set", 2]


def test_a_new_question_takes_the_place_of_the_old_one_and_nothing_piles_up(worker):
    heard, begun, go, closed = [], threading.Event(), threading.Event(), threading.Event()

    def asked(n, wait=False):
        try:
            if wait:
                begun.set()
                go.wait(10)
            yield {"n": n}, b""
            yield {"n": f"{n} again"}, b""
        finally:
            closed.set()

    worker.submit("window", "set", job(asked(0, wait=True), heard))
    assert begun.wait(10)
    for n in range(1, 50):
        worker.submit("window", "set", job(asked(n), heard))
    worker.submit("other", "set", job(asked("other"), heard))
    assert len(worker) == 2
    go.set()
    until(lambda: len(heard) == 4)
    assert [message["n"] for message, _ in heard] in (
        [49, "49 again", "other", "other again"],
        ["other", "other again", 49, "49 again"],
    )
    assert closed.is_set()
    until(lambda: len(worker) == 0)


def test_a_window_that_takes_nothing_waits_alone_and_one_that_went_is_forgotten(worker):
    heard, open_, slow = [], threading.Event(), []
    worker.submit("slow", "song", job(iter([({"n": "slow"}, b"")] * 3), slow, rank=0, ready=open_.is_set))
    worker.submit("other", "song", job(iter([({"n": 1}, b"")]), heard))
    until(lambda: heard)
    assert not slow
    open_.set()
    worker.wake()
    until(lambda: len(slow) == 3)
    worker.submit("gone", "song", job(iter([({"n": 2}, b"")]), heard, ready=lambda: False))
    worker.cancel("gone")
    assert len(worker) == 0


def test_an_error_is_a_line_and_the_thread_goes_on(worker, caplog):
    heard = []

    def fails(error):
        yield
        raise error

    for error in (InputError("song: is\nbroken"), ZeroDivisionError("by zero")):
        worker.submit("window", "song", job(fails(error), heard))
        until(lambda: heard)
        said = heard.pop()[0]
        assert said["kind"] == "wrong"
        assert "\n" not in said["text"]
    assert "its own (ZeroDivisionError: by zero)" in said["text"]
    worker.submit("window", "song", job(iter([({"n": 1}, b"")]), heard))
    until(lambda: heard)


# --- songs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path, song):
    return songs.Library(tmp_path / "own" / "studio", [song])


def dropped(library, name, content):
    with library.receiving(name) as incoming:
        for at in range(0, len(content), 1000):
            incoming.write(content[at : at + 1000])
    return incoming.source


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("C:\\songs\\a.wav", "a.wav"),
        ("..", "clip"),
        (".", "clip"),
        ("a/..", "clip"),
        ("a/", "song"),
        ("", "song"),
        ("a\0b\n.wav", "a\\x00b\\n.wav"),
        ("\ud800", "?"),
        (HOSTILE, HOSTILE),
        (".hidden", "hidden"),
    ],
)
def test_a_dropped_files_name_is_bare(given, name):
    found = songs.name_of(given)
    assert found == name
    assert Path(found).name == found
    assert len(songs.name_of("x" * 5000 + "ü" * 300).encode()) < 255


def test_what_is_dropped_is_kept_in_the_studios_own_folder_whatever_its_name(library, song, tmp_path):
    # What a wrong name would reach lies in the test's own folder: it must not be able to harm.
    for name in ("../../../outside.wav", f"{tmp_path}/absolute.wav", "..", HOSTILE):
        source = dropped(library, name, song.read_bytes())
        assert source.path.resolve().is_relative_to((tmp_path / "own" / "studio" / "dropped").resolve())
    incoming = songs.Incoming("../b.wav")  # were the name not made bare
    (tmp_path / "some").write_bytes(b"some")
    with pytest.raises(InputError, match="no name for a file"):
        library._keep(tmp_path / "some", incoming)
    (tmp_path / "some").unlink()
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept == [source.path]  # the same content is the same song
    assert source.path.read_bytes() == song.read_bytes()
    later = songs.Library(tmp_path / "own" / "studio")
    assert later.find(source.key).path == source.path
    for key in ("dropped/../../etc", str(song), "", "named/0"):
        with pytest.raises(InputError, match="not here any more"):
            library.find(key)


def test_too_large_and_empty_files_leave_nothing_and_the_oldest_goes(library, monkeypatch, tmp_path):
    monkeypatch.setattr(songs, "LARGEST", 2500)
    with pytest.raises(InputError, match=r"big\.wav: is larger than"):
        dropped(library, "big.wav", b"x" * 5000)
    with pytest.raises(InputError, match="is empty"):
        dropped(library, "none.wav", b"")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
    monkeypatch.setattr(songs, "KEPT", 5000)
    kept = [dropped(library, f"{n}.wav", bytes([n]) * 2000) for n in range(4)]
    assert kept[-1].path.exists()
    assert sum(source.path.exists() for source in kept) == 2
    with pytest.raises(InputError):
        library.find(kept[0].key)


def test_a_song_is_read_beginning_first_as_the_library_reads_it(library, song):
    (first, some), (whole, all_) = library.read(next(iter(library.sources.values())), FRONT.sample_rate, 0.5)
    assert (some, all_) == (False, True)
    assert abs(len(first) - 0.5 * FRONT.sample_rate) < 2
    np.testing.assert_array_equal(whole, audio.read(song, FRONT.sample_rate))
    assert not list(library.scratch.iterdir())


def test_songs_that_cannot_be_heard_are_a_line_with_their_name(library, tmp_path):
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(5000), 11025)
    for name, content, says in (
        ("text.mp3", b"this is no sound" * 9, "is no readable sound file"),
        ("silent.wav", silent.read_bytes(), "is silent throughout"),
        ("torn.wav", silent.read_bytes()[:30], "is no readable sound file"),
    ):
        source = dropped(library, name, content)
        with pytest.raises(InputError, match=f"^{re.escape(name)}: {says}") as caught:
            list(library.read(source, 11025, 1.0))
        assert str(tmp_path) not in str(caught.value)
    assert not list(library.scratch.iterdir())


# --- the server ---------------------------------------------------------------------------------------------------


class Served:
    """A studio that is served by a thread of this process."""

    def __init__(self, trained, folder: Path, paths, notes=None, **more):
        library = songs.Library(folder, paths)
        offered = {"one": lambda: trained, **more}
        steps = [name for name in ("zero", "two", "one") if name in offered]
        self.studio = Studio(offered, steps, library, Notes(notes))
        self.socket = server.listening("127.0.0.1", 0)
        self.running, self.address = server.server_of(self.studio, self.socket, "127.0.0.1")
        self.place = urlparse(self.address)
        self.thread = threading.Thread(target=self.running.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        until(lambda: self.running.started)

    def ask(self, method="GET", path=None, body=None, **headers):
        link = http.client.HTTPConnection("127.0.0.1", self.place.port, timeout=20)
        link.putrequest(method, self.place.path if path is None else path, skip_host="host" in headers)
        for name, value in headers.items():
            link.putheader(name.replace("_", "-"), value)
        if body is not None:
            link.putheader("content-length", str(len(body)))
        link.endheaders(body)
        answer = link.getresponse()
        content = answer.read()
        link.close()
        return answer.status, answer.headers, content

    def line(self, **how):
        origin = how.pop("origin", f"http://{self.place.netloc}")
        return sockets.connect(f"ws://{self.place.netloc}{self.place.path}talk", origin=origin, **how)

    def end(self):
        self.running.should_exit = True
        self.thread.join(20)
        self.studio.end()
        self.socket.close()


def shuffled(trained, seed):
    """Another network of the same shape: an earlier step of its training, say."""
    return dataclasses.replace(trained, variables=randomised.shuffled_weights(trained.variables, seed))


@pytest.fixture(scope="module")
def served(trained, song, tmp_path_factory):
    zero, two = (shuffled(trained, seed) for seed in (1, 0))
    other = dataclasses.replace(trained, front_end=FrontEnd(sample_rate=8000))
    more = {"zero": lambda: zero, "two": lambda: two, "other": lambda: other}
    served = Served(trained, tmp_path_factory.mktemp("studio"), [song], **more)
    yield served
    served.end()
    assert not served.thread.is_alive()


def test_the_page_says_what_it_may_load_and_nothing_may_frame_or_keep_it(served):
    status, headers, page = served.ask()
    assert status == 200
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "frame-ancestors 'none'" in policy
    assert {headers["referrer-policy"], headers["cache-control"], headers["x-content-type-options"]} == {
        "no-referrer", "no-store", "nosniff",
    }  # fmt: skip
    assert "access-control-allow-origin" not in headers
    assert served.place.path.strip("/").encode() not in page  # a token in a page could be sent on
    assert len(served.place.path) > 30


def test_others_are_refused(served):
    own, host = f"http://{served.place.netloc}", served.place.netloc
    for status, how in (
        (421, {"host": "evil.example"}),
        (421, {"host": f"evil.example:{served.place.port}"}),  # a name that was bound to this machine
        (421, {"host": "127.0.0.1:1"}),
        (403, {"origin": "http://evil.example"}),
        (403, {"origin": "null"}),
        (403, {"origin": f"http://127.0.0.1:{served.place.port + 1}"}),
        (404, {"path": "/"}),
        (404, {"path": "/other/"}),
        (404, {"path": served.place.path + "../"}),
        (404, {"path": served.place.path + "no"}),
        (403, {"method": "POST", "path": served.place.path + "drop?name=x.wav", "body": b"x"}),
        (403, {"method": "POST", "path": served.place.path + "drop", "body": b"x", "origin": "https://evil.example"}),
        (
            403,
            {
                "method": "POST",
                "path": served.place.path + "drop",
                "body": b"x",
                "origin": own,
                "sec_fetch_site": "cross-site",
            },
        ),
        (404, {"method": "POST", "path": "/guess/drop?name=x.wav", "body": b"x", "origin": own}),
        (405, {"method": "POST", "body": b"x", "origin": own}),
    ):
        found, headers, content = served.ask(**how)
        assert found == status, how
        assert b"Traceback" not in content
        assert "server" not in headers
    assert served.ask(origin=own)[0] == 200
    assert served.ask(host=f"localhost:{served.place.port}")[0] == 200
    for how in ({"origin": None}, {"origin": "http://evil.example"}, {"additional_headers": {"Host": "evil.example"}}):
        with pytest.raises((InvalidStatus, ConnectionClosed)), served.line(**how) as line:
            line.recv(timeout=5)
    with pytest.raises(InvalidStatus), sockets.connect(f"ws://{host}/guess/talk", origin=own):
        pass


def test_a_port_that_was_named_and_is_taken_is_told(served):
    with pytest.raises(ValueError, match="cannot be listened at"):
        server.listening("127.0.0.1", served.place.port)


class Line:
    """A window without a browser."""

    def __init__(self, served, careless=False):
        self.careless = careless  # what was wrong is not minded
        self.line, self.turn = served.line(max_size=None).__enter__(), 0
        self.choices = self.until("choices")[0]

    def ask(self, does, **more):
        self.turn += 1
        self.line.send(json.dumps({"do": does, "turn": self.turn, **more}))

    def next(self):
        frame = self.line.recv(timeout=60)
        (length,) = struct.unpack("<I", frame[:4])
        return json.loads(frame[4 : 4 + length]), frame[4 + length :]

    def until(self, kind, wanted=lambda message: True):
        while True:
            message, content = self.next()
            if message["kind"] == "wrong" != kind and not self.careless:
                raise AssertionError(message["text"])
            if message["kind"] == kind and wanted(message):
                return message, content


@pytest.fixture
def line(served):
    line = Line(served)
    yield line
    line.line.close()


def opened(line, name=None):
    line.ask("network", name="one")
    line.until("network")
    key = next(s["key"] for s in line.choices["songs"] if name in (None, s["name"]))
    line.ask("song", key=key)
    line.until("sound")


def test_answers_pictures_and_effects_are_the_librarys(served, line, trained, song):
    opened(line)
    said = {}
    while (message := line.until("said")[0])["says"]:
        said[message["second"]] = message["says"]
    assert len(said) == 5  # three seconds, every half of a clip length
    line.ask("loop", start=1.0, seconds=0.6, layer=2, scales=[])
    whole = audio.read(song, FRONT.sample_rate)
    clip = explain.Clip(wave := audio.cut(whole, FRONT.clip_samples, FRONT.clip_samples), blocks.analyse(FRONT, wave))
    answer = explain.answer_of(trained, clip)
    stretch, sound = line.until("stretch")
    assert stretch["prediction"] == pytest.approx(answer.named(trained.labels), abs=1e-6)
    np.testing.assert_allclose(np.frombuffer(sound, "<i2") / 32767, wave, atol=1e-4)
    assert said[1.5] == pytest.approx(answer.mean.tolist(), abs=1e-6)  # of the same clip, along the song
    layer, pictures = line.until("layer")
    assert sum(layer["pictures"]) == len(pictures)
    assert [r["inactive"] for r in layer["features"]] == [0, 0, 0, 1, 0, 0]
    line.until("left")
    found = line.until("effects")[0]
    want = effects(trained.network, trained.variables, clip.seen, 2)
    np.testing.assert_allclose(found["changes"], want, atol=1e-5)
    for number, maps in ((2, MAPS), (1, 4)):
        line.ask("loop", start=1.0, seconds=0.6, layer=number, scales=[])
        line.until("effects", lambda m, turn=line.turn: m["turn"] == turn)
        scales = np.linspace(0, 1, maps)
        line.ask("set", scales=scales.tolist())
        message, _ = line.until("answer", lambda m, turn=line.turn: m["turn"] == turn)
        logits = scaled_logits(trained.network, trained.variables, clip.seen, number, scales[None])[0]
        np.testing.assert_allclose(message["logits"], logits, atol=1e-4)
        np.testing.assert_allclose(message["says"], trained.network.probabilities(logits), atol=1e-4)
        assert np.abs(np.subtract(message["says"], answer.mean)).max() > 1e-3  # it is another answer
        left = np.frombuffer(line.until("left")[1], "<i2") / 32767
        assert 0 < np.abs(left).max() <= np.abs(wave).max() + 1e-4
    line.ask("set", scales=[0] * 4)
    line.until("answer", lambda m, turn=line.turn: m["turn"] == turn)
    assert not any(line.until("left")[1])  # silence


def test_a_stretch_of_several_clip_lengths_is_their_mean_and_ends_in_silence(line, trained, song):
    opened(line)
    whole = audio.read(song, FRONT.sample_rate)
    line.ask("loop", start=1.5, seconds=1.7, layer=2, scales=[0.5] * MAPS)
    stretch, _ = line.until("stretch")
    assert stretch["seconds"] == pytest.approx(2.0)
    wave = audio.cut(whole, round(1.5 * FRONT.sample_rate), 2 * FRONT.clip_samples)
    assert not wave[-1000:].any()
    clip = explain.Clip(wave, blocks.analyse(FRONT, wave))
    answer = explain.answer_of(trained, clip)
    assert len(answer.parts) > 1
    message, _ = line.until("answer")
    parts = [scaled_logits(trained.network, trained.variables, p, 2, np.full((1, MAPS), 0.5))[0] for p in answer.parts]
    np.testing.assert_allclose(
        message["says"], np.mean([trained.network.probabilities(p) for p in parts], axis=0), atol=1e-5
    )
    lengths = [hearing.length_of(trained, seconds) / FRONT.clip_samples for seconds in (1e-3, 1.0, 1.01, 3.9, 1e5)]
    assert lengths == [1, 1, 2, 4, 4]


def test_what_responds_in_a_box_is_a_share_of_cells_whose_middle_lies_there(trained, song):
    stretch = hearing.stretch_of(trained, audio.read(song, FRONT.sample_rate), 0, 1)
    rows, frames = (n // 4 for n in stretch.clip.seen.shape)  # two layers of 3 × 3 and 2 × 2: middles at 1.5 + 4 n
    maps = np.zeros((3, rows, frames))
    maps[0, 10, 3], maps[0, 40, 9], maps[1, 40, 9], maps[1, 0, 0] = 3, 1, 2, -7
    second, hertz = (1.5 + 4 * 3) * FRONT.hop / FRONT.sample_rate, FRONT.frequencies()[41:43].mean()
    around = ([second - 0.01, second + 0.01], [hertz - 60, hertz + 150])
    box = responses.in_box(trained, stretch, 2, maps, *around)
    assert (box.cells, box.of, box.nearest) == (2, rows * frames, False)  # and the cell above it
    np.testing.assert_allclose(box.shares, [0.75, 0, np.nan])
    np.testing.assert_allclose(box.ratios, box.shares * rows * frames / 2)
    seen = stretch.clip.seen[40:48, 12:16].mean() / stretch.clip.seen[: 4 * rows, : 4 * frames].mean()
    assert box.sound == pytest.approx(seen, rel=1e-5)
    small = responses.in_box(trained, stretch, 2, maps, (second + 0.001, second + 0.002), (hertz, hertz + 1))
    assert (small.cells, small.nearest, small.shares[0]) == (1, True, 0.75)
    own = np.asarray(pooled_maps(trained.network, trained.variables, stretch.answer.parts[0], 2))[0]
    found = responses.maps_of(trained, trained.variables, stretch, 2)
    np.testing.assert_allclose(found, np.moveaxis(own, -1, 0), atol=1e-5)


def test_who_listens_everywhere_answers_to_every_address_of_the_machine(monkeypatch):
    monkeypatch.setattr(server.socket, "getaddrinfo", lambda *_: [(2, 1, 6, "", ("198.51.100.7", 0))])
    assert "198.51.100.7:8607" in server.hosts_of("0.0.0.0", 8607)
    assert "198.51.100.7:8607" not in server.hosts_of("127.0.0.1", 8607)


def test_a_number_that_json_does_not_have_ends_no_window():
    assert server.packed(({"says": [float("nan"), 1.0]}, b"x"))[4:] == b'{"says":[null,1.0]}x'


def test_a_stretch_that_reached_beyond_the_beginning_of_a_song_is_heard_again():
    song = np.ones(3 * FRONT.clip_samples, np.float32)
    wave = audio.cut(song[: 2 * FRONT.clip_samples], FRONT.clip_samples + 9, FRONT.clip_samples)
    of_beginning = hearing.Stretch(FRONT.clip_samples + 9, explain.Clip(wave, None), None)
    given = of_beginning.start, FRONT.clip_samples
    assert hearing.is_of(of_beginning, song[: 2 * FRONT.clip_samples], *given)
    assert not hearing.is_of(of_beginning, song, *given)


def test_a_features_strongest_moments_are_the_librarys_in_one_song_and_in_all(served, line, trained, song, tmp_path):
    opened(line)
    whole = audio.read(song, FRONT.sample_rate)

    def asked(everywhere, feature=0):
        line.ask("moments", layer=2, feature=feature, everywhere=everywhere)
        heard = []
        while not heard or heard[-1]["done"] < heard[-1]["of"] or heard[-1]["found"] is None:
            heard.append(line.until("moments", lambda m, turn=line.turn: m["turn"] == turn)[0])
        return heard

    tops = []
    for clip in range(3):
        wave = audio.cut(whole, clip * FRONT.clip_samples, FRONT.clip_samples)
        maps = pooled_maps(trained.network, trained.variables, blocks.analyse(FRONT, wave).seen, 2)
        over_time = np.asarray(maps)[0, :, :, 0].max(axis=0)
        tops.append((over_time.max(), clip + (1.5 + 4 * over_time.argmax()) * FRONT.hop / FRONT.sample_rate))
    heard = asked(False)
    assert len(heard) > 3  # it says how far it is
    found = heard[-1]["found"]
    assert (found[0]["value"], found[0]["second"]) == pytest.approx(max(tops), abs=1e-4)
    assert [m["value"] for m in found] == sorted((m["value"] for m in found), reverse=True)
    seconds = sorted(m["second"] for m in found)
    assert np.diff(seconds).min() >= 0.25
    assert all(0 <= m["louder"] < 1 for m in found)
    (last,) = asked(False, feature=3)[-1:]  # inactive, and known without another look
    assert last["found"] == []
    broken, other = dropped(served.studio.library, "broken.wav", b"RIFF"), tmp_path / "other.wav"
    soundfile.write(other, 0.1 * whole[: FRONT.clip_samples], FRONT.sample_rate)
    quiet = dropped(served.studio.library, "other.wav", other.read_bytes())
    last = asked(True)[-1]
    assert last["skipped"] == 1
    keys = [m["key"] for m in last["found"]]
    assert quiet.key in keys
    assert max(map(keys.count, keys)) <= 2
    line.ask("network", name="one")  # another question: nothing of the old one is left
    line.ask("moments", layer=2, feature=0, everywhere=True)
    assert "not there yet" in line.until("wrong")[0]["text"]
    for source in (broken, quiet):
        del served.studio.library.sources[source.key]


def test_another_network_answers_the_same_question_and_sounds_as_long(served, line, trained, song):
    opened(line)
    line.ask("loop", start=1.0, seconds=0.6, layer=2, scales=[])
    _, sound = line.until("stretch")
    line.until("effects")
    scales = np.linspace(0, 1, MAPS)
    line.ask("set", scales=scales.tolist())
    _, left = line.until("left", lambda m: m["turn"] == line.turn)
    wave = audio.cut(audio.read(song, FRONT.sample_rate), FRONT.clip_samples, FRONT.clip_samples)
    seen, size = blocks.analyse(FRONT, wave).seen, (FRONT.bins, FRONT.clip_frames)
    twin = randomised.twin(trained.network, trained.variables, size, randomised.SEEDS[0])
    for asked, variables in (
        ({"name": "two", "twin": False}, served.studio.network("two").variables),
        ({"name": None, "twin": True}, twin),
    ):
        line.ask("versus", **asked)
        about, pictures = line.until("other")
        assert sum(about["pictures"]) == len(pictures)
        message, _ = line.until("other answer")
        logits = scaled_logits(trained.network, variables, seen, 2, scales[None])[0]
        np.testing.assert_allclose(message["says"], trained.network.probabilities(logits), atol=1e-4)
        _, beside = line.until("other left")
        assert len(beside) == len(left) == len(sound)
        assert beside != left
    line.ask("set", scales=[0] * MAPS)  # both hear of it
    assert not any(line.until("left", lambda m: m["turn"] == line.turn)[1])
    assert not any(line.until("other left")[1])
    line.ask("versus", name="other", twin=False)
    assert "only networks that hear the same" in line.until("wrong", lambda m: m["turn"] == line.turn)[0]["text"]


def test_checkpoints_of_a_run_are_offered_in_the_order_of_training(trained, tmp_path):
    run = tmp_path / "mine"
    for place in ("best/300", "last/300", "last/1200", "last/1200.tmp", "kept/0", "kept/40", "kept/300"):
        (run / "checkpoints" / place).mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"epoch": 1, "step": 40}\n{"epoch": 2, "step": 300}\n')
    (run / "config.json").write_text("{}")
    first = dataclasses.replace(trained, checkpoint=run / "checkpoints" / "best" / "300")
    offered, steps = networks.offered(first)
    assert [name.removeprefix("mine, ") for name in steps] == [
        "step 0 (untrained)", "epoch 1, step 40", "epoch 2, step 300 (best)", "step 1,200 (last)",
    ]  # fmt: skip
    assert [*offered][:4] == [steps[2], steps[0], steps[1], steps[3]]  # the one that was named comes first
    assert offered[steps[2]]() is first
    with pytest.raises(InputError):
        offered[steps[3]]()  # there is nothing in it
    assert networks.offered(trained)[1] == []


def test_wrong_questions_are_a_line_and_the_window_goes_on(served, line):
    line.ask("loop", start=0, seconds=1, layer=1, scales=[])
    assert "no network is chosen" in line.until("wrong")[0]["text"]
    line.ask("network", name="none")
    assert "no network that can be chosen" in line.until("wrong")[0]["text"]
    opened(line)
    for message in (
        "[", "[]", "3", "null", "{}", '{"do": "loop"}', '{"do": "__init__", "turn": 1}', '{"do": "set", "turn": "x"}',
        '{"do": "set", "turn": 1, "scales": [NaN]}', '{"do": "set", "turn": 1, "scales": [2]}',
        '{"do": "loop", "turn": 1, "start": 1e999, "seconds": 1, "layer": 1, "scales": []}',
        '{"do": "loop", "turn": 1, "start": 0, "seconds": 1, "layer": 9, "scales": []}',
        '{"do": "loop", "turn": 1, "start": 0, "seconds": 1, "layer": null, "scales": []}',
        '{"do": "song", "turn": 1, "key": "../../etc/passwd"}',
        '{"do": "box", "turn": 1, "seconds": [0, NaN], "hertz": [0, 1]}',
        '{"do": "box", "turn": 1, "seconds": [], "hertz": [0]}',
        '{"do": "moments", "turn": 1, "layer": 2, "feature": 64, "everywhere": true}',
    ):  # fmt: skip
        line.line.send(message)
        assert "Traceback" not in line.until("wrong")[0]["text"]
    line.ask("loop", start=2.999, seconds=1, layer=2, scales=[])
    line.until("effects")
    line.line.send("x" * (server.ASKED + 1))
    with pytest.raises(ConnectionClosed):
        line.until("nothing")
    Line(served).line.close()  # others are served on


def test_a_dropped_song_is_heard_and_a_broken_one_is_told(served, line, song):
    own = f"http://{served.place.netloc}"

    def drop(name, body):
        path = f"{served.place.path}drop?name={quote(name)}"
        status, _, content = served.ask("POST", path, body, origin=own)
        return status, json.loads(content)

    status, found = drop(HOSTILE, song.read_bytes())
    assert (status, found["name"]) == (200, HOSTILE)
    assert drop("none.wav", b"")[0] == 400
    line.ask("network", name="one")
    line.until("network")
    line.ask("song", key=found["key"])
    assert line.until("song")[0]["name"] == HOSTILE
    _, broken = drop("broken.wav", b"RIFF" + bytes(100))
    line.ask("song", key=broken["key"])
    assert line.until("wrong")[0]["text"].startswith("broken.wav: is no readable sound file")


def test_a_network_whose_folder_is_gone_is_told_and_one_that_is_held_stays(trained, tmp_path):
    lost = dataclasses.replace(trained, checkpoint=tmp_path / "gone")
    assert [term for term, _ in about_network.about(lost)] == [t for t, _ in about_network.about(trained)][:-1]

    def gone():
        raise FileNotFoundError(2, "No such file or directory")

    studio = Studio({"<b>": gone}, [], songs.Library(tmp_path / "studio"))
    with pytest.raises(InputError, match=r"<b>: cannot be opened \(No such file"):
        studio.network("<b>")
    studio.end()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory"):
        songs.Library(tmp_path / "file" / "studio")


def test_a_window_that_goes_away_is_forgotten_and_two_do_not_mix(served):
    first, second = Line(served), Line(served)
    opened(first)
    opened(second)
    first.ask("loop", start=0, seconds=1, layer=1, scales=[])
    second.ask("loop", start=2, seconds=1, layer=2, scales=[])
    assert first.until("stretch")[0]["start"] == 0
    assert second.until("stretch")[0]["start"] == pytest.approx(2)
    first.ask("song", key=first.choices["songs"][0]["key"])
    first.line.close()
    second.until("effects")
    second.line.close()
    until(lambda: len(served.studio.worker) == 0)


# --- in a browser -------------------------------------------------------------------------------------------------


class Visit:
    """A window of the studio in a browser, and everything that must not happen in it."""

    def __init__(self, browser, address, **settings):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        self.context.set_default_timeout(20_000)
        self.context.add_init_script(
            "window.heard = []; const start = AudioBufferSourceNode.prototype.start;"
            "AudioBufferSourceNode.prototype.start = function (...a) {"
            "  const heard = this.buffer.getChannelData(0).reduce((sum, v) => sum + v * v, 0);"
            "  window.heard.push([this.buffer.length, heard]);"
            "  return start.apply(this, a); };"
        )
        self.page = self.context.new_page()
        self.wrong, self.asked = [], []
        self.page.on("console", lambda m: self.wrong.append(m.text))
        self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.goto(address)

    def ready(self):
        """All that was asked has been answered."""
        until(lambda: self.page.locator("#grid .card").count() > 0 and self.page.inner_text("#waiting") == "")

    def says(self):
        """What the network says, as the page was told."""
        return json.loads(self.page.get_attribute("#answer-facts", "data-says"))

    def check(self, origin):
        outside = [url for url in self.asked if not url.startswith((origin, "data:", "blob:"))]
        assert (self.wrong, outside) == ([], [])
        self.context.close()


@pytest.fixture
def visit(browser, served):
    visit = Visit(browser, served.address)
    yield visit
    visit.check(f"http://{served.place.netloc}/")


def dragged(page, selector, *places):
    """Drags from one place of an element to another, shares of its width and height."""
    page.locator(selector).scroll_into_view_if_needed()
    box = page.locator(selector).bounding_box()
    for (across, down), press in zip(places, (page.mouse.down, page.mouse.up), strict=True):
        page.mouse.move(box["x"] + across * box["width"], box["y"] + down * box["height"], steps=3)
        press()


def expected(trained, wave, number, scales):
    """What the library says of a clip with a layer's maps scaled."""
    seen = blocks.analyse(FRONT, wave).seen
    logits = scaled_logits(trained.network, trained.variables, seen, number, np.asarray(scales, np.float32)[None])[0]
    return np.asarray(trained.network.probabilities(logits))


def test_a_song_is_dropped_and_muting_changes_the_answer_to_what_the_library_says(visit, trained, song):
    page, whole = visit.page, audio.read(song, FRONT.sample_rate)
    visit.ready()
    content = song.read_bytes() + bytes(4)  # what was dropped before keeps its name
    page.set_input_files("#file", {"name": "dropped <b>.wav", "mimeType": "audio/wav", "buffer": content})
    until(lambda: page.inner_text("#song-name") == "dropped <b>.wav")
    visit.ready()
    until(lambda: "3.0 s" in page.inner_text("#song-facts"))
    until(lambda: page.locator("#said path.way").count() == 3)
    assert page.locator("#outline path").count() == 1
    wave = whole[: FRONT.clip_samples]
    np.testing.assert_allclose(visit.says(), expected(trained, wave, 2, [1] * MAPS), atol=1e-4)
    assert page.get_attribute("role=tab[name='Layer 2']", "aria-selected") == "true"
    order = [int(c.get_attribute("data-feature")) for c in page.query_selector_all("#grid .card")]
    changes = np.asarray(effects(trained.network, trained.variables, blocks.analyse(FRONT, wave).seen, 2))
    target = int(np.argmax(visit.says()))
    assert order[:-1] == [f for f in np.argsort(changes[:, target], kind="stable") if f != 3]
    page.keyboard.press("Space")
    until(lambda: float(page.input_value("#seek")) > 0.05)
    full = page.evaluate("window.heard.at(-1)")
    scales = np.ones(MAPS)

    def then(wanted):
        until(lambda: np.allclose(visit.says(), expected(trained, wave, 2, wanted), rtol=0, atol=1e-4))

    page.click(f".card[data-feature='{order[0]}']", modifiers=["Shift"])
    scales[order[0]] = 0
    then(scales)
    assert "answered in" in page.inner_text("#answer-facts")
    assert page.get_attribute("#play", "aria-label") == "Pause"  # it plays on
    until(lambda: page.evaluate("window.heard.at(-1)") != full)  # something else
    page.locator(f".stack:has(.card[data-feature='{order[1]}']) input").fill("40")
    scales[order[1]] = 0.4
    then(scales)
    page.click(f".card[data-feature='{order[2]}']")
    then(np.eye(MAPS)[order[2]])
    page.keyboard.press("m")  # the only one that is left
    then(np.zeros(MAPS))
    until(lambda: page.evaluate("window.heard.at(-1)")[1] == 0)
    address = page.url
    page.reload()  # the address holds the view
    visit.ready()
    assert page.url == address
    then(np.zeros(MAPS))
    assert page.locator(".card.out").count() == MAPS
    page.click("#reset")
    then(np.ones(MAPS))
    compared_blindly(visit, trained, wave)
    page.click("role=tab[name='Layer 1']")
    visit.ready()
    page.click(".card[data-feature='1'] >> xpath=.. >> [aria-label^='Mute']")
    until(lambda: np.allclose(visit.says(), expected(trained, wave, 1, [1, 0, 1, 1]), rtol=0, atol=1e-4))


def compared_blindly(visit, trained, wave):
    """Compares with another network: what it says, what it sounds like, and whether one can tell."""
    page = visit.page
    page.select_option("#versus", "=two")
    until(lambda: page.get_attribute("#other-answer", "data-says") and page.inner_text("#waiting") == "")
    two = shuffled(trained, 0)
    says = json.loads(page.get_attribute("#other-answer", "data-says"))
    np.testing.assert_allclose(
        says, explain.answer_of(two, explain.Clip(wave, blocks.analyse(FRONT, wave))).mean, atol=1e-4
    )
    assert page.input_value("#step") == "1"  # of three steps
    assert "versus=%3Dtwo" in page.url
    page.evaluate("() => { crypto.getRandomValues = (array) => array.fill(0); }")  # X is A
    page.click("#abx-start")
    assert "Round 1 of 10" in page.inner_text("#abx-where")
    until(lambda: page.get_attribute("#play", "aria-label") == "Pause")
    before = page.evaluate("window.heard.length")
    for key in "abxb":
        page.keyboard.press(key)
    assert page.get_attribute("#abx-b", "aria-pressed") == "true"
    assert page.evaluate("window.heard.length") == before  # switched without starting anew
    for n in range(10):
        page.click("#abx-is-b" if n == 3 else "#abx-is-a")
    assert page.inner_text("#abx-score").startswith("9 of 10 right. Who guesses gets as many or more in 1.1")
    assert "p = 0.0107" in page.inner_text("#abx-score")
    assert page.locator("#abx").is_hidden()
    page.click("#abx-start")
    page.click(".card[data-feature='0'] >> xpath=.. >> [aria-label^='Mute']")
    assert "the test has ended" in page.inner_text("#abx-score")
    page.click("#reset")
    page.select_option("#versus", "")
    until(lambda: page.locator("#other-answer").is_hidden())


def test_a_slider_goes_along_a_training_and_the_feature_stays(visit, trained, song):
    """By keyboard, while it plays: what feature 4 heard at each step is pictured and heard as the library has it."""
    page, wave = visit.page, audio.read(song, FRONT.sample_rate)[: FRONT.clip_samples]
    visit.ready()
    page.click(".card[data-feature='4']")
    page.check("input[name=source][value=original]")
    page.click("#play")
    assert page.locator("#step-marks option").count() == 3
    assert page.input_value("#step") == "2"  # this network's own
    for name, seed in (("two", 0), ("zero", 1)):
        page.focus("#step")
        page.keyboard.press("ArrowLeft")
        assert page.inner_text("#step-name") == page.get_attribute("#step", "aria-valuetext") == name
        stands_beside(page, name, shuffled(trained, seed), song)
        page.check("#grid-other")
    assert "versus=%3Dzero" in page.url
    page.select_option("#network-choice", "two")  # what is chosen stays from step to step
    visit.ready()
    assert page.inner_text("#feature-title") == "Feature 4 of layer 2"
    alone = expected(shuffled(trained, 0), wave, 2, np.eye(MAPS)[4])
    until(lambda: np.allclose(visit.says(), alone, rtol=0, atol=1e-4))
    page.select_option("#versus", "=other")
    until(lambda: "only networks that hear the same can be compared" in page.inner_text("#wrong"))
    assert page.inner_text("#step-name") == "move it to compare"


def stands_beside(page, name, one, song):
    """Feature 4 alone of another step: its answer, sound and picture, where the page has them."""
    stretch = hearing.stretch_of(one, audio.read(song, FRONT.sample_rate), 0, 1)
    layer, scales = hearing.layer_of(one, stretch, 2), np.eye(MAPS, dtype=np.float32)[4]
    (_, says), sound = hearing.says(one, layer, scales), hearing.left_of(one, stretch, layer, scales)
    until(lambda: page.inner_text("#versus-facts").startswith(f"A is one, B is {name}"))
    assert "a number is the same feature at both steps" in page.inner_text("#versus-facts")
    until(lambda: np.allclose(json.loads(page.get_attribute("#other-answer", "data-says")), says, rtol=0, atol=1e-4))
    until(lambda: page.evaluate("window.heard.at(-1)[1]") == pytest.approx(np.sum(sound**2), rel=1e-3))
    page.check("#grid-other")
    assert page.inner_text("#other-plot .plot-title").startswith("B: feature 4")
    assert page.get_attribute("#grid [aria-current=true]", "data-feature") == "4"
    grey = page.evaluate(
        "async () => { const image = document.querySelector('#grid .card[data-feature=\"4\"] img');"
        " await image.decode(); const size = [image.naturalWidth, image.naturalHeight];"
        " const on = new OffscreenCanvas(...size).getContext('2d'); on.drawImage(image, 0, 0);"
        " return [...on.getImageData(0, 0, ...size).data].filter((_, n) => n % 4 === 0); }"
    )
    wanted = np.asarray(Image.open(io.BytesIO(spectrograms.level_picture(layer.images[4]))))
    np.testing.assert_allclose(np.reshape(grey, wanted.shape), wanted, atol=1)


def test_a_loop_is_dragged_on_the_spectrogram(visit, trained, song):
    page = visit.page
    visit.ready()
    until(lambda: "3.0 s" in page.inner_text("#song-facts"))
    dragged(page, "#whole-plot .field", (1 / 3, 0.2), (1 / 2, 0.3))
    until(lambda: page.input_value("#loop-start") == "1.00")
    assert page.input_value("#loop-seconds") == "0.50"
    visit.ready()
    start = float(re.search(r"start=([\d.]+)", page.url)[1])
    wave = audio.cut(audio.read(song, FRONT.sample_rate), round(start * FRONT.sample_rate), FRONT.clip_samples)
    until(lambda: np.allclose(visit.says(), expected(trained, wave, 2, [1] * MAPS), rtol=0, atol=1e-4))
    dragged(page, "#loop-plot .field", (1 / 4, 0.5), (1 / 2, 0.9))
    until(lambda: "untrained network's features: median" in page.inner_text("#box-facts"))
    assert (float(page.input_value("#box-t0")), float(page.input_value("#box-t1"))) == pytest.approx(
        (0.25, 0.5), abs=0.01
    )
    stretch = hearing.stretch_of(trained, audio.read(song, FRONT.sample_rate), start, 1)
    maps = responses.maps_of(trained, trained.variables, stretch, 2)
    seconds, hertz = (
        [float(n) for n in part.split("-")] for part in re.search(r"box=([\d.]+-[\d.]+)-(\d+-\d+)", page.url).groups()
    )
    ratios = responses.in_box(trained, stretch, 2, maps, seconds, hertz).ratios
    order = [int(c.get_attribute("data-feature")) for c in page.query_selector_all("#grid .card")]
    assert order[:-1] == [f for f in np.argsort(-ratios, kind="stable") if f != 3]
    page.click(f".card[data-feature='{order[0]}']", modifiers=["Shift"])
    page.click("#reset")
    page.click("#search-song")
    until(lambda: page.inner_text("#moments-facts").startswith(f"Feature {order[0]} of layer 2 in this song"))
    page.locator("#moments button").last.click()
    until(lambda: f"start={start:.3f}" not in page.url and "box=" not in page.url)
    assert page.is_disabled("#box-clear")
    visit.ready()
    page.keyboard.press("2")
    page.click("#play")
    until(lambda: page.evaluate("window.heard.length") > 0)
    assert page.evaluate("window.heard.at(-1)[0]") == round(0.5 * FRONT.sample_rate)
    page.keyboard.press("1")
    until(lambda: page.evaluate("window.heard.at(-1)[0]") > 2.9 * FRONT.sample_rate)
    page.fill("#loop-start", "2.5")
    page.keyboard.press("Tab")
    until(lambda: "start=2.500" in page.url)


@pytest.mark.parametrize("settings", [{"viewport": {"width": 400, "height": 800}}, {"color_scheme": "dark"}])
def test_it_fits_narrow_windows_and_is_reached_without_a_mouse(browser, served, settings):
    visit = Visit(browser, served.address + "#versus=%3Dtwo", **settings)
    page = visit.page
    visit.ready()
    until(lambda: page.locator("#grid-other").is_visible())
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    nameless = page.evaluate(
        "() => [...document.querySelectorAll('button, input, select')].filter((e) =>"
        " !(e.ariaLabel || e.textContent.trim() || e.labels?.length || e.title)).map((e) => e.outerHTML)"
    )
    assert nameless == []
    first = page.get_attribute("#grid .card", "data-feature")
    page.focus(f".card[data-feature='{first}']")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("s")
    until(lambda: page.locator(".card.alone").count() == 1)
    assert page.get_attribute(".card.alone", "data-feature") != first
    page.focus("#grid .card.alone")
    until(lambda: "alone" in page.inner_text("#status"))
    visit.check(f"http://{served.place.netloc}/")


def full(*_):
    raise OSError(28, "No space left on device")


def test_what_is_wrong_is_said_on_the_page_and_a_lost_line_comes_back(browser, trained, song, tmp_path, monkeypatch):
    def vanished():
        raise InputError("nets/mine: holds no network; wanted is a folder")

    served = Served(trained, tmp_path / "studio", [song], gone=vanished)
    try:
        visit = Visit(browser, served.address)
        page = visit.page
        visit.ready()
        page.set_input_files("#file", {"name": HOSTILE, "mimeType": "audio/wav", "buffer": b"no sound at all"})
        until(lambda: page.inner_text("#wrong").startswith(f"{HOSTILE}: is no readable sound file"))
        assert page.locator("img[src='x']").count() == 0
        with monkeypatch.context() as patch:
            patch.setattr(songs.Incoming, "write", full)
            page.set_input_files("#file", {"name": "x.wav", "mimeType": "audio/wav", "buffer": bytes(10**6)})
            until(lambda: "x.wav: cannot be kept (No space left on device); free some" in page.inner_text("#wrong"))
        assert "400" in visit.wrong.pop()  # the browser's own line about the request that was refused
        page.select_option("#network-choice", "gone")
        until(lambda: "nets/mine: holds no network" in page.inner_text("#wrong"))
        until(lambda: page.input_value("#network-choice") == "one")  # that which was there stays
        page.select_option("#network-choice", "one")
        page.select_option("#song-choice", page.get_attribute("optgroup[label=named] option", "value"))
        visit.ready()
        assert page.locator("#wrong").is_hidden()
        visit.check(f"http://{served.place.netloc}/")
    finally:
        served.end()


def test_favourites_and_notes_are_in_the_file_as_soon_as_the_page_says_so(
    browser, trained, song, tmp_path, monkeypatch
):
    path = tmp_path / "notes.json"
    served = Served(trained, tmp_path / "studio", [song], notes=path)
    try:
        visit = Visit(browser, served.address)
        page = visit.page
        visit.ready()
        page.focus("#grid .card[aria-current=true]")
        page.keyboard.press("f")
        assert page.get_attribute("#favourite", "aria-pressed") == "true"
        assert page.inner_text("#favourite").strip() == "★ Favourite"
        page.keyboard.press("n")
        page.keyboard.type("<b>loud 1")
        until(lambda: "1 marked; kept in the file" in page.inner_text("#kept"))
        until(lambda: [*Notes(path).marks.values()] == [{"favourite": True, "note": "<b>loud 1"}])
        page.keyboard.press("Escape")
        page.check("#starred")
        assert page.locator("#grid .card").count() == 1
        page.reload()
        visit.ready()
        assert page.input_value("#note") == "<b>loud 1"
        assert page.get_attribute("#favourite", "aria-pressed") == "true"
        other = Visit(browser, served.address)  # a second window hears of what the first does
        other.ready()
        with monkeypatch.context() as patch:
            patch.setattr("deconv_jax.system.files.write_bytes", full)
            page.fill("#note", "held")
            until(lambda: "cannot be written (No space left on device)" in page.inner_text("#wrong"))
            assert "not all of it is in the file" in page.inner_text("#kept")
            until(lambda: other.page.input_value("#note") == "held")
        made_a_page(visit, served)
        for each in (visit, other):
            each.check(f"http://{served.place.netloc}/")
    finally:
        served.end()
    assert [mark["note"] for mark in Notes(path).marks.values()] == ["held"]  # written when there was space again


class Elsewhere:
    """A studio in a process of its own."""

    line = Served.line

    def __init__(self, *flags):
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).parents[1] / "bin" / "studio", *flags], stdout=subprocess.PIPE, text=True
        )
        said = [self.process.stdout.readline() for _ in range(2)]
        self.place = urlparse(said[1].strip())

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def test_what_a_window_was_told_to_be_kept_is_in_the_file_when_the_studio_is_killed(tmp_path):
    studio = Elsewhere(f"--notes={tmp_path / 'notes.json'}", f"--cache_dir={tmp_path}")
    try:
        line = Line(studio)
        line.ask("mark", place=["network", "song", 5, 33], mark={"favourite": True, "note": "loud"})
        assert line.until("marked")[0]["kept"]
    finally:
        studio.kill()
    assert [*Notes(tmp_path / "notes.json").marks.values()] == [{"favourite": True, "note": "loud"}]


def made_a_page(visit, served):
    """The page of two features is the library's, lies in the studio's folder, and opens."""
    page = visit.page
    for feature in (4, 0):
        page.click(f".card[data-feature='{feature}']")
    page.click("#page-make")
    until(lambda: "Making a page" in page.inner_text("#waiting") or page.locator("#page-link").is_visible())
    served.studio.makers.submit(lambda: None).result(300)  # as long as it takes
    until(lambda: page.locator("#page-link").is_visible())
    address = page.get_attribute("#page-link", "href")
    folder = served.studio.library.pages / address.split("/")[1]
    assert str(folder) in page.inner_text("#page-facts")
    (table,) = folder.glob("*/features.csv")
    assert [line.split(",")[:2] for line in table.read_text().splitlines()[1:]] == [["2", "0"], ["2", "4"]]
    with visit.context.expect_page() as opened:
        page.click("#page-link")
    made = opened.value
    made.on("console", lambda message: visit.wrong.append(message.text))
    until(lambda: made.locator("#grid .card").count() > 0)  # look-alikes may lie in one stack
    assert HOSTILE.removesuffix(".wav") in made.inner_text("body")
    for path in (f"page/{'0' * 20}/", "page/..%2f..%2fnotes.json/", "page/"):
        assert served.ask(path=served.place.path + path)[0] == 404


def test_a_page_has_why_where_that_is_asked_for(served, line, monkeypatch):
    """What is asked reaches the library's writer; what that writes is tested there (seven seconds a page)."""
    asked = []

    def written(trained, sources, out, options):
        asked.append(options.why)
        raise InputError("not written")

    monkeypatch.setattr("deconv_jax.results.clip_folder.export", written)
    opened(line)
    line.ask("loop", start=0, seconds=1, layer=2, scales=[])
    line.until("effects")
    for why in (True, False):
        line.ask("page", features=[0], why=why)
        assert line.until("wrong")[0]["text"] == "No page was made: not written"
    assert asked == [True, False]


def test_notes_that_cannot_be_written_are_held_and_strange_files_are_left_alone(tmp_path, monkeypatch):
    notes, place = Notes(tmp_path / "notes.json"), ["net", "song", 5, 3]
    notes.change(place, {"favourite": True, "note": "x" * 5000})
    assert len(Notes(notes.path).marks['["net","song",5,3]']["note"]) == 2000
    before = notes.path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("deconv_jax.system.files.write_bytes", full)
        with pytest.raises(InputError, match=r"cannot be written \(No space left"):
            notes.change([*place[:3], 4], {"favourite": False, "note": "new"})
    assert notes.path.read_bytes() == before
    notes.change(place, {"favourite": False, "note": ""})
    assert list(Notes(notes.path).marks.values()) == [{"favourite": False, "note": "new"}]
    one, other = Notes(notes.path), Notes(notes.path)  # of two studios
    one.change([*place[:3], 6], {"favourite": True, "note": "one"})
    other.change([*place[:3], 4], {"favourite": True, "note": "other"})
    assert [mark["note"] for mark in Notes(notes.path).marks.values()] == ["one", "other"]
    assert [path.name for path in tmp_path.iterdir()] == ["notes.json"]
    for content in ("{", "[]", '{"studio notes": 3}', '{"other": {}}'):
        (tmp_path / "other.json").write_text(content)
        with pytest.raises(InputError, match="holds no notes"):
            Notes(tmp_path / "other.json")
        assert (tmp_path / "other.json").read_text() == content


# --- for long -----------------------------------------------------------------------------------------------------


def test_random_questions_leave_the_memory_as_it_was(served, rng):
    """`STUDIO_QUESTIONS=1000` asks so many, the last nine tenths of which may take no more memory than the first."""
    count = int(os.environ.get("STUDIO_QUESTIONS", "0"))
    if not count:
        pytest.skip("the soak test takes a minute: STUDIO_QUESTIONS=1000 pytest tests/test_studio.py -k memory")
    lines, held = [Line(served, careless=True) for _ in range(2)], []
    for number in range(count):
        line = lines[number % 2]
        match rng.integers(11):
            case 0:
                line.ask("network", name="one")
            case 1:
                line.ask("song", key=str(rng.choice([s["key"] for s in line.choices["songs"]])))
            case 2:
                line.line.send(rng.choice(["{", "[]", '{"do": "set", "turn": 0, "scales": [7]}']))
            case 3 | 4:
                line.ask(
                    "loop",
                    start=rng.uniform(0, 3),
                    seconds=rng.uniform(0.1, 1),
                    layer=int(rng.integers(1, 4)),
                    scales=[],
                )
            case 8:
                line.ask("box", seconds=rng.uniform(0, 1, 2).tolist(), hertz=rng.uniform(0, 5000, 2).tolist())
            case 9:
                line.ask("moments", layer=2, feature=int(rng.integers(MAPS)), everywhere=bool(rng.random() < 0.5))
            case 10:
                line.ask("versus", name="two" if rng.random() < 0.5 else None, twin=bool(rng.random() < 0.5))
            case 5 if rng.random() < 0.3:
                line.line.close()
                line = lines[number % 2] = Line(served, careless=True)
            case _:
                line.ask("set", scales=rng.uniform(0, 1, MAPS).tolist())
        with contextlib.suppress(TimeoutError):
            line.line.recv(timeout=0.02)
        if number + 1 in (count // 10, count):
            for each in lines:
                each.ask("network", name="one")
                each.until("network", lambda m, turn=each.turn: m["turn"] == turn)
            until(lambda: len(served.studio.worker) == 0)
            held.append(resident())
    for each in lines:
        each.line.close()
    assert held[1] < 1.05 * held[0] + 20e6, held


def resident() -> int:
    """Bytes of memory that this process has, garbage not counted."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
