"""Two settings held against each other on the same samples: how much better one is, and how sure that is."""

from microstep.comparison.figures import Figures
from microstep.comparison.paired import Paired
from microstep.comparison.verdict import Verdict, verdicts

__all__ = ["Figures", "Paired", "Verdict", "verdicts"]
