"""Precision: how a gradient is made and applied."""

from microstep.precision.automatic import auto
from microstep.precision.mixed import amp, bf16, fp16
from microstep.precision.plain import full, tf32
from microstep.precision.torch_precision import TorchPrecision

__all__ = ["TorchPrecision", "amp", "auto", "bf16", "fp16", "full", "tf32"]
