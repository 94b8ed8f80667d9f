"""check=drift: measures how far rounding separates two splits of the same batch."""

from microstep.diagnostics.drift.check import run_drift_check

__all__ = ["run_drift_check"]
