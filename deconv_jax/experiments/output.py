"""What all experiments share: what a result was made with, what networks see, and the network before its training."""

import numpy as np

from deconv_jax.measures import randomised as untrained_networks
from deconv_jax.network.trained import Trained
from deconv_jax.sound.front_end import FrontEnd, analyse
from deconv_jax.system import runtime


def made_with(trained: Trained) -> dict:
    """Enough to make a result again: checkpoint, settings of its training, versions."""
    return {
        "checkpoint": str(trained.checkpoint),
        "training": trained.about["config"],
        "versions": runtime.versions(),
    }


def seed(trained: Trained) -> int:
    """That of the training, if it is known; `untrained` with it is the network before its training."""
    return int(trained.about["config"].get("seed", untrained_networks.SEEDS[0]))


def before(trained: Trained) -> str:
    """What `untrained` with that seed is: of a network from elsewhere nobody knows where its training began."""
    return "before training" if "seed" in trained.about["config"] else "untrained"


def untrained(trained: Trained, seed: int) -> dict:
    """The network's weights as a training with this seed begins, and the trained network's own input scale."""
    front = trained.front_end
    return untrained_networks.twin(trained.network, trained.variables, (front.bins, front.clip_frames), seed)


def inputs(waveforms: np.ndarray, front: FrontEnd, batch: int = 16) -> np.ndarray:
    """What the network sees: (clips, samples) → (clips, freq, time)."""
    padded = np.pad(waveforms, ((0, -len(waveforms) % batch), (0, 0)))
    rows = [np.asarray(analyse(front, padded[i : i + batch])[1]) for i in range(0, len(padded), batch)]
    return np.concatenate(rows)[: len(waveforms)]
