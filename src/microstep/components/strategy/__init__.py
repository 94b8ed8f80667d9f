"""Strategies: how the micro-batches of a window are distributed over processes."""

from microstep.components.strategy.single import Single, get_strategy, use_strategy

__all__ = ["Single", "get_strategy", "use_strategy"]
