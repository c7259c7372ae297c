"""How long a training step takes: forward, backward and Adam on 16 clips, spectrograms included.

    pip install '.[benchmarks]'
    python benchmarks/train_step.py [--repeats=9] [--steps=2] [--batch=16] [--out=train_step.json]

About 3 minutes and 5 GB of memory on two cores. The paper's network (dense layers 512 and 256, dropout 0.5) in this
library's `make_train_step` and in PyTorch as an expert would write it (channels_last, fused Adam). First, both start
from the same weights and spectrograms, without dropout, and must agree in loss, and clip by clip in every gradient,
within 1e-4 of its largest value; up to half of the clips may hold a near tie (two candidates for a maximum within
rounding), which sends the gradient elsewhere. Then each gets a process of its own and they take turns. It prints a
table, writes JSON, and judges nothing.
"""

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import measure
import numpy as np
from absl import app, flags

CLASSES, LEARNING_RATE, TOLERANCE = 3, 1e-4, 1e-4
OURS = "this library"


def batch(clips: int) -> tuple[np.ndarray, np.ndarray]:
    """Waveforms int16 (clips, samples) and labels."""
    waveforms = np.stack([measure.synthetic_clip(seed) for seed in range(clips)])
    return (32767 * waveforms).astype(np.int16), np.arange(clips, dtype=np.int32) % CLASSES


class Library:
    """`deconv_jax.training.step.make_train_step`, as `bin/train` calls it."""

    def __init__(self, clips: int, dropout: float = 0.5):
        from deconv_jax.system import runtime

        runtime.keep_compiled()
        runtime.keep_freed_memory()
        self.batch, self.dropout = batch(clips), dropout

    def weights(self) -> dict:
        """Fresh parameters as NumPy arrays, and the input's scale."""
        import jax

        import deconv_jax
        from deconv_jax.sound.front_end import analyse

        front_end = deconv_jax.FrontEnd()
        magnitude = np.asarray(analyse(front_end, self.batch[0])[1])
        blank = np.zeros((front_end.bins, front_end.clip_frames), np.float32)
        params = jax.jit(deconv_jax.paper_network(CLASSES).init)(jax.random.key(0), blank)["params"]
        return {"params": jax.tree.map(np.asarray, params), "scale": float(np.sqrt(np.mean(magnitude**2)))}

    def start(self, weights: dict, magnitudes: np.ndarray | None = None) -> None:
        """Compiles nothing yet.

        With magnitudes, steps take these for the spectrograms, change no parameter and leave their gradient. Two
        transforms differ by rounding of the loudest bin; that is enough to move maxima among the quiet ones.
        """
        import dataclasses

        import jax
        import jax.numpy as jnp
        import optax

        import deconv_jax
        from deconv_jax.training import step

        network = deconv_jax.paper_network(CLASSES)
        blocks = tuple(dataclasses.replace(b, dropout=self.dropout) for b in network.blocks)
        network = network.clone(blocks=blocks, dropout=self.dropout)
        keep = optax.GradientTransformation(lambda p: p, lambda g, s, p=None: (jax.tree.map(jnp.zeros_like, g), g))
        optimiser = optax.adam(LEARNING_RATE) if magnitudes is None else keep
        if magnitudes is not None:
            self.batch = magnitudes, self.batch[1]
            setattr(step, "analyse", lambda front, waveform: (waveform, waveform))  # noqa: B010  # another type
        params = jax.tree.map(jnp.array, weights["params"])
        self.state = {
            "params": params,
            "input": {"mean": jnp.zeros((1, 1)), "scale": jnp.full((1, 1), weights["scale"])},
            "opt_state": optimiser.init(jax.tree.map(jnp.copy, params)),
            "step": jnp.zeros((), jnp.int32),
        }
        self.step = step.make_train_step(network, optimiser, deconv_jax.FrontEnd(), np.ones(CLASSES, np.float32), 0)

    def run(self, steps: int) -> float:
        for _ in range(steps):
            self.state, device_loss, _ = self.step(self.state, *self.batch)
            loss = float(device_loss)  # waits for the step, as the training loop does
        return loss

    def gradient(self, clip: int) -> dict:
        """Of the loss of one clip; after `start` with magnitudes."""
        import jax

        self.state, _, _ = self.step(self.state, *(a[clip : clip + 1] for a in self.batch))
        return jax.tree.map(np.asarray, self.state["opt_state"])


class Torch:
    """The same step in PyTorch, on all cores."""

    def __init__(self, clips: int, dropout: float = 0.5):
        import torch
        import torch_baselines

        torch.set_num_threads(measure.cores())
        torch.manual_seed(0)
        waveforms, labels = batch(clips)
        self.waveforms, self.labels = torch.from_numpy(waveforms), torch.from_numpy(labels).long()
        self.baselines, self.dropout = torch_baselines, dropout

    def magnitudes(self) -> np.ndarray:
        return self.baselines.magnitudes(self.waveforms).numpy()

    def start(self, weights: dict) -> None:
        import torch

        self.scale = weights["scale"]
        self.model = self.baselines.Classifier(weights["params"], self.dropout)
        self.optimiser = torch.optim.Adam(self.model.parameters(), LEARNING_RATE, fused=True)

    def run(self, steps: int) -> float:
        for _ in range(steps):
            loss = self._backward(self.waveforms, self.labels)
            self.optimiser.step()
            value = loss.item()
        return value

    def gradient(self, clip: int) -> dict:
        self._backward(self.waveforms[clip : clip + 1], self.labels[clip : clip + 1])
        return self.model.gradients()

    def _backward(self, waveforms, labels):
        import torch.nn.functional as F

        self.optimiser.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(self.baselines.magnitudes(waveforms) / self.scale), labels)
        loss.backward()
        return loss


