"""Clips in blocks give what they give at once, and compile for no length."""

import jax.numpy as jnp
import numpy as np
import pytest

from deconv_jax.sound import blocks
from deconv_jax.sound.auralisation import auralise
from deconv_jax.sound.front_end import FrontEnd, analyse, lift, undo_level

SECONDS = {"sample_rate": 4000, "clip_seconds": 0.5}
FRONTS = {
    "the paper's": FrontEnd(**SECONDS, n_fft=64, hop=32),
    "mel energy, reflected": FrontEnd(**SECONDS, n_fft=64, hop=20, kind="mel", bands=9, power=2, pad="reflect"),
    "levelled mel": FrontEnd(**SECONDS, n_fft=64, hop=32, kind="mel", bands=9, level="clip"),
    "levelled logarithms": FrontEnd(**SECONDS, n_fft=64, hop=32, window="hamming", level="clip", scale="log10"),
    "decibels": FrontEnd(**SECONDS, n_fft=64, hop=32, scale="decibel", reference=0.0, range=30.0),
    "constant Q": FrontEnd(**SECONDS, n_fft=64, hop=32, kind="cqt", bands=12, fmin=200.0),
}


def song(rng, samples):
    loud = np.interp(np.arange(samples), [0, samples / 3, samples / 2, samples], [0.01, 1, 0.1, 0.02])
    return (loud * rng.standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize("name", FRONTS)
@pytest.mark.parametrize("samples", [700, 2000, 7013])
def test_blocks_give_what_the_whole_gives(rng, name, samples):
    front, wave = FRONTS[name], song(rng, samples)
    spectrum, seen = analyse(front, wave)
    heard = blocks.analyse(front, wave)
    np.testing.assert_allclose(heard.spectrum, spectrum, atol=1e-5 * np.abs(spectrum).max())
    np.testing.assert_allclose(heard.seen, seen, atol=1e-4 * max(1, np.abs(seen).max()))
    images = rng.standard_normal((2, *seen.shape)).astype(np.float32)
    in_unit = undo_level(front, images, spectrum)
    np.testing.assert_allclose(heard.in_unit(front, images), in_unit, rtol=1e-4, atol=1e-4)
    for reading in ("mask", "phase") if front.linear else ("mask",):
        lifted = lift(front, in_unit, seen, spectrum, reading)
        how = {"hop": front.hop, "length": samples, "window": front.window}
        for rectify in (False, True):
            want = np.asarray(auralise(lifted, spectrum, reading, rectify=rectify, **how))
            got = blocks.auralise(front, np.asarray(in_unit), heard, samples, reading, rectify)
            np.testing.assert_allclose(got, want, atol=1e-3 * np.abs(want).max())


@pytest.mark.parametrize("name", ["the paper's", "levelled mel", "decibels"])
def test_no_length_is_compiled_for(rng, compiled_by, name):
    front = FRONTS[name]
    reading = "phase" if front.linear else "mask"

    def there_and_back(samples):
        heard = blocks.analyse(front, song(rng, samples))
        blocks.auralise(front, np.ones((2, *heard.seen.shape), np.float32), heard, samples, reading)

    there_and_back(4200)
    for samples in (4201, 5000, 7777):
        assert compiled_by(lambda n=samples: there_and_back(n)) == []


def test_decibels_are_those_of_the_clip_around():
    """A quiet second beside a loud one is heard as by itself, once a clip's length lies between."""
    front = FRONTS["decibels"]
    tone = np.sin(2 * np.pi * 500 * np.arange(4000) / 4000)
    seen = np.asarray(analyse(front, jnp.asarray(np.concatenate([tone, 1e-3 * tone]), jnp.float32))[1])
    assert seen[:, :90].max() == pytest.approx(0, abs=0.1)
    assert seen[:, 170:].max() == pytest.approx(0, abs=0.1)
    assert seen.min() == pytest.approx(-30, abs=0.1)
