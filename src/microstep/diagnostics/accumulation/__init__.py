"""check=accumulation: compares a window split into micro-batches with one large batch."""

from microstep.diagnostics.accumulation.check import run_accumulation_check

__all__ = ["run_accumulation_check"]
