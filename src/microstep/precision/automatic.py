"""The precision that a measurement recommends, and the precisions that it chooses from."""

from __future__ import annotations

from collections.abc import Callable

import torch

from microstep.errors import CheckpointRefused, ConfigError
from microstep.precision.mixed import bf16, half
from microstep.precision.plain import full, tf32
from microstep.precision.torch_precision import TorchPrecision

MAKERS: dict[str, Callable[..., TorchPrecision]] = {"fp32": full, "tf32": tf32, "bf16": bf16, "fp16": half}


def candidates(device: torch.device) -> tuple[str, ...]:
    """Return the names of what can be chosen on a device."""
    return tuple(name for name in MAKERS if name != "tf32" or device.type == "cuda")


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
        return taken_up(saved_name, device)
    if measured is None:
        reason = "it is chosen by a measurement, and run.json doesn't say what was chosen"
        raise ConfigError("precision=auto", reason, "give a run's own directory")
    name, reason = measured()
    return MAKERS[name](device, reason=f"auto: {reason}")


def taken_up(name: str, device: torch.device) -> TorchPrecision:
    """Return what a run has computed in so far; tf32 is fp32 where there is none."""
    if name not in MAKERS:
        raise CheckpointRefused(f"precision={name}", "precision=auto never chooses it", "start a new run")
    if name == "tf32" and device.type != "cuda":
        return tf32(device, saved_name=name)
    return MAKERS[name](device, reason="auto: what the run has computed in so far")
