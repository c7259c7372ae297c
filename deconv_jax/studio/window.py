"""One window of the studio: what it asks, by a message each, and the jobs that answer.

Everything that computes runs on the worker's thread (`jobs.Worker`), so what a window holds of songs and layers is only
ever touched there. Messages carry a `turn`, a number that the page counts up: what answers an earlier one is dropped.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from deconv_jax.deconvolution.deconvolve import check_features
from deconv_jax.errors import InputError
from deconv_jax.measures import randomised
from deconv_jax.network.trained import Trained
from deconv_jax.page import network as about_network
from deconv_jax.pictures import spectrograms
from deconv_jax.results.explain import row_magnitudes
from deconv_jax.sound import audio
from deconv_jax.studio import hearing, pages, responses
from deconv_jax.studio.jobs import Elsewhere, Job, Message, Worker, wrong
from deconv_jax.studio.networks import Networks
from deconv_jax.studio.notes import Notes
from deconv_jax.studio.responses import Index
from deconv_jax.studio.search import Search
from deconv_jax.studio.songs import Library, Source
from deconv_jax.system import files

log = logging.getLogger(__name__)

LOADED = 3
"""Networks that are held at a time."""

COLUMNS = 2048
"""Pixels that the picture and the outline of a whole song are wide."""


class Studio:
    """What all windows share: networks by name, songs, and the thread that computes.

    Args:
      networks: by the name under which they can be chosen, what loads them; the first is chosen at the start.
      steps: which of them are checkpoints of one run, in the order of training.
      library: the songs.
      notes: favourites and notes; none that are kept if left out.
    """

    def __init__(self, networks: Networks, steps: Sequence[str], library: Library, notes: Notes | None = None):
        self.networks, self.steps, self.library, self.notes = networks, steps, library, notes or Notes()
        self.worker, self.readers = Worker(), ThreadPoolExecutor(2, thread_name_prefix="reader")
        self.searchers, self.index = ThreadPoolExecutor(1, thread_name_prefix="searcher"), Index()
        self.makers, self.windows = ThreadPoolExecutor(1, thread_name_prefix="maker"), set[Window]()
        self._loaded: dict[str, Trained] = {}
        self._twins: dict[str, Any] = {}

    def network(self, name: str) -> Trained:
        """A network by its name; on the worker's thread only."""
        if name not in self.networks:
            raise InputError(f"{files.shown(name)}: is no network that can be chosen here: choose one of the list")
        try:
            trained = self._loaded.pop(name, None) or self.networks[name]()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InputError(f"{files.shown(name)}: cannot be opened ({reason}): choose another network") from None
        self._loaded[name] = trained
        for old in [*self._loaded][:-LOADED]:
            del self._loaded[old]
        return trained

    def twin(self, trained: Trained) -> Any:
        """Variables of a network's untrained twin; on the worker's thread only."""
        size, key = (trained.front_end.bins, trained.front_end.clip_frames), trained.fingerprint
        found = self._twins.pop(key, None)
        found = found or randomised.twin(trained.network, trained.variables, size, randomised.SEEDS[0])
        self._twins[key] = found
        for old in [*self._twins][:-LOADED]:
            del self._twins[old]
        return found

    def tell(self, message: dict[str, Any], but: "Window | None" = None) -> None:
        """Sends every window, or all but one, what another has changed; on the server's thread only."""
        for window in self.windows - {but}:
            window.send((message, b""))

    def end(self) -> None:
        """Ends what computes; notes that could not be kept are tried once more."""
        for pool in (self.readers, self.searchers, self.makers):
            pool.shutdown(wait=False, cancel_futures=True)
        try:
            self.notes.end()
        except InputError as error:
            log.error("%s", error)
        self.worker.end()


@dataclasses.dataclass
class _Held:
    """What a window is about; changed by jobs only."""

    trained: Trained | None = None
    song: np.ndarray | None = None
    key: str = ""  # of the song, once the whole of it is here
    stretch: hearing.Stretch | None = None
    layer: hearing.Layer | None = None
    other: "_Other | None" = None


@dataclasses.dataclass(frozen=True)
class _Other:
    """The same stretch and layer as another network has them."""

    trained: Trained
    stretch: hearing.Stretch
    layer: hearing.Layer


