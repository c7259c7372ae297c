import io

import librosa
import matplotlib
import numpy as np
import pytest
from PIL import Image
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.signal import find_peaks
from scipy.spatial.distance import squareform

from deconv_jax.measures import descriptors, features, likeness
from deconv_jax.pictures import spectrograms
from deconv_jax.sound import levels
from deconv_jax.sound.front_end import FrontEnd

FREQUENCIES = np.array([0.0, 100.0, 1000.0, 3000.0])


def planted():
    images = np.zeros((3, 4, 5), np.float32)
    images[0, 1] = 2.0  # bass only
    images[1, 2], images[1, 3] = 1.0, -1.0  # half mid, half treble and negative
    maps = np.zeros((3, 2, 2), np.float32)
    maps[0], maps[1, 0, 0] = 3.0, 4.0
    return images, maps


def test_measures_of_planted_features():
    m = features.measure(*planted(), FREQUENCIES)
    np.testing.assert_allclose(m.active, [1, 0.25, 0])
    np.testing.assert_allclose(m.maximum, [3, 4, 0])
    np.testing.assert_allclose(m.mean, [3, 1, 0])
    np.testing.assert_allclose(m.energy, [20, 10, 0])
    np.testing.assert_allclose(m.negative, [0, 0.5, 0])
    np.testing.assert_allclose(m.centroid, [100, 2000, np.nan])
    np.testing.assert_allclose(m.bands, [[1, 0, 0], [0, 0.5, 0.5], [0, 0, 0]])
    np.testing.assert_array_equal(m.inactive, [False, False, True])
    np.testing.assert_array_equal(features.strongest(m, 2), [0, 1])
    np.testing.assert_array_equal(features.strongest(m, 99), [0, 1, 2])


def test_levels_share_one_reference():
    np.testing.assert_allclose(levels.decibels(np.array([1.0, -0.1, 0.0]), 1.0), [0, -20, -levels.RANGE_DB])
    np.testing.assert_allclose(levels.decibels(np.zeros(2), 0.0), -levels.RANGE_DB)


