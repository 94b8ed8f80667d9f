"""The pooled report of folds: each sample is predicted once a repeat, by a run that was not trained on it."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from microstep import write_summary
from microstep.errors import ConfigError, DataError
from microstep.sweep.out_of_fold import write_out_of_fold, write_suspects
from tests.conftest import call

WORDS = ("model=mlp", "model.hidden=[8]", "scheduler=constant", "threads=1", "progress=false", "sweep=s")
REPEATED = ("dataset.folds=2", "dataset.fold=0,1", "dataset.repeats=2")
FIRST_IS_BEST = ("epochs=2", "monitor=min:accuracy")


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("folds")
    done = call("train.py", "-m", *REPEATED, *WORDS, *FIRST_IS_BEST, cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    return home / "outputs/sweeps/s"


@pytest.fixture
def copy(sweep: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sweep, tmp_path / "s")


def test_each_sample_is_predicted_once_a_repeat(sweep: Path) -> None:
    """The rows are those of the folds' reports with the last weights, and the summary tells their accuracy."""
    found = rows(sweep / "reports/out_of_fold/predictions.csv")
    for repeat in "01":
        assert len({row["index"] for row in found if row["repeat"] == repeat}) == len(found) / 2 == 1617
    for run in sweep.glob("dataset.*"):
        fold, repeat = (run.name.split("_")[n][-1] for n in (0, 1))
        own = {row["index"]: row["prediction"] for row in found if (row["fold"], row["repeat"]) == (fold, repeat)}
        last, best = (
            {row["index"]: row["prediction"] for row in rows(run / f"reports/{name}/predictions.csv")}
            for name in ("val-last", "val")
        )
        assert own == last != best
    right = np.mean([row["label"] == row["prediction"] for row in found])
    assert f"out of fold, with the last weights, accuracy {right:.4f} over 1,617 samples, 2 times each" in (
        (sweep / "summary.md").read_text().replace("\\", "")
    )


def test_the_report_counts_every_prediction(sweep: Path) -> None:
    """Confusion matrix, scores and suspects are of all folds together."""
    report = sweep / "reports/out_of_fold"
    counts = np.array([[int(cell) for cell in [*row.values()][1:]] for row in rows(report / "confusion_matrix.csv")])
    assert counts.sum() == 2 * 1617
    assert json.loads((report / "classification_report.json").read_text())["macro avg"]["support"] == 2 * 1617
    assert 0 < len(rows(report / "suspects.csv")) == json.loads((report / "pooled.json").read_text())["suspects"]


def test_suspects_are_flipped_labels_by_the_mean_over_repeats(tmp_path: Path) -> None:
    """One label of 40 is wrong; a repeat that doubts another one is outvoted. A row of zeros is no reason to fail."""
    labels = np.arange(40) % 4
    probabilities = np.stack([np.eye(4, dtype=np.float32)[labels] * 0.8 + 0.05] * 3)
    labels = np.where(np.arange(40) == 6, 1, labels)
    probabilities[0, 8], probabilities[:, 9] = np.eye(4)[3], 0
    columns = {"index": np.tile(np.arange(100, 140), 3), "label": np.tile(labels, 3)}
    names, file = ("a", "b", "c", "d"), tmp_path / "suspects.csv"
    assert write_suspects(columns, probabilities.reshape(-1, 4), 40, names, file) == {"suspects": 1}
    (suspect,) = rows(file)
    assert suspect == {
        "index": "106",
        "label": "b",
        "label_probability": "0.050000",
        "suggested": "c",
        "suggested_probability": "0.850000",
    }


