"""Tests of the metrics that `task.metrics` adds, against scikit-learn."""

from __future__ import annotations

import csv
import json
from math import inf, isnan, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score, top_k_accuracy_score
from torch import Tensor

from microstep.components.task import Classification
from microstep.components.task.classification.metrics import STATE_KEYS, ClassificationMetrics
from microstep.components.task.classification.plots import bin_confidences, expected_calibration_error
from microstep.config.choices import CLASSIFICATION_CHOICES
from microstep.config.compose import compose
from microstep.errors import ConfigError
from tests.conftest import fit

CPU = torch.device("cpu")
EXTRA = ("balanced_accuracy", "top5", "auroc", "nll", "ece")
CASES = st.tuples(st.integers(2, 9), st.integers(0, 20), st.integers(0, 10_000))


def drawn(classes: int, more: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return random logits and labels; every class has a sample."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.cat([torch.arange(classes), torch.randint(0, classes, (more,), generator=generator)])
    return 3 * torch.randn(len(targets), classes, generator=generator), targets


def fed(outputs: Tensor, targets: Tensor, size: int = 1000, names: tuple[str, ...] = EXTRA) -> ClassificationMetrics:
    """Return metrics updated in batches of a size."""
    task = Classification([str(c) for c in range(outputs.shape[1])], targets, CPU, metrics=names)
    metrics = task.metrics()
    for logits, labels in zip(outputs.split(size), targets.split(size), strict=True):
        metrics.update(logits, labels, task.loss_sum(logits, labels))
    return metrics


@given(case=CASES)
@settings(deadline=None, max_examples=50)
def test_the_values_are_scikit_learns(case):
    """Each metric equals scikit-learn's, and the calibration error that of the report."""
    outputs, targets = drawn(*case)
    found, p, truth = fed(outputs, targets).compute(), outputs.double().softmax(1), targets.numpy()
    labels = range(case[0])
    assert found["nll"] == pytest.approx(log_loss(truth, p, labels=labels), abs=1e-6)
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, p.argmax(1)), abs=1e-12)
    each = [roc_auc_score(truth == c, p[:, c]) for c in labels]
    assert found["auroc"] == pytest.approx(sum(each) / len(each), abs=1e-12)
    if case[0] > 5:
        assert found["top5"] == pytest.approx(top_k_accuracy_score(truth, p, k=5, labels=labels), abs=1e-12)
    confidence, predicted = p.max(1)
    report = expected_calibration_error(bin_confidences(confidence, predicted == targets))
    assert found["ece"] == pytest.approx(report, abs=1e-12)


@given(case=CASES, size=st.integers(1, 20))
@settings(deadline=None, max_examples=30)
def test_batches_make_no_difference(case, size):
    """The metrics of a split do not depend on the batches."""
    outputs, targets = drawn(*case)
    outputs = outputs.double()
    whole, cut = (fed(outputs, targets, part).compute() for part in (1000, size))
    assert cut == pytest.approx(whole, abs=1e-12)


def test_of_equal_logits_the_first_five_count():
    """Top-5 ranks equal logits as the prediction does: the first one is the highest."""
    outputs, targets = torch.zeros(7, 7), torch.arange(7)
    assert fed(outputs, targets).compute()["top5"] == pytest.approx(5 / 7)


@pytest.mark.parametrize("value", [nan, inf])
def test_outputs_that_are_not_finite_are_wrong(value):
    """They are no hit, have confidence 0, and leave likelihood and ranking undefined."""
    outputs, targets = drawn(7, 3, 0)
    outputs[0] = value
    found = fed(outputs, targets).compute()
    assert found["top5"] <= 0.9
    assert 0 <= found["ece"] <= 1
    assert isnan(found["nll"])
    assert isnan(found["auroc"])


def test_classes_without_samples_are_left_out():
    """The area is that of the classes present; of one class there is none."""
    outputs = torch.tensor([[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert fed(outputs, torch.tensor([0, 0, 1])).compute()["auroc"] == 1
    assert isnan(fed(outputs, torch.tensor([0, 0, 0])).compute()["auroc"])


def test_training_is_not_slowed_down():
    """Batches whose loss has a gradient are not kept, and checkpoints hold the state that they held."""
    task = Classification(("a", "b"), torch.tensor([0, 1]), CPU, metrics=EXTRA)
    metrics, outputs, targets = task.metrics(), torch.randn(4, 2, requires_grad=True), torch.tensor([0, 1, 0, 1])
    metrics.update(outputs.detach(), targets, task.loss_sum(outputs, targets))
    assert list(metrics.compute()) == ["loss", "accuracy", "f1_macro", "f1_weighted", "balanced_accuracy"]
    assert tuple(metrics.state_dict()) == STATE_KEYS


def test_a_reset_forgets_every_sample():
    """A reset removes all samples."""
    metrics = fed(*drawn(6, 5, 0))
    metrics.reset()
    assert "nll" not in metrics.compute()


def test_every_metric_has_a_direction():
    """A smaller loss, likelihood or calibration error is better; of all others a larger value."""
    metrics = fed(*drawn(6, 5, 0))
    assert metrics.directions.keys() == metrics.compute().keys()
    assert {name for name, way in metrics.directions.items() if way == "min"} == {"loss", "nll", "ece"}


def test_the_options_are_the_metrics():
    """Every name that a config may use is computed, in the order in which it is given."""
    names = CLASSIFICATION_CHOICES["task.metrics"]
    found = fed(*drawn(6, 5, 0), names=tuple(reversed(names))).compute()
    assert set(found) == {"loss", *names}
    assert list(found)[4:] == [name for name in reversed(names) if name in EXTRA]


def test_a_wrong_name_is_refused_with_the_options():
    """The config is refused before anything is built."""
    with pytest.raises(ConfigError, match=r"^task\.metrics\.1=auc: no such option; the options are accuracy, .*, ece$"):
        compose(["task.metrics=[nll,auc]"])


def test_new_columns_appear_everywhere(tmp_path):
    """Validation and test have them in metrics.csv, run.json and the results; a single name needs no list."""
    results = fit(["epochs=1", "task.metrics=auroc", "task.label_smoothing=0"], tmp_path)
    (row,) = csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())
    assert row["val_auroc"]
    assert "val_nll" not in row
    recorded = json.loads((tmp_path / "run.json").read_text())["metrics"]
    assert all(
        "auroc" in one for one in (results.val, results.test, recorded["best"], recorded["val"], recorded["test"])
    )
