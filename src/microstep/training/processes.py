"""Starts the other processes of a run and connects rank 0, which is the run, with them. They are its helpers."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from torch.distributed import DistError, PrefixStore  # type: ignore[attr-defined]

from microstep.components.strategy.connection import Connection
from microstep.components.strategy.data_parallel import DataParallel
from microstep.components.strategy.gradient_sums import TreeSum
from microstep.config.allowlist import ALLOW_ALL, Allowlist
from microstep.config.experiment import is_canonical
from microstep.errors import MicrostepError, ProcessLost
from microstep.run.checkpoints.archive import serialize_state, snapshot
from microstep.training.components import Components
from microstep.training.instantiation import build_component
from microstep.training.rendezvous import POLL_SECONDS, SILENT_SECONDS, Rendezvous
from microstep.types.protocols import Strategy
from microstep.utils.signals import STOP_SIGNALS, PendingSignal, describe_exit
from microstep.utils.terminal import run_command
from microstep.utils.world import World

if TYPE_CHECKING:
    from microstep.training.trainer import Trainer

log = logging.getLogger(__name__)
COMPARED = ("data", "source", "versions", "deterministic")  #: facts of a run that all of its processes must share
END_SECONDS = 5.0  #: seconds that helpers may take to end
JOIN_SECONDS = 60.0  #: seconds that they may take to hear of it, if they are still starting


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
        self.rendezvous.set(self.name("start", 0), True)

    def check(self, seconds: float = 10 * SILENT_SECONDS) -> None:
        """Raise ProcessLost if a helper has reported a failure, has ended before the run, or is silent."""
        silent = self.rendezvous.find_silent(seconds)
        for rank in range(1, self.world.size):
            ended = self.started[rank].poll() if rank in self.started else None
            if (failure := self.rendezvous.get(self.name("failure", rank))) is not None:
                log.error("rank %d failed: %s", rank, failure["traceback"])
                raise ProcessLost(f"rank {rank}", failure["error"], self.remedy)
            if ended is not None or rank in silent:
                reason = "its process died" if ended is None else describe_exit(ended)
                raise ProcessLost(f"rank {rank}", reason, self.remedy)

    def find_failure(self, error: Exception) -> ProcessLost:
        """Return why the connection to the helpers is broken, or raise it."""
        with suppress(DistError):  # torchrun held the store, and is gone
            for _ in range(int(2 * SILENT_SECONDS / POLL_SECONDS)):
                self.check(SILENT_SECONDS)
                sleep(POLL_SECONDS)
        return ProcessLost("rank unknown", f"the connection broke: {str(error).splitlines()[0]}", self.remedy)

    def close(self) -> None:
        """End the helpers that have not ended by themselves."""
        until = monotonic() + END_SECONDS
        for process in self.started.values():
            try:
                process.wait(max(0.0, until - monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.world.launcher == "train":
            self.rendezvous.close()


def start_helper(rank: int, size: int, port: int) -> "subprocess.Popen[bytes]":
    world = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "MASTER_ADDR": "127.0.0.1"}
    environment = {**os.environ, **{name: str(value) for name, value in world.items()}, **paths}
    command = [sys.executable, "-P", "-m", "microstep.training.helper"]
    environment |= {"MICROSTEP_LAUNCHER": "train", "TORCH_CPP_LOG_LEVEL": "ERROR"}  # without C++'s warnings
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until the helper handles them
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return process


@cache
def meet(world: World) -> Rendezvous:
    """Return the store of the processes that a launcher has started. They take part in every run of this process."""
    PendingSignal.is_repeated = True
    return Rendezvous(world, partial(os.kill, os.getpid(), signal.SIGTERM))  # the store is gone if torchrun died


def end_helpers(world: World) -> None:
    """Tell the helpers that a launcher has started that no run follows. The holder of the store waits for them."""
    with suppress(MicrostepError, DistError):
        rendezvous = meet(world)
        rendezvous.set(f"job/{rendezvous.jobs}/0", None)
        if world.is_host:
            seconds = END_SECONDS if rendezvous.jobs else JOIN_SECONDS
            rendezvous.store.wait([f"left/{rank}" for rank in range(1, world.size)], timedelta(seconds=seconds))
        rendezvous.close()


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
        "command": run_command("resume", run_dir),
    }


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
        helpers.rendezvous.set(helpers.name("closed", 0), True)
        if connection is not None:
            connection.close()
        helpers.close()
