"""Where the time of a training step and of a sweep goes, stage by stage.

    pip install '.[benchmarks]'
    python benchmarks/stages.py [--what=printed --what=music --what=sweep] [--layer=5] [--repeats=5]

About 4 minutes and 5 GB of memory on two cores. `printed` is a step of the paper's network (configs/genre3.py), 16
clips of 4 s; `music` one of the recipe with batch norm (configs/music.py), 16 crops of 1.5 s; `sweep` all 64 features
of a layer, one clip. Every stage is compiled by itself: fused into the whole it may take less, so the whole stands
beside the sum. GFLOP are those of dense convolutions, which Winograd's transforms do with fewer; GB are what a stage is
given and gives, once. The machine's matrix-multiply peak and copy bandwidth are measured in the same run. (`profile.py`
would stand in the way of Python's own module of that name.)
"""

import concurrent.futures
import functools
import runpy
import statistics
import time
from pathlib import Path

import measure
import numpy as np
from absl import app, flags

CLIPS, GROUP = 16, 8
WHOLE = "as a whole"


class Profile:
    """Lives in a process of its own; every method gives rows of (stage, seconds, processor seconds, GFLOP, GB)."""

    def __init__(self, repeats: int):
        from deconv_jax.system import runtime

        runtime.keep_compiled()
        runtime.keep_freed_memory()
        self.repeats, self.options = repeats, runtime.KEEP_BARRIERS
        self.rows: list[tuple] = []

    def _run(self, name: str, function, *arguments, gflop: float = 0.0, threads: int = 1, share: float = 1.0):
        """Its result; adds a row. threads: that do the same at once, of which a whole takes `share` rounds."""
        import jax

        program = jax.jit(function).lower(*arguments).compile(compiler_options=self.options)
        result = jax.block_until_ready(program(*arguments))
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:

            def together():
                runs = [pool.submit(lambda: jax.block_until_ready(program(*arguments))) for _ in range(threads)]
                concurrent.futures.wait(runs)

            wall, busy = (share * seconds for seconds in self._times(together))
        moved = sum(a.nbytes for a in jax.tree.leaves((arguments, result)) if hasattr(a, "nbytes")) / 1e9
        self.rows.append((name, wall, busy, gflop, share * threads * moved))
        return result

    def step(self, name: str) -> list[tuple]:
        import jax
        import optax
        from flax import linen as nn

        from deconv_jax.network import first_layer, layers
        from deconv_jax.network.model import initial_variables
        from deconv_jax.training import step, workdir
        from deconv_jax.training.prepare import settings

        file = Path(__file__).parents[1] / "configs" / ("music.py" if name == "music" else "genre3.py")
        config = runpy.run_path(str(file))["get_config"]().to_dict()
        (recipe, augment), front, network = settings(config), workdir.front_end(config), workdir.network(config, 3)
        optimiser = recipe.optimiser_for(1000)
        waveforms = np.stack([(32767 * measure.synthetic_clip(seed)).astype(np.int16) for seed in range(CLIPS)])
        labels, key = np.arange(CLIPS, dtype=np.int32) % 3, jax.random.key(0)
        variables = initial_variables(network, (front.bins, front.clip_frames), 0)
        params, state = variables["params"], optimiser.init(variables["params"])
        heard = self._run(
            "spectrogram, changes", step._heard(front, None, recipe, augment, CLIPS), waveforms, labels, key
        )
        x = heard[..., None] / np.sqrt(np.mean(np.square(heard)))
        for number, block in enumerate(network.blocks, 1):
            kernel, bias = params[f"conv{number}"]["kernel"], params[f"conv{number}"]["bias"]
            gflop = 2 * CLIPS * x.shape[1] * x.shape[2] * kernel.size / 1e9
            norm = params.get(f"norm{number}", {})

            def first(kernel, bias, norm, x, block=block):
                if norm:
                    kernel, bias, _ = first_layer.normalised(kernel, bias, norm, block.epsilon, x)
                return first_layer.pooled_convolution(x, kernel, bias, block.pool)[0]

            def after(y, norm, block=block):
                if norm:
                    layer = nn.BatchNorm(use_running_average=False, epsilon=block.epsilon)
                    y, _ = layer.apply({"params": norm}, y, mutable=["batch_stats"])
                return layers.max_pool(jax.nn.relu(y), block.pool, block.stride)[0]

            if first_layer.fits(block, x.shape[-1]):
                forward = functools.partial(lambda first, x, *p: jax.vjp(lambda *p: first(*p, x), *p), first)
                x, back = self._run(f"layer {number}, forward", forward, x, kernel, bias, norm, gflop=gflop)
                self._run(f"layer {number}, back", lambda back, g: back(g), back, x, gflop=gflop)
                continue
            y = self._run(
                f"convolution {number}", lambda x, k, b: layers.convolve(x, k) + b[None, None, None], x, kernel, bias,
                gflop=gflop,
            )  # fmt: skip
            pooled, back = self._run(f"norm, relu, pool {number}", lambda *a, f=after: jax.vjp(f, *a), y, norm)
            gradient, _ = self._run(f"the same {number}, back", lambda back, g: back(g), back, pooled)
            into = functools.partial(layers.convolve_back, padding="SAME")
            self._run(f"input's gradient {number}", into, gradient, kernel, gflop=gflop)
            self._run(f"kernels' gradient {number}", layers.kernel_gradient_3x3, x, gradient, gflop=gflop)
            x = pooled
        if network.blocks[0].dropout:
            sizes = [(CLIPS, heard.shape[1] >> n, heard.shape[2] >> n, 64) for n in range(1, 6)]
            given = [np.ones(size, np.float32) for size in sizes]
            self._run("dropout", lambda key, given: [layers.dropout(x, key, 0.5) for x in given], key, given)
        zeros = jax.tree.map(np.zeros_like, params)

        def update(gradient, state, params):
            updates, state = optimiser.update(gradient, state, params)
            return optax.apply_updates(params, updates), state

        self._run("optimiser", update, zeros, state, params)
        whole = variables | {"input": {"mean": np.zeros((1, 1), np.float32), "scale": np.ones((1, 1), np.float32)}}
        whole |= {"opt_state": state, "step": np.zeros((), np.int32)}
        if recipe.average:
            whole["average"] = jax.tree.map(np.array, variables)
        run = step.make_train_step(network, optimiser, front, np.ones(3, np.float32), 0, None, CLIPS, recipe, augment)

        def again():
            nonlocal whole
            whole, loss, _ = run(whole, waveforms, labels)
            loss.block_until_ready()

        forward_work = sum(row[3] for row in self.rows if row[0].startswith(("convolution", "layer 1, forward")))
        return self._whole(again, 3 * forward_work)

    def sweep(self, layer: int) -> list[tuple]:
        import jax.numpy as jnp
        from candidates import DEPTH, MAPS, Library
        from sweep import gflop

        from deconv_jax import stft
        from deconv_jax.deconvolution import winograd

        magnitude = np.abs(np.asarray(stft(measure.synthetic_clip())))
        library = Library(magnitude / np.sqrt(np.mean(magnitude**2)), "auto")
        size, forward = magnitude.shape, lambda v, m: library.network.apply(v, m, head=False)[1]
        cells = [(size[0] >> n) * (size[1] >> n) for n in range(DEPTH)]
        work = 18e-9 * MAPS * (cells[0] + MAPS * sum(cells[1:]))
        trace = self._run("forward pass", forward, library.variables, library.magnitude, gflop=work)
        kernels = [library.variables["params"][f"conv{n}"]["kernel"] for n in range(1, layer + 1)]
        switches = [t.switches for t in trace]
        sizes = [size, *(s.shape[:2] for s in switches)]
        threads = min(measure.cores(), MAPS // 16)
        shared: dict = {"threads": threads, "share": MAPS / GROUP / threads}

        def first(pooled, switches, kernel):
            maps, winners, kernel = (jnp.moveaxis(a[..., :GROUP], -1, 0) for a in (pooled, switches, kernel))
            live = winograd._unpool_single(maps, winners, sizes[layer - 1])
            return winograd._first_step(live, kernel, sizes[layer - 1], late=0)

        def middle(number, v, switches, kernel, lowest):
            out, put = winograd._row_writer(sizes[number - 1], GROUP, MAPS)
            if number == 2:
                out, put = winograd._patch_writer(lowest[0], lowest[1], sizes[1], GROUP)
            late = int(number < layer - 1)
            kernel = winograd._transform_kernel(kernel)
            return winograd._middle_step(v, late, switches, kernel, sizes[number - 1], out, put)

        v = self._run(f"layer {layer}", first, trace[layer - 1].pooled, switches[layer - 1], kernels[-1], **shared)
        for number in range(layer - 1, 1, -1):
            work = 18e-9 * np.prod(sizes[number - 1]) * MAPS**3 + (18e-9 * np.prod(size) * MAPS**2) * (number == 2)
            given = v, switches[number - 1], kernels[number - 1], (switches[0], kernels[0])
            name = f"layer {number}" + ", table of patches" * (number == 2)
            v = self._run(name, functools.partial(middle, number), *given, gflop=work, **shared)
        self._run("overlap-add", functools.partial(winograd._overlap_add, size=size), v, **shared)
        return self._whole(lambda: library.run(layer), gflop(layer, size))

    def _whole(self, function, gflop: float) -> list[tuple]:
        function()  # compiles
        return [*self.rows, (WHOLE, *self._times(function), gflop, 0.0)]

    def _times(self, function) -> list[float]:
        """Wall and processor seconds, medians."""
        found = []
        for _ in range(self.repeats):
            begin, cpu = time.perf_counter(), time.process_time()
            function()
            found.append((time.perf_counter() - begin, time.process_time() - cpu))
        return [statistics.median(times) for times in zip(*found, strict=True)]


def report(rows: list[tuple], peak: float, bandwidth: float) -> str:
    """The table of one profile."""
    total = sum(row[1] for row in rows[:-1])

    def cells(name: str, wall: float, busy: float, gflop: float, moved: float) -> list[str]:
        rate = [f"{gflop / wall:.0f}", f"{gflop / wall / peak:.2f}"] if gflop else ["", ""]
        traffic = [f"{moved / wall:.1f}", f"{moved / wall / bandwidth:.2f}"] if moved else ["", ""]
        return [name, f"{1e3 * wall:.1f}", f"{wall / total:.0%}", f"{busy / wall:.1f}", *rate, *traffic]

    rows = [*rows[:-1], ("sum of the stages", total, sum(r[2] for r in rows[:-1]), 0.0, 0.0), rows[-1]]
    head = ["", "ms", "share", "cores", "GFLOP/s", "of peak", "GB/s", "of copying"]
    return measure.table(head, [cells(*row) for row in rows])


def main(argv) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}")
    measure.need(["torch"])
    setting, values = measure.environment(["jax", "flax", "numpy"]), flags.FLAGS
    print(", ".join(f"{k}: {v}" for k, v in setting.items()))
    machine = measure.Candidate(measure.MatrixMultiply)
    peak, bandwidth = machine.call("run").result, machine.call("copy").result
    machine.close()
    print(f"\nMatrix-multiply peak {peak:.0f} GFLOP/s; copying {bandwidth:.1f} GB/s, read and written")
    titles = {
        "printed": "Training step as printed",
        "music": "Training step with batch norm",
        "sweep": "Sweep of layer ",
    }
    for what in values.what:
        candidate = measure.Candidate(Profile, values.repeats)
        rows = candidate.call("sweep", values.layer) if what == "sweep" else candidate.call("step", what)
        candidate.close()
        title = titles[what] + (str(values.layer) if what == "sweep" else f", {CLIPS} clips")
        print(f"\n{title}, medians of {values.repeats}:\n\n{report(rows.result, peak, bandwidth)}", flush=True)


if __name__ == "__main__":
    flags.DEFINE_multi_enum("what", ["printed", "music", "sweep"], ["printed", "music", "sweep"], "what to profile")
    flags.DEFINE_integer("layer", 5, "layer to sweep", lower_bound=3, upper_bound=5)
    flags.DEFINE_integer("repeats", 5, "runs of each stage", lower_bound=1)
    app.run(main)
