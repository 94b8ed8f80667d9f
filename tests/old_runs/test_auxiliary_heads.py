"""Runs of GoogLeNet from before `model.aux_logits` have auxiliary heads in their checkpoints, and keep working."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig, open_dict

from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import compose
from microstep.config.experiment import extract_experiment
from microstep.evaluation.evaluate import evaluate_run
from microstep.run.resume import plan_auto_resume
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from microstep.utils.progress_bar import ProgressBars

SIZES = ("samples=8", "val_samples=4", "test_samples=4", "classes=2", "size=16")
DATA = ("dataset=synthetic", *(f"dataset.{size}" for size in SIZES), "batch_size=4")
WORDS = (*DATA, "model=torchvision", "scheduler=constant", "threads=1", "progress=false")
GOOGLENET = (*WORDS, "model.name=googlenet")


def compose_old(*words: str) -> DictConfig:
    """Return the config that 0.1.0 composed."""
    config = compose(words)
    with open_dict(config):
        del config.model.aux_logits
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("old") / "run"
    build_trainer(compose_old(*GOOGLENET, "epochs=1"), directory).fit()
    return directory


def test_a_run_with_auxiliary_heads_is_evaluated_and_resumed(run: Path) -> None:
    """Its config lacks the key, so the model has the heads that its checkpoint has."""
    assert "aux_logits" not in (run / "config.yaml").read_text()
    assert evaluate_run(run, "test", "best", ALLOW_ALL, None, ProgressBars(False)).epoch == 1
    trainer = resume(run, ["epochs=2"])
    assert any("aux1" in name for name in trainer.model.state_dict())
    assert trainer.fit().optimizer_steps == 2


def test_resume_auto_keeps_the_heads(run: Path) -> None:
    """Today's command resumes the run with the model of its own config."""
    plan = plan_auto_resume(run, compose([*GOOGLENET, "epochs=3"]), ALLOW_ALL)
    assert "aux_logits" not in plan.config.model


@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_the_key_at_its_default_changes_no_hash(name: str) -> None:
    """A run has the hash that it had before the key was added. The heads, which no loss used, change no outputs."""
    words = [*WORDS, f"model.name={name}"]
    assert extract_experiment(compose(words)) == extract_experiment(compose_old(*words))
