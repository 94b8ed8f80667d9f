"""`check=`: examines an experiment instead of training it."""

from microstep.diagnostics.check import examine
from microstep.diagnostics.result import Finding

__all__ = ["Finding", "examine"]
