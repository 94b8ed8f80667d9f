"""Precisions by name: fp32, fp64, tf32, fp16, bf16, amp and auto."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch.amp.grad_scaler import GradScaler

from microstep.components.precision.torch_precision import TorchPrecision
from microstep.errors import CheckpointRefused, ConfigError

log = logging.getLogger("microstep.notice")
DTYPES = {"float32": torch.float32, "float64": torch.float64}
PRECISION_NAMES = {"float32": "fp32", "float64": "fp64"}


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
    return TorchPrecision(PRECISION_NAMES[dtype], reason, device, DTYPES[dtype], channels_last=channels_last)


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


def amp(device: torch.device, channels_last: bool = True, saved_dtype: str | None = None) -> TorchPrecision:
    """Return the mixed precision that is right for the device: fp16 with a scaler on CUDA, bf16 elsewhere.

    Args:
        saved_dtype: what a run that is taken up again has computed in: it goes on so, whatever the device.
    """
    if saved_dtype is not None:
        make, reason = (fp16, bf16)[saved_dtype == "bfloat16"], "amp: what the run has computed in so far"
        return make(device, channels_last=channels_last, reason=reason)
    if device.type == "cuda":
        return fp16(device, channels_last=channels_last, reason="amp: fp16 autocast with a gradient scaler on CUDA")
    return bf16(
        device, channels_last, reason=f"amp: bf16 autocast, what the {device.type} is fast at; it needs no scaler"
    )


def bf16(device: torch.device, channels_last: bool = True, reason: str = "bf16 autocast, as asked") -> TorchPrecision:
    """Return bf16 autocast: fp32's range, so nothing is scaled."""
    return TorchPrecision("bf16", reason, device, autocast=torch.bfloat16, channels_last=channels_last)


def fp16(
    device: torch.device,
    init_scale: float = 65536.0,
    growth_interval: int = 2000,
    max_skipped: int = 25,
    channels_last: bool = True,
    reason: str = "fp16 autocast with a gradient scaler, as asked",
) -> TorchPrecision:
    """Return fp16 autocast with a gradient scaler that halves at an overflow and doubles after `growth_interval`."""
    if device.type == "cpu":
        log.warning(
            "precision=fp16 on a CPU is slow and meant for checks: bf16 is what the CPU is fast at (precision=amp)"
        )
    return make_fp16(device, init_scale, growth_interval, max_skipped, channels_last, reason)


def make_fp16(
    device: torch.device,
    init_scale: float = 65536.0,
    growth_interval: int = 2000,
    max_skipped: int = 25,
    channels_last: bool = True,
    reason: str = "fp16 autocast with a gradient scaler",
) -> TorchPrecision:
    """Return fp16 without a word about how slow it is."""
    scaler = GradScaler(device.type, init_scale=init_scale, growth_interval=growth_interval)
    return TorchPrecision(
        "fp16",
        reason,
        device,
        autocast=torch.float16,
        scaler=scaler,
        channels_last=channels_last,
        max_skipped=max_skipped,
    )


PRESETS: dict[str, Callable[..., TorchPrecision]] = {"fp32": full, "tf32": tf32, "bf16": bf16, "fp16": make_fp16}


def available_precisions(device: torch.device) -> tuple[str, ...]:
    """Return the names of what can be chosen on a device."""
    return tuple(name for name in PRESETS if name != "tf32" or device.type == "cuda")


def auto(
    device: torch.device,
    saved_name: str | None = None,
    measured: Callable[[], tuple[str, str]] | None = None,
) -> TorchPrecision:
    """Return the precision that check=precision recommends here, for this model and batch.

    Args:
        saved_name: what a run has computed in that is taken up again, or evaluated: nothing is measured then.
        measured: returns the name of what is recommended, and why.

    Raises:
        CheckpointRefused: for a saved name that this never chose.
        ConfigError: where nothing was chosen and nothing can be measured.
    """
    if saved_name is not None:
        return restore_precision(saved_name, device)
    if measured is None:
        reason = "it is chosen by a measurement, and run.json doesn't say what was chosen"
        raise ConfigError("precision=auto", reason, "give a run's own directory")
    name, reason = measured()
    return PRESETS[name](device, reason=f"auto: {reason}")


def restore_precision(name: str, device: torch.device) -> TorchPrecision:
    """Return what a run has computed in so far; tf32 is fp32 where there is none."""
    if name not in PRESETS:
        raise CheckpointRefused(f"precision={name}", "precision=auto never chooses it", "start a new run")
    if name == "tf32" and device.type != "cuda":
        return tf32(device, saved_name=name)
    return PRESETS[name](device, reason="auto: what the run has computed in so far")
