"""`check=`: measures properties of an experiment instead of training it."""

from microstep.diagnostics.check import run_check
from microstep.diagnostics.result import CheckResult

__all__ = ["CheckResult", "run_check"]
