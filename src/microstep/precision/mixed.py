"""Mixed precision: fp32 weights, a forward pass under autocast, and a gradient scaler where fp16 needs one.

The method is that of Micikevicius et al., "Mixed Precision Training" (ICLR 2018).
"""

import logging

import torch
from torch.amp.grad_scaler import GradScaler

from microstep.precision.torch_precision import TorchPrecision

log = logging.getLogger("microstep.notice")


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
    return half(device, init_scale, growth_interval, max_skipped, channels_last, reason)


def half(
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
