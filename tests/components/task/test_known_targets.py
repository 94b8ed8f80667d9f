"""Multi-label classification and regression: losses and metrics over the known targets."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, f1_score, mean_absolute_error, r2_score, root_mean_squared_error
from torch import Tensor, nn

from microstep.components.precision import full
from microstep.components.step import StandardStep
from microstep.components.task import MultiLabel, Regression
from microstep.components.task.multilabel import fit_threshold, known_outputs
from microstep.errors import ConfigError, DataError
from microstep.types.data import Mix
from tests.components.step.windows import CPU, cut, distance, flat, model, samples

LABELS = 4  # the outputs of `model`


def labels(count: int) -> Tensor:
    """Return N × 4 labels of which a third are unknown, and never all of a sample."""
    generator = torch.Generator().manual_seed(count)
    targets = torch.randint(0, 2, (count, LABELS), generator=generator).float()
    unknown = torch.rand(count, LABELS, generator=generator) < 1 / 3
    unknown[:, 0] = False
    return targets.where(~unknown, torch.nan)


def numbers(count: int) -> Tensor:
    return 50 + 20 * torch.randn(count, LABELS, generator=torch.Generator().manual_seed(count))


def multilabel(**options) -> MultiLabel:
    return MultiLabel("abcd", labels(40), CPU, **options)


def regression(**options) -> Regression:
    return Regression("abcd", numbers(40), CPU, **options)


def per_sample(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs().mean(1)


JOBS = {
    "labels": (multilabel(), labels),
    "pos_weight": (multilabel(pos_weight=[1, 2, 3, 40]), labels),
    "own loss of samples": (multilabel(loss=per_sample), labels),
    "numbers": (regression(), numbers),
    "huber": (regression(loss="huber", delta=0.5), numbers),
    "own loss": (regression(loss=nn.L1Loss(reduction="none")), numbers),
    "unknown numbers": (regression(), lambda count: numbers(count).where(labels(count) == labels(count), torch.nan)),
}


def stepped(job, targets: Tensor, sizes: list[int]) -> Tensor:
    """Return the weights after two steps over a window that is cut into micro-batches of these sizes."""
    net, inputs = model(), samples(sum(sizes))[0]
    take = StandardStep(full(CPU, "float64"), job, job.metrics(), 0.5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    for _ in range(2):
        take(net, optimizer, cut(inputs, targets, sizes), job.weight(targets).sum().item())
    return flat(net)


@pytest.mark.parametrize(("job", "make"), JOBS.values(), ids=JOBS)
def test_any_cut_takes_the_step_of_the_whole_window(job, make) -> None:
    """In fp64, micro-batches of any size agree with one large batch, though samples have different weights."""
    targets = make(64)
    whole = stepped(job, targets, [64])
    assert distance(stepped(job, targets, [16] * 4), whole) < 1e-13
    assert distance(stepped(job, targets, [30, 1, 20, 13]), whole) < 1e-13


def test_the_mean_of_means_is_caught(monkeypatch) -> None:
    """The test above fails if a micro-batch's loss is its own mean: the known labels of micro-batches differ."""
    from microstep.components.step import standard
    from tests.mutants import mean_of_means, mean_over_accum, sum_of_means

    job, targets = multilabel(), labels(64)
    whole = stepped(job, targets, [64])
    for rule in (mean_over_accum, mean_of_means, sum_of_means):
        monkeypatch.setattr(standard, "accumulate_gradient", rule(nominal=4))
        assert distance(stepped(job, targets, [16] * 4), whole) > 1e-4, rule.__name__


