"""Recipes in conf/experiment train as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from microstep.config.compose import compose
from microstep.training.build import build_trainer

PARTS = ("sampler", "augment", "step", "gradient", "average", "scheduler", "stop", "precision")


@pytest.mark.parametrize("model", ["mlp", "small_cnn"])
def test_debug_trains_any_model_with_every_part_on(model: str, tmp_path: Path) -> None:
    """It ends within seconds, and each part is another one than by default."""
    config = compose(["experiment=debug", f"model={model}", "threads=1", "progress=false"])
    assert all(config[part]._target_ != compose()[part]._target_ for part in PARTS)
    build_trainer(config, tmp_path / "run").fit()
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "finished"