class Window:
    """One browser window.

    Args:
      studio: what it shares with others.
      send: takes messages, from any thread.
      ready: whether it has taken enough of what was sent before.
    """

    def __init__(self, studio: Studio, send: Callable[[Message], None], ready: Callable[[], bool]):
        self._studio, self.send, self._ready = studio, send, ready
        self._held = _Held()
        self._reading = 0  # counts the songs that were asked for: an earlier one is read no further
        self._scales: list[float] = []
        studio.windows.add(self)
        marks = {"marks": studio.notes.marks} | self._kept()
        known = {"networks": [*studio.networks], "steps": [*studio.steps], "songs": studio.library.listing()}
        send(({"kind": "choices", **known, **marks}, b""))

    def receive(self, message: Any) -> None:
        """Takes what the page asks. What is no message of it gets a line that says so."""
        turn = 0
        try:
            does = {
                "network": self._network,
                "song": self._song,
                "loop": self._loop,
                "set": self._set,
                "songs": self._songs,
                "mark": self._mark,
                "box": self._box,
                "moments": self._moments,
                "stop": self._stop,
                "versus": self._versus,
                "page": self._page,
            }
            if not isinstance(message["turn"], int):
                raise TypeError("turn is no whole number")
            turn = message["turn"]
            does[message["do"]](turn, {k: v for k, v in message.items() if k not in ("do", "turn")})
        except InputError as error:
            self.send(wrong(str(error), turn))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            text = f"the page asked what the studio does not know ({type(error).__name__}): load it again"
            self.send(wrong(text, turn))

    def close(self) -> None:
        """The browser went away: nothing of it is computed any more."""
        self._reading += 1
        self._studio.windows.discard(self)
        self._studio.worker.cancel(self)

    def wake(self) -> None:
        self._studio.worker.wake()

    def _submit(
        self, kind: str, rank: int, turn: int, steps: Iterator[Message | None], able: Callable[[], bool] = lambda: True
    ) -> None:
        job = Job(steps, rank, self.send, lambda: self._ready() and able(), turn)
        self._studio.worker.submit(self, kind, job)

    # --- what can be asked; in the server's thread

    def _mark(self, turn: int, asked: dict[str, Any]) -> None:
        place, mark = asked["place"], asked["mark"]
        try:
            self._studio.notes.change(place, mark)
        finally:  # it is held, if it could not be written
            about = {"turn": turn, "place": place, "mark": mark} | self._kept()
            self.send(({"kind": "marked", **about}, b""))
            self._studio.tell({"kind": "mark", **about}, self)

    def _kept(self) -> dict[str, Any]:
        notes = self._studio.notes
        return {"count": len(notes.marks), "file": bool(notes.path), "kept": notes.kept}

    def _songs(self, turn: int, asked: dict[str, Any]) -> None:
        self.send(({"kind": "songs", "songs": self._studio.library.listing()}, b""))

    def _network(self, turn: int, asked: dict[str, Any]) -> None:
        self._reading += 1
        self._studio.worker.cancel(self, "song", "beginning", "loop", "set", "box", "versus", "moments")
        self._submit("network", 1, turn, self._choose(turn, str(asked["name"])))

    def _song(self, turn: int, asked: dict[str, Any]) -> None:
        source = self._studio.library.find(str(asked["key"]))
        self._reading += 1
        mine = self._reading
        self._studio.worker.cancel(self, "song", "loop", "set", "box", "versus")

        def read() -> None:
            trained, text = self._held.trained, ""
            try:
                if trained is None:
                    raise InputError("no network is chosen yet: choose one first")
                front = trained.front_end
                for waveform, whole in self._studio.library.read(source, front.sample_rate, 2 * front.clip_seconds):
                    if mine != self._reading:
                        return
                    steps = self._hear(turn, source, waveform, whole)
                    self._submit("song" if whole else "beginning", 3 if whole else 1, turn, steps)
            except InputError as error:
                text = str(error)
            except Exception as error:
                log.exception("A song could not be read")
                text = f"{source.name}: could not be read ({type(error).__name__}: {error})"
            if text and mine == self._reading:
                self.send(wrong(text, turn))

        self._studio.readers.submit(read)

    def _loop(self, turn: int, asked: dict[str, Any]) -> None:
        start, seconds, number = float(asked["start"]), float(asked["seconds"]), int(asked["layer"])
        if not (np.isfinite([start, seconds]).all() and start >= 0 and seconds > 0):
            raise ValueError("no stretch of a song")
        self._scales = _scales(asked["scales"])
        self._studio.worker.cancel(self, "set", "box", "versus")
        self._submit("loop", 2, turn, self._explain(turn, start, seconds, number))

    def _set(self, turn: int, asked: dict[str, Any]) -> None:
        self._scales = _scales(asked["scales"])
        self._submit("set", 0, turn, self._answer(turn))

    def _box(self, turn: int, asked: dict[str, Any]) -> None:
        seconds, hertz = ([float(value) for value in asked[name]] for name in ("seconds", "hertz"))
        if len(seconds) != 2 or len(hertz) != 2 or not np.isfinite(seconds + hertz).all():
            raise ValueError("no box")
        self._submit("box", 1, turn, self._inside(turn, seconds, hertz))

    def _moments(self, turn: int, asked: dict[str, Any]) -> None:
        layer, feature, everywhere = int(asked["layer"]), int(asked["feature"]), bool(asked["everywhere"])
        studio = self._studio
        elsewhere = Elsewhere(studio.searchers, self.wake)
        search = Search(studio.library, studio.index, elsewhere)
        self._submit("moments", 4, turn, self._look(turn, search, layer, feature, everywhere), elsewhere.ready)

    def _page(self, turn: int, asked: dict[str, Any]) -> None:
        features = None if asked["features"] is None else [int(feature) for feature in asked["features"]]
        why = bool(asked["why"])
        elsewhere = Elsewhere(self._studio.makers, self.wake)
        self._submit("page", 1, turn, self._make_page(turn, features, why, elsewhere), elsewhere.ready)

    def _versus(self, turn: int, asked: dict[str, Any]) -> None:
        name, twin = asked["name"], bool(asked["twin"])
        self._submit("versus", 2, turn, self._compare(turn, None if name is None else str(name), twin))

    def _stop(self, turn: int, asked: dict[str, Any]) -> None:
        self._studio.worker.cancel(self, "moments")

    # --- what is computed; in the worker's thread

    def _choose(self, turn: int, name: str) -> Iterator[Message | None]:
        trained = self._studio.network(name)
        self._held = _Held(trained)
        card = trained.about.get("card") or {}
        yield (
            {
                "kind": "network",
                "turn": turn,
                "name": name,
                "facts": about_network.facts(trained),
                "about": about_network.about(trained),
                "clip": trained.front_end.clip_seconds,
                "most": hearing.MOST,
                "card": {key: card.get(key, "") for key in ("what", "not_for")},
            },
            b"",
        )

    def _hear(self, turn: int, source: Source, waveform: np.ndarray, whole: bool) -> Iterator[Message | None]:
        """A song, or its beginning: its outline and picture, its sound, and then the answer along it."""
        trained, song = self._trained(), waveform
        front, held = trained.front_end, self._held
        kept = (source.key, held.stretch, held.layer, held.other) if whole else ()
        self._held = _Held(trained, song, *kept)
        seconds = len(song) / front.sample_rate
        about = {"turn": turn, "seconds": seconds, "whole": whole}
        yield {"kind": "song", "name": source.name, "peaks": outline(song), **about}, b""
        if not whole:
            return
        yield {"kind": "picture", **about}, spectrograms.level_picture(row_magnitudes(front, song), COLUMNS)
        yield {"kind": "sound", **about}, pcm(song)
        points = hearing.over_time(trained, song)
        count = max(1, 2 * len(song) // front.clip_samples - 1)
        for number, (second, said) in enumerate(points, 1):
            yield (
                {"kind": "said", **about, "second": second, "says": said.tolist(), "share": min(1.0, number / count)},
                b"",
            )
        yield {"kind": "said", **about, "second": None, "says": None, "share": 1.0}, b""

    def _explain(self, turn: int, start: float, seconds: float, number: int) -> Iterator[Message | None]:
        """A stretch; a layer's features in it; the answer as the faders stand; and what every feature does for it."""
        trained, held = self._trained(), self._held
        if held.song is None:
            raise InputError("no song is there yet: choose one first")
        if not 1 <= number <= len(trained.network.blocks):
            raise InputError(
                f"layer {number} does not exist: this network has layers 1 to {len(trained.network.blocks)}"
            )
        front = trained.front_end
        first, length = round(start * front.sample_rate), hearing.length_of(trained, seconds)
        stretch = held.stretch
        if not stretch or not hearing.is_of(stretch, held.song, first, length):
            stretch = hearing.stretch_of(trained, held.song, start, seconds)
        self._held = dataclasses.replace(held, stretch=stretch, layer=None, other=None)
        about = {
            "turn": turn,
            "start": stretch.start / front.sample_rate,
            "seconds": length / front.sample_rate,
            "layer": number,
        }
        said = {"prediction": stretch.answer.named(trained.labels), "target": stretch.answer.target}
        yield {"kind": "stretch", **about, **said}, pcm(stretch.clip.waveform)
        picture = spectrograms.level_picture(row_magnitudes(front, stretch.clip.waveform))
        yield {"kind": "stretch picture", **about}, picture
        layer = hearing.layer_of(trained, stretch, number)
        if self._held.stretch is not stretch:
            return  # the song is another by now
        self._held = dataclasses.replace(self._held, layer=layer)
        pictures = [spectrograms.level_picture(image) for image in layer.images]
        yield (
            {"kind": "layer", **about, "features": _rows(layer), "pictures": [len(p) for p in pictures]},
            b"".join(pictures),
        )
        yield from self._answer(turn)
        for features, changes in hearing.effects_of(trained, stretch, number):
            yield {"kind": "effects", **about, "features": features.tolist(), "changes": files.plain(changes)}, b""

    def _answer(self, turn: int) -> Iterator[Message | None]:
        """What the network says with the maps scaled as the faders stand, and how what is left sounds."""
        trained, stretch, layer = self._trained(), self._held.stretch, self._held.layer
        if stretch is None or layer is None:
            return  # the answer comes with the layer
        scales = self._scales_for(len(layer.images))
        began = time.perf_counter()
        logits, said = hearing.says(trained, layer, scales)
        taken = {"kind": "answer", "turn": turn, "layer": layer.number, "ms": 1000 * (time.perf_counter() - began)}
        yield taken | {"says": said.tolist(), "logits": logits.tolist(), "scales": scales.tolist()}, b""
        yield (
            {"kind": "left", "turn": turn, "layer": layer.number},
            pcm(hearing.left_of(trained, stretch, layer, scales)),
        )
        yield from self._other_answer(turn)

    def _compare(self, turn: int, name: str | None, twin: bool) -> Iterator[Message | None]:
        """The same stretch and layer by another network of a name, or by the untrained twin of this one; or by none."""
        trained, held = self._trained(), self._held
        self._held = dataclasses.replace(held, other=None)
        if held.song is None or held.stretch is None or held.layer is None or (name is None and not twin):
            return  # it is asked again when the layer is there
        other = dataclasses.replace(trained, variables=self._studio.twin(trained)) if twin else None
        other = other or self._studio.network(str(name))
        rates, number = (trained.front_end.sample_rate, other.front_end.sample_rate), held.layer.number
        if rates[0] != rates[1]:
            raise InputError(
                f"{name}: hears sound at {rates[1]:,} Hz, and the network beside it at {rates[0]:,} Hz: only networks "
                "that hear the same can be compared"
            )
        if number > len(other.network.blocks):
            raise InputError(f"{name}: has layers 1 to {len(other.network.blocks)}: choose one of them to compare")
        wave = held.stretch.clip.waveform
        stretch = hearing.stretch_of(other, held.song, held.stretch.start / rates[0], len(wave) / rates[0])
        yield None
        layer = hearing.layer_of(other, stretch, number)
        if self._held.layer is not held.layer:
            return  # the stretch is another by now
        self._held = dataclasses.replace(self._held, other=_Other(other, stretch, layer))
        pictures = [spectrograms.level_picture(image) for image in layer.images]
        about = {"kind": "other", "turn": turn, "layer": number, "labels": other.labels}
        about |= {"before": stretch.answer.mean.tolist(), "frames": stretch.clip.seen.shape[1]}
        about["seconds"] = len(stretch.clip.waveform) / rates[1]
        yield about | {"features": _rows(layer), "pictures": [len(p) for p in pictures]}, b"".join(pictures)
        yield from self._other_answer(turn)

    def _other_answer(self, turn: int) -> Iterator[Message | None]:
        """As `_answer`, of the network that is compared, its sound as long as this one's."""
        held, other = self._held, self._held.other
        if other is None or held.stretch is None:
            return
        scales = self._scales_for(len(other.layer.images))
        _, said = hearing.says(other.trained, other.layer, scales)
        yield {"kind": "other answer", "turn": turn, "says": said.tolist()}, b""
        sound = hearing.left_of(other.trained, other.stretch, other.layer, scales)
        yield {"kind": "other left", "turn": turn}, pcm(audio.cut(sound, 0, len(held.stretch.clip.waveform)))

    def _scales_for(self, maps: int) -> np.ndarray:
        """The faders as they stand, for so many maps; those that no fader was said of stay as they are."""
        scales = np.ones(maps, np.float32)
        given = self._scales[:maps]
        scales[: len(given)] = given
        return scales

    def _inside(self, turn: int, seconds: list[float], hertz: list[float]) -> Iterator[Message | None]:
        """What responded in a box, beside the sound there, and then beside an untrained network's features."""
        trained, stretch, layer = self._trained(), self._held.stretch, self._held.layer
        if stretch is None or layer is None:
            return  # it is asked again when the layer is there
        box = responses.in_box(trained, stretch, layer.number, layer.maps, seconds, hertz)
        said = files.plain({"kind": "box", "turn": turn, "layer": layer.number, **dataclasses.asdict(box)})
        yield said | {"twin": None}, b""
        maps = responses.maps_of(trained, self._studio.twin(trained), stretch, layer.number)
        other = responses.in_box(trained, stretch, layer.number, maps, seconds, hertz).ratios
        yield said | {"twin": files.plain(np.sort(other[np.isfinite(other)]))}, b""

    def _look(self, turn: int, search: Search, layer: int, feature: int, everywhere: bool) -> Iterator[Message | None]:
        """When a feature responds most: in the song that is here, or in all."""
        trained, held, library = self._trained(), self._held, self._studio.library
        if held.song is None or not held.key:
            raise InputError("the whole song is not there yet: wait for it, and ask again")
        check_features(trained.network.blocks, layer, [feature])
        sources = library.searched() if everywhere else [library.find(held.key)]
        for said in search.steps(trained, layer, feature, sources, (held.key, held.song)):
            yield {"kind": "moments", "turn": turn, **said}, b""

    def _make_page(
        self, turn: int, features: list[int] | None, why: bool, elsewhere: Elsewhere
    ) -> Iterator[Message | None]:
        """The listening page of the stretch and the layer that are here, of some features or all."""
        trained, held, library = self._trained(), self._held, self._studio.library
        if not held.key or held.stretch is None or held.layer is None:
            raise InputError("the song and the layer are not there yet: wait for them, and ask again")
        if features is not None:
            check_features(trained.network.blocks, held.layer.number, features)
        rate, length = trained.front_end.sample_rate, len(held.stretch.clip.waveform)
        place = (held.stretch.start / rate, length / rate, held.layer.number, features, why)
        elsewhere.begin(pages.make, trained, library.find(held.key), library.pages, *place)
        yield {"kind": "page", "turn": turn, "address": None}, b""
        name, folder = elsewhere.result()
        yield {"kind": "page", "turn": turn, "address": f"page/{name}/", "folder": files.shown(folder)}, b""

    def _trained(self) -> Trained:
        if self._held.trained is None:
            raise InputError("no network is chosen yet: choose one first")
        return self._held.trained


def _scales(given: Any) -> list[float]:
    """What the faders are set to, each from 0 to 1."""
    scales = [float(value) for value in given]
    if len(scales) > 100_000 or not all(0 <= value <= 1 for value in scales):
        raise ValueError("a fader stands from 0 to 1")
    return scales


def _rows(layer: hearing.Layer) -> list[dict[str, Any]]:
    """What the page knows of each feature before its effects are there."""
    measures, total = layer.measures, float(layer.measures.energy.sum())
    share = measures.energy / total if total > 0 else np.zeros(len(measures.energy))
    columns = (measures.active, share, measures.inactive.astype(int), layer.levels)
    names = ("active_fraction", "energy_share", "inactive", "level")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [{"feature": n, **dict(zip(names, row, strict=True))} for n, row in enumerate(rows)]


def outline(waveform: np.ndarray) -> list[float]:
    """The largest size of a waveform in each of up to `COLUMNS` parts, shares of the largest of all."""
    columns = min(COLUMNS, len(waveform))
    edges = np.linspace(0, len(waveform), columns + 1).astype(int)[:-1]
    tops = np.maximum.reduceat(np.abs(waveform), edges)
    return np.round(tops / max(float(tops.max()), 1e-9), 3).tolist()


def pcm(waveform: np.ndarray) -> bytes:
    """A waveform as 16-bit samples, little-endian; what exceeds full scale is cut off."""
    return np.round(np.clip(waveform, -1, 1) * 32767).astype("<i2").tobytes()
