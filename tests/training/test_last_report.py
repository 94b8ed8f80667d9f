"""The report on a fold with the last weights: the fold has chosen the best ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from microstep import build_trainer, compose
from microstep.config.allowlist import ALLOW_ALL
from microstep.evaluation.comparison.predictions_file import read_predictions
from microstep.evaluation.evaluate import evaluate_run
from microstep.utils.progress_bar import ProgressBars

WORDS = ["model=mlp", "model.hidden=[8]", "epochs=3", "scheduler=constant", "threads=1", "progress=false"]
FOLDS = ["dataset.folds=3", "dataset.fold=1", "monitor=min:accuracy"]  # the first epoch is the best one


@pytest.mark.parametrize("average", [[], ["average=ema", "average.decay=0.9"]])
def test_a_fold_is_also_reported_with_the_last_weights(tmp_path: Path, average: list[str]) -> None:
    """The report is that of evaluate.py checkpoint=last, and its probabilities are those of its predictions."""
    report = tmp_path / "run/reports/val-last"
    assert build_trainer(compose([*WORDS, *FOLDS, *average]), tmp_path / "run").fit().best_epoch < 3
    found, before = read_predictions(report), (report / "predictions.csv").read_bytes()
    with np.load(report / "probabilities.npz", allow_pickle=False) as arrays:
        index, label, probabilities = (arrays[name] for name in ("index", "label", "probabilities"))
    order = np.argsort(index)
    assert (index[order].tolist(), probabilities.shape) == (found.indices.tolist(), (len(index), 10))
    assert label[order].tolist() == found.labels.tolist()
    assert probabilities.argmax(1)[order].tolist() == found.predictions.tolist()
    assert before != (tmp_path / "run/reports/val/predictions.csv").read_bytes()
    (report / "predictions.csv").unlink()
    evaluate_run(tmp_path / "run", "val", "last", ALLOW_ALL, None, ProgressBars(False))
    assert (report / "predictions.csv").read_bytes() == before


def test_other_runs_have_no_such_report(tmp_path: Path) -> None:
    """Without folds, the run ends as ever."""
    build_trainer(compose([*WORDS, "epochs=1"]), tmp_path / "run").fit()
    assert sorted(path.name for path in (tmp_path / "run/reports").iterdir()) == ["test", "val"]
