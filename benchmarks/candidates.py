"""What `sweep.py` compares: each class is one way to deconvolve all features of a layer.

Each lives in a process of its own, and imports what it needs there: importing this module must cost nothing.
"""

import measure
import numpy as np

MAPS, DEPTH, SEED = 64, 5, 0
TOLERANCE = 1e-5
"""Of an image's maximum."""

OURS = "this library"
CAPTUM = "Captum NeuronDeconvolution *"
NUMPY = "NumPy loops over maps *"


def weights() -> list[np.ndarray]:
    """He-normal kernels of the paper's network, each (3, 3, in, out)."""
    random = np.random.Generator(np.random.PCG64(SEED))
    shapes = [(3, 3, MAPS if number else 1, MAPS) for number in range(DEPTH)]
    return [(random.standard_normal(s) * np.sqrt(2 / np.prod(s[:3]))).astype(np.float32) for s in shapes]


class Library:
    """`deconvolve` as a user calls it."""

    def __init__(self, magnitude: np.ndarray, path: str):
        import deconv_jax
        from deconv_jax.system import runtime

        runtime.keep_compiled()
        self.network = deconv_jax.paper_network(maps=MAPS)
        zero = np.zeros(MAPS, np.float32)
        self.variables = {"params": {f"conv{n}": {"kernel": k, "bias": zero} for n, k in enumerate(weights(), 1)}}
        self.magnitude, self.path = magnitude, path

    def images(self, layer: int):
        from deconv_jax import Rule, deconvolve

        return deconvolve(
            self.network, self.variables, self.magnitude, layer, rule=Rule(path=self.path)
        ).block_until_ready()

    def run(self, layer: int) -> None:
        self.images(layer)


class Torch:
    """`torch_baselines.sweep`, on all cores."""

    def __init__(self, magnitude: np.ndarray, rewritten: bool):
        import torch
        import torch_baselines

        torch.set_num_threads(measure.cores())
        self.baselines, self.magnitude, self.rewritten = torch_baselines, magnitude, rewritten
        self.forward = torch_baselines.forward_weights(weights())
        self.backward = torch_baselines.backward_weights(weights())

    def run(self, layer: int) -> None:
        trace = self.baselines.forward(self.magnitude, self.forward, layer)
        self.baselines.sweep(trace, self.backward, layer, self.rewritten)


class Captum(Torch):
    """A few features: each is a call of its own, forward pass included, so time grows with their number."""

    SOME = (5, 40)

    def run(self, layer: int) -> None:
        self.baselines.captum_images(self.magnitude, self.forward, layer, self.SOME)


class Loops:
    """A feature in NumPy, maps one after the other, without the forward pass."""

    SOME = (5,)

    def __init__(self, magnitude: np.ndarray):
        import torch_baselines

        trace = torch_baselines.forward(magnitude, torch_baselines.forward_weights(weights()), DEPTH)
        self.trace = [(t.pooled[0].numpy(), t.switches[0].numpy(), t.size) for t in trace]
        self.kernels = weights()

    def run(self, layer: int) -> None:
        self.images(layer, np.float32)

    def images(self, layer: int, dtype) -> np.ndarray:
        return np.stack([self._image(layer, feature, dtype) for feature in self.SOME])

    def _image(self, layer: int, feature: int, dtype) -> np.ndarray:
        signal = np.zeros(self.trace[layer - 1][0].shape, dtype)
        signal[feature] = self.trace[layer - 1][0][feature]
        for (_, switches, size), kernel in reversed(list(zip(self.trace, self.kernels, strict=True))[:layer]):
            below = np.zeros((kernel.shape[2], size[0] + 2, size[1] + 2), dtype)
            for out in range(len(signal)):
                if not signal[out].any():
                    continue
                full = np.zeros(size, dtype)
                full.flat[switches[out]] = np.maximum(signal[out], 0)
                for a, b, into in np.ndindex(3, 3, kernel.shape[2]):
                    below[into, a : a + size[0], b : b + size[1]] += full * kernel[a, b, into, out]
            signal = below[:, 1:-1, 1:-1]
        return signal[0]


class Check:
    """Reads the clip, and compares all candidates on the switches of PyTorch's forward pass."""

    def magnitude(self, clip: str | None) -> np.ndarray | str:
        """(freq, time), divided by its root mean square; or why the file cannot be used."""
        from deconv_jax import InputError, stft
        from deconv_jax.sound import audio

        try:
            waveform = audio.read(clip, measure.SAMPLE_RATE, duration=4.0) if clip else measure.synthetic_clip()
        except InputError as error:
            return f"--clip: {error}"
        magnitude = np.abs(np.asarray(stft(waveform)))
        return magnitude / np.sqrt(np.mean(magnitude**2))

    def errors(self, magnitude: np.ndarray, layer: int) -> dict[str, float]:
        """Largest error of each candidate, as a share of an image's maximum; the reference is PyTorch's sweep."""
        import jax
        import jax.numpy as jnp
        import torch_baselines

        from deconv_jax.deconvolution import plain, winograd
        from deconv_jax.network import model

        library, loops = Library(magnitude, "auto"), Loops(magnitude)
        forward, backward = (f(weights()) for f in (torch_baselines.forward_weights, torch_baselines.backward_weights))
        trace = torch_baselines.forward(magnitude, forward, layer)
        sweeps = [torch_baselines.sweep(trace, backward, layer, rewritten).numpy() for rewritten in (False, True)]

        def ours(t: torch_baselines.Trace) -> model.LayerTrace:
            row, column = t.switches // t.size[1], t.switches % t.size[1]
            switches = (2 * (row % 2) + column % 2).numpy().astype(np.uint8)
            return model.LayerTrace(*(jnp.asarray(a.transpose(0, 2, 3, 1)) for a in (t.pooled.numpy(), switches)))

        same = tuple(map(ours, trace))
        every, size, switches = np.arange(MAPS), magnitude.shape, tuple(t.switches for t in same)
        kernels = tuple(map(jnp.asarray, weights()[:layer]))
        fast = winograd.walk_back(same[-1].pooled, switches, kernels, every, size)[0]
        plain = plain.backproject(library.network, library.variables, same, layer, jnp.asarray(every), size, chunk=4)[0]
        captum = torch_baselines.captum_images(magnitude, forward, layer, Captum.SOME)

        def error(images, reference) -> np.ndarray:
            top = np.abs(reference).max(axis=(1, 2))
            return np.abs(np.asarray(images) - reference).max(axis=(1, 2)) / np.where(top > 0, top, 1)

        reference = sweeps[0]
        found = {
            OURS: error(fast, reference).max(),
            f"{OURS}, plain path": error(plain, reference).max(),
            "PyTorch, last stage rewritten": error(sweeps[1], reference).max(),
            CAPTUM: error(captum, reference[list(Captum.SOME)]).max(),
            f"{NUMPY} (float64)": error(loops.images(layer, np.float64), reference[list(Loops.SOME)]).max(),
        }
        _, own = jax.jit(lambda m: library.network.apply(library.variables, m, head=False))(magnitude[None])
        flips = sum(int((a.switches != b).sum()) for a, b in zip(own, switches, strict=False))
        end_to_end = error(library.images(layer), reference)
        return {k: float(v) for k, v in found.items()} | {
            "flips": flips,
            "end to end": float(end_to_end.max()),
            "features beyond": int((end_to_end > TOLERANCE).sum()),
        }
