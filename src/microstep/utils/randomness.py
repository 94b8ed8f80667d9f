"""Every random number is a pure function of the seed and of where the run stands: no generator's state is kept."""

from __future__ import annotations

import torch
from torch import Tensor

UINT64_MASK = 2**64 - 1
SPLITMIX64_INCREMENT = 0x9E3779B97F4A7C15  #: SplitMix64's increment
MAX_COLUMNS = 64  #: numbers that one position may draw


def derive_seed(*key: int) -> int:
    """Return a 63-bit seed for a key such as (seed, epoch, window); different keys give unrelated seeds.

    Each part is folded in by a round of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    state = 0
    for part in key:
        state = splitmix64((state ^ (part & UINT64_MASK)) + SPLITMIX64_INCREMENT & UINT64_MASK)
    return state >> 1


def splitmix64(z: int) -> int:
    """SplitMix64's finaliser."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & UINT64_MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & UINT64_MASK
    return z ^ (z >> 31)


def draw_uniform(positions: Tensor, columns: int, *key: int) -> Tensor:
    """Return N × columns numbers in [0, 1), float64, each a pure function of (key, position, column).

    They are SplitMix64's outputs number position · COLUMNS + column: any of them can be had without those before, so
    it makes no difference who draws, in which batch or in which process.
    """
    counter = positions.cpu()[:, None] * MAX_COLUMNS + torch.arange(columns)
    bits = splitmix64_int64(counter * to_signed_int64(SPLITMIX64_INCREMENT) + to_signed_int64(2 * derive_seed(*key)))
    return shift_right_unsigned(bits, 11).double() * 2.0**-53


def splitmix64_int64(z: Tensor) -> Tensor:
    """SplitMix64's finaliser on int64, whose products wrap as those of uint64 do."""
    z = (z ^ shift_right_unsigned(z, 30)) * to_signed_int64(0xBF58476D1CE4E5B9)
    z = (z ^ shift_right_unsigned(z, 27)) * to_signed_int64(0x94D049BB133111EB)
    return z ^ shift_right_unsigned(z, 31)


def shift_right_unsigned(z: Tensor, bits: int) -> Tensor:
    """Shift right as uint64 does: zeros come in from the left."""
    return (z >> bits) & (UINT64_MASK >> bits)


def to_signed_int64(value: int) -> int:
    """Return the int64 with the same bits."""
    value &= UINT64_MASK
    return value - 2**64 if value >> 63 else value


def draw_permutation(samples: int, *key: int) -> Tensor:
    """Return the order of an epoch: int64, on the CPU, the same on every device."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(derive_seed(*key)))


def reseed(device: torch.device, *key: int) -> None:
    """Seed the generators that a model draws from (initialisation, dropout).

    The generators are seeded directly: `torch.manual_seed` walks over every backend and costs a hundred times as much.
    """
    seed = derive_seed(*key)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
