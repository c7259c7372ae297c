"""Batches dealt out over all devices of all processes, weights on each of them: data parallelism.

A batch is the same clips in the same order however many devices share it, and so are its dropout bits (JAX draws them
by their place in the whole array): losses and weights differ by the order of sums only.
"""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from deconv_jax.system import hosts

AHEAD = 3
"""Batches that are read while a step runs."""


@dataclasses.dataclass(frozen=True)
class Devices:
    """A row of devices; clips are dealt out along it.

    Attributes:
      mesh: of one axis, "clips".
    """

    mesh: jax.sharding.Mesh

    @property
    def several(self) -> bool:
        """Whether there is more than one."""
        return self.mesh.size > 1

    def split(self) -> jax.sharding.Sharding:
        """The first axis dealt out over the devices."""
        return NamedSharding(self.mesh, PartitionSpec("clips")) if self.several else self._single()

    def whole(self) -> jax.sharding.Sharding:
        """All of it on every device."""
        return NamedSharding(self.mesh, PartitionSpec()) if self.several else self._single()

    def _single(self) -> SingleDeviceSharding:
        return SingleDeviceSharding(self.mesh.devices.item())

    def rows(self, clips: int) -> int:
        """Clips of a batch with the silent ones that let it be dealt out evenly."""
        return -(-clips // self.mesh.size) * self.mesh.size

    def replicate(self, tree) -> Any:
        """Puts process 0's arrays, which fit into memory, on every device."""
        sharding = self.whole()
        return jax.tree.map(
            lambda value: jax.make_array_from_callback(value.shape, sharding, lambda index: value[index]),
            hosts.from_first(tree),
        )

    def place(self, clips: np.ndarray) -> jax.Array:
        """This process's own clips (clips, ...), filled up with zeros and dealt out over its devices."""
        filled = np.pad(clips, [(0, self.rows(len(clips)) - len(clips))] + [(0, 0)] * (clips.ndim - 1))
        return jax.device_put(filled, self.split())

    def each_clip(self, function: Callable, whole: int = 0) -> Callable:
        """A function of clips that treats each by itself, run by every device on its own clips.

        XLA would gather all clips on all devices before a Fourier transform. The first `whole` arguments are no clips:
        every device has all of them.
        """
        if not self.several:
            return function
        clips = PartitionSpec("clips")

        def shared(*arguments):
            specs = (PartitionSpec(),) * whole + (clips,) * (len(arguments) - whole)
            return jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=clips, check_vma=not whole)(
                *arguments
            )

        return shared

    def deal(self, rows: int, shape: tuple[int, ...], dtype, read: Callable[[int, int], np.ndarray]) -> jax.Array:
        """An array (rows, *shape) of which every process reads what its own devices get.

        Args:
          read: (first, last) → rows [first, last) of it; may give fewer at the end, zeros follow.
        """

        def part(index):
            first, last, _ = index[0].indices(rows)
            found = np.asarray(read(first, last), dtype)
            return np.pad(found, [(0, last - first - len(found)), *[(0, 0)] * len(shape)])

        return jax.make_array_from_callback((rows, *shape), self.split(), part)


def row_of(devices: Sequence[jax.Device] | None = None) -> Devices:
    """These devices of this process, all of them if left out."""
    return Devices(jax.sharding.Mesh(np.array(jax.local_devices() if devices is None else devices), ("clips",)))


def all_devices() -> Devices:
    """Every device of every process, in a row."""
    return Devices(jax.make_mesh((jax.device_count(),), ("clips",), axis_types=(AxisType.Auto,)))


def feed(devices: Devices, clips, samples: int, batches: Iterable[np.ndarray]) -> Generator:
    """Batches on the devices, read ahead while the last one is worked on.

    Args:
      clips: `deconv_jax.data.tracks.Clips`; its waveforms an array or whatever else gives rows for indices.
      samples: of a clip.
      batches: indices of the clips of each batch.

    Yields:
      waveforms int16 (rows, samples) and labels int32 (rows,), silent clips of label 0 at the end where a batch cannot
      be dealt out evenly. What reading raises is raised here, in the place of the batch.
    """

    def read(batch: np.ndarray):
        rows = devices.rows(len(batch))
        waveforms = devices.deal(rows, (samples,), np.int16, lambda first, last: clips.waveforms[batch[first:last]])
        labels = devices.deal(rows, (), np.int32, lambda first, last: clips.labels[batch[first:last]])
        return waveforms, labels

    return ahead(read, batches)


def ahead(make: Callable, items: Iterable, count: int = AHEAD) -> Generator:
    """`map(make, items)` with the next `count` results made meanwhile, by a thread."""
    pool = concurrent.futures.ThreadPoolExecutor(1, "reader")
    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
