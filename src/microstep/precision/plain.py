"""fp32, tf32 and fp64: one dtype throughout."""

import torch

from microstep.errors import ConfigError
from microstep.precision.torch_precision import TorchPrecision

DTYPES = {"float32": torch.float32, "float64": torch.float64}
NAMES = {"float32": "fp32", "float64": "fp64"}


def full(
    device: torch.device, dtype: str = "float32", channels_last: bool | None = None, reason: str | None = None
) -> TorchPrecision:
    """Return the precision that computes and keeps everything in one dtype.

    Args:
        channels_last: whether pictures are stored channels-last; null takes it where fp32 convolutions were measured
            to be faster that way, on CPUs (benchmarks/README.md).
        reason: why it was chosen; null says what it is.

    Raises:
        ValueError: for a dtype other than float32 or float64, or float64 where the device has none.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype} is no full precision: the options are {', '.join(DTYPES)}")
    if device.type == "mps" and dtype == "float64":
        raise ValueError("float64 does not exist on mps; add device=cpu")
    if channels_last is None:
        channels_last = device.type == "cpu" and dtype == "float32"
    reason = reason or {"float32": "full precision", "float64": "for verification"}[dtype]
    return TorchPrecision(NAMES[dtype], reason, device, DTYPES[dtype], channels_last=channels_last)


def tf32(
    device: torch.device,
    channels_last: bool | None = None,
    saved_name: str | None = None,
    reason: str = "fp32 weights; tensor cores multiply with 10 bits of mantissa, as asked",
) -> TorchPrecision:
    """Return fp32 whose matrix products and convolutions multiply in TF32: fp32's range, fp16's mantissa.

    Args:
        saved_name: what a run has computed in that is taken up again, or evaluated: away from CUDA it is fp32 then.

    Raises:
        ConfigError: for a new run away from CUDA.
    """
    if device.type == "cuda":
        return TorchPrecision("tf32", reason, device, channels_last=bool(channels_last), tf32=True)
    if saved_name is None:
        reason = f"only CUDA's tensor cores compute so, and the device is {device.type}"
        raise ConfigError("precision=tf32", reason, "choose fp32, amp or auto")
    return full(device, channels_last=channels_last, reason="the run's own tf32 exists on CUDA alone")
