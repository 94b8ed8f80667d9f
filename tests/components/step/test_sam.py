"""Tests of sharpness-aware minimization."""

import torch
from torch import nn

from microstep.components.precision import fp16, full
from microstep.components.step import SAMStep
from tests.components.step.windows import CPU, cut, flat, model, samples, task


def test_the_step_is_that_of_the_gradient_at_the_ascended_point() -> None:
    """A step equals w − lr · ∇L(w + rho · ∇L(w)/‖∇L(w)‖) computed by hand."""
    net, by_hand, (inputs, targets) = model(), model(), samples(8)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    step = SAMStep(full(CPU, "float64"), task(), task().metrics(), None, rho=0.2)
    step(net, optimizer, cut(inputs, targets, [8]), 8.0)
    first = torch.autograd.grad(nn.functional.cross_entropy(by_hand(inputs), targets), list(by_hand.parameters()))
    norm = torch.cat([g.flatten() for g in first]).norm()
    start = [p.detach().clone() for p in by_hand.parameters()]
    with torch.no_grad():
        for p, g in zip(by_hand.parameters(), first, strict=True):
            p.add_(g, alpha=0.2 / norm.item())
    second = torch.autograd.grad(nn.functional.cross_entropy(by_hand(inputs), targets), list(by_hand.parameters()))
    expected = torch.cat([(s - 0.5 * g).flatten() for s, g in zip(start, second, strict=True)])
    assert torch.allclose(flat(net), expected, rtol=1e-12)


def test_running_statistics_move_once_a_step() -> None:
    """BatchNorm's running statistics are updated in the first pass only."""
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(36, 4)).double()
    (inputs, targets), job = samples(8), task()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    SAMStep(full(CPU, "float64"), job, job.metrics(), None)(net, optimizer, cut(inputs, targets, [8]), 8.0)
    assert net[0].num_batches_tracked == 1
    assert torch.allclose(net[0].running_mean, 0.1 * inputs.mean((0, 2, 3)))


def test_an_overflow_leaves_the_weights_bit_for_bit() -> None:
    """If the gradient overflows, the perturbation is undone exactly and the step is skipped."""
    net = model().float()
    before = flat(net).clone()
    precision = fp16(CPU, init_scale=2.0**40)
    step = SAMStep(precision, task(), task().metrics(), None)
    inputs, targets = samples(8)
    result = step(net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), cut(inputs, targets, [8]), 8.0)
    assert not result.updated
    assert torch.equal(flat(net), before)