@pytest.mark.parametrize("features", [1, 7, 9])
def test_a_sheet_has_room_for_every_feature_of_a_long_clip(rng, features):
    images = rng.uniform(size=(features, 4, 900))
    images[0] = 0
    sheet = spectrograms.layer_sheet(images, range(features), FREQUENCIES, 20.0, "a $x$ <b>")
    width, height = Image.open(io.BytesIO(sheet)).size
    assert (width, height) == (160 * min(8, features) + 100, 175 * -(-features // 8) + 60)


def test_pictures_show_the_image_its_scale_and_blanks(rng):
    sheet = spectrograms.SpectrogramSheet(FREQUENCIES, 2.0, "loudest")
    image = rng.uniform(size=(4, 6))
    first = sheet.draw(image, 1.0, "a $x$ <b>")
    loud, quiet, blank = (
        np.asarray(Image.open(io.BytesIO(p)).convert("RGB"))
        for p in (first, sheet.draw(image / 100, 1.0, "a $x$ <b>"), sheet.draw(image * 0, 1.0, "a $x$ <b>"))
    )
    assert loud.shape == (360, 720, 3)
    assert loud.mean() > quiet.mean()
    assert np.any(blank == 255)
    np.testing.assert_array_equal(
        sheet.draw(image, 1.0, "a $x$ <b>"), first
    )  # nothing is left of what was drawn before


def test_a_sheet_has_every_cell_in_its_place_and_in_matplotlibs_colour():
    np.testing.assert_array_equal(spectrograms.MAGMA, matplotlib.colormaps["magma"](np.arange(256), bytes=True)[:, :3])
    image = 10 ** (-np.linspace(0, 60, 8).reshape(2, 4) / 20)  # 0 to 60 dB below 1, low frequencies first
    sheet = spectrograms.SpectrogramSheet(np.array([0.0, 100.0]), 2.0, "loudest")
    left, top, right, bottom = sheet._box
    picture = Image.open(io.BytesIO(sheet.draw(image, 1.0, "")))
    shown = np.asarray(picture.convert("RGB"))[top:bottom, left:right]
    cells = shown[:: len(shown) - 1][::-1][:, [10 + k * shown.shape[1] // 4 for k in range(4)]].astype(int)
    want = matplotlib.colormaps["magma"](1 - np.linspace(0, 60, 8).reshape(2, 4) / 70, bytes=True)[..., :3]
    np.testing.assert_allclose(cells, want, atol=6)  # one of 216 levels in the place of one of 256


@pytest.mark.parametrize(
    ("low", "high", "names"),
    [
        (0, 4, "0.0 0.5 1.0 1.5 2.0 2.5 3.0 3.5 4.0"),
        (-70, 0, "−70 −60 −50 −40 −30 −20 −10 0"),
        (-10.7, 5523.3, "0 1000 2000 3000 4000 5000"),
        (0, 183.2, "0 25 50 75 100 125 150 175"),
    ],
)
def test_ticks_are_round_numbers(low, high, names):
    assert spectrograms._even_ticks(low, high)[1] == names.split()


@pytest.mark.parametrize("frames", [1, 14, 31, 200])
@pytest.mark.parametrize("scale", [1.0, 1e-4, 0.0])
def test_descriptors_are_librosas(rng, frames, scale):
    front = FrontEnd()
    magnitude = (scale * rng.gamma(0.3, size=(front.bins, frames))).astype(np.float32)
    harmonic, percussive = librosa.decompose.hpss(magnitude)
    level = librosa.amplitude_to_db(magnitude.copy(), ref=max(float(magnitude.max()), 1e-5))
    setting = {"sr": front.sample_rate, "n_fft": front.n_fft, "hop_length": front.hop}
    chroma = librosa.feature.chroma_stft(S=magnitude**2, **setting, tuning=0.0, norm=2)
    wanted = {
        "onset strength": librosa.onset.onset_strength(S=level, **setting),
        "the harmonic part": np.sqrt(np.mean(np.square(harmonic, dtype=np.float64), axis=0)),
        "the percussive part": np.sqrt(np.mean(np.square(percussive, dtype=np.float64), axis=0)),
        "spectral centroid": librosa.feature.spectral_centroid(S=magnitude, freq=front.stft_frequencies())[0],
        "spectral flatness": librosa.feature.spectral_flatness(S=magnitude)[0],
        "chroma stability": np.concatenate([[0.0], np.sum(chroma[:, 1:] * chroma[:, :-1], axis=0)]),
    }
    found = descriptors.describe(magnitude, front)
    for name, series in wanted.items():
        # librosa works in float32 throughout; its geometric mean of 257 equal numbers is 2e-5 off.
        np.testing.assert_allclose(found[name], series, rtol=3e-5, atol=1e-6 * abs(series).max(), err_msg=name)


def test_peaks_are_scipys(rng):
    for apart in range(1, 20):
        envelope = rng.normal(size=150).clip(0.3) - 0.3  # with stretches of zeros
        peaks, found = find_peaks(np.pad(envelope, 1), height=np.finfo(float).tiny, distance=apart)
        wanted = (peaks - 1)[np.argsort(-found["peak_heights"], kind="stable")]
        np.testing.assert_array_equal(features.envelope_peaks(envelope, 150, apart), wanted)
    wide = np.array([0.0, 2, 2, 2, 1, 3, 3, 0])
    np.testing.assert_array_equal(features.envelope_peaks(wide, 9, 1), [5, 2])  # the middle, the earlier one of two


@pytest.mark.parametrize("features", [2, 9, 40])
@pytest.mark.parametrize("noise", [0.2, 0.7])
def test_kinds_are_scipys_complete_linkage(rng, features, noise):
    looks = rng.normal(size=(5, 60))[rng.integers(0, 5, features)] + noise * rng.normal(size=(features, 60))
    looks = likeness.units(looks.astype(np.float32))
    tree = linkage(squareform(1 - (looks @ looks.T).astype(np.float64), checks=False), "complete")
    wanted = fcluster(tree, 1 - likeness.ALIKE, "distance")
    wanted = wanted if wanted.max() <= likeness.KINDS else fcluster(tree, likeness.KINDS, "maxclust")
    found, _ = likeness.kinds(looks)
    np.testing.assert_array_equal(found[:, None] == found, wanted[:, None] == wanted)
    assert (np.diff(np.bincount(found)[1:]) <= 0).all()  # the largest first
