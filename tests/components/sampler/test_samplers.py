"""Tests of the samplers."""

import pytest
import torch

from microstep.components.sampler import Balanced, Shuffle

TARGETS = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)


def test_shuffle_holds_every_row_once():
    """Different keys give different orders."""
    sampler = Shuffle(TARGETS)
    first, second = sampler.order(0, 1), sampler.order(0, 2)
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(1000))
    assert not torch.equal(first, second)
    assert torch.equal(first, sampler.order(0, 1))


@pytest.mark.parametrize(
    ("power", "shares"),
    [(1.0, [1 / 3, 1 / 3, 1 / 3]), (0.0, [0.9, 0.09, 0.01]), (0.5, [0.706, 0.223, 0.0744])],
)
def test_balanced_draws_classes_by_their_count_to_a_power(power, shares):
    """Class frequencies are equal for power 1, the original ones for 0, and their square roots for 0.5."""
    sampler = Balanced(TARGETS, power)
    drawn = torch.cat([TARGETS[sampler.order(0, epoch)] for epoch in range(40)])
    found = torch.bincount(drawn, minlength=3).double() / len(drawn)
    assert found.tolist() == pytest.approx(shares, abs=0.01)


def test_within_a_class_every_sample_is_as_likely():
    """The samples of a class are drawn with equal frequency."""
    drawn = torch.cat([Balanced(TARGETS).order(3, epoch) for epoch in range(60)])
    counts = torch.bincount(drawn, minlength=1000)[990:].double()
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 34  # chi-square with 9 degrees of freedom: p = 1e-4
    assert len(drawn) == 60_000


def test_balanced_is_the_same_again_and_differs_by_epoch():
    """A sampler has no state: the order of an epoch does not depend on earlier calls."""
    sampler = Balanced(TARGETS)
    assert torch.equal(sampler.order(1, 7), Balanced(TARGETS).order(1, 7))
    assert not torch.equal(sampler.order(1, 7), sampler.order(1, 8))
