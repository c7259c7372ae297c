"""Checkpoints and metrics of a training run: what lets it go on where it was killed."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from deconv_jax.errors import InputError
from deconv_jax.sound import audio
from deconv_jax.system import hosts
from deconv_jax.training import workdir as wd

State = dict[str, Any]
"""Arrays by name: "params", "input" (its mean and scale), "opt_state", "step"."""

BEST = ("params", "input", "step")
"""What is kept of the best state."""


def no_totals() -> State:
    """Loss and number right of the epoch so far."""
    return {"epoch_loss": np.zeros((), np.float64), "epoch_right": np.zeros((), np.int64)}


class Keeper:
    """Checkpoints and metrics of a run: what lets it go on.

    Everything is written as NumPy arrays by one process, so that a run may go on with other devices. At the end of an
    epoch the best state, then the metrics, then the last state are saved: what is ahead of the last state when a run
    is killed is made again by the next.
    """

    def __init__(self, workdir: Path):
        self.metrics = workdir / "metrics.jsonl"
        alone = {}
        if hosts.joined():
            alone["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
            )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True, create=not alone, **alone
        )
        folders = [workdir / "checkpoints" / name for name in ("last", "best")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        self.last, self.best = (ocp.CheckpointManager(folder, options=options) for folder in folders)

    def close(self) -> None:
        self.last.close()
        self.best.close()

    def latest(self, state: State, totals: State) -> tuple[State, State, list[dict]]:
        """The state, the epoch's totals and the history to go on from; those given if nothing is kept yet."""
        history = []
        step = self.last.latest_step()
        if step is not None:
            template = jax.tree.map(np.asarray, state | totals)
            found = self.last.restore(step, args=ocp.args.StandardRestore(template))
            state, totals = ({k: found[k] for k in tree} for tree in (state, totals))
            logging.info("Going on from step %d", step)
        done = int(state["step"])
        for step in self.best.all_steps():  # saved just before the run was killed, ahead of `last`
            if step > done:
                self.best.delete(step)
        if self.metrics.is_file():
            lines = [json.loads(line) for line in self.metrics.read_text().splitlines() if line.endswith("}")]
            history = [line for line in lines if line["step"] <= done]
        return state, totals, history

    def epoch_over(self, state: State, history: list[dict], better: bool) -> None:
        """Keeps the state at an epoch's end, as the best too if it is."""
        if better:
            self._save(self.best, {k: state[k] for k in BEST})
        wd.write_text(self.metrics, "".join(json.dumps(h) + "\n" for h in history))
        self.save_last(state | no_totals())

    def save_last(self, state: State) -> None:
        """Keeps the state and its epoch's totals as those to go on from."""
        self._save(self.last, state, force=True)

    def best_of(self, template: State) -> State:
        """The best state there was."""
        return self.best.restore(self.best.latest_step(), args=ocp.args.StandardRestore(template))

    @staticmethod
    def _save(manager: ocp.CheckpointManager, state: State, **how) -> None:
        state = jax.tree.map(np.asarray, state)
        full = InputError(
            f"{audio.shown(manager.directory)}: the disk has no space left for the checkpoint of step {state['step']}; "
            "free some, and the same command goes on from the one before"
        )
        # TensorStore says it in the end, too, but not in one line.
        if shutil.disk_usage(manager.directory).free < sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + 2**20:
            raise full
        try:
            manager.save(int(state["step"]), args=ocp.args.StandardSave(state), **how)
        except Exception as error:  # TensorStore's have no type of their own
            reason = str(error).lower()
            raise (full if "no space left" in reason or "quota" in reason else error) from None
