"""`expected_time=true` tells how long a run will take before it starts."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from microstep.config.compose import compose
from microstep.training.build import build_trainer
from microstep.training.profiling.expected_time import format_expected_time
from microstep.training.trainer import Trainer
from tests.conftest import fit
from tests.faults.runs import differences

WORDS = ("model=mlp", "model.hidden=[8]", "model.dropout=0.2", "threads=1", "progress=false")
PARTS = ("step=sam", "gradient=agc", "average=ema", "accum=2", "precision=amp", "augment=mixup")
ROW = re.compile(r"expected time  ([\d.]+) s, ([\d,]+) ms a step; without validation\n")


@pytest.mark.parametrize("parts", [(), PARTS], ids=["default", "parts"])
def test_the_expected_time_is_printed_first_and_changes_no_bit(parts, tmp_path: Path, capsys) -> None:
    """The row precedes epoch 1; checkpoints and metrics are those of a run without it."""
    fit([*WORDS, *parts, "epochs=2"], tmp_path / "plain")
    assert "expected time" not in capsys.readouterr().out
    fit([*WORDS, *parts, "epochs=2", "expected_time=true"], tmp_path / "told")
    before, _, _ = capsys.readouterr().out.partition("epoch 1/2")
    assert ROW.search(before)
    assert differences(tmp_path / "told", tmp_path / "plain") == []


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return build_trainer(compose([*WORDS, "steps=1000"]), tmp_path / "run")


def test_it_is_the_time_of_a_step_times_their_number(trainer: Trainer) -> None:
    """Steps of 30 milliseconds take 30 seconds a thousand."""
    trainer.optimization = replace(trainer.optimization, step=lambda *_: time.sleep(0.03))
    found = re.fullmatch(r"(\d+) s, (\d+) ms a step; .*", format_expected_time(trainer, budget=0.1))
    assert found is not None
    assert 30 <= int(found[1]) < 45
    assert int(found[2]) == pytest.approx(int(found[1]), abs=1)


def test_a_step_that_fails_does_not_end_the_run(trainer: Trainer) -> None:
    """The reason is given instead: the copy needs memory, and the run itself may have enough."""

    def fail(*_: object) -> None:
        raise MemoryError

    trainer.optimization = replace(trainer.optimization, step=fail)
    assert format_expected_time(trainer) == "not known: a step is out of memory"