def test_without_cleanlab_the_summary_tells_how_to_find_suspects(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the report is written."""
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    write_out_of_fold(copy)
    write_summary(copy, html=False)
    assert not (copy / "reports/out_of_fold/suspects.csv").exists()
    assert "pip install 'microstep[labels]' to find labels" in (copy / "summary.md").read_text().replace("\\", "")


def test_a_report_that_is_missing_is_written_by_the_command_that_is_named(copy: Path) -> None:
    """evaluate.py writes the report and the probabilities of the last weights again."""
    before, run = (copy / "reports/out_of_fold/suspects.csv").read_bytes(), copy / "dataset.fold-0_dataset.repeat-1"
    shutil.rmtree(run / "reports/val-last")
    with pytest.raises(DataError, match=r"is missing.*evaluate\.py run=.* split=val checkpoint=last writes it"):
        write_out_of_fold(copy)
    assert call("evaluate.py", f"run={run}", "split=val", "checkpoint=last", cwd=copy).returncode == 0
    write_out_of_fold(copy)
    assert (copy / "reports/out_of_fold/suspects.csv").read_bytes() == before


def test_folds_of_a_study_or_a_single_fold_are_not_pooled(copy: Path) -> None:
    """Repeats of a trial are no report, and neither is a fold that all runs share."""
    index = copy / "sweep.json"
    content = json.loads(index.read_text())
    shutil.rmtree(copy / "reports")
    index.write_text(json.dumps(content | {"study": {"kind": "search"}}))
    write_out_of_fold(copy)
    index.write_text(json.dumps(content | {"jobs": {k: v for k, v in content["jobs"].items() if "fold-0" in k}}))
    write_out_of_fold(copy)
    assert not (copy / "reports").exists()


def test_a_missing_fold_is_named_instead(copy: Path) -> None:
    """Without it there is no pooled report, and the summary says so."""
    shutil.rmtree(copy / "reports")
    file = copy / "dataset.fold-1_dataset.repeat-0/run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "status": "failed"}))
    write_out_of_fold(copy)
    write_summary(copy, html=False)
    assert not (copy / "reports").exists()
    told = "no pooled report, because it lacks fold 1 of repeat 0, seed 0 (failed)"
    assert told in (copy / "summary.md").read_text().replace("\\", "")


def test_a_report_of_before_a_sweep_was_widened_is_removed(copy: Path) -> None:
    """With another setting each has a directory of its own, and none is left without a name."""
    index = copy / "sweep.json"
    content = json.loads(index.read_text())
    for name, job in [*content["jobs"].items()]:
        shutil.copytree(copy / name, copy / f"wide-{name}")
        file = copy / f"wide-{name}" / "run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"experiment_hash": f"wide {name}"}))
        content["jobs"][f"wide-{name}"] = {"overrides": [*job["overrides"], "model.width=9"]}
        job["overrides"].append("model.width=8")
    index.write_text(json.dumps(content))
    write_out_of_fold(copy)
    assert sorted(path.name for path in (copy / "reports/out_of_fold").iterdir()) == ["model.width-8", "model.width-9"]


def test_a_sample_predicted_twice_is_refused(copy: Path) -> None:
    """Folds that overlap are no folds of one division."""
    one, other = (copy / f"dataset.fold-{fold}_dataset.repeat-0/reports/val-last" for fold in (0, 1))
    shutil.rmtree(one)
    shutil.copytree(other, one)
    with pytest.raises(DataError, match="do not predict the same samples, each once"):
        write_out_of_fold(copy)


def test_nothing_is_written_or_removed_through_a_link(copy: Path, tmp_path: Path) -> None:
    """A report's directory that leads elsewhere is refused."""
    elsewhere = tmp_path / "elsewhere"
    (copy / "reports/out_of_fold").rename(elsewhere)
    before = {file.name: file.read_bytes() for file in elsewhere.iterdir()}
    (copy / "reports/out_of_fold").symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="a link leads out of the sweep; replace it by a copy"):
        write_out_of_fold(copy)
    assert {file.name: file.read_bytes() for file in elsewhere.iterdir()} == before


@pytest.mark.parametrize("content", ["pickled", "other", "empty", "not finite"])
def test_probabilities_of_others_are_refused(copy: Path, content: str) -> None:
    """No object is unpickled; an array of another shape or beyond 0…1 is no error of ours."""
    file = copy / "dataset.fold-0_dataset.repeat-1/reports/val-last/probabilities.npz"
    with np.load(file) as arrays:
        index, probabilities = arrays["index"], arrays["probabilities"]
    changed = {
        "pickled": np.array([Touch(copy / "touched")]),
        "other": probabilities[:, 1:],
        "not finite": probabilities * np.nan,
    }
    file.write_bytes(b"") if content == "empty" else np.savez(file, index=index, probabilities=changed[content])
    with pytest.raises(DataError):
        write_out_of_fold(copy)
    assert not (copy / "touched").exists()


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_scores_of_other_tasks_are_pooled(tmp_path: Path, task: str) -> None:
    """A table's rows are scored once a repeat, with its whole group in one fold."""
    generator = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    column, target = {"regression": ("target", "{}.5"), "multilabel": ("labels", "a|b{}")}[task]
    lines = [f"{number}.png,{target.format(number % 3)},{number // 3}" for number in range(24)]
    (tmp_path / "table.csv").write_text(f"path,{column},group\n" + "\n".join(lines) + "\n")
    data = ("dataset=table", "dataset.file=table.csv", "dataset.size=8", f"dataset.{column}={column}", f"task={task}")
    words = (*data, "dataset.folds=3", "dataset.fold=0,1,2", "epochs=1", "batch_size=4")
    done = call("train.py", "-m", *words, *WORDS, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    report = tmp_path / "outputs/sweeps/s/reports/out_of_fold"
    pooled, found = json.loads((report / "pooled.json").read_text()), rows(report / "scores.csv")
    name = pooled["metric"].removeprefix("mean ")
    assert pooled["samples"] == len({row["index"] for row in found}) == len(found)
    assert pooled["score"] == pytest.approx(np.mean([float(row[name]) for row in found]), abs=1e-6)
