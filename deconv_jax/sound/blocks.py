"""One clip of any length, to what a network sees and back to sound, in blocks of as many frames as a clip has.

What `front_end.analyse` and `auralisation.auralise` do at once is done here block by block on the host: every block has
the same shape, so songs of a hundred lengths compile as often as one, and only results grow with the length.
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deconv_jax.sound import auralisation, front_end
from deconv_jax.sound.front_end import FrontEnd
from deconv_jax.sound.spectrogram import frames_mirrored, overlap_add, transform, window_sum


class Heard(NamedTuple):
    """A clip as its front end has it, on the host.

    Attributes:
      spectrum: its complex STFT, shape (1 + n_fft // 2, time).
      seen: what the network sees of it, shape (freq, time).
      level: what each frame was divided by, shape (1, time); ones for a front end without a level.
    """

    spectrum: np.ndarray
    seen: np.ndarray
    level: np.ndarray

    def in_unit(self, front: FrontEnd, images: Any) -> np.ndarray:
        """Images (..., freq, time), as they come out of the network, in the unit of the rows: `undo_level`."""
        images = np.asarray(images)
        return images * self.level if front.level != "none" and front.linear else images


def analyse(front: FrontEnd, waveform: np.ndarray) -> Heard:
    """What `front_end.analyse` gives of one clip, shape (samples,)."""
    waveform = np.asarray(waveform, np.float32)
    frames, block = front.frames(len(waveform)), front.clip_frames
    count, span = -(-frames // block), (block - 1) * front.hop + front.n_fft
    padded = np.pad(waveform, front.n_fft // 2, mode=front.pad)  # type: ignore[call-overload]
    padded = np.pad(padded, (0, max(0, (count - 1) * block * front.hop + span - len(padded))))
    starts = range(0, count * block * front.hop, block * front.hop)
    spectrum, rows = (
        _joined(parts, frames) for parts in zip(*(_looked(front, padded[s : s + span]) for s in starts), strict=True)
    )
    if front.kind == "cqt":
        rows = np.asarray(front_end.constant_q(front, waveform))[:, :frames]
    level = peak = np.ones((1, frames), np.float32)
    if front.level != "none" or front.scale == "decibel":
        few = frames if frames <= block else 2 ** (frames - 1).bit_length()  # a length for each octave
        curves = np.zeros((2, few), np.float32)
        curves[:, :frames] = rows.mean(axis=0), rows.max(axis=0)
        level, peak = (np.asarray(curve)[:, :frames] for curve in _curves(front, *curves, frames))
    if front.level == "none" and front.linear:
        return Heard(spectrum, rows, level)
    cut = (_blocks(array, block) for array in (rows, level, peak))
    return Heard(spectrum, _joined([_seen(front, *parts) for parts in zip(*cut, strict=True)], frames), level)


def auralise(
    front: FrontEnd, images: Any, heard: Heard, length: int, reading: str = "phase", rectify: bool = False
) -> np.ndarray:
    """What `auralisation.auralise` gives of images in the rows of what the network sees.

    Args:
      front: the front end.
      images: shape (features, freq, time), or a list of (freq, time), after `Heard.in_unit`.
      heard: the clip that they are of.
      length: its samples.
      reading, rectify: as there.

    Returns:
      Waveforms, float32, shape (features, length), with no gain applied.
    """
    hop, n_fft, block = front.hop, front.n_fft, front.clip_frames
    frames = heard.seen.shape[-1]
    seen = heard.seen * heard.level if front.linear else heard.seen
    bare = dataclasses.replace(front, level="none")
    count = -(-frames // block)
    total = np.zeros((len(images), (count * block + -(-n_fft // hop)) * hop), np.float32)
    for k in range(count):
        place = slice(k * block, (k + 1) * block)
        parts = [_filled(a, block) for a in (_stacked(images, place), seen[:, place], heard.spectrum[:, place])]
        made = np.asarray(_summed(bare, *parts, reading, rectify))
        total[:, k * block * hop :][:, : made.shape[-1]] += made
    if length > hop * (frames - 1):
        few = min(frames, frames_mirrored(n_fft, hop))
        last = slice(frames - 1, frames)
        column, end = _stacked(images, last), heard.spectrum[:, -few:]
        made = np.asarray(_after(bare, column, seen[:, last], end, length - hop * (frames - few), reading, rectify))
        total[:, hop * frames :][:, : made.shape[-1]] += made
        frames += 1
    norm = window_sum(frames, n_fft, hop, front.window).astype(np.float32)
    return total[:, n_fft // 2 :][:, :length] / norm[n_fft // 2 :][:length]


def _stacked(images: Sequence[Any], place: slice) -> np.ndarray:
    return np.stack([image[:, place] for image in images])


def _filled(array: np.ndarray, length: int) -> np.ndarray:
    """With zeros after the last frame."""
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, length - array.shape[-1])])


def _blocks(array: np.ndarray, length: int) -> list[np.ndarray]:
    return [_filled(array[..., n : n + length], length) for n in range(0, array.shape[-1], length)]


def _joined(parts: Iterable[Any], frames: int) -> np.ndarray:
    return np.concatenate([np.asarray(part) for part in parts], axis=-1)[..., :frames]


@functools.partial(jax.jit, static_argnums=0)
def _looked(front: FrontEnd, padded: jax.Array) -> tuple[jax.Array, jax.Array]:
    spectrum = transform(padded, front.n_fft, front.hop, front.window)
    return spectrum, spectrum.real if front.kind == "cqt" else front_end.in_rows(front, spectrum)


@functools.partial(jax.jit, static_argnums=0)
def _curves(front: FrontEnd, loudness: jax.Array, largest: jax.Array, frames: Any) -> tuple[jax.Array, jax.Array]:
    frames = None if len(loudness) <= front.clip_frames else frames
    level = front_end.level_of(front, loudness, frames) if front.level != "none" else jnp.ones((1, len(loudness)))
    return level, front_end.peak_of(front, largest / level[0], frames)


@functools.partial(jax.jit, static_argnums=0)
def _seen(front: FrontEnd, rows: jax.Array, level: jax.Array, peak: jax.Array) -> jax.Array:
    return front_end.scaled(front, rows / jnp.where(level > 0, level, 1), peak)


def _lifted(
    front: FrontEnd, images: jax.Array, seen: jax.Array, spectrum: jax.Array, reading: str, rectify: bool
) -> jax.Array:
    images = front_end.lift(front, images, seen, spectrum, reading)
    return jnp.maximum(images, 0) if rectify else images


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _summed(
    front: FrontEnd, images: jax.Array, seen: jax.Array, spectrum: jax.Array, reading: str, rectify: bool
) -> jax.Array:
    images = _lifted(front, images, seen, spectrum, reading, rectify)
    return overlap_add(auralisation.carried(images, spectrum[None], reading), front.hop, front.window)


@functools.partial(jax.jit, static_argnums=(0, 5, 6))
def _after(
    front: FrontEnd, columns: jax.Array, seen: jax.Array, spectrum: jax.Array, length: int, reading: str, rectify: bool
) -> jax.Array:
    columns = _lifted(front, columns, seen, spectrum[:, -1:], reading, rectify)
    how: dict[str, Any] = {"hop": front.hop, "length": length, "window": front.window}
    return overlap_add(auralisation.following(columns, spectrum[None], reading, **how), front.hop, front.window)
