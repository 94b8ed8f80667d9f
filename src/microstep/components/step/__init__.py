"""Steps: strategies for one optimizer step over one window of micro-batches."""

from microstep.components.step.lookahead import LookaheadStep
from microstep.components.step.sam import SAMStep
from microstep.components.step.standard import StandardStep

__all__ = ["LookaheadStep", "SAMStep", "StandardStep"]
