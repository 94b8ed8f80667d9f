"""Times told of a run are times at which it was at work."""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter, sleep

import pytest

from microstep.config.compose import compose
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from microstep.training.trainer import Trainer

WORDS = ("model=mlp", "threads=1", "progress=false", "scheduler=constant")
PAUSE = 1.5  #: seconds between building and fitting


def built(run: Path) -> Trainer:
    return build_trainer(compose([*WORDS, "epochs=1"]), run)


def resumed(run: Path) -> Trainer:
    """Return the trainer of a run that goes on for one more epoch."""
    built(run).fit()
    return resume(run, ["epochs=2"])


@pytest.mark.parametrize("begin", [built, resumed])
def test_a_pause_before_fit_is_in_no_time(tmp_path: Path, begin) -> None:
    """Not in the results, run.json, or a checkpoint; nor is it lost that an earlier process has trained."""
    trainer = begin(tmp_path / "run")
    before = trainer.state_dict()["progress"]["seconds"]
    assert before == trainer.progress.seconds
    sleep(PAUSE)
    assert trainer.state_dict()["progress"]["seconds"] == before
    began = perf_counter()
    results = trainer.fit()
    spent = perf_counter() - began
    last = trainer.checkpoints.load("last")["progress"]["seconds"]
    assert before < last < results.train_seconds < before + spent
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["train_seconds"] == round(results.train_seconds, 3)
