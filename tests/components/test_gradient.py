"""Tests of the gradient transforms."""

import copy

import pytest
import torch
from torch import nn

from microstep.components.gradient import AdaptiveClipping, find_last_layer
from microstep.components.precision import fp16, full
from microstep.components.step import StandardStep
from tests.components.step.windows import CPU, cut, distance, flat, model, samples, task

SIZES = [[64], [4] * 16]


def stepped(sizes, transform=None, clip=None, precision=None, steps=2) -> torch.Tensor:
    net = model().to((precision or full(CPU, "float64")).dtype)
    step = StandardStep(precision or full(CPU, "float64"), task(), task().metrics(), clip, transform)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(steps):
        step(net, optimizer, cut(*samples(sum(sizes)), sizes), float(sum(sizes)))
    return flat(net)


def test_a_unit_is_clipped_to_a_share_of_its_own_weights() -> None:
    """The gradient of each filter and vector has at most clipping · max(‖w‖, eps); smaller ones stay."""
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(3, 4))
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    net[0].weight.data[0] = 0
    net[0].weight.grad[1] *= 1e-6
    before = copy.deepcopy([p.grad for p in net.parameters()])
    AdaptiveClipping(0.1, eps=0.01)(list(net.parameters()), 1.0)
    norms = net[0].weight.grad.flatten(1).norm(dim=1)
    largest = 0.1 * net[0].weight.flatten(1).norm(dim=1)
    assert norms[[0, 2]].tolist() == pytest.approx([0.001, largest[2].item()])
    assert torch.equal(net[0].weight.grad[1], before[0][1])
    assert net[0].bias.grad.norm().item() == pytest.approx(0.1 * net[0].bias.norm().item())
    assert torch.equal(net[1].weight.grad, before[2]) and torch.equal(net[1].bias.grad, before[3])


@pytest.mark.parametrize("bias", [True, False])
def test_the_last_layer_is_found_in_any_grouping(bias) -> None:
    """It is the last weight with its bias, also if all biases come after all weights."""
    net = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3, bias=bias))
    parameters = list(net.parameters())
    for order in (parameters, sorted(parameters, key=lambda p: p.dim() < 2)):
        assert {id(p) for p in find_last_layer(order)} == {id(p) for p in net[2].parameters()}


def test_micro_batches_take_the_steps_of_the_whole_window() -> None:
    """In fp64, 16 micro-batches of 4 and one of 64 agree to 1e-10, and the transform has an effect."""
    whole, parts = (stepped(sizes, AdaptiveClipping(0.01)) for sizes in SIZES)
    assert distance(parts, whole) < 1e-10
    assert distance(whole, stepped([64])) > 1e-4


def test_transforming_each_micro_batch_is_caught(monkeypatch) -> None:
    """The test above fails if a transform is applied after every backward pass."""

    def backward(self, loss):
        loss.backward()
        parameters = [p for p in self.net.parameters() if p.grad is not None]
        AdaptiveClipping(0.01)(parameters, 1.0)

    whole, wrong = stepped([64], AdaptiveClipping(0.01)), full(CPU, "float64")
    net = wrong.net = model()
    monkeypatch.setattr(type(wrong), "backward", backward)
    step = StandardStep(wrong, task(), task().metrics(), None)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(2):
        step(net, optimizer, cut(*samples(64), [4] * 16), 64.0)
    assert distance(flat(net), whole) > 1e-4


def test_it_comes_after_unscaling_and_before_clipping() -> None:
    """The transform gets the unscaled gradient; its result is clipped, and the norm reported is that before both."""
    seen = []

    class Doubled:
        def __call__(self, parameters, norm):
            seen.append(norm)
            for p in parameters:
                p.grad.mul_(2)

    net, precision = model().float(), fp16(CPU, init_scale=1024.0)
    step = StandardStep(precision, task(), task().metrics(), 0.05, Doubled())
    before, optimizer = flat(net).clone(), torch.optim.SGD(net.parameters(), lr=1.0)
    result = step(net, optimizer, cut(*(x.float() if x.is_floating_point() else x for x in samples(8)), [8]), 8.0)
    assert seen == [result.grad_norm] and 0.05 < result.grad_norm < 10
    assert (before - flat(net)).norm().item() == pytest.approx(0.05, rel=1e-4)


def test_a_skipped_step_is_not_transformed() -> None:
    """A window whose gradient overflows doesn't reach the transform."""
    calls = []
    stepped([8], lambda parameters, norm: calls.append(norm), precision=fp16(CPU, init_scale=2.0**40))
    assert calls == []
