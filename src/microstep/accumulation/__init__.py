"""Accumulation: how an epoch's order is cut into windows and micro-batches, and nothing else."""

from microstep.accumulation.fixed import Fixed

__all__ = ["Fixed"]
