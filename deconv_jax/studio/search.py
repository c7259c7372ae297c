"""A feature's strongest moments in one song or in many: a job that waits for files to be decoded and computes between.

A song is heard once for all features of a network (`responses.Index`), so that the next feature is answered at once,
and a search that was given up goes on with the song that it had not finished.
"""

import heapq
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from deconv_jax.errors import InputError
from deconv_jax.network.trained import Trained
from deconv_jax.studio.jobs import Elsewhere
from deconv_jax.studio.responses import Index, Moments, moments_of
from deconv_jax.studio.songs import Library, Source

log = logging.getLogger(__name__)

SHOWN = 10
"""Moments that are shown, at most."""

PER_SONG = 2
"""Of these, moments of one song among several, at most."""


class Search:
    """One question.

    Args:
      library, index: where songs come from, and what is known of them.
      elsewhere: where they are decoded.
    """

    def __init__(self, library: Library, index: Index, elsewhere: Elsewhere):
        self._library, self._index, self._elsewhere = library, index, elsewhere

    def steps(
        self, trained: Trained, layer: int, feature: int, sources: Sequence[Source], here: tuple[str, np.ndarray]
    ) -> Iterator[dict[str, Any]]:
        """Says how far it is, and after every song that was heard what is the strongest so far.

        Args:
          trained, layer, feature: what is asked about.
          sources: the songs, in the order in which they are heard.
          here: the key and the samples of a song that need not be decoded.
        """
        skipped, best = 0, list[tuple[float, float, float, Source]]()
        most = SHOWN if len(sources) == 1 else PER_SONG

        def said(done: int, share: float, found: bool) -> dict[str, Any]:
            listed = [
                {"value": value, "second": second, "louder": louder, "key": source.key, "name": source.name}
                for value, second, louder, source in best
            ]
            about = {"layer": layer, "feature": feature, "done": done, "of": len(sources), "skipped": skipped}
            return about | {"share": share, "found": listed if found else None}

        try:
            for number, source in enumerate(sources):
                found = self._index.get(trained.fingerprint, source.key)
                new = found is None
                for step in self._heard(trained, source, here) if found is None else ():
                    if isinstance(step, float):
                        yield said(number, step, False)
                    else:
                        self._index.put(trained.fingerprint, source.key, found := step)
                if isinstance(found, Moments):
                    some = [(*moment, source) for moment in found.strongest(layer, feature, most)]
                    best = heapq.nlargest(SHOWN, [*best, *some], key=lambda moment: moment[0])
                else:
                    skipped += 1
                if new and number + 1 < len(sources):
                    yield said(number + 1, 0.0, True)
            yield said(len(sources), 1.0, True)
        finally:
            self._elsewhere.cancel()

    def _heard(self, trained: Trained, source: Source, here: tuple[str, np.ndarray]) -> Iterator[float | str | Moments]:
        """Shares of a song that were heard, and at last its moments, or why it could not be."""
        key, waveform = here
        yield 0.0
        if key != source.key:
            self._elsewhere.begin(self._read, source, trained.front_end.sample_rate)
            yield 0.0
            got = self._elsewhere.result()
            if isinstance(got, str):
                yield got
                return
            waveform = got
        yield from moments_of(trained, waveform)

    def _read(self, source: Source, sample_rate: int) -> np.ndarray | str:
        try:
            ((waveform, _),) = self._library.read(source, sample_rate)
            return waveform
        except InputError as error:
            return str(error)
        except Exception as error:
            log.exception("A song could not be read")
            return f"{source.name}: could not be read ({type(error).__name__})"
