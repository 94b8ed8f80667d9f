"""Precisions: how gradients are computed and applied."""

from microstep.components.precision.presets import amp, auto, bf16, fp16, full, tf32
from microstep.components.precision.torch_precision import TorchPrecision

__all__ = ["TorchPrecision", "amp", "auto", "bf16", "fp16", "full", "tf32"]
