"""Looking at what an experiment would do, instead of training it: `check=accumulation|precision|drift`."""

from microstep.examination.examining import examine
from microstep.examination.finding import Finding

__all__ = ["Finding", "examine"]