def agreement(clips: int) -> tuple[dict, float, list[float]]:
    """The weights to start from; without dropout, the loss's difference, and the largest of each clip's gradients."""
    library, torch = measure.Candidate(Library, clips, 0.0), measure.Candidate(Torch, clips, 0.0)
    weights = library.call("weights").result
    magnitudes = torch.call("magnitudes").result
    library.call("start", weights, magnitudes)
    torch.call("start", weights)
    gradients = []
    for clip in range(clips):
        ours, theirs = library.call("gradient", clip).result, torch.call("gradient", clip).result
        pairs = [(ours[name][part], theirs[name][part]) for name in theirs for part in ("kernel", "bias")]
        gradients.append(max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs))
    ours, theirs = library.call("run", 1).result, torch.call("run", 1).result
    library.close()
    torch.close()
    return weights, abs(ours - theirs) / abs(theirs), gradients


CANDIDATES: dict[str, tuple] = {
    OURS: (Library, {}),
    "PyTorch": (Torch, {}),
    "PyTorch, freed memory kept": (Torch, measure.KEEP_FREED_MEMORY),
}


def measured(weights: dict, clips: int, repeats: int, steps: int) -> dict:
    out: dict = {"start_s": {}, "first_s": {}, "peak_mb": {}}
    out |= {part: {name: [] for name in CANDIDATES} for part in ("seconds", "cpu_seconds")}
    running = {}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
        for name, (make, extra) in CANDIDATES.items():
            running[name] = measure.Candidate(make, clips, environment=extra)
            running[name].call("start", weights)
            out["start_s"][name] = running[name].start_seconds
            out["first_s"][name] = running[name].call("run", 1).seconds
            running[name].call("run", 1)
        for turn in range(repeats):
            print(f"round {turn + 1} of {repeats}", file=sys.stderr)
            for name in measure.alternating(list(CANDIDATES), turn):
                call = running[name].call("run", steps)
                out["seconds"][name].append(call.seconds / steps)
                out["cpu_seconds"][name].append(call.cpu_seconds / steps)
        for name, candidate in running.items():
            out["peak_mb"][name] = candidate.peak_bytes / 1e6
            candidate.close()
    return out


def main(argv) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}")
    measure.need(["torch"])
    clips, values = flags.FLAGS.batch, flags.FLAGS
    setting = measure.environment(["jax", "flax", "optax", "torch", "numpy"])
    print(", ".join(f"{k}: {v}" for k, v in setting.items()))
    weights, loss, gradients = agreement(clips)
    close = sum(error <= TOLERANCE for error in gradients)
    print(
        f"\nSame spectrograms, no dropout: loss differs by {loss:.1e}; gradients of {close} of {clips} clips by at "
        f"most {max((e for e in gradients if e <= TOLERANCE), default=np.nan):.1e}, of all by {max(gradients):.1e}"
    )
    if not loss <= TOLERANCE or 2 * close < clips:
        sys.exit(f"No times: more than {TOLERANCE:.0e} apart")
    found = measured(weights, clips, values.repeats, values.steps)
    rows = []
    for name, seconds in found["seconds"].items():
        median = statistics.median(seconds)
        pairs = zip(found["cpu_seconds"][name], seconds, strict=True)
        had = f"{statistics.median(cpu / wall for cpu, wall in pairs):.1f}"
        first = f"{found['start_s'][name]:.1f} + {found['first_s'][name]:.1f}"
        faster = measure.ratio(seconds, found["seconds"][OURS])
        rows.append([name, f"{median:.3f}", f"{1 / median:.2f}", faster, had, first, f"{found['peak_mb'][name]:.0f}"])
    print(
        f"\nTraining step of {clips} clips, median of {values.repeats} rounds of {values.steps}; how many times as "
        "fast this library is,\nratio of medians (median of each round's ratio; ratio of the fastest rounds); cores had"
        " (CPU time over wall time);\nstart of the process and first step, s; peak memory, MB:\n"
    )
    head = ["", "s a step", "steps/s", "this library is", "cores", "start + first", "peak"]
    print(measure.table(head, rows))
    record = {
        "environment": setting,
        "batch": clips,
        "loss_difference": loss,
        "gradient_differences": gradients,
        **found,
    }
    Path(values.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    flags.DEFINE_integer("repeats", 9, "rounds", lower_bound=1)
    flags.DEFINE_integer("steps", 2, "steps in a row in a round", lower_bound=1)
    flags.DEFINE_integer("batch", 16, "clips in a step", lower_bound=1)
    flags.DEFINE_string("out", "train_step.json", "where the times go")
    app.run(main)
