"""How a sweep goes: what is left of it, one run after the other or side by side, and what is seen of it."""

from microstep.sweep.running import run_sweep

__all__ = ["run_sweep"]
