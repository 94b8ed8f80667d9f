"""What each precision costs and loses with an experiment's own model and batch, on this machine."""

from microstep.profiler.profile import Measurement, Profile, profiled
from microstep.profiler.recommendation import Recommendation, recommendation
from microstep.profiler.remembered import keep, recommended
from microstep.profiler.trial import Trial

__all__ = ["Measurement", "Profile", "Recommendation", "Trial", "keep", "profiled", "recommendation", "recommended"]
