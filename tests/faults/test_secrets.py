"""A value that a config takes from the environment is stored as the interpolation: no file of a run has the value."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from microstep.config.compose import compose
from microstep.config.experiment import extract_experiment, public_experiment
from tests.conftest import call

SECRET = "correct-horse-battery-staple"
ASKED = "${oc.env:SECRET}"


def holding(directory: Path, word: str) -> list[str]:
    """Return the files below a directory that hold a word, binary ones too."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(directory)) for path in files if word.encode() in path.read_bytes())


def test_no_file_of_a_run_holds_a_secret(tmp_path: Path, idx_files: Path) -> None:
    """Data below a secret path: yaml, JSON, events, checkpoints and log don't tell."""
    (tmp_path / SECRET).symlink_to(idx_files)
    words = ["dataset=fashion_mnist", f"dataset.root={ASKED}", "dataset.val_samples=20", "epochs=1"]
    words += ["model=mlp", "batch_size=16", "dataset.mean=null", "dataset.std=null", "hydra.run.dir=run"]
    done = call("train.py", *words, cwd=tmp_path, SECRET=SECRET)
    assert (done.returncode, done.stderr) == (0, "")
    assert holding(tmp_path / "run", SECRET) == []
    kept = holding(tmp_path / "run", ASKED)
    assert {"config.yaml", "run.json", ".hydra/config.yaml", ".hydra/overrides.yaml"} <= set(kept)
    settings = hparams(tmp_path / "run")
    assert settings["dataset.root"].string_value == ASKED
    assert "accumulation.micro_batches" not in settings  # a reference repeats what stands there already


def hparams(run: Path):
    """Return the settings of the hparams tab's row."""
    events = EventAccumulator(str(run)).Reload()
    content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    return HParamsPluginData.FromString(content).session_start_info.hparams


@pytest.mark.parametrize("text", [ASKED, rf"a\{ASKED}", f"{ASKED}/x ${{accum}}", "${oc.env:NOBODY_SET_THIS,${accum}}"])
def test_what_is_shown_is_what_was_written(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Also behind a reference to it; the experiment's hash is made of the answer all the same."""
    monkeypatch.setenv("SECRET", SECRET)
    config = compose(["dataset=fashion_mnist"])
    config.dataset.root, config.dataset.kind, config.model.width = text, "${dataset.root}", "${accum}"
    shown = public_experiment(config)
    assert (shown["dataset"]["root"], shown["dataset"]["kind"], shown["model"]["width"]) == (text, text, 1)
    assert "sweep" not in shown
    assert extract_experiment(config)["dataset"]["root"] == config.dataset.root
