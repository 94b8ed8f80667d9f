"""Tests of the standard step."""

import torch

from microstep.components.precision import full
from microstep.components.step import StandardStep
from tests.components.step.windows import CPU, cut, flat, model, samples, task


def step_over(window, weight: float, clip: float | None = None, net=None):
    net, job = net or model(), task()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    before = flat(net)
    result = StandardStep(full(CPU, "float64"), job, job.metrics(), clip)(net, optimizer, window, weight)
    return result, before - flat(net)


def test_batches_are_fetched_one_at_a_time() -> None:
    """One micro-batch is in memory at a time: the next is fetched after the backward pass of the last."""
    net, seen = model(), []

    def lazily():
        for batch in cut(*samples(9), [3, 3, 3]):
            seen.append([p.grad.norm().item() for p in net.parameters() if p.grad is not None])
            yield batch

    step_over(lazily(), 9.0, net=net)
    assert seen[0] == []
    assert seen[1] != seen[2] != []


def test_the_norm_reported_is_that_before_clipping() -> None:
    """Clipping limits the step to the given norm. The result has the norm before clipping."""
    free, whole = step_over(cut(*samples(9), [4, 5]), 9.0)
    clipped, short = step_over(cut(*samples(9), [4, 5]), 9.0, clip=free.grad_norm / 10)
    assert abs(whole.norm().item() - free.grad_norm) < 1e-12
    assert clipped.grad_norm == free.grad_norm
    assert abs(short.norm().item() - free.grad_norm / 10) < 1e-6


def test_metrics_see_every_sample_once() -> None:
    """Metrics are updated with every micro-batch. The result's loss is the window's mean."""
    net, job = model(), task()
    metrics = job.metrics()
    step = StandardStep(full(CPU, "float64"), job, metrics, None)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    result = step(net, optimizer, cut(*samples(11), [4, 4, 3]), 11.0)
    assert metrics.confusion.sum() == 11
    assert abs(metrics.compute()["loss"] - result.loss.item()) < 1e-12
