"""Precisions by name: fp32, fp64, tf32, fp16, bf16, amp and auto.

They share these parameters:
    device: device of the model.
    channels_last: whether weights and images are stored channels-last.
    reason: why the precision was chosen, for the start-up summary.
    saved_name, saved_dtype: precision in which a run to be resumed or evaluated was computed, from run.json.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler

from microstep.components.precision.torch_precision import TorchPrecision
from microstep.errors import CheckpointRefused, ConfigError

log = logging.getLogger("microstep.notice")
FULL = {"float32": ("fp32", torch.float32, "full precision"), "float64": ("fp64", torch.float64, "for verification")}


def full(
    device: torch.device, dtype: str = "float32", channels_last: bool | None = None, reason: str | None = None
) -> TorchPrecision:
    """Return a precision that computes and stores everything in one dtype.

    Args:
        channels_last: null chooses it for fp32 on CPUs, where convolutions are faster with it (benchmarks/README.md).

    Raises:
        ValueError: if the dtype is neither float32 nor float64, or the device has no float64.
    """
    if dtype not in FULL:
        raise ValueError(f"dtype={dtype} is no full precision: the options are {', '.join(FULL)}")
    if device.type == "mps" and dtype == "float64":
        raise ValueError("float64 does not exist on mps; add device=cpu")
    if channels_last is None:
        channels_last = device.type == "cpu" and dtype == "float32"
    name, torch_dtype, purpose = FULL[dtype]
    return TorchPrecision(name, reason or purpose, device, torch_dtype, channels_last=channels_last)


def tf32(
    device: torch.device,
    channels_last: bool | None = None,
    saved_name: str | None = None,
    reason: str = "fp32 weights; tensor cores multiply with 10 bits of mantissa, as chosen",
) -> TorchPrecision:
    """Return fp32 with matrix products and convolutions in TF32, which has the range of fp32 and the mantissa of fp16.

    A saved tf32 run is continued in fp32 if the device is not CUDA.

    Raises:
        ConfigError: if a new run is not on CUDA.
    """
    if device.type == "cuda":
        return TorchPrecision("tf32", reason, device, channels_last=bool(channels_last), tf32=True)
    if saved_name is None:
        reason = f"only CUDA's tensor cores compute so, and the device is {device.type}"
        raise ConfigError("precision=tf32", reason, "choose fp32, amp or auto")
    return full(device, channels_last=channels_last, reason="the run's own tf32 exists on CUDA alone")


def amp(device: torch.device, channels_last: bool = True, saved_dtype: str | None = None) -> TorchPrecision:
    """Return automatic mixed precision: fp16 with a gradient scaler on CUDA, bf16 on other devices.

    A saved run keeps its dtype on any device.
    """
    if saved_dtype is not None:
        precision, reason = (fp16, bf16)[saved_dtype == "bfloat16"], "amp: what the run has computed in so far"
    elif device.type == "cuda":
        precision, reason = fp16, "amp: fp16 autocast with a gradient scaler on CUDA"
    else:
        precision, reason = bf16, f"amp: bf16 autocast, what the {device.type} is fast at; it needs no scaler"
    return precision(device, channels_last=channels_last, reason=reason)


def bf16(device: torch.device, channels_last: bool = True, reason: str = "bf16 autocast, as chosen") -> TorchPrecision:
    """Return bf16 autocast. It has the range of fp32, so gradients are not scaled."""
    return TorchPrecision("bf16", reason, device, autocast=torch.bfloat16, channels_last=channels_last)


def fp16(
    device: torch.device,
    init_scale: float = 65536.0,
    growth_interval: int = 2000,
    max_skipped: int = 25,
    channels_last: bool = True,
    reason: str = "fp16 autocast with a gradient scaler, as chosen",
) -> TorchPrecision:
    """Return fp16 autocast with a gradient scaler (Micikevicius et al., ICLR 2018). Warn if the device is a CPU.

    Args:
        init_scale: initial scale of the loss. It is halved after each overflow.
        growth_interval: consecutive steps without overflow after which the scale is doubled.
        max_skipped: consecutive steps that may overflow before the run counts as diverged.
    """
    if device.type == "cpu":
        slow = "precision=fp16 on a CPU is slow and meant for checks: bf16 is what the CPU is fast at (precision=amp)"
        log.warning(slow)
    return make_fp16(device, reason, max_skipped, channels_last, init_scale=init_scale, growth_interval=growth_interval)


def make_fp16(
    device: torch.device,
    reason: str = "fp16 autocast with a gradient scaler",
    max_skipped: int = 25,
    channels_last: bool = True,
    **scaling: Any,
) -> TorchPrecision:
    """Return the precision of `fp16` without a warning. `scaling` are arguments of torch's `GradScaler`."""
    scaler, dtype = GradScaler(device.type, **scaling), torch.float16
    return TorchPrecision("fp16", reason, device, torch.float32, dtype, scaler, channels_last, max_skipped)


PRESETS: dict[str, Callable[..., TorchPrecision]] = {"fp32": full, "tf32": tf32, "bf16": bf16, "fp16": make_fp16}


def available_precisions(device: torch.device) -> tuple[str, ...]:
    return tuple(name for name in PRESETS if name != "tf32" or device.type == "cuda")


def auto(
    device: torch.device, saved_name: str | None = None, measured: Callable[[], tuple[str, str]] | None = None
) -> TorchPrecision:
    """Return the precision that `check=precision` recommends for this device, model and batch size.

    `measured` returns the name of the recommended precision and the reason. It is not called if there is a saved name.

    Raises:
        CheckpointRefused: if the saved name is not one of `PRESETS`.
        ConfigError: if there is neither a saved name nor a measurement.
    """
    if saved_name is not None:
        if saved_name not in PRESETS:
            raise CheckpointRefused(f"precision={saved_name}", "precision=auto never chooses it", "start a new run")
        if saved_name == "tf32" and device.type != "cuda":
            return tf32(device, saved_name=saved_name)
        return PRESETS[saved_name](device, reason="auto: what the run has computed in so far")
    if measured is None:
        reason = "it is chosen by a measurement, and run.json doesn't say what was chosen"
        raise ConfigError("precision=auto", reason, "give a run's own directory")
    name, reason = measured()
    return PRESETS[name](device, reason=f"auto: {reason}")
