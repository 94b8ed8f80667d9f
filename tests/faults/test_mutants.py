"""Planted bugs that the tests of a resume within an epoch must catch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from microstep.components.precision import TorchPrecision
from microstep.components.task.classification.metrics import ClassificationMetrics
from microstep.config.compose import compose
from microstep.training import loaders, training_loop
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from microstep.utils.randomness import reseed
from tests.faults.interruptions import stop_at
from tests.faults.runs import differences

WORDS = (
    *("model=mlp", "model.dropout=0.3", "threads=1", "progress=false", "epochs=3", "augment=crop_flip"),
    *("precision=fp16", "precision.init_scale=1e7", "precision.growth_interval=4"),
)
STOPPED = 30  #: the window of the run after which it is stopped: in the second epoch
Mutant = Callable[[pytest.MonkeyPatch], None]


def no_reseed_by_step(patch: pytest.MonkeyPatch) -> None:
    """Seed the generators only once an epoch."""

    def once(device: torch.device, *key: int) -> None:
        if key[-1] == 0:
            reseed(device, *key)

    patch.setattr(training_loop, "reseed", once)
    patch.setattr(loaders, "reseed", once)


def scaler_not_saved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TorchPrecision, "state_dict", lambda self: {})


def sums_not_saved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ClassificationMetrics, "load_state_dict", lambda self, state: None)


def schedule_not_loaded(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.optim.lr_scheduler.LambdaLR, "load_state_dict", lambda self, state: None)


def momentum_not_loaded(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.optim.Optimizer, "load_state_dict", lambda self, state: None)


def logs_not_cut(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("microstep.training.resume.truncate_logs", lambda *_: None)


MUTANTS: tuple[Mutant, ...] = (
    *(no_reseed_by_step, scaler_not_saved, sums_not_saved),
    *(schedule_not_loaded, momentum_not_loaded, logs_not_cut),
)


def interrupted_and_resumed(run: Path, killed: bool = False) -> Path:
    """Return a run that was stopped within an epoch, or set back to its last checkpoint, and then resumed."""
    built = build_trainer(compose([*WORDS, "checkpoint.every_steps=7"]), run)
    stop_at(built, STOPPED, lost=killed)
    resume(run).fit()
    return run


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """An uninterrupted run."""
    build_trainer(compose([*WORDS, "checkpoint.every_steps=7"]), tmp_path / "whole").fit()
    return tmp_path / "whole"


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "lost"])
def test_without_a_bug_the_run_is_the_same(whole: Path, tmp_path: Path, killed: bool) -> None:
    """Stopped by a signal within an epoch, or set back to its last checkpoint, it ends with the same bits."""
    assert differences(interrupted_and_resumed(tmp_path / "resumed", killed), whole) == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_each_planted_bug_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: Mutant, request: pytest.FixtureRequest
) -> None:
    """The comparison above fails for each of them."""
    with monkeypatch.context() as patch:
        mutant(patch)
        whole = request.getfixturevalue("whole")
        resumed = interrupted_and_resumed(tmp_path / "resumed", killed=mutant is logs_not_cut)
    assert differences(resumed, whole)
