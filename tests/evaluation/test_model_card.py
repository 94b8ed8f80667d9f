"""`evaluate.py export=card`: the README.md that the Hugging Face hub shows beside a run's weights."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy.stats import binomtest

from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import compose
from microstep.errors import CheckpointRefused, ConfigError
from microstep.evaluation.model_card import write_card
from microstep.training.build import build_trainer
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import ROOT, error_of
from tests.evaluation.test_export import TASKS


def card_of(run: Path, split: str = "test") -> tuple[dict[str, Any], str]:
    """Write a card; return its metadata and its Markdown."""
    file, _ = write_card(run, split, ALLOW_ALL, ProgressBars(False), {})
    assert file == run / "README.md"
    empty, front, text = file.read_text().split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), text


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the finished run, alone in its directory."""
    return shutil.copytree(trained, tmp_path / "run")


def test_the_metadata_are_those_of_the_hub(run):
    """What the hub's specification requires is there, with the metrics of the run's report."""
    about, _ = card_of(run)
    assert (about["library_name"], about["pipeline_tag"]) == ("microstep", "image-classification")
    assert (about["datasets"], about["metrics"]) == (["digits"], ["accuracy", "f1", "nll"])
    ((model,), record) = about["model-index"], json.loads((run / "run.json").read_text())
    (result,) = model["results"]
    assert (result["task"], result["dataset"]["type"]) == ({"type": "image-classification"}, "digits")
    assert (result["dataset"]["name"], result["dataset"]["split"]) == ("digits", "test")
    found = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert found == pytest.approx({k: v for k, v in record["metrics"]["test"].items() if k != "loss"}, rel=1e-5)
    assert {metric["type"] for metric in result["metrics"]} == {"accuracy", "f1", "nll"}


def test_the_hubs_own_library_reads_the_results(run):
    """huggingface_hub finds the model's name and an evaluation for each metric."""
    hub = pytest.importorskip("huggingface_hub")
    card_of(run)
    data = hub.ModelCard.load(run / "README.md").data
    assert data.model_name == "small_cnn-digits"
    assert [result.metric_name for result in data.eval_results] == ["accuracy", "f1_macro", "f1_weighted", "nll"]


def test_the_accuracy_has_an_interval(run):
    """It is Wilson's, of the images of the split."""
    _, text = card_of(run, "val")
    accuracy = json.loads((run / "run.json").read_text())["metrics"]["val"]["accuracy"]
    ends = binomtest(round(180 * accuracy), 180).proportion_ci(method="wilson")
    assert f"| accuracy | {accuracy:.4f} | {ends.low:.4f} to {ends.high:.4f} |" in text


def test_a_card_tells_data_recipe_and_limits(run):
    """Counts, classes, size, hash and the weakest classes are in it; directories of the machine are not."""
    record = json.loads((run / "run.json").read_text())
    command = "/home/me/.venv/bin/python /home/me/train.py dataset.root=/home/me/photos dataset.file=~/x/labels.csv"
    (run / "run.json").write_text(json.dumps({**record, "command": command}))
    _, text = card_of(run)
    assert "    python train.py dataset.root=photos dataset.file=labels.csv\n" in text
    assert "me" not in text.split()
    assert "- Data: 1,437 train, 180 val, 180 test. Classes: [" in text
    assert "- An input is [1, 8, 8] (channels, height, width). Images are fitted by `crop`." in text
    assert record["experiment_hash"] in text
    report = json.loads((run / "reports" / "test-model" / "classification_report.json").read_text())
    weakest = min("0123456789", key=lambda name: report[name]["f1-score"])
    assert f"Those of the lowest F1: {weakest} {report[weakest]['f1-score']:.2f} (" in text


@pytest.mark.parametrize(
    ("words", "score"),
    [(("task=multilabel", "dataset=labeled_digits"), "f1"), (("task=regression", "dataset=numbered_digits"), "mae")],
)
def test_labels_and_numbers_have_cards(tmp_path, words, score):
    """The mean score of the samples has an interval that contains it."""
    config = compose([*words, "model=mlp", "epochs=1", "threads=1", "progress=false"], Path(TASKS[1]))
    build_trainer(config, tmp_path / "run").fit()
    about, text = card_of(tmp_path / "run")
    assert score in about["metrics"]
    (line,) = (line for line in text.splitlines() if line.startswith("| mean "))
    mean, low, high = map(float, re.findall(r"-?\d+\.\d+", line))
    assert low < mean < high


def test_a_readme_of_the_users_is_kept(run):
    """A README.md that is not a card, or was edited, is not replaced, and a card is."""
    (run / "README.md").write_text("mine")
    with pytest.raises(
        ConfigError, match="you wrote or edited it, and export=card would replace it; move or rename it"
    ):
        card_of(run)
    assert (run / "README.md").read_text() == "mine"
    (run / "README.md").unlink()
    assert card_of(run) == card_of(run)
    edited = (run / "README.md").read_text().replace("tags:", "license: mit\ntags:")
    (run / "README.md").write_text(edited)
    with pytest.raises(ConfigError, match="move or rename it"):
        card_of(run)
    assert (run / "README.md").read_text() == edited
    (run / "README.md").unlink()
    (run / "README.md").symlink_to(ROOT / "README.md")
    with pytest.raises(ConfigError, match="move or rename it"):
        card_of(run)


def test_a_card_needs_weights(run):
    """Without model.safetensors, which a card describes, nothing is written."""
    (run / "model.safetensors").unlink()
    with pytest.raises(CheckpointRefused, match="it is written when a run finishes"):
        card_of(run)
    assert not (run / "README.md").exists()


def test_the_program_writes_a_card(zygote, run, tmp_path):
    """It prints the file and the metrics, with --json as an object; another checkpoint is refused."""
    done = zygote.call("evaluate.py", "run=run", "export=card", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0].split() == ["export", "run/README.md"]
    done = zygote.call("evaluate.py", "run=run", "export=card", "--json", cwd=tmp_path)
    assert set(json.loads(done.stdout)) == {"metrics", "epoch", "directory", "sentence"}
    done = zygote.call("evaluate.py", "run=run", "export=card", "checkpoint=last", cwd=tmp_path)
    refused = "error: checkpoint=last: a card is of model.safetensors, the best; leave it out"
    assert (done.returncode, error_of(done)) == (2, refused)
