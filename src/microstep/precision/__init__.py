"""Precision: how a gradient is made and applied."""

from microstep.precision.mixed import amp, bf16, fp16
from microstep.precision.plain import full
from microstep.precision.torch_precision import TorchPrecision

__all__ = ["TorchPrecision", "amp", "bf16", "fp16", "full"]
