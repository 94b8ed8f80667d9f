"""Tests of class weights and label smoothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from microstep.components.task import Classification
from microstep.config.compose import compose
from microstep.errors import ConfigError, DataError
from microstep.training.builders import build_components

CPU = torch.device("cpu")
NAMES = ("a", "b", "c")
TARGETS = torch.tensor([0, 1, 2, 2, 2, 1, 2])


def task(weights=None, smoothing: float = 0.0, targets: torch.Tensor = TARGETS) -> Classification:
    return Classification(NAMES, targets, CPU, class_weights=weights, label_smoothing=smoothing)


@given(labels=st.lists(st.integers(0, 2), min_size=3, max_size=60))
def test_balanced_is_scikit_learns(labels):
    """Balanced weights are n / (classes × count) for any labels that include every class."""
    assume(set(labels) == {0, 1, 2})
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(labels))
    weights = task("balanced", targets=torch.tensor(labels)).weight(torch.arange(3))
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-12)


@given(
    weights=st.none() | st.lists(st.floats(0.01, 50), min_size=3, max_size=3),
    smoothing=st.floats(0, 0.9),
    samples=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=100)
def test_the_loss_over_the_weights_is_torchs_mean(weights, smoothing, samples, seed):
    """loss_sum / Σ weight is nn.CrossEntropyLoss(weight, label_smoothing), in fp64 to the last digits."""
    generator = torch.Generator().manual_seed(seed)
    outputs = 3 * torch.randn(samples, 3, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 3, (samples,), generator=generator)
    one = task(weights, smoothing)
    tensor = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    expected = nn.CrossEntropyLoss(tensor, label_smoothing=smoothing)(outputs, targets)
    torch.testing.assert_close(
        one.loss_sum(outputs, targets) / one.weight(targets).sum(), expected, rtol=1e-12, atol=1e-12
    )


@given(cut=st.integers(1, 11), smoothing=st.sampled_from([0.0, 0.1]))
@settings(deadline=None)
def test_the_loss_of_parts_adds_up_to_that_of_the_whole(cut, smoothing):
    """The sum of `loss_sum / weight` over any micro-batches equals the mean of the window."""
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(12, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 3, (12,), generator=generator)
    one = task([0.2, 1.0, 7.0], smoothing)
    weight = one.weight(targets).sum()
    whole = one.loss_sum(outputs, targets) / weight
    parts = [one.loss_sum(outputs[rows], targets[rows]) / weight for rows in (slice(cut), slice(cut, None))]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(loss, outputs, retain_graph=True)[0] for loss in (whole, sum(parts))]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12)


def test_without_weights_a_sample_weighs_one():
    """Weights are float64, one per sample."""
    weights = task().weight(TARGETS)
    assert (weights.dtype, weights.tolist()) == (torch.float64, [1.0] * 7)


def test_half_precision_outputs_are_summed_in_fp32():
    """Logits in bf16 give a loss in fp32."""
    loss = task([1.0, 2.0, 3.0]).loss_sum(torch.zeros(7, 3, dtype=torch.bfloat16), TARGETS)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(float(np.log(3)) * task([1.0, 2.0, 3.0]).weight(TARGETS).sum().item())


def test_balanced_reads_the_training_split_alone():
    """Balanced weights are those of the training labels, not of all labels."""
    parts = build_components(compose(["task.class_weights=balanced", "threads=1"]))
    labels = parts.dataset.splits["train"].targets.numpy()
    expected = compute_class_weight("balanced", classes=np.arange(10), y=labels)
    np.testing.assert_allclose(parts.task.weight(torch.arange(10)).numpy(), expected, rtol=1e-12)


def test_a_class_that_can_not_be_balanced_is_named_as_the_datas_fault():
    """Balanced weights are refused if a class has no training samples."""
    with pytest.raises(DataError, match=r"^task\.class_weights=balanced: a class has no training samples"):
        task("balanced", targets=torch.tensor([0, 0, 2]))


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0] * 4, [1, 0, 1], [1, -1, 1], [1, np.nan, 1], [1, np.inf, 1], []])
def test_weights_must_be_one_positive_number_a_class(weights):
    """Too few, too many, zero, negative and infinite weights are refused with the expected number."""
    with pytest.raises(ConfigError, match="it must be 3 positive numbers, one a class; or balanced, or null"):
        task(weights)


def test_another_word_is_refused_with_the_options():
    """A misspelt `balanced` is refused."""
    with pytest.raises(ConfigError, match=r"^task\.class_weights=balance: no such option; null, balanced, or one"):
        task("balance")
