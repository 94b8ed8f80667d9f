"""fp32 and fp64: one dtype throughout."""

import torch

from microstep.precision.torch_precision import TorchPrecision

DTYPES = {"float32": torch.float32, "float64": torch.float64}
NAMES = {"float32": "fp32", "float64": "fp64"}


def full(device: torch.device, dtype: str = "float32", channels_last: bool | None = None) -> TorchPrecision:
    """Return the precision that computes and keeps everything in one dtype.

    Args:
        channels_last: whether pictures are stored channels-last; null takes it where fp32 convolutions were measured
            to be faster that way, on CPUs (benchmarks/README.md).

    Raises:
        ValueError: for a dtype other than float32 or float64, or float64 where the device has none.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype} is no full precision: the options are {', '.join(DTYPES)}")
    if device.type == "mps" and dtype == "float64":
        raise ValueError("float64 does not exist on mps; add device=cpu")
    if channels_last is None:
        channels_last = device.type == "cpu" and dtype == "float32"
    reason = {"float32": "full precision", "float64": "for verification"}[dtype]
    return TorchPrecision(NAMES[dtype], reason, device, DTYPES[dtype], channels_last=channels_last)
