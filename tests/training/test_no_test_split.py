"""Without a test split, a run trains and reports as ever, and each program says in one line that there is none."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.components.dataset.folders import filled
from tests.conftest import error_of, fit

WORDS = ("dataset=image_folder", "dataset.size=8", "dataset.test_fraction=0", "model=mlp", "model.hidden=[8]")
SHORT = ("epochs=1", "batch_size=16", "num_workers=0", "threads=1", "progress=false")
NO_TEST = "split=test: no such split; the options are train, val"


@pytest.fixture(scope="module")
def home(tmp_path_factory, zygote) -> Path:
    """A directory with a folder of images, and a sweep of two runs on it."""
    home = tmp_path_factory.mktemp("no_test")
    filled(home / "data", {"ant": 20, "bee": 30})
    done = zygote.call("train.py", "-m", *WORDS, *SHORT, "dataset.root=data", "seed=0,1", "sweep=s", cwd=home)
    assert done.returncode == 0, done.stderr
    (home / "stdout.txt").write_text(done.stdout)
    return home


def runs(home: Path) -> list[str]:
    return sorted(str(file.parent.relative_to(home)) for file in home.rglob("run.json"))


def test_a_run_ends_with_the_validation_report(home, tmp_path, capsys):
    """The results have validation metrics alone, and the end shows the validation report and says why."""
    results = fit([*WORDS, *SHORT, f"dataset.root={home / 'data'}"], tmp_path)
    shown = capsys.readouterr().out
    assert (results.test, [*results.splits]) == ({}, ["val"])
    assert "test             none: the data have no test split, so the report is of val\n" in shown
    assert (tmp_path / "reports" / "val" / "classification_report.txt").read_text().rstrip() in shown
    assert f"run={tmp_path} split=val\n" in shown
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["val"]
    tags = EventAccumulator(str(tmp_path)).Reload().Tags()
    assert not [tag for kind in ("scalars", "images", "tensors") for tag in tags[kind] if tag.startswith("test")]


def test_the_summary_of_a_sweep_says_so(home):
    """The summary names the missing split, and its table and CSV have no test metrics."""
    (file,) = home.rglob("summary.md")
    assert "- test split: `none`\n" in file.read_text()
    with file.with_name("summary.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["status"] for row in rows] == ["finished", "finished"]
    assert not [name for name in rows[0] if name.startswith("test_")]
    assert "test" not in json.loads((home / runs(home)[0] / "run.json").read_text())["data"]["samples"]


@pytest.mark.parametrize("words", [[], ["baseline"]], ids=["evaluate", "compare"])
def test_evaluate_names_the_splits_that_there_are(home, zygote, words):
    """Evaluating or comparing on test, the default, is one line with exit code 2; on val it works."""
    one, other = runs(home)
    words = [f"run={one}", *(f"{word}={other}" for word in words), "progress=false"]
    refused = zygote.call("evaluate.py", *words, cwd=home)
    assert (refused.returncode, error_of(refused)) == (2, f"error: {NO_TEST}")
    done = zygote.call("evaluate.py", *words, "split=val", cwd=home)
    assert done.returncode == 0, done.stderr
