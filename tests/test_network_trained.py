"""The fingerprint by which results know a network again."""

import dataclasses

import jax
import numpy as np
from networks import initial

from deconv_jax.network.file import load_network, save_network
from deconv_jax.network.model import Network
from deconv_jax.network.spec import Block, Dense
from deconv_jax.network.trained import Trained, fingerprint
from deconv_jax.sound.front_end import FrontEnd

FRONT = FrontEnd(sample_rate=4000, n_fft=64, hop=32, clip_seconds=0.5)
NETWORK = Network(blocks=(Block(maps=2),), dense=(Dense(3),), classes=2)


def variables(seed=0):
    return initial(NETWORK, (FRONT.bins, FRONT.clip_frames), seed)


def test_networks_share_a_fingerprint_only_if_all_that_results_depend_on_is_the_same(tmp_path):
    known = fingerprint(NETWORK, variables(), FRONT)
    assert len(known) == 16
    assert known == fingerprint(NETWORK, jax.tree.map(np.asarray, variables()), FRONT)
    others = [
        fingerprint(NETWORK, variables(1), FRONT),
        fingerprint(NETWORK.clone(blocks=(Block(maps=2, pool=(3, 2)),)), variables(), FRONT),
        fingerprint(NETWORK.clone(dense=(3,)), variables(), FRONT),
        fingerprint(NETWORK, variables(), dataclasses.replace(FRONT, hop=16)),
        fingerprint(NETWORK, jax.tree.map(lambda v: np.asarray(v).astype("float16"), variables()), FRONT),
        fingerprint(NETWORK, {**variables(), "input": {"mean": np.zeros((1, 1))}}, FRONT),
        fingerprint(NETWORK, variables()),
    ]
    assert len({known, *others}) == 1 + len(others)
    saved = load_network(save_network(tmp_path, NETWORK, variables(), FRONT, ["a", "b"]))
    assert saved.fingerprint == known
    assert Trained(NETWORK, variables(), FRONT, ["other", "labels"], tmp_path, {}).fingerprint == known


def test_a_field_that_a_later_version_knows_changes_no_fingerprint():
    assert fingerprint(NETWORK, variables(), FRONT) == fingerprint(
        NETWORK, variables(), Later(**dataclasses.asdict(FRONT))
    )


@dataclasses.dataclass(frozen=True)
class Later(FrontEnd):
    more: int = 0


Later.__name__ = "FrontEnd"
