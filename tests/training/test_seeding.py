"""Dropout is seeded for each micro-batch. Older versions seeded it for each window."""

from pathlib import Path

import pytest

from microstep.config.compose import compose
from microstep.errors import CheckpointRefused
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from tests.faults.interruptions import stop_at

WORDS = ("model=mlp", "model.hidden=[8]", "threads=1", "progress=false", "epochs=1", "batch_size=16")


def make_old_run(directory: Path, *words: str) -> Path:
    """Return a run that an older version would have left behind in mid-epoch."""
    trainer = build_trainer(compose([*WORDS, *words]), directory)
    run = {name: value for name, value in trainer.identity["run"].items() if name != "seeding"}
    trainer.identity = {**trainer.identity, "run": run}
    stop_at(trainer, windows=7)
    return directory


def test_dropout_of_several_micro_batches_is_refused(tmp_path: Path) -> None:
    """Its masks would be others: the reason is told."""
    run = make_old_run(tmp_path / "run", "model.dropout=0.2", "accum=2")
    with pytest.raises(CheckpointRefused, match="its model has dropout, which this version seeds for each micro-batch"):
        resume(run)


@pytest.mark.parametrize("words", [("model.dropout=0", "accum=2"), ("model.dropout=0.2", "accum=1")])
def test_another_old_run_is_resumed(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Without dropout, or with windows of one micro-batch, it ends like a run that was not stopped."""
    trainer = build_trainer(compose([*WORDS, *words]), tmp_path / "whole")
    trainer.fit()
    run = make_old_run(tmp_path / "run", *words)
    resume(run).fit()
    files = [directory / "model.safetensors" for directory in (tmp_path / "whole", run)]
    assert files[0].read_bytes() == files[1].read_bytes()
