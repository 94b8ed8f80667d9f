"""check=learning: does the model learn, and if not, why? Short trainings, measurements of each layer, and a verdict."""

from microstep.diagnostics.learning.check import run_learning_check

__all__ = ["run_learning_check"]
