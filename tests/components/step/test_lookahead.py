"""Tests of Lookahead."""

import torch

from microstep.components.precision import fp16, full
from microstep.components.step import LookaheadStep
from tests.components.step.windows import CPU, cut, flat, model, samples, task


def lookahead(precision=None, k: int = 2, alpha: float = 0.25) -> LookaheadStep:
    return LookaheadStep(precision or full(CPU, "float64"), task(), task().metrics(), None, k, alpha)


def take(step: LookaheadStep, net, optimizer, steps: int, sizes=(8,)) -> torch.Tensor:
    for _ in range(steps):
        step(net, optimizer, cut(*samples(sum(sizes)), sizes), float(sum(sizes)))
    return flat(net)


def test_every_kth_step_ends_between_the_slow_and_the_fast_weights() -> None:
    """After k steps of SGD from s to w, the weights are s + alpha · (w − s), and so on from there."""
    net, by_hand = model(), model()
    ours = take(lookahead(), net, torch.optim.SGD(net.parameters(), lr=0.5), 4)
    plain, slow = torch.optim.SGD(by_hand.parameters(), lr=0.5), flat(by_hand)
    for _ in range(2):
        fast = take(lookahead(k=100), by_hand, plain, 2)
        slow = slow + 0.25 * (fast - slow)
        torch.nn.utils.vector_to_parameters(slow.clone(), by_hand.parameters())
    assert torch.allclose(ours, slow, rtol=1e-12)


def test_micro_batches_take_the_steps_of_the_whole_window() -> None:
    """In fp64, 16 micro-batches of 4 and one of 64 agree to 1e-10."""
    one, other = model(), model()
    whole = take(lookahead(), one, torch.optim.SGD(one.parameters(), lr=0.5), 5, (64,))
    parts = take(lookahead(), other, torch.optim.SGD(other.parameters(), lr=0.5), 5, (4,) * 16)
    assert ((whole - parts).norm() / whole.norm()).item() < 1e-10


def test_a_skipped_step_counts_for_nothing() -> None:
    """A step whose gradient overflows moves no weight and is not one of the k."""
    net, step = model().float(), lookahead(fp16(CPU, init_scale=2.0**40))
    before = flat(net).clone()
    after = take(step, net, torch.optim.SGD(net.parameters(), lr=0.1), 3)
    assert torch.equal(before, after)
    assert step.updates == 0


def test_a_loaded_state_continues_as_if_nothing_had_happened() -> None:
    """A new step with the state of another one goes on with its bits; without it, it doesn't."""
    whole = model()
    straight = take(lookahead(), whole, torch.optim.SGD(whole.parameters(), lr=0.5), 4)
    for forgotten in (False, True):
        net, step, rebuilt = model(), lookahead(), lookahead()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        take(step, net, optimizer, 3)
        rebuilt.load_state_dict({"slow_weights": [], "updates": 0} if forgotten else step.state_dict())
        assert torch.equal(take(rebuilt, net, optimizer, 1), straight) is not forgotten
