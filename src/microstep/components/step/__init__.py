"""Steps: one optimizer step over one window, whatever the strategy."""

from microstep.components.step.sam import SAMStep
from microstep.components.step.standard import StandardStep

__all__ = ["SAMStep", "StandardStep"]
