"""Flags by which several processes and hosts work on one command together."""

from collections.abc import Callable

from absl import flags

from deconv_jax.system import hosts

flags.disclaim_key_flags()

TOGETHER = """
All devices of this machine take part. With --distributed, so do other processes and hosts that give the same command
and see the same files at the same places (a shared file system). Slurm, Open MPI, Kubernetes and Cloud TPU say who is
there; elsewhere add --coordinator=HOST:PORT --processes=N --process=I.
"""
"""What --help says of every command with `define_distributed`."""


def define_distributed() -> Callable[[], None]:
    """Defines the flags of a command that several processes can work on together.

    Returns:
      To be called before anything else of JAX: joins the other processes if `--distributed` is given. Raises
      flags.Error if the flags do not fit together, and else as `hosts.start`.
    """
    together = flags.DEFINE_boolean("distributed", False, "Work together with other processes; see above.")
    coordinator = flags.DEFINE_string("coordinator", None, "--distributed: HOST:PORT of process 0, a free port there.")
    processes = flags.DEFINE_integer("processes", None, "--distributed: how many processes there are.")
    process = flags.DEFINE_integer("process", None, "--distributed: which one this is, from 0.")

    def join() -> None:
        given = [flag.name for flag in (coordinator, processes, process) if flag.value is not None]
        if together.value:
            hosts.start(coordinator.value, processes.value, process.value)
        elif given:
            raise flags.Error(f"--{given[0]} belongs to --distributed: give both or neither")

    return join
