"""Work in slices, on one thread: what matters most comes first, and what nobody asks for any more ends.

A job is a generator. Between two of its steps another may come before it, so that a fader is answered while a song is
still being heard. A window has one job of a kind at most: a new one takes the old one's place, so nothing piles up.
"""

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

from deconv_jax.errors import InputError, SettingError

log = logging.getLogger(__name__)

Message = tuple[dict[str, Any], bytes]
"""What goes to a window: values that JSON can hold, and bytes, such as a picture or a sound."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What a window waits for.

    Attributes:
      steps: yields messages, or None where a step has nothing to say.
      rank: jobs of a lower one come first.
      send: takes messages.
      ready: whether the window has taken enough of what was sent before.
      turn: of the question, which what goes wrong is told by.
    """

    steps: Iterator[Message | None]
    rank: int
    send: Callable[[Message], None]
    ready: Callable[[], bool]
    turn: int = 0


class Elsewhere:
    """What a job waits for that a thread of a pool does, one thing at a time.

    Args:
      pool: of threads.
      wake: called when it is done.
    """

    def __init__(self, pool: Executor, wake: Callable[[], None]):
        self._pool, self._wake = pool, wake
        self._future: Future | None = None

    def begin(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._future = self._pool.submit(function, *arguments)
        self._future.add_done_callback(lambda _: self._wake())

    def ready(self) -> bool:
        """Whether nothing is under way."""
        return self._future is None or self._future.done()

    def result(self) -> Any:
        """What the function returned; what it raised is raised here."""
        assert self._future
        future, self._future = self._future, None
        return future.result()

    def cancel(self) -> None:
        """Nobody waits any more: what has not begun does not begin."""
        if self._future:
            self._future.cancel()


class Worker:
    """The one thread that computes."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[Any, str], Job] = {}
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="studio", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._jobs)

    def submit(self, window: Any, kind: str, job: Job) -> None:
        """Puts a job in the place of the window's last one of this kind."""
        with self._changed:
            self._jobs.pop((window, kind), None)
            self._jobs[window, kind] = job
            self._changed.notify()

    def cancel(self, window: Any, *kinds: str) -> None:
        """Ends the window's jobs of some kinds, or of all; one that is within a step ends after it."""
        with self._changed:
            for key in [key for key in self._jobs if key[0] is window and (not kinds or key[1] in kinds)]:
                del self._jobs[key]

    def wake(self) -> None:
        """A window has become ready again."""
        with self._changed:
            self._changed.notify()

    def end(self) -> None:
        """Ends the thread, after the step that it is in."""
        with self._changed:
            self._ended = True
            self._jobs.clear()
            self._changed.notify()
        self._thread.join(timeout=60)

    def _next(self) -> tuple[tuple[Any, str], Job] | None:
        with self._changed:
            while not self._ended:
                able = [(key, job) for key, job in self._jobs.items() if job.ready()]
                if able:
                    return min(able, key=lambda item: item[1].rank)
                self._changed.wait()
            return None

    def _run(self) -> None:
        while item := self._next():
            key, job = item
            done, message = _step(job.steps)
            with self._changed:
                current = self._jobs.get(key) is job
                if current and done:
                    del self._jobs[key]
            if not current:
                with contextlib.suppress(Exception):
                    job.steps.close()  # type: ignore[attr-defined]
            elif message:
                job.send(({"turn": job.turn, **message[0]}, message[1]))


def _step(steps: Iterator[Message | None]) -> tuple[bool, Message | None]:
    """Whether that was the last step, and what it gave; an error is something to say, and the last."""
    try:
        return False, next(steps)
    except StopIteration:
        return True, None
    except (InputError, SettingError) as error:
        return True, wrong(str(error))
    except Exception as error:
        log.exception("The studio met an error that is its own")
        return True, wrong(f"the studio met an error that is its own ({type(error).__name__}: {error})"[:500])


def wrong(text: str, turn: int = 0) -> Message:
    """A line that says what could not be done, of a question if it has a turn."""
    return {"kind": "wrong", "text": " ".join(text.split())} | ({"turn": turn} if turn else {}), b""
