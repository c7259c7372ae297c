"""Checkpoints and metrics of a training run: what lets it go on where it was killed."""

import json
import logging
import shutil
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from deconv_jax.errors import InputError
from deconv_jax.system import files, hosts
from deconv_jax.training.workdir import State, evaluated

log = logging.getLogger(__name__)


def no_totals() -> State:
    """Loss and number right since the last validation."""
    return {"epoch_loss": np.zeros((), np.float64), "epoch_right": np.zeros((), np.int64)}


def diverged(step: int, what: str) -> FloatingPointError:
    """The error of a training that has become nonsense."""
    return FloatingPointError(
        f"step {step}: {what}; nothing of it was kept. Lower config.train.learning_rate and train in a new workdir"
    )


class Keeper:
    """Checkpoints and metrics of a run: what lets it go on.

    Everything is written as NumPy arrays by one process, so that a run may go on with other devices. At a validation
    the state if it is the best, then the metrics, then the last state are saved, and only then an earlier best is
    removed: there is always a whole best, that of the metrics up to the last state among them. What is ahead of the
    last state when a run is killed is made again by the next. No state is saved that holds NaN or infinity.

    Args:
      workdir: of the run.
      keep_all: what every validation evaluates is kept as well, and the first state's; they are written whole, and
        those ahead of the last state are the ones that would be made again.
    """

    def __init__(self, workdir: Path, keep_all: bool = False):
        self.metrics = workdir / "metrics.jsonl"
        alone = {}
        if hosts.joined():
            alone["multiprocessing_options"] = ocp.options.MultiprocessingOptions(
                primary_host=0, active_processes={0}, barrier_sync_key_prefix="first"
            )
        managers = []
        for name, count in (("last", 1), ("best", None), ("kept", None)):
            if name == "kept" and not keep_all and not (workdir / "checkpoints" / name).is_dir():
                continue  # a folder that is there is cleared of what a kill left
            options = ocp.CheckpointManagerOptions(
                max_to_keep=count,
                enable_async_checkpointing=False,
                cleanup_tmp_directories=True,
                create=not alone,
                **alone,
            )
            folder = workdir / "checkpoints" / name
            folder.mkdir(parents=True, exist_ok=True)
            managers.append(ocp.CheckpointManager(folder, options=options))
        self.last, self.best, *kept = self._managers = managers
        self.kept = kept[0] if keep_all else None

    def close(self) -> None:
        for manager in self._managers:
            manager.close()

    def latest(self, state: State, totals: State) -> tuple[State, State, list[dict]]:
        """The state, the epoch's totals and the history to go on from; those given if nothing is kept yet."""
        history = []
        step = self.last.latest_step()
        if step is not None:
            template = jax.tree.map(np.asarray, state | totals)
            found = self.last.restore(step, args=ocp.args.StandardRestore(template))
            state, totals = ({k: found[k] for k in tree} for tree in (state, totals))
            log.info("Going on from step %d", step)
        done = int(state["step"])
        if self.metrics.is_file():
            lines = [json.loads(line) for line in self.metrics.read_text().splitlines() if line.endswith("}")]
            history = [line for line in lines if line["step"] <= done]
        return state, totals, history

    def validated(self, state: State, history: list[dict], best: int) -> None:
        """Keeps the state after a validation, the last of `history`; as the best too if `best`, its step, is now."""
        step = int(state["step"])
        if best == step:
            self._keep(self.best, state)
        if self.kept:
            self._keep(self.kept, state)
        files.write_text(self.metrics, "".join(json.dumps(h) + "\n" for h in history))
        self.save_last(state | no_totals())
        for other in self.best.all_steps():
            if other != best:
                self.best.delete(other)

    def began(self, first: State, history: list[dict]) -> None:
        """Keeps the state before training, if all are kept; says what of a run that is under way was not kept."""
        if not self.kept:
            return
        self._keep(self.kept, first)
        if missed := sorted({entry["step"] for entry in history} - set(self.kept.all_steps())):
            log.info("Weights of validations up to step %d were not kept; from now on they are", missed[-1])

    def save_last(self, state: State) -> None:
        """Keeps the state and its totals as those to go on from."""
        self._save(self.last, state, force=True)

    def best_of(self, step: int, template: State) -> State:
        """The state that was the best, at this step."""
        return self.best.restore(step, args=ocp.args.StandardRestore(template))

    def _keep(self, manager: ocp.CheckpointManager, state: State) -> None:
        """Saves what of a state is evaluated, unless that was done just before the run was killed."""
        if int(state["step"]) not in manager.all_steps():
            self._save(manager, evaluated(state) | {"step": state["step"]}, force=True)

    @staticmethod
    def _save(manager: ocp.CheckpointManager, state: State, **how) -> None:
        state = jax.tree.map(np.asarray, state)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)):
            raise diverged(int(state["step"]), "the weights are no numbers any more")
        full = InputError(
            f"{files.shown(manager.directory)}: the disk has no space left for the checkpoint of step {state['step']}; "
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
