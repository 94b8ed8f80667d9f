"""Values that loggers receive, and the `Logger` protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from microstep.types.data import Report


@dataclass(frozen=True, slots=True)
class WindowReport:
    """Values of one optimizer step, logged every `log_every_steps`."""

    window: int  #: number in the run, including skipped windows
    loss: float
    lr: float
    grad_norm: float  #: before clipping
    loss_scale: float
    skipped_steps: int  #: in the run so far
    samples_per_second: float  #: since the last report
    data_wait_fraction: float  #: share of that time


@dataclass(frozen=True, slots=True)
class EpochReport:
    """Values of one epoch of training and validation."""

    epoch: int
    epochs: int
    optimizer_steps: int
    samples_seen: int
    skipped_steps: int
    train: Mapping[str, float]
    val: Mapping[str, float]
    lr: float
    samples_per_second: float  #: of training alone
    seconds: float  #: of training and validation
    best: bool  #: the checkpoint is the best so far
    monitor: str = ""  #: metric that chooses the best
    stopped: str | None = None  #: why the run ends with this epoch, if it is not the last

    @property
    def shown_val(self) -> dict[str, float]:
        """The first two validation metrics and the monitored one."""
        return {name: self.val[name] for name in self.val if name in [*list(self.val)[:2], self.monitor]}


@dataclass(frozen=True)
class SplitResult:
    """Metrics and report of the best checkpoint on a split."""

    metrics: Mapping[str, float]
    report: Report = field(repr=False)


@dataclass(frozen=True)
class Results:
    """Results of a finished run."""

    run_dir: Path
    best_epoch: int
    optimizer_steps: int
    skipped_steps: int
    samples_seen: int
    train_seconds: float
    peak_memory_bytes: int | None  #: since `fit` began, of the GPU or the process; None if unknown
    saving: SavingCost
    splits: Mapping[str, SplitResult]  #: `val`, and `test` if the data have it
    compiling: Mapping[str, float] = field(default_factory=dict)  #: first_windows, first_seconds, later_seconds

    @property
    def val(self) -> Mapping[str, float]:
        """The validation metrics of the best checkpoint."""
        return self.splits["val"].metrics

    @property
    def test(self) -> Mapping[str, float]:
        """The test metrics of the best checkpoint; empty if the data have no test split."""
        return self.splits["test"].metrics if "test" in self.splits else {}


class Logger(Protocol):
    """Receives the events of a run. It must write immediately, because checkpoints record the size of logs."""

    def window(self, report: WindowReport) -> None: ...

    def epoch(self, report: EpochReport) -> None: ...

    def finish(self, results: Results) -> None: ...

    def close(self, error: BaseException | None) -> None:
        """Close the logger; called once. `error` is the exception that ended the run early, if any."""


@dataclass
class SavingCost:
    """Cost of saving checkpoints so far."""

    saves: int = 0
    bytes: int = 0  #: size of the last checkpoint
    pause_seconds: float = 0.0  #: time in which training was paused
    write_seconds: float = 0.0  #: time of the second thread
