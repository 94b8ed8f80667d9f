"""check=drift: measures how far rounding separates two splits of the same batch."""

from microstep.diagnostics.drift.check import look

__all__ = ["look"]
