"""Starts the other processes of a run and connects rank 0, which is the run, with them. They are its helpers."""

import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from torch.distributed import PrefixStore  # type: ignore[attr-defined]

from microstep.components.strategy.connection import Connection
from microstep.components.strategy.data_parallel import DataParallel
from microstep.components.strategy.gradient_sums import TreeSum
from microstep.config.allowlist import ALLOW_ALL, Allowlist
from microstep.config.experiment import is_canonical
from microstep.errors import ProcessLost
from microstep.run.checkpoints.archive import serialize_state, snapshot
from microstep.training.components import Components
from microstep.training.instantiation import build_component
from microstep.training.rendezvous import Rendezvous
from microstep.types.protocols import Strategy
from microstep.utils.signals import PendingSignal, describe_exit
from microstep.utils.terminal import called
from microstep.utils.text import display_path
from microstep.utils.world import World

if TYPE_CHECKING:
    from microstep.training.trainer import Trainer

log = logging.getLogger(__name__)
COMPARED = ("data", "source", "versions", "deterministic")  #: facts of a run that all of its processes must share
END_SECONDS = 5.0  #: seconds that a helper may take to end


Connect = Callable[["Trainer"], AbstractContextManager[None]]  #: connects a trainer with its helpers in a context


class Helpers:
    """The helpers of one run, as rank 0 sees them."""

    def __init__(self, world: World, resume_command: str) -> None:
        self.rendezvous = Rendezvous(world) if world.launcher == "train" else meet(world)
        self.world, self.number, self.remedy = world, self.rendezvous.jobs, f"resume it with {resume_command}"
        self.rendezvous.jobs += 1
        ranks = range(1, world.size) if world.launcher == "train" else ()
        self.started = {rank: start_helper(rank, world.size, self.rendezvous.store.port) for rank in ranks}

    def name(self, what: str, rank: int) -> str:
        return f"{what}/{self.number}/{rank}"

    def hand_out(self, job: Mapping[str, Any]) -> None:
        """Hand out the job, and wait until all helpers have built their components."""
        self.rendezvous.set(self.name("job", 0), job)
        self.rendezvous.wait([self.name("ready", rank) for rank in range(1, self.world.size)], self.check)

    def check(self) -> None:
        if (failure := self.find_reported()) is not None:
            raise failure

    def find_reported(self) -> ProcessLost | None:
        """Return the error of the first helper that has reported a failure, or has ended before the run."""
        for rank in range(1, self.world.size):
            ended = self.started[rank].poll() if rank in self.started else None
            if (failure := self.rendezvous.get(self.name("failure", rank))) is not None:
                log.error("rank %d failed: %s", rank, failure["traceback"])
                return ProcessLost(f"rank {rank}", failure["error"], self.remedy)
            if ended is not None:
                return ProcessLost(f"rank {rank}", describe_exit(ended), self.remedy)
        return None

    def find_failure(self, error: Exception) -> ProcessLost:
        """Return why the connection to the helpers is broken."""
        if (failure := self.find_reported()) is not None:
            return failure
        silent = self.rendezvous.find_silent()
        reason = "its process died" if silent else f"the connection broke: {str(error).splitlines()[0]}"
        return self.find_reported() or ProcessLost(f"rank {silent[0] if silent else 'unknown'}", reason, self.remedy)

    def announce_end(self) -> None:
        self.rendezvous.set(self.name("closed", 0), True)

    def end(self) -> None:
        """Wait until the started helpers end, and kill those that don't."""
        for process in self.started.values():
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def start_helper(rank: int, size: int, port: int) -> "subprocess.Popen[bytes]":
    world = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MASTER_ADDR": "127.0.0.1"}
    environment = {**os.environ, **{name: str(value) for name, value in world.items()}, **paths}
    command = [sys.executable, "-m", "microstep.training.helper"]
    environment |= {"MICROSTEP_LAUNCHER": "train", "TORCH_CPP_LOG_LEVEL": "ERROR"}  # without C++'s warnings
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


@cache
def meet(world: World) -> Rendezvous:
    """Return the store of the processes that a launcher has started. They take part in every run of this process."""
    PendingSignal.is_repeated = True
    return Rendezvous(world)


def end_helpers(world: World) -> None:
    """Tell the helpers that a launcher has started that no run follows."""
    rendezvous = meet(world)
    rendezvous.set(f"job/{rendezvous.jobs}/0", None)


def describe_job(
    config: DictConfig, components: Components, identity: Mapping[str, Any], run_dir: Path
) -> dict[str, Any]:
    """Return what a helper builds the same experiment from, and what it compares its own data and versions with."""
    run = identity["run"]
    return {
        "config": OmegaConf.to_container(config, resolve=True),
        "precision": {"dtype": run["precision"]["dtype"], "name": components.precision.name},
        "metadata": identity["metadata"],
        "same": {name: run[name] for name in COMPARED},
        "command": resume_command(run_dir),
    }


def resume_command(run_dir: Path) -> str:
    return f"{called('train')} resume={shlex.quote(display_path(run_dir))}"


def build_strategy(
    config: DictConfig, allowlist: Allowlist = ALLOW_ALL, connection: Connection | None = None
) -> Strategy:
    if not is_canonical(config):
        return build_component(config, "strategy", Strategy, allowlist, connection=connection)
    strategy = DataParallel(connection)
    strategy.sum_type = TreeSum
    return strategy


def run_alone(trainer: "Trainer") -> AbstractContextManager[None]:
    """Run without helpers."""
    return nullcontext()


@contextmanager
def connect_helpers(
    trainer: "Trainer", world: World, job: Mapping[str, Any], make_strategy: Callable[..., Strategy]
) -> Iterator[None]:
    """Start the helpers, let them build the job's experiment and load the trainer's state, and train with them."""
    helpers, connection = Helpers(world, job["command"]), None
    try:
        helpers.hand_out(job)
        store = PrefixStore(f"run-{helpers.number}", helpers.rendezvous.store)
        connection = Connection(store, 0, world.size, trainer.components.device, helpers.find_failure)
        trainer.loaders.strategy = make_strategy(connection=connection)
        trainer.strategy.broadcast(serialize_state(snapshot(trainer.state_dict())))
        yield
    finally:
        helpers.announce_end()
        if connection is not None:
            connection.close()
        helpers.end()
