"""check=drift: how far rounding takes two cuts of the same batch apart, beside two seeds and beside fp64."""

from microstep.examination.drift.looking import look

__all__ = ["look"]
