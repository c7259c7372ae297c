"""Whether training from the store on disk keeps up with the step: clips per second, waiting, memory.

    python benchmarks/stream.py FOLDER [--clips=80000] [--steps=20] [--batch=16]

Fills FOLDER once with a synthetic store of songs of ten 4-second clips (80,000 clips, the paper's number, take 7.1 GB;
noise, which does not compress and shares no pages), and drops it from the system's file cache where that is allowed.
Then it measures the reader alone over shuffled batches, the training step of the paper's network alone, and both
together as `bin/train` runs them. It prints and judges nothing.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np

from deconv_jax.data import store

CLIPS_OF_A_SONG = 10


def synthetic_store(folder: Path, clips: int, samples: int) -> store.StoredWaveforms:
    """Songs of ten clips each, in the store's own files."""
    songs = []
    noise = np.random.default_rng(0).integers(-9000, 9000, (CLIPS_OF_A_SONG + 1) * samples, dtype=np.int16)
    for number in range(clips // CLIPS_OF_A_SONG):
        path = folder / f"{number % 256:02x}" / f"{number:08d}.npy"
        size = store._HEADER + 2 * CLIPS_OF_A_SONG * samples + store._TAIL
        if not path.is_file() or path.stat().st_size != size:
            path.parent.mkdir(parents=True, exist_ok=True)
            first = 7919 * number % samples
            with open(path, "wb") as file:
                file.write(store._header(CLIPS_OF_A_SONG, samples))
                file.write(noise[first : first + CLIPS_OF_A_SONG * samples].data)
                file.write((CLIPS_OF_A_SONG * samples).to_bytes(store._TAIL, "little"))
        songs.append(store.Stored(path, CLIPS_OF_A_SONG, CLIPS_OF_A_SONG * samples))
    return store.StoredWaveforms(songs, samples)


def forget_pages(waveforms: store.StoredWaveforms) -> None:
    """Asks the system to drop the store's files from its cache, so that the disk is measured."""
    for song in waveforms._songs:
        with open(song.path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def peak_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(folder: Path, clips: int, steps: int, batch: int) -> dict:
    """Measures; returns what it prints."""
    import jax
    import optax

    import deconv_jax
    from deconv_jax.system import devices, runtime
    from deconv_jax.training.step import initial_state, make_train_step

    runtime.keep_compiled()
    runtime.keep_freed_memory()
    front_end = deconv_jax.FrontEnd()
    samples = front_end.clip_samples
    begin = time.perf_counter()
    waveforms = synthetic_store(folder, clips, samples)
    found = {"clips": len(waveforms), "gigabytes": 2 * len(waveforms) * samples / 1e9}
    found["filled_or_opened_s"] = time.perf_counter() - begin
    forget_pages(waveforms)

    begin = time.perf_counter()
    order = np.random.Generator(np.random.PCG64([0, 0])).permutation(len(waveforms))
    found["permutation_s"] = time.perf_counter() - begin
    batches = [np.sort(order[i * batch : (i + 1) * batch]) for i in range(len(order) // batch)]
    row = devices.all_devices()
    data = store.Clips(waveforms, np.arange(len(waveforms), dtype=np.int32) % 3, np.arange(len(waveforms)))

    begin = time.perf_counter()
    for one in batches:
        waveforms[one]
    found["reader_clips_per_s"] = batch * len(batches) / (time.perf_counter() - begin)
    found["peak_mb_after_reading_all"] = peak_mb()
    forget_pages(waveforms)

    network, optimiser = deconv_jax.paper_network(3), optax.adam(1e-4)
    state = row.replicate(initial_state(network, optimiser, front_end, data, 0))
    shared = row if row.several else None
    step = make_train_step(network, optimiser, front_end, np.ones(3, np.float32), 0, shared, batch)
    same = next(iter(devices.feed(row, data, samples, batches[:1])))
    for number in range(steps + 2):
        if number == 2:  # compiled, and memory in its place
            begin = time.perf_counter()
        state, loss, _ = step(state, *same)
        float(loss)
    found["step_clips_per_s"] = steps * batch / (time.perf_counter() - begin)
    found["peak_mb_after_steps"] = peak_mb()

    waited = 0.0
    fed = devices.feed(row, data, samples, batches[1:])
    begin = time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        some = next(fed)
        waited += time.perf_counter() - asked
        state, loss, _ = step(state, *some)
        float(loss)
    whole = time.perf_counter() - begin
    fed.close()
    found["together_clips_per_s"] = steps * batch / whole
    found["share_of_time_waiting"] = waited / whole
    found["peak_mb_together"] = peak_mb()
    found["device"] = jax.devices()[0].device_kind
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=80_000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()
    print(json.dumps(main(given.folder, given.clips, given.steps, given.batch), indent=2))
