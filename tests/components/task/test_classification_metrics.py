"""Tests of the classification metrics against scikit-learn and torch."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor, nn

from microstep.components.task import Classification
from microstep.components.task.classification.metrics import ClassificationMetrics
from microstep.utils.tensors import finite_rows

CPU = torch.device("cpu")
CASES = st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(0, 10_000))


def drawn(classes: int, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return random logits and labels; often some classes are never true, never predicted, or neither."""
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    present = torch.randint(0, classes, (3,), generator=generator)
    return outputs, present[torch.randint(0, 3, (samples,), generator=generator)]


def fed(task: Classification, outputs: Tensor, targets: Tensor, size: int = 1000) -> ClassificationMetrics:
    """Return metrics updated in batches of a size."""
    metrics = task.metrics()
    for logits, labels in zip(outputs.split(size), targets.split(size), strict=True):
        metrics.update(logits, labels, task.loss_sum(logits, labels))
    return metrics


def task(classes: int, weights: list[float] | None = None) -> Classification:
    return Classification([str(c) for c in range(classes)], torch.arange(classes), CPU, weights)


@given(case=CASES)
@settings(deadline=None, max_examples=150)
def test_accuracy_and_f1_are_scikit_learns(case):
    """Scores equal scikit-learn's for any predictions with labels=range(C) and zero_division=0."""
    outputs, targets = drawn(*case)
    found = fed(task(case[0]), outputs, targets).compute()
    truth, guess = targets.numpy(), outputs.argmax(1).numpy()
    options = {"labels": range(case[0]), "zero_division": 0}
    assert found["accuracy"] == pytest.approx(accuracy_score(truth, guess), abs=1e-12)
    assert found["f1_macro"] == pytest.approx(f1_score(truth, guess, average="macro", **options), abs=1e-12)
    assert found["f1_weighted"] == pytest.approx(f1_score(truth, guess, average="weighted", **options), abs=1e-12)


@given(case=CASES, size=st.integers(1, 40))
@settings(deadline=None, max_examples=50)
def test_batches_make_no_difference(case, size):
    """The metrics of a split do not depend on the batches."""
    outputs, targets = drawn(*case)
    whole, cut = (fed(task(case[0]), outputs, targets, part).compute() for part in (1000, size))
    assert cut == pytest.approx(whole, abs=1e-12)


@given(case=CASES, data=st.data())
@settings(deadline=None, max_examples=50)
def test_the_loss_is_torchs_mean_over_all_samples(case, data):
    """The loss is a weighted mean if there are class weights."""
    weights = data.draw(st.none() | st.lists(st.floats(0.1, 10), min_size=case[0], max_size=case[0]))
    outputs, targets = drawn(*case)
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = nn.CrossEntropyLoss(tensor)(outputs, targets).item()
    assert fed(task(case[0], weights), outputs, targets, 7).compute()["loss"] == pytest.approx(expected, abs=1e-10)


@given(rows=st.lists(st.lists(st.sampled_from([0.0, 1.0, inf, -inf, nan]), min_size=3, max_size=3), min_size=1))
@settings(deadline=None, max_examples=100)
def test_of_equal_logits_the_first_counts(rows):
    """The metrics count the label that the task decides for, and a row whose largest logit is not finite as wrong."""
    outputs, one = torch.tensor(rows), task(3)
    targets = torch.arange(len(rows)) % 3
    right = (one.decide(outputs) == targets) & finite_rows(outputs)
    assert fed(one, outputs, targets).compute()["accuracy"] == pytest.approx(right.double().mean().item())


def test_a_reset_forgets_every_sample():
    """A reset removes all samples."""
    one = task(3)
    metrics = fed(one, *drawn(3, 20, 0))
    metrics.reset()
    outputs, targets = drawn(3, 9, 1)
    metrics.update(outputs, targets, one.loss_sum(outputs, targets))
    assert metrics.compute() == fed(one, outputs, targets).compute()


def test_no_samples_are_zeros():
    """Metrics without samples are 0."""
    assert task(4).metrics().compute() == {"loss": 0, "accuracy": 0, "f1_macro": 0, "f1_weighted": 0}


def test_the_bar_shows_loss_and_accuracy():
    """The running values equal the first two of the epoch's."""
    metrics = fed(task(3), *drawn(3, 20, 0))
    assert list(metrics.running_values()) == ["loss", "accuracy"]
    assert list(metrics.compute()) == ["loss", "accuracy", "f1_macro", "f1_weighted"]
    assert metrics.running_values().items() <= metrics.compute().items()


def test_the_best_checkpoint_is_chosen_by_accuracy():
    """The monitored metric is one of those computed, and is maximized."""
    metrics = task(2).metrics()
    assert (metrics.monitor, metrics.direction) == ("accuracy", "max")
    assert metrics.monitor in metrics.compute()


def test_a_long_sum_of_small_losses_keeps_its_digits():
    """fp32 losses are summed in fp64, so the mean of a million samples is exact."""
    one, metrics = task(2), task(2).metrics()
    outputs, targets = torch.tensor([[2.0, 0.0]]).expand(1000, 2), torch.zeros(1000, dtype=torch.int64)
    loss = one.loss_sum(outputs, targets)
    for _ in range(1000):
        metrics.update(outputs, targets, loss)
    assert metrics.compute()["loss"] == pytest.approx(loss.item() / 1000, rel=1e-12)
