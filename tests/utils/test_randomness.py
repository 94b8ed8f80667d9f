"""Every random number is a pure function of (key, position, column)."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from microstep.utils.randomness import (
    MAX_COLUMNS,
    SPLITMIX64_INCREMENT,
    UINT64_MASK,
    derive_seed,
    draw_uniform,
    splitmix64,
)

KEY = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3)


@given(key=KEY, position=st.integers(0, 2**40), column=st.integers(0, 7))
def test_it_is_split_mix_64(key, position, column):
    """The vectorised numbers are those of SplitMix64 written in Python's whole numbers, bit for bit."""
    counter = position * MAX_COLUMNS + column
    exact = splitmix64((counter * SPLITMIX64_INCREMENT + 2 * derive_seed(*key)) & UINT64_MASK) >> 11
    found = draw_uniform(torch.tensor([position]), column + 1, *key)[0, column]
    assert found.item() * 2**53 == exact


@given(key=KEY, positions=st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_a_number_does_not_depend_on_its_neighbours(key, positions):
    """Drawn one at a time or all at once, with more columns or fewer, a position's numbers are the same."""
    together = draw_uniform(torch.tensor(positions), 4, *key)
    alone = torch.cat([draw_uniform(torch.tensor([position]), 3, *key) for position in positions])
    assert torch.equal(together[:, :3], alone)


def test_the_numbers_are_uniform_and_uncorrelated():
    """Of 200,000 positions each column fills 100 bins evenly, and columns, positions and keys don't go together."""
    numbers = draw_uniform(torch.arange(200_000), 3, 1, 2)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    for column in numbers.T:
        counts = torch.histc(column.float(), 100, 0, 1)
        assert ((counts - 2000) ** 2 / 2000).sum() < 160  # chi-square with 99 degrees of freedom: p = 1e-4
    other = draw_uniform(torch.arange(200_000), 1, 1, 3)
    neighbours = torch.cat([numbers, numbers.roll(1, 0), other], dim=1).T
    off_diagonal = torch.corrcoef(neighbours) - torch.eye(7)
    assert off_diagonal.abs().max() < 0.012
