"""Ways back from a feature that has a name, by where its stem sounds."""

import dataclasses

import jax
import numpy as np
import pytest
from test_results_dissection import FRONT, SETTINGS, music, network  # noqa: F401

from deconv_jax.data import stems
from deconv_jax.errors import SettingError
from deconv_jax.results import dissected, dissection, dissection_music, ways_back

WANTED = ways_back.Settings(songs=2, steps=3, patch=(20, 16), draws=50)


@pytest.fixture(scope="module")
def material(music, network):  # noqa: F811
    return dissection_music.gather(network, stems.find(music), 2, 1, (1, 2), progress=False)[0]


def test_share_is_of_all_energy():
    image, mask = np.array([[3.0, -4], [0, 0]]), np.array([[False, True], [True, True]])
    assert ways_back.share(image, mask) == 16 / 25
    np.testing.assert_array_equal(ways_back.share(np.stack([image, 0 * image]), mask), [16 / 25, 0])


def test_every_way_asks_for_the_energy_of_the_map(network, material):  # noqa: F811
    seen, silence = material.seen[:2], np.zeros_like(material.seen[0])
    drawn = ways_back.images(network.network, network.variables, seen, silence, 2, [3, 1], WANTED)
    assert tuple(drawn) == ways_back.WAYS
    assert {image.shape for image in drawn.values()} == {(2, 2, *seen.shape[1:])}

    @jax.jit
    def energy(one, feature=3):
        pooled = network.network.apply(network.variables, one[None], head=False)[1][1].pooled
        return (pooled[..., feature] ** 2).sum() / 2

    slope = np.asarray(jax.jit(jax.grad(energy))(seen[0]))
    np.testing.assert_allclose(drawn["gradient"][0, 0], slope, rtol=1e-3, atol=1e-4 * np.abs(slope).max())
    np.testing.assert_allclose(drawn["gradient_x_input"], drawn["gradient"] * seen[:, None], rtol=1e-5)
    hole = seen[1].copy()
    hole[20:40, :16] = 0
    fall = float(energy(seen[1], 1) - energy(hole, 1))
    patch = drawn["occlusion"][1, 1, 20:40, :16]
    np.testing.assert_allclose(patch, fall, rtol=1e-3, atol=1e-4 * abs(float(energy(seen[1], 1))))
    fine = dataclasses.replace(WANTED, steps=60)
    some = ways_back.images(network.network, network.variables, seen, silence, 2, [3, 1], fine)
    owed = float(energy(seen[0]) - energy(silence))
    assert some["integrated_gradients"][0, 0].sum() == pytest.approx(owed, rel=0.05)


def test_features_are_compared_with_the_best_of_every_control(network, music, material, tmp_path, monkeypatch):  # noqa: F811
    found = dissection.of_material(network, material, [], SETTINGS, progress=False)
    none = np.full(4, -1)
    for layer in (1, 2):  # as if these had passed: two features of layer 2
        passed = none.copy() if layer == 2 else none[:3]
        passed[2:] = material.concepts.index("noise") if layer == 2 else -1
        names = dataclasses.replace(found.layers[layer].names, described=passed, named=np.where(passed > 2, 0, -1))
        found.layers[layer] = dataclasses.replace(found.layers[layer], names=names)
    given = {"wanted": WANTED, "parts": tmp_path, "progress": False}
    rows = ways_back.compare(network, stems.find(music), material, found, **given)
    assert [(row["layer"], row["feature"], row["way"]) for row in rows] == [
        (2, f, w) for f in (2, 3) for w in ways_back.WAYS
    ]
    assert all(tuple(row) and set(row) == set(ways_back.COLUMNS) for row in rows)
    for row in rows:
        assert row["songs"] == 2
        assert row["control"] in found.controls
        assert 0 <= row["energy"] <= 1
        assert row["ahead_of_control"] == pytest.approx(row["energy"] - row["control_energy"])
        assert row["control_low"] <= row["ahead_of_control"] <= row["control_high"]
        assert 0.2 < row["cells"] < 0.8  # noise sounds in half of the time, and covers a tone's rows in none
    assert len(ways_back.said(rows)) == 7
    with monkeypatch.context() as patched:  # a run that was stopped goes on from what was measured
        patched.setattr(ways_back, "images", None)
        assert ways_back.compare(network, stems.find(music), material, found, **given) == rows
    assert ways_back.said([]) == ["No feature is above all controls and simple descriptors, so no way back was tried."]


def test_ways_need_stems(network, music, tmp_path):  # noqa: F811
    songs = dissected.Music(stems=str(music))
    about = dissected.make(network, songs, tmp_path, SETTINGS, ways=WANTED)
    assert (tmp_path / "ways.csv").read_text().startswith("layer,feature,concept,named,way,songs,energy,control,")
    assert any(line.startswith(("No feature", "Ways back")) for line in dissected.said(about))
    with pytest.raises(SettingError, match="not by index or concepts"):
        dissected.make(network, dissected.Music(concepts=str(music)), tmp_path, SETTINGS, ways=WANTED)
