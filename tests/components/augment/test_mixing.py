"""Mixing of pairs: partners are a permutation of the epoch, and shares are exact."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microstep.components.augment import Cutmix, Mixup
from microstep.utils.randomness import draw_uniform

CPU = torch.device("cpu")
RULES = [Mixup(0.2), Mixup(1.0), Cutmix(1.0)]


@pytest.mark.parametrize("rule", RULES, ids=str)
@settings(deadline=None, max_examples=20)
@given(samples=st.integers(1, 50), key=st.tuples(st.integers(0, 2**63 - 1), st.integers(1, 1000)))
def test_partners_are_a_permutation_that_the_epoch_fixes(rule, samples, key):
    """Each sample is a partner once, independent of earlier draws; shares lie in 0…1."""
    first = rule.plan(samples, (8, 6), CPU, *key)
    torch.rand(3)
    again = rule.plan(samples, (8, 6), CPU, *key)
    assert first.partners.sort().values.tolist() == list(range(samples))
    assert torch.equal(first.partners, again.partners)
    assert torch.equal(first.share, again.share)
    assert first.share.min() >= 0
    assert first.share.max() <= 1


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_distributed_as_beta(alpha):
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1)), over 50,000 samples."""
    share = Mixup(alpha).plan(50_000, (8, 8), CPU, 0, 1).share
    assert share.mean().item() == pytest.approx(0.5, abs=0.006)
    assert share.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.02)


def test_a_cutmix_share_is_the_share_of_pixels():
    """The share of a label is the share of its pixels after the rectangle was clipped at the edge."""
    plan = Cutmix(1.0).plan(200, (9, 7), CPU, 0, 1)
    own, other = torch.zeros(200, 1, 9, 7, dtype=torch.float64), torch.ones(200, 1, 9, 7, dtype=torch.float64)
    blended = plan.blend(own, other, torch.arange(200))
    torch.testing.assert_close(1 - blended.mean((1, 2, 3)), plan.share, rtol=0, atol=1e-12)
    assert set(blended.unique().tolist()) == {0.0, 1.0}
    assert plan.share.std() > 0.1


def test_mixup_blends_by_the_share():
    """An input is λ of the sample and 1 − λ of its partner, for any positions."""
    plan = Mixup(1.0).plan(20, (2, 2), CPU, 0, 1)
    own, other, where = torch.full((3, 1, 2, 2), 10.0), torch.full((3, 1, 2, 2), 20.0), torch.tensor([4, 17, 0])
    expected = 20 - 10 * plan.share[where].float()
    torch.testing.assert_close(plan.blend(own, other, where)[:, 0, 0, 0], expected)


def test_epochs_differ():
    """Another epoch has other partners and shares, and neither depends on the order of the epoch."""
    one, two = (Mixup(1.0).plan(1000, (8, 8), CPU, 0, epoch) for epoch in (1, 2))
    assert not torch.equal(one.partners, two.partners)
    assert abs(torch.corrcoef(torch.stack([one.share, two.share]))[0, 1].item()) < 0.15
    assert not torch.equal(one.share, draw_uniform(torch.arange(1000), 1, 0, 1)[:, 0])
