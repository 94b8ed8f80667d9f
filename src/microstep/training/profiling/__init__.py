"""Measures the cost and the error of each precision with an experiment's own model and batch."""

from microstep.training.profiling.profile import Measurement, Profile, profile_precisions
from microstep.training.profiling.recommendation import (
    Recommendation,
    recommend,
    recommend_or_load,
    store_recommendation,
)

__all__ = [
    "Measurement",
    "Profile",
    "Recommendation",
    "profile_precisions",
    "recommend",
    "recommend_or_load",
    "store_recommendation",
]
