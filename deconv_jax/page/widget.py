"""The spectrogram that plays, as a widget: Jupyter, VS Code, Colab and marimo, by anywidget (the extra `notebook`)."""

from importlib import resources
from typing import Any

import anywidget
import numpy as np
import traitlets

from deconv_jax.page import notebook
from deconv_jax.pictures import spectrograms


class Spectrogram(anywidget.AnyWidget):
    """A spectrogram that plays, loops what is chosen by dragging, and says what that is; see `deconv_jax.listen`.

    Attributes:
      selection: what was chosen, {"start": s, "end": s, "low": Hz, "high": Hz}, or None. It can be set as well:
        the part is then marked, and looped when it plays. Follow it by `observe(function, "selection")`.
      position: seconds at which it stands, or stopped.
      playing: whether it plays; set it, and it does. (Browsers let no page play before somebody has clicked into it.)
    """

    _esm = resources.files("deconv_jax.page").joinpath("js", "notebook", "spectrogram.mjs").read_text("utf-8")
    _css = resources.files("deconv_jax.page").joinpath("css", "spectrogram.css").read_text("utf-8")

    title = traitlets.Unicode().tag(sync=True)
    sound = traitlets.Bytes().tag(sync=True)
    picture = traitlets.Bytes().tag(sync=True)
    seconds = traitlets.Float().tag(sync=True)
    across: Any = traitlets.List().tag(sync=True)
    upwards: Any = traitlets.List().tag(sync=True)
    box = traitlets.List(traitlets.Float()).tag(sync=True)
    position = traitlets.Float(0.0).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    selection: Any = traitlets.Dict(allow_none=True, default_value=None)

    def __init__(self, heard: notebook.Heard, **kwargs: Any):
        self._heard = heard
        across, upwards = spectrograms.marks(heard.frequencies, heard.seconds)
        super().__init__(
            title=heard.title,
            sound=notebook.sound(heard.waveform, heard.sample_rate),
            picture=spectrograms.coloured_picture(heard.image, 1024),
            seconds=heard.seconds,
            across=across,
            upwards=upwards,
            **kwargs,
        )

    @traitlets.observe("box")
    def _chosen(self, _: Any) -> None:
        """The browser's box, in shares of the picture from its lower left, → seconds and Hz."""
        if not self.box:
            self.selection = None
            return
        left, right, low, high = self.box
        self.selection = {
            "start": left * self.seconds,
            "end": right * self.seconds,
            "low": float(self._hertz(low)),
            "high": float(self._hertz(high)),
        }

    @traitlets.validate("selection")
    def _possible(self, proposal: Any) -> dict[str, float] | None:
        given = proposal["value"]
        if given is None:
            return None
        rows = self._heard.frequencies
        whole = {"start": 0.0, "end": self.seconds, "low": float(rows[0]), "high": float(rows[-1])}
        found = whole | {name: float(value) for name, value in given.items()}
        within = 0 <= found["start"] < found["end"] <= self.seconds * (1 + 1e-9)
        if set(found) != set(whole) or not within or not found["low"] < found["high"]:
            raise traitlets.TraitError(
                f"selection must have start below end, from 0 to {self.seconds:g} s, and if wanted low below high, "
                f"in Hz, not {given!r}"
            )
        return found

    @traitlets.observe("selection")
    def _marked(self, _: Any) -> None:
        """What Python chose is marked in the browser too."""
        if self.selection is None:
            self.box = []
            return
        start, end, low, high = (self.selection[name] for name in ("start", "end", "low", "high"))
        wanted = [start / self.seconds, end / self.seconds, self._share(low), self._share(high)]
        if len(self.box) != 4 or not np.allclose(self.box, wanted, atol=1e-6):
            self.box = wanted

    @property
    def selected(self) -> np.ndarray:
        """The waveform of the part that was chosen, (samples,); all of it where none was."""
        if self.selection is None:
            return self._heard.waveform
        rate = self._heard.sample_rate
        return self._heard.waveform[round(self.selection["start"] * rate) : round(self.selection["end"] * rate)]

    def _hertz(self, share: float) -> float:
        """Of a height in the picture, whose rows are equally high."""
        rows = self._heard.frequencies
        return float(np.interp(share * len(rows) - 0.5, np.arange(len(rows)), rows))

    def _share(self, hertz: float) -> float:
        rows = self._heard.frequencies
        if hertz <= rows[0] or hertz >= rows[-1]:
            return 0.0 if hertz <= rows[0] else 1.0
        return float((np.interp(hertz, rows, np.arange(len(rows))) + 0.5) / len(rows))
