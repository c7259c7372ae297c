"""The experiments that are wanted of a network, one after the other, into one folder."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from deconv_jax.deconvolution import deconvolve
from deconv_jax.experiments import architecture, cue_networks, cues, faithfulness, figure10, sheets
from deconv_jax.network.trained import Trained
from deconv_jax.system import locks, runtime


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What to make.

    Attributes:
      kind: "table1", "kernels", "features" or "invariance", or "all" of them, which are the paper's; or "faithfulness".
      invariance: settings of Figure 10, whose layers are those of the sheets of features too.
      chosen: features of the sheets; None for those that `sheets.feature_sheets` chooses.
      signals: folder of signals of one's own; None for the paper's model signals.
    """

    kind: str
    invariance: figure10.Invariance
    chosen: Sequence[int] | None = None
    signals: str | None = None

    def has(self, kind: str) -> bool:
        """Whether this one is wanted."""
        return self.kind == kind or (self.kind == "all" and kind != "faithfulness")


def check(trained: Trained, wanted: Wanted) -> None:
    """Compares layers and features with the network; raises ValueError."""
    for layer in wanted.invariance.layers:
        deconvolve.check_features(trained.network.blocks, layer, wanted.chosen if wanted.has("features") else None)


def run(
    trained: Trained,
    out,
    wanted: Wanted,
    paths: Sequence[Path] = (),
    offset: float = 0.0,
    null: Trained | None = None,
) -> tuple[Path, list[str], list[str]]:
    """Makes what is wanted.

    Args:
      trained: the network.
      out: folder for it, made if it is not there.
      wanted: which experiments, and of what.
      paths, offset: sound files for the sheets of features and for faithfulness, and seconds to skip in each.
      null: a network trained on shuffled labels, for the invariance.

    Returns:
      The folder, what was found in sentences, and a line for every sound file that could not be used.

    Raises:
      InputError: the folder cannot be written, or sounds or networks cannot be used. ValueError: see `check`.
    """
    sentences: list[str] = []
    failed: list[str] = []
    layers = wanted.invariance.layers
    with locks.writing(out, "out", ["correlations"]) as folder:
        if wanted.has("table1"):
            architecture.table1(trained, folder)
        if wanted.has("kernels"):
            sentences.append(architecture.figure4(trained, folder))
        if wanted.has("features"):
            failed += sheets.feature_sheets(trained, paths, folder, layers, wanted.chosen, offset)
        if wanted.has("invariance"):
            figure10.figure9(trained, folder)
            signals = Path(wanted.signals) if wanted.signals else None
            found, unused = figure10.figure10(trained, folder, wanted.invariance, null, signals)
            sentences += found
            failed += unused
        if wanted.has("faithfulness"):
            found, unused = faithfulness.faithfulness(trained, paths, folder, offset)
            sentences += found
            failed += unused
    return folder, sentences, failed


def planted_cues(out, cache_dir: Path, quick: bool = False) -> list[str]:
    """Trains networks on planted cues and asks whether explanations find these; needs no network of one's own.

    Args:
      out: folder for it, made if it is not there; an interrupted run goes on.
      cache_dir: where songs and clips are kept.
      quick: with tiny networks and few songs, to see that it runs.

    Returns:
      What was found in sentences, and the folder.

    Raises:
      InputError: a folder cannot be written.
    """
    runtime.keep_compiled()
    with locks.writing(out, "out") as folder:
        found = cues.cues(Path(folder).absolute(), cache_dir, cue_networks.QUICK if quick else cue_networks.Settings())
    return [*found, str(Path(folder).absolute())]
