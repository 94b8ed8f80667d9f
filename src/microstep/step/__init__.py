"""Steps: one optimizer step over one window, whatever the strategy."""

from microstep.step.sam import SAMStep
from microstep.step.standard import StandardStep

__all__ = ["SAMStep", "StandardStep"]
