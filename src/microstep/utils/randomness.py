"""Random numbers as pure functions of the seed and the position in training, so that no state has to be saved."""

import torch
from torch import Tensor

UINT64_MASK = 2**64 - 1
SPLITMIX64_INCREMENT = 0x9E3779B97F4A7C15  #: of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)
MAX_COLUMNS = 64  #: random numbers per position


def derive_seed(*key: int) -> int:
    """Return a 63-bit seed for a key such as (seed, epoch, window). Different keys give unrelated seeds."""
    state = 0
    for part in key:
        state = splitmix64((state ^ (part & UINT64_MASK)) + SPLITMIX64_INCREMENT & UINT64_MASK)
    return state >> 1


def splitmix64(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & UINT64_MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & UINT64_MASK
    return z ^ (z >> 31)


def draw_uniform(positions: Tensor, columns: int, *key: int) -> Tensor:
    """Return numbers in [0, 1), float64, for N positions (int64) and at most MAX_COLUMNS columns, as N × columns.

    Each is output number position · MAX_COLUMNS + column of SplitMix64 for the key, and can be computed without the
    others. Batches and processes therefore make no difference.
    """
    counter = positions.cpu()[:, None] * MAX_COLUMNS + torch.arange(columns)
    bits = splitmix64_int64(counter * to_signed_int64(SPLITMIX64_INCREMENT) + to_signed_int64(2 * derive_seed(*key)))
    return shift_right_unsigned(bits, 11).double() * 2.0**-53


def splitmix64_int64(z: Tensor) -> Tensor:
    """Return what `splitmix64` returns, for int64 tensors. Their products wrap like those of uint64."""
    z = (z ^ shift_right_unsigned(z, 30)) * to_signed_int64(0xBF58476D1CE4E5B9)
    z = (z ^ shift_right_unsigned(z, 27)) * to_signed_int64(0x94D049BB133111EB)
    return z ^ shift_right_unsigned(z, 31)


def shift_right_unsigned(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & (UINT64_MASK >> bits)


def to_signed_int64(value: int) -> int:
    value &= UINT64_MASK
    return value - 2**64 if value >> 63 else value


def draw_permutation(samples: int, *key: int) -> Tensor:
    """Return a random permutation of 0 … samples − 1 for a key (int64, on the CPU)."""
    return torch.randperm(samples, generator=torch.Generator().manual_seed(derive_seed(*key)))


def reseed(device: torch.device, *key: int) -> None:
    """Seed torch's generators of the CPU and a device. `torch.manual_seed` seeds all: a hundred times as long."""
    seed = derive_seed(*key)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
