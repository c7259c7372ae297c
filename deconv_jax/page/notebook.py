"""What shows itself in a notebook: HTML without any script, its pictures and sounds inside.

Jupyter, VS Code, Colab and marimo show what `_repr_html_` returns, on ground and in letters of their own, so colours
are the page's own or half transparent. Nothing is loaded, and nothing stays in the notebook but what is shown.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import soxr
from markupsafe import Markup

from deconv_jax.page import document
from deconv_jax.sound import audio

LOWEST, HIGHEST = 3000, 384_000
"""Hz of sounds that browsers play: Chromium refuses what is slower."""


@dataclasses.dataclass(frozen=True)
class Html:
    """What a notebook shows as HTML, and a terminal as plain text."""

    html: str
    plain: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.plain


@dataclasses.dataclass(frozen=True)
class Card:
    """A sound with its picture.

    Attributes:
      title, text: above and below; any text, which is escaped.
      picture: PNG, b"" for none.
      sound: FLAC, b"" for none.
      share: length of a bar, -1 to 1, drawn to the left or the right; None for no bar.
    """

    title: str
    text: str = ""
    picture: bytes = b""
    sound: bytes = b""
    share: float | None = None


def shown(
    title: str, lines: Sequence[str], cards: Sequence[Card], notes: Sequence[str] = (), wide: bool = False
) -> Html:
    """Cards in rows, below a title and some lines, with notes at the end; `wide` for cards with axes."""
    template = document.environment().get_template("notebook.html.j2")
    known: dict[str, Any] = {"title": title, "lines": lines, "cards": cards, "notes": notes, "wide": wide}
    html = template.render(known, style=Markup(document.style("notebook")), base64=document.base64)
    plain = "\n".join(
        [title, *lines, *(f"  {card.title}: {card.text}" if card.text else f"  {card.title}" for card in cards)]
    )
    return Html(html, plain)


def sound(waveform: np.ndarray, sample_rate: int, full_scale: float = 1.0) -> bytes:
    """A waveform (samples,) as FLAC, divided by `full_scale`, or by its own peak where that is higher.

    A rate that browsers do not play becomes one that they do.
    """
    wave = np.asarray(waveform, np.float32)
    if not LOWEST <= sample_rate <= HIGHEST:
        rate = 8000 if sample_rate < LOWEST else HIGHEST
        wave, sample_rate = np.asarray(soxr.resample(wave, sample_rate, rate), np.float32), rate
    peak = float(np.abs(wave).max(initial=0))
    return audio.flac(wave / max(full_scale, peak, 1.0), sample_rate)


@dataclasses.dataclass(frozen=True)
class Heard:
    """A sound with its spectrogram, however it is shown.

    Attributes:
      waveform: shape (samples,), float32.
      sample_rate: Hz.
      image: shape (freq, time).
      frequencies: Hz of its rows, rising.
      title: any text.
    """

    waveform: np.ndarray
    sample_rate: int
    image: np.ndarray
    frequencies: np.ndarray
    title: str

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.waveform) / self.sample_rate
