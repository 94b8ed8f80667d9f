"""evaluate.py dataset=…: a run is evaluated on other labeled images, which are read and named as its own."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from microstep.components.dataset import Images
from microstep.evaluation.evaluate import match_classes
from tests.components.dataset.tables import CLASSES, grouped, listed
from tests.conftest import error_of
from tests.faults.runs import differences, manifest_of

WORDS = ("dataset=table", "dataset.file=data/labels.csv", "dataset.size=8", "model=mlp", "model.hidden=[8]")
SHORT = ("epochs=2", "batch_size=8", "num_workers=0", "threads=1", "progress=false", "scheduler=constant")


@pytest.fixture(scope="module")
def home(tmp_path_factory, zygote) -> Path:
    """A directory with a table of images, and a run on it."""
    home = tmp_path_factory.mktemp("tables")
    grouped(home / "data")
    done = zygote.call("train.py", *WORDS, *SHORT, "hydra.run.dir=run", cwd=home)
    assert done.returncode == 0, done.stderr
    return home


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_same_rows_have_the_same_predictions(home, zygote):
    """In a table without the third class, of one image each of the others, class numbers and confidences are kept."""
    (known,) = home.glob("run/reports/test/predictions.csv")
    before = known.read_bytes()
    expected = {row["file"]: row for row in rows(known) if row["label"] in ("1", "2")}
    lines = [f"{file},{CLASSES[int(row['label'])]}" for file, row in expected.items()]
    (home / "data" / "other.csv").write_text("\n".join(["path,label", *lines]))
    done = zygote.call("evaluate.py", "run=run", "dataset=table", "dataset.file=data/other.csv", cwd=home)
    assert done.returncode == 0, done.stderr
    assert "run/reports/table-other" in done.stdout
    found = {row["file"]: row for row in rows(home / "run/reports/table-other/predictions.csv")}
    same = [{key: value for key, value in row.items() if key != "index"} for row in found.values()]
    assert same == [{k: v for k, v in expected[file].items() if k != "index"} for file in found]
    assert known.read_bytes() == before


def test_a_folder_is_other_data_too(home, zygote):
    """Its classes are those of the run by name."""
    shutil.copytree(home / "data", home / "more" / "cat", ignore=shutil.ignore_patterns("*.csv"))
    shutil.copytree(home / "more" / "cat", home / "more" / "bee")
    done = zygote.call("evaluate.py", "run=run", "dataset=image_folder", "dataset.root=more", cwd=home)
    assert done.returncode == 0, done.stderr
    labels = [row["label"] for row in rows(home / "run/reports/image_folder-more/predictions.csv")]
    assert labels == ["1"] * 60 + ["2"] * 60


@pytest.mark.parametrize(
    ("header", "cells", "said"),
    [
        ("path,label", ("zebra",), "dataset: the run knows no class zebra; its classes are ant, bee, cat"),
        ("path,target", ("1",), "dataset: its targets are not of the run's kind; "),
        ("path,labels", ("cat",), "dataset: its targets are not of the run's kind; "),
    ],
)
def test_what_a_run_does_not_know_is_refused(home, zygote, header, cells, said):
    """A class of another name, and targets of another kind, end with exit code 2."""
    listed(home / "odd", header, [("a.png", *cells), ("b.png", *cells)])
    done = zygote.call("evaluate.py", "run=run", "dataset=table", "dataset.file=odd/labels.csv", cwd=home)
    assert (done.returncode, error_of(done)[:7]) == (2, "error: ")
    assert said in done.stderr


@pytest.mark.parametrize(
    ("targets", "missing"), [([[0, 1], [1, 0]], 0.0), ([[0, np.nan], [1, 0]], 0.0), ([[0.5, 2], [1, 3]], np.nan)]
)
def test_a_column_that_the_images_lack_is_unknown_unless_it_is_a_label(targets, missing):
    """Other images without one of the run's labels do not have it; of a number that they lack, nothing is known."""
    train = Images(np.zeros((2, 1, 4, 4), np.uint8), np.array(targets, np.float32), ("a", "b"))
    other = Images(np.zeros((2, 1, 4, 4), np.uint8), np.ones((2, 1), np.float32), ("b",))
    np.testing.assert_array_equal(match_classes(other, train), np.array([[missing, 1]] * 2, np.float32))


def test_a_number_with_a_name_is_kept():
    """Targets that are one number each are those of the table, whether the number has a name or not."""
    source = Images(np.zeros((2, 1, 4, 4), np.uint8), np.array([0.5, 7], np.float32), ("age",))
    assert match_classes(source, source).tolist() == [0.5, 7]


def test_a_run_is_on_with_a_moved_table_and_not_with_another_label(home, zygote, tmp_path):
    """The fingerprint stands for the table: `dataset.file` may be set on a resume."""
    shutil.copytree(home / "data", tmp_path / "moved")
    shutil.copytree(home / "run", tmp_path / "run")
    word = "dataset.file=moved/labels.csv"
    done = zygote.call("train.py", "resume=run", "epochs=3", word, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = tmp_path / "moved" / "labels.csv"
    table.write_text(table.read_text().replace("000.png,ant", "000.png,bee"))
    done = zygote.call("train.py", "resume=run", "epochs=4", word, cwd=tmp_path)
    assert done.returncode == 2
    assert "the data have changed since the run" in done.stderr


def test_a_killed_run_is_the_same_run(home, zygote):
    """With workers or without, killed after its first checkpoint or not."""
    words = (*WORDS, *SHORT[1:2], *SHORT[3:], "epochs=40", "dataset.resident=false", "augment=crop_flip")
    assert zygote.run("train.py", *words, "num_workers=0", "hydra.run.dir=whole", cwd=home) == 0
    pid = zygote.start("train.py", *words, "num_workers=2", "hydra.run.dir=killed", cwd=home)
    while not (home / "killed/checkpoints/manifest.json").exists():
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    assert zygote.wait(pid) == -signal.SIGKILL
    assert json.loads((home / "killed/run.json").read_text())["status"] == "running"
    assert zygote.run("train.py", "resume=killed", "num_workers=0", cwd=home) == 0
    assert differences(home / "killed", home / "whole") == []
    assert manifest_of(home / "killed").keys() == manifest_of(home / "whole").keys()


def test_folds_and_seeds_are_repeats_of_one_setting(home, zygote):
    """The summary has one setting over both, and a comparison pairs the runs of a fold and a seed."""
    sweep = ("-m", "dataset.folds=2", "dataset.fold=0,1", "seed=0,1", "optimizer.lr=0.1,0.01", "sweep=s")
    done = zygote.call("train.py", *sweep, *WORDS, *SHORT, cwd=home)
    assert done.returncode == 0, done.stderr
    found = rows(home / "outputs/sweeps/s/summary.csv")
    assert len(found) == 8
    text = (home / "outputs/sweeps/s/summary.md").read_text()
    assert "| 1 | `optimizer.lr=" in text
    assert "over 4 runs" in text
    both = ("run=outputs/sweeps/s/*lr-0.1_*", "baseline=outputs/sweeps/s/*lr-0.01_*")
    done = zygote.call("evaluate.py", *both, cwd=home)
    assert done.returncode == 0, done.stderr
    assert "2 folds, seeds 0, 1" in done.stdout
    done = zygote.call("evaluate.py", *both, "split=val", cwd=home)
    assert done.returncode == 0, done.stderr
    assert "fold" in done.stdout
