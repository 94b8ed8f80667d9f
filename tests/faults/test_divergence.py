"""A loss or a gradient that is not finite: no step is taken, and nothing good is overwritten."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from microstep.components.task import Classification
from microstep.config.compose import compose
from microstep.errors import Diverged
from microstep.training.build import build_trainer
from microstep.training.trainer import Trainer
from tests.faults.interruptions import stop_at
from tests.faults.runs import manifest_of, same, state_of

WORDS = ("model=mlp", "threads=1", "progress=false", "epochs=3")
BAD = 30  #: the window of the run that goes wrong: the seventh of the second epoch
Poison = Callable[[Tensor], Tensor]


def infinite_loss(loss: Tensor) -> Tensor:
    """An infinite loss whose gradient is finite."""
    return loss + torch.inf


def nan_loss(loss: Tensor) -> Tensor:
    return loss * torch.nan


def infinite_gradient(loss: Tensor) -> Tensor:
    """A finite loss whose gradient is not."""
    return loss + (loss - loss.detach()).sqrt()


POISONS = (infinite_loss, nan_loss, infinite_gradient)


def poisoned(run: Path, patch: pytest.MonkeyPatch, poison: Poison, *words: str) -> Trainer:
    """Return a trainer whose task goes wrong from a window on."""
    trainer = build_trainer(compose([*WORDS, *words]), run)
    sound = Classification.loss_sum

    def loss_sum(self: Classification, outputs: Tensor, *rest: object) -> Tensor:
        loss = sound(self, outputs, *rest)  # type: ignore[arg-type]
        return poison(loss) if outputs.requires_grad and trainer.progress.windows >= BAD - 1 else loss

    patch.setattr(Classification, "loss_sum", loss_sum)
    return trainer


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("poison", POISONS)
def test_no_step_is_taken_and_no_good_checkpoint_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: Poison, precision: str
) -> None:
    """Exit code 3; weights, optimizer and checkpoints are those of before; run.json says that it failed, and why."""
    words = (f"precision={precision}", "checkpoint.every_steps=4")
    trainer = poisoned(tmp_path / "run", monkeypatch, poison, *words)
    with pytest.raises(Diverged) as caught:
        trainer.fit()
    assert caught.value.exit_code == 3
    assert trainer.progress.optimizer_steps == BAD - 1
    saved = state_of(tmp_path / "run", "last")
    assert saved["progress"]["windows"] == 28
    monkeypatch.undo()
    stop_at(build_trainer(compose([*WORDS, *words]), tmp_path / "sound"), BAD - 1)
    sound = state_of(tmp_path / "sound", "last")
    assert same(dict(trainer.model.state_dict()), dict(sound["model"]))
    assert same(trainer.optimization.optimizer.state_dict(), sound["optimizer"])
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["error"]) == ("failed", str(caught.value))


def test_the_line_names_epoch_step_and_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    """The samples of the window, by their place in the official data: twelve in the line, all of them in the log."""
    trainer = poisoned(tmp_path / "run", monkeypatch, nan_loss)
    with pytest.raises(Diverged) as caught:
        trainer.fit()
    line = str(caught.value)
    assert line.startswith("epoch 2, step 7: the loss (nan) or its gradient (nan) is not finite in fp32, over samples ")
    assert line.endswith(" shows where; the checkpoint of epoch 1 is kept")
    named = [int(n) for n in re.findall(r"\d+", line.partition("over samples ")[2].partition("…")[0])]
    (window,) = [w for w in trainer.loaders.train(2) if w.number == 6]
    indices = torch.cat([batch.indices for batch in window.batches]).tolist()
    assert named == indices[:12]
    assert str(indices) in caplog.text


def test_fp16_skips_and_halves_until_it_is_too_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`precision.max_skipped` windows in a row are skipped, the scale halved each time; one more ends the run."""
    words = ("precision=fp16", "precision.init_scale=1024", "precision.max_skipped=5")
    trainer = poisoned(tmp_path / "run", monkeypatch, infinite_gradient, *words)
    with pytest.raises(Diverged, match="in fp16"):
        trainer.fit()
    assert trainer.progress.skipped_in_a_row == 6
    assert trainer.precision.loss_scale() == 1024 / 2**6
    assert trainer.progress.optimizer_steps == BAD - 1
    assert manifest_of(tmp_path / "run")["last"]["epoch"] == 1