def test_the_loss_is_the_mean_over_known_labels() -> None:
    """Loss and gradient are those of torch over the known labels alone, also with weights of positives."""
    job, targets = multilabel(pos_weight=[1, 2, 3, 4]), labels(9)
    outputs = torch.randn(9, LABELS, dtype=torch.float64, requires_grad=True)
    known = ~targets.isnan()
    weights = torch.tensor([1.0, 2, 3, 4]).double().expand(9, -1)[known]
    expected = F.binary_cross_entropy_with_logits(outputs[known], targets[known].double(), pos_weight=weights)
    loss = job.loss_sum(outputs, targets) / job.weight(targets).sum()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-14)
    (ours,), (theirs,) = (torch.autograd.grad(value, outputs) for value in (loss, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["labels", "unknown numbers"])
def test_mixed_samples_have_a_share_of_both_losses_and_weights(name) -> None:
    """The loss of mixed samples is the weighted mean of the losses of both, as in the window's weight."""
    job, make = JOBS[name]
    outputs, targets, share = torch.randn(8, LABELS).double(), make(8), torch.rand(8).double()
    mix = Mix(targets.flip(0), share)
    sums = [
        torch.stack([job.loss_sum(o[None], t[None]) for o, t in zip(outputs, side, strict=True)])
        for side in (targets, mix.targets)
    ]
    loss_sum = job.loss_sum(outputs, targets, mix)
    assert loss_sum.item() == pytest.approx((share * sums[0] + (1 - share) * sums[1]).sum().item())
    metrics = job.metrics()
    metrics.update(outputs, targets, loss_sum, mix)
    weight = (share * job.weight(targets) + (1 - share) * job.weight(mix.targets)).sum()
    assert metrics.compute()["loss"] == pytest.approx((loss_sum / weight).item())


def updated(metrics, job, outputs: Tensor, targets: Tensor) -> dict[str, float]:
    for rows in torch.arange(len(outputs)).split(7):
        metrics.update(outputs[rows], targets[rows], job.loss_sum(outputs[rows], targets[rows]))
    return metrics.compute()


def test_scores_of_labels_are_those_of_scikit_learn() -> None:
    """F1 and average precision of each label are scikit-learn's over its known targets, in any batches."""
    job, targets, outputs = multilabel(), labels(50), torch.randn(50, LABELS)
    found = updated(job.metrics(), job, outputs, targets)
    known = [~targets[:, c].isnan() for c in range(LABELS)]
    pairs = [(targets[k, c].numpy(), outputs[k, c].numpy()) for c, k in enumerate(known)]
    assert found["f1_macro"] == pytest.approx(np.mean([f1_score(t, o > 0) for t, o in pairs]))
    assert found["map"] == pytest.approx(np.mean([average_precision_score(*pair) for pair in pairs]))
    together = [np.concatenate(side) for side in zip(*pairs, strict=True)]
    assert found["f1_micro"] == pytest.approx(f1_score(together[0], together[1] > 0))
    assert job.metrics().directions.keys() == found.keys()


def test_scores_of_numbers_are_those_of_scikit_learn() -> None:
    """MAE, RMSE and R² are in the units of the targets, and those of scikit-learn."""
    job, targets, outputs = regression(), numbers(50), torch.randn(50, LABELS)
    found, values = updated(job.metrics(), job, outputs, targets), job.to_units(outputs).numpy()
    scores = {"mae": mean_absolute_error, "rmse": root_mean_squared_error, "r2": r2_score}
    assert {name: pytest.approx(score(targets.numpy(), values)) for name, score in scores.items()} == {
        name: found[name] for name in scores
    }
    assert job.metrics().directions.keys() == found.keys()


@pytest.mark.parametrize(("job", "make"), [JOBS["labels"], JOBS["numbers"]], ids=["labels", "numbers"])
def test_training_metrics_go_on_from_their_state(job, make) -> None:
    """The state of training metrics is small, and the rest of an epoch adds to it as if nothing had happened."""
    targets, outputs = make(30), torch.randn(30, LABELS)
    before = getattr(job, "train_metrics", job.metrics)()
    updated(before, job, outputs[:20], targets[:20])
    after = getattr(job, "train_metrics", job.metrics)()
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    assert updated(after, job, outputs[20:], targets[20:]) == updated(before, job, outputs[20:], targets[20:])
    assert before.state_dict()["sums"].numel() <= 2 + 5 * LABELS


def test_targets_of_another_kind_are_refused() -> None:
    """Classes, numbers and samples without any known target end in one line that names the way out."""
    classes, mixed = torch.arange(4), torch.tensor([[0.0, 2.0]])
    for make, targets in ((MultiLabel, classes), (MultiLabel, mixed), (Regression, classes)):
        with pytest.raises(DataError, match="choose another task"):
            make("ab", targets, CPU)
    for make in (MultiLabel, Regression):
        with pytest.raises(DataError, match="1 training samples have no known target; leave them out"):
            make("ab", torch.tensor([[1.0, 0.0], [torch.nan, torch.nan]]), CPU)


def test_wrong_options_are_refused() -> None:
    """A loss that is no option, one that gives a single number, and wrong weights end in one line."""
    with pytest.raises(ConfigError, match=r"^task\.loss=mea: no such option; the options are mse, huber$"):
        regression(loss="mea")
    with pytest.raises(ConfigError, match=r"^task\.loss: its result is of shape .*reduction=none"):
        regression(loss=nn.MSELoss()).loss_sum(torch.zeros(5, LABELS), numbers(5))
    for weights in ([1, 2], [1, 2, 3, 0]):
        with pytest.raises(ConfigError, match=r"^task.pos_weight=.*: it must be 4 positive numbers"):
            multilabel(pos_weight=weights)


def test_a_threshold_maximizes_f1() -> None:
    """No other threshold has a higher F1 on the labels that it was fitted to; a label that never occurs keeps 0.5."""
    targets, outputs = labels(60), torch.randn(60, LABELS).double()
    targets[:, 3] = 0
    *thresholds, absent = (fit_threshold(*pair) for pair in known_outputs(outputs, targets))
    assert absent == 0.5
    for label, threshold in enumerate(thresholds):
        known = ~targets[:, label].isnan()
        truth, values = targets[known, label], outputs[known, label].sigmoid()
        best = max(f1_score(truth, values >= border) for border in values)
        assert f1_score(truth, values > threshold) == pytest.approx(best)
