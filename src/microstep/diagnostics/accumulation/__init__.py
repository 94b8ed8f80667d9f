"""check=accumulation: compares a window split into micro-batches with one large batch."""

from microstep.diagnostics.accumulation.check import look

__all__ = ["look"]
