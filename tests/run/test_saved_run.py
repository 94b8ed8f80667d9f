"""A run that was resumed with other values is evaluated, compared and summarized with these."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from microstep.config.allowlist import ALLOW_ALL
from microstep.evaluation.comparison.compare import compare_runs, fetch_flip_images
from microstep.evaluation.comparison.flips import Flip
from microstep.evaluation.comparison.groups import group_runs
from microstep.evaluation.comparison.runs import ReportRequest, read_compared_run
from microstep.evaluation.evaluate import evaluate_run
from microstep.evaluation.predict import predict_input
from microstep.sweep.summary.reading import read_sweep
from microstep.sweep.summary.study import tabulate
from microstep.training.resume import resume
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import fit
from tests.sweep.summary.sweeps import plant_sweep

WORDS = ("dataset=image_folder", "dataset.size=8", "batch_size=16", "model=mlp", "scheduler=constant")


@pytest.fixture(scope="module")
def home(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was resumed to two epochs after its data had moved, and one of two epochs with another seed."""
    home = tmp_path_factory.mktemp("resumed")
    shutil.copytree(photos, home / "old")
    words = (*WORDS, f"dataset.root={home / 'old'}")
    fit([*words, "epochs=1"], home / "resumed")
    fit([*words, "epochs=2", "seed=1"], home / "whole")
    (home / "old").rename(home / "new")
    resume(home / "resumed", ["epochs=2", f"dataset.root={home / 'new'}"]).fit()
    return home


def test_a_run_whose_data_moved_is_evaluated_on_the_new_path(home: Path) -> None:
    """evaluate.py reads the data from the new path; it has no key for it."""
    report = home / "resumed" / "reports" / "test" / "predictions.csv"
    before = report.read_bytes()
    report.unlink()
    assert evaluate_run(home / "resumed", "test", "best", ALLOW_ALL, None, ProgressBars(False)).epoch in (1, 2)
    assert report.read_bytes() == before


def test_a_run_whose_data_moved_classifies_images(home: Path, photos: Path) -> None:
    """The same for `input=`."""
    done = predict_input(home / "resumed", str(photos / "test"), "best", ALLOW_ALL, None, ProgressBars(False))
    assert len(done.classified.rows) == 15


def test_a_device_of_a_resume_is_used(trained: Path, tmp_path: Path, photos: Path) -> None:
    """A run that was started on a GPU and resumed on a CPU is evaluated on the CPU."""
    run = shutil.copytree(trained, tmp_path / "run")
    config, record = run / "config.yaml", json.loads((run / "run.json").read_text())
    config.write_text(config.read_text().replace("device: auto", "device: cuda:99"))
    (run / "run.json").write_text(json.dumps(record | {"resumed": [{"overrides": {"device": "cpu"}}]}))
    assert evaluate_run(run, "test", "best", ALLOW_ALL, None, ProgressBars(False)).epoch == 3
    assert (
        len(predict_input(run, str(photos / "test"), "best", ALLOW_ALL, None, ProgressBars(False)).classified.rows)
        == 15
    )


def test_a_run_counts_with_the_epochs_of_its_resume(home: Path) -> None:
    """It differs only in the seed from a run of as many epochs; the path of the data is not part of the setting."""
    record = json.loads((home / "resumed" / "run.json").read_text())
    elsewhere = {"overrides": {"threads": 2, "device": "cpu"}}
    shutil.copytree(home / "resumed", home / "elsewhere")
    changed = record | {"resumed": [*record["resumed"], elsewhere]}
    (home / "elsewhere" / "run.json").write_text(json.dumps(changed))
    for baseline in ("resumed", "elsewhere"):
        asked = ReportRequest("run", "", "test", "best")
        (group,) = group_runs([read_compared_run(home / name, asked, ALLOW_ALL) for name in (baseline, "whole")], "run")
        assert group.seeds == [0, 1]


def test_a_comparison_shows_the_samples_of_a_run_whose_data_moved(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read from the new path."""
    monkeypatch.chdir(home)
    (one,) = compare_runs("whole", "resumed", "test", "best", lambda paths: ALLOW_ALL).comparisons
    images = fetch_flip_images(one, [Flip(index, 0, (0, 0), (0, 0), None) for index in (0, 1)], ALLOW_ALL)
    assert images is not None
    assert images.shape == (2, 3, 8, 8)


def test_a_sweep_counts_a_run_with_the_epochs_of_its_resume(tmp_path: Path) -> None:
    """It is a setting of its own then, not a second seed; a resume on another device changes nothing."""
    resumed = {"1": {"device": "cpu", "threads": 2}, "2": {"epochs": 40}}
    facts = {"resumed": lambda values: [{"overrides": resumed.get(values["seed"], {})}]}
    directory = plant_sweep(tmp_path / "s", {"seed": range(3)}, lambda values: 0.9, **facts)
    for run in directory.glob("seed-*"):
        (run / "config.yaml").write_text("epochs: 20\ndevice: auto\nthreads: null\n")
    study = tabulate(read_sweep(directory))
    assert study.keys == ("epochs", "seed")
    assert {setting.label: len(setting.runs) for setting in study.groups} == {"epochs=20": 2, "epochs=40": 1}
