"""Measures how long a run will take before it starts."""

from copy import deepcopy

from microstep.training.components import PROFILED_EPOCH, fetch_window
from microstep.training.profiling.timing import TimedCandidate, time_interleaved
from microstep.training.trainer import Trainer
from microstep.utils.text import format_duration


def format_expected_time(trainer: Trainer, budget: float = 1.0) -> str:
    """Return the time of all steps of a run, from `budget` seconds of steps of a copy; or why it is not known."""
    model, optimizer, step = deepcopy((trainer.model, trainer.optimization.optimizer, trainer.optimization.step))
    device, data = trainer.loaders.device, fetch_window(next(trainer.loaders.train(PROFILED_EPOCH)))
    timed = TimedCandidate(model.train, lambda _: step(model, optimizer, data.batches, data.weight), device)
    if failed := time_interleaved({"step": timed}, budget):
        return f"not known: a step is {failed['step']}"
    seconds = min(timed.turns)  # other processes can only slow it down
    return f"{format_duration(seconds * trainer.periods.total)}, {1000 * seconds:,.0f} ms a step; without validation"
