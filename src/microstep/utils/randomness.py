"""Every random number is a pure function of the seed and of where the run stands: no generator's state is kept."""

from __future__ import annotations

import torch
from torch import Tensor

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15  #: SplitMix64's increment
COLUMNS = 64  #: numbers that one position may draw


def derive(*key: int) -> int:
    """Return a 63-bit seed for a key such as (seed, epoch, window); different keys give unrelated seeds.

    Each part is folded in by a round of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    state = 0
    for part in key:
        state = mix((state ^ (part & MASK)) + GOLDEN & MASK)
    return state >> 1


def mix(z: int) -> int:
    """SplitMix64's finaliser."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def uniform(positions: Tensor, columns: int, *key: int) -> Tensor:
    """Return N × columns numbers in [0, 1), float64, each a pure function of (key, position, column).

    They are SplitMix64's outputs number position · COLUMNS + column: any of them can be had without those before, so
    it makes no difference who draws, in which batch or in which process.
    """
    counter = positions.cpu()[:, None] * COLUMNS + torch.arange(columns)
    bits = mixed(counter * signed(GOLDEN) + signed(2 * derive(*key)))
    return shifted(bits, 11).double() * 2.0**-53


def mixed(z: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64, whose products wrap as those of uint64 do."""
    z = (z ^ shifted(z, 30)) * signed(0xBF58476D1CE4E5B9)
    z = (z ^ shifted(z, 27)) * signed(0x94D049BB133111EB)
    return z ^ shifted(z, 31)


def shifted(z: Tensor, bits: int) -> Tensor:
    """Shift right as uint64 does: zeros come in from the left."""
    return (z >> bits) & (MASK >> bits)


def signed(value: int) -> int:
    """Return the int64 with the same bits."""
    value &= MASK
    return value - 2**64 if value >> 63 else value


def permutation(samples: int, *key: int) -> Tensor:
    """Return the order of an epoch: int64, on the CPU, the same on every device."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(derive(*key)))


def reseed(device: torch.device, *key: int) -> None:
    """Seed the generators that a model draws from (initialisation, dropout).

    The generators are seeded directly: `torch.manual_seed` walks over every backend and costs a hundred times as much.
    """
    seed = derive(*key)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
