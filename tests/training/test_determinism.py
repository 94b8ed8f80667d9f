"""An operation without a deterministic form ends a run, a check or an evaluation in one line."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import pytest
import torch
from torch import Tensor, nn

from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import compose
from microstep.diagnostics.check import run_check
from microstep.errors import ConfigError
from microstep.evaluation.evaluate import evaluate_run
from microstep.evaluation.predict import predict_input
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import error_of, fit

LINE = (
    "deterministic=true: torch's put_ has no deterministic form; "
    "train with deterministic=false, or choose another device or model"
)


class Putting(nn.Sequential):
    """A linear model that copies its inputs by `put_`, in training or in evaluation mode."""

    def __init__(self, inputs: int, classes: int, training: bool) -> None:
        super().__init__(nn.Flatten(), nn.Linear(inputs, classes))
        self.puts = training

    def forward(self, images: Tensor) -> Tensor:
        if self.training == self.puts:
            images = torch.empty_like(images).put_(torch.arange(images.numel()), images)
        return super().forward(images)


def put_in_training(input_shape: Sequence[int], num_classes: int, width: int) -> nn.Module:
    return Putting(prod(input_shape), num_classes, True)


def put_in_evaluation(input_shape: Sequence[int], num_classes: int, width: int) -> nn.Module:
    return Putting(prod(input_shape), num_classes, False)


def words(name: str) -> list[str]:
    return [f"model._target_=tests.training.test_determinism.{name}", "epochs=1", "scheduler=constant"]


@pytest.mark.parametrize("name", ["put_in_training", "put_in_evaluation"])
def test_a_run_names_the_operation_and_the_key(zygote, name, tmp_path):
    """Exit code 2, one line, and no directory left behind; with deterministic=false it trains."""
    refused = zygote.call("train.py", *words(name), cwd=tmp_path)
    assert (refused.returncode, error_of(refused)) == (2, f"error: {LINE}")
    assert not (tmp_path / "outputs").exists()
    assert fit([*words(name), "deterministic=false"], tmp_path / "run").optimizer_steps == 23


@pytest.mark.parametrize("check", ["accumulation", "precision"])
def test_a_check_names_them_too(check, tmp_path):
    """A check takes steps of its own."""
    config = compose([*words("put_in_training"), f"check={check}", "accum=2", "threads=1"])
    with pytest.raises(ConfigError, match="put_ has no deterministic form"):
        run_check(config, tmp_path)


def test_an_evaluation_names_them_too(tmp_path, photos):
    """A run that was trained without the operation may meet it later, as on another device."""
    run = tmp_path / "run"
    photo_words = ["dataset=image_folder", f"dataset.root={photos}", "dataset.size=8", "batch_size=8"]
    fit([*words("put_in_evaluation"), *photo_words, "deterministic=false"], run)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("deterministic: false", "deterministic: true"))
    for call in (
        lambda: evaluate_run(run, "test", "best", ALLOW_ALL, None, ProgressBars(False)),
        lambda: predict_input(run, str(photos / "test"), "best", ALLOW_ALL, None, ProgressBars(False)),
    ):
        with pytest.raises(ConfigError, match="put_ has no deterministic form"):
            call()
