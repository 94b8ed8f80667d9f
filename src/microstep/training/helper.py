"""Runs a helper's part of a run. It computes its share of each window and of each evaluation, and writes nothing."""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from traceback import format_exc
from typing import Any, NoReturn, cast

import torch
from omegaconf import DictConfig, OmegaConf
from torch.distributed import DistError, PrefixStore  # type: ignore[attr-defined]

from microstep.components.model.metadata import parse_normalization
from microstep.components.strategy.connection import Connection
from microstep.config.schema import TrainConfig
from microstep.errors import DataError, MicrostepError, ProcessLost, Pruned, Stopped, format_error
from microstep.run.checkpoints.checkpoints import CheckpointSchedule
from microstep.run.progress import Progress
from microstep.training.builders import build_components
from microstep.training.evaluation_loop import evaluate
from microstep.training.monitoring import LoggerCollection
from microstep.training.optimization import build_optimization
from microstep.training.periods import Periods
from microstep.training.processes import COMPARED, build_strategy, end_helpers
from microstep.training.provenance import compute_identity
from microstep.training.rendezvous import Rendezvous
from microstep.training.trainer import Trainer
from microstep.types.data import StepResult
from microstep.types.events import Results
from microstep.types.protocols import Strategy
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.signals import STOP_SIGNALS, PendingSignal
from microstep.utils.terminal import silenced
from microstep.utils.world import World, find_world


class HelperTrainer(Trainer):
    """Trains with rank 0, step by step. It neither saves nor reports."""

    def after_window(self, result: StepResult) -> None:
        """Log and save nothing."""

    def save(self, best: bool = False) -> None:
        """Save nothing."""

    @contextmanager
    def save_when_stopped(self) -> Iterator[None]:
        yield

    def conclude(self, memory: object) -> Results:
        """Evaluate this rank's share of the splits with the weights that rank 0 reports on."""
        for splits in self.components.reports.values():
            self.model.load_state_dict(self.strategy.broadcast(None))
            for split in splits:
                metrics = self.task.metrics()
                evaluate(self.model, self.components, self.batches(split, metrics), metrics)  # not the last average
        return cast(Results, None)


class Helper:
    """A process that takes part in the runs of rank 0."""

    def __init__(self, world: World) -> None:
        self.world, self.number, self.command = world, 0, ""
        self.rendezvous = Rendezvous(world, self.lose_store)

    def name(self, what: str, rank: int) -> str:
        return f"{what}/{self.number}/{rank}"

    def serve(self) -> None:
        """Take part in each run until rank 0 ends."""
        for self.number in count():
            (job,) = self.rendezvous.wait([self.name("job", 0)])
            if job is not None:
                self.take_part(job)
            if job is None or self.world.launcher == "train":
                break
        self.rendezvous.close()
        self.rendezvous.set(f"left/{self.world.rank}", True)

    def take_part(self, job: Mapping[str, Any]) -> None:
        self.command = job["command"]
        try:
            build_trainer(job, self.world, self.connect).fit()
        except (Stopped, Pruned):
            return  # rank 0 saves and reports
        except Exception as error:
            if self.rendezvous.get(self.name("closed", 0)) is None:
                report = {"error": format_error(error), "traceback": format_exc()}
                self.rendezvous.set(self.name("failure", self.world.rank), report)

    @contextmanager
    def connect(self, trainer: Trainer, make_strategy: Callable[..., Strategy]) -> Iterator[None]:
        self.rendezvous.set(self.name("ready", self.world.rank), True)
        self.rendezvous.wait([self.name("start", 0)], self.check)
        store = PrefixStore(f"run-{self.number}", self.rendezvous.store)
        rank, size, device = self.world.rank, self.world.size, trainer.components.device
        connection = Connection(store, rank, size, device, self.find_failure)
        try:
            trainer.loaders.strategy = make_strategy(connection=connection)
            content = io.BytesIO(trainer.strategy.broadcast(None))
            state = torch.load(content, map_location="cpu", weights_only=True)
            trainer.load_state_dict(state, Progress(**state["progress"]))
            yield
        finally:
            connection.close()

    def find_failure(self, error: Exception) -> MicrostepError:
        """Return the error of a broken connection as soon as rank 0 has reported why it broke, or has died."""
        try:
            self.rendezvous.wait([self.name("closed", 0)], self.check)
        except DistError:
            self.leave()
        return ProcessLost("connection", str(error).splitlines()[0], "see rank 0")

    def check(self) -> None:
        """Leave if rank 0 has died. Raise ProcessLost if it has ended the run."""
        if 0 in self.rendezvous.find_silent():
            self.leave()
        if self.rendezvous.get(self.name("closed", 0)) is not None:
            raise ProcessLost("rank 0", "it has ended the run", "see its error")

    def lose_store(self) -> None:
        """Leave if rank 0 held the store. If torchrun did, rank 0 is alive: stop with it at the same window."""
        if self.world.launcher == "torchrun":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.leave()

    def leave(self) -> NoReturn:
        """End this process, since rank 0 is gone. The first helper tells the user how to go on."""
        if self.command and self.world.rank == 1:
            print(f"error: rank 0: its process died; resume it with {self.command}", file=sys.stderr, flush=True)
        os._exit(1)


def build_trainer(
    job: Mapping[str, Any], world: World, connect: Callable[..., AbstractContextManager[None]]
) -> HelperTrainer:
    """Build the components of a job. Raise DataError if data, source or versions differ from those of rank 0."""
    config = OmegaConf.merge(OmegaConf.structured(TrainConfig), job["config"])
    assert isinstance(config, DictConfig)
    if torch.cuda.is_available():
        torch.cuda.set_device(world.local_rank % torch.cuda.device_count())
    precision, normalization = job["precision"], parse_normalization(job["metadata"])
    saved = {"saved_dtype": precision["dtype"], "saved_name": precision["name"], "normalization": normalization}
    components = build_components(config, new_run=False, local_processes=world.core_shares, **saved)
    check_same(job["same"], compute_identity(config, components, files={}))
    optimization = build_optimization(config, components)
    loggers = LoggerCollection(ProgressBars(False), (), config.log_every_steps)
    connected = partial(connect, make_strategy=partial(build_strategy, config))
    nothing, schedule, periods = cast(Any, None), CheckpointSchedule(), Periods.of(config, components.steps)
    return HelperTrainer(components, optimization, nothing, loggers, schedule, {}, nothing, Path(), periods, connected)


def check_same(rank_0: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    for name in COMPARED:
        if own[name] != rank_0[name]:
            reason = f"its {name} differ from those of rank 0: {own[name]}, not {rank_0[name]}"
            raise DataError(name, reason, "let all processes read the same data, source and packages")


def remember_signal(signum: int, _frame: object) -> None:
    PendingSignal.signum = PendingSignal.signum or signum


def main(world: World) -> int:
    """Run the process of a helper."""
    for number in STOP_SIGNALS:
        signal.signal(number, remember_signal)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    with silenced(), suppress(Stopped, DistError):
        Helper(world).serve()
    return 0


@contextmanager
def joined(world: World) -> Iterator[None]:
    """Take part in rank 0's runs until that ends, and exit. As rank 0, run the block, then end the others."""
    if world.rank:
        sys.exit(main(world))
    try:
        yield
    finally:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        end_helpers(world)


if __name__ == "__main__" and (own_world := find_world()):
    sys.exit(main(own_world))
