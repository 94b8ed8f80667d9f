"""Values that loggers receive, and the `Logger` protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from microstep.types.data import Report


@dataclass(frozen=True, slots=True)
class WindowReport:
    """One optimizer step, told every `log_every_steps`."""

    window: int  #: counted over the whole run, skipped ones included
    loss: float
    lr: float
    grad_norm: float  #: before clipping
    loss_scale: float
    skipped_steps: int  #: so far
    samples_per_second: float  #: since the last report
    data_wait_fraction: float  #: share of that time spent waiting for data


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One epoch: training and validation."""

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
    best: bool


@dataclass(frozen=True)
class SplitResult:
    """A split's metrics and report, of the best checkpoint."""

    metrics: Mapping[str, float]
    report: Report


@dataclass(frozen=True)
class Results:
    """What a finished run came to."""

    run_dir: Path
    best_epoch: int
    optimizer_steps: int
    skipped_steps: int
    samples_seen: int
    train_seconds: float
    peak_memory_bytes: int | None  #: the most held since `fit` began, on the GPU or by the process; None if unknown
    saving: SavingCost
    splits: Mapping[str, SplitResult]  #: `val` and `test`

    @property
    def val(self) -> Mapping[str, float]:
        """The validation metrics of the best checkpoint."""
        return self.splits["val"].metrics

    @property
    def test(self) -> Mapping[str, float]:
        """The test metrics of the best checkpoint."""
        return self.splits["test"].metrics


class Logger(Protocol):
    """Something that is told how a run goes. What it writes it writes at once: a checkpoint notes the size of logs."""

    def window(self, report: WindowReport) -> None: ...

    def epoch(self, report: EpochReport) -> None: ...

    def finish(self, results: Results) -> None: ...

    def close(self, error: BaseException | None) -> None:
        """Called once, however the run ends; `error` is what ended it early."""


@dataclass
class SavingCost:
    """What saving has cost so far."""

    saves: int = 0
    bytes: int = 0  #: of the last one
    pause_seconds: float = 0.0  #: that training stood still
    write_seconds: float = 0.0  #: of a second thread
