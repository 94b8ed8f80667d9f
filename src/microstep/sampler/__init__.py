"""Samplers: which samples an epoch is made of, and in which order."""

from microstep.sampler.balanced import Balanced
from microstep.sampler.shuffle import Shuffle

__all__ = ["Balanced", "Shuffle"]
