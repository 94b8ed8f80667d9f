"""Measures the cost and the error of each precision with an experiment's own model and batch."""

from microstep.training.profiling.profile import Measurement, Profile, profiled
from microstep.training.profiling.recommendation import Recommendation, keep, recommendation, recommended

__all__ = ["Measurement", "Profile", "Recommendation", "keep", "profiled", "recommendation", "recommended"]
