"""Optimizer steps over the windows of an epoch."""

import logging
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import nn

from microstep.components.strategy import use_strategy
from microstep.errors import Diverged, ProcessLost
from microstep.run.progress import Progress
from microstep.training.components import Components, Optimization
from microstep.types.data import LoadedWindow, StepResult
from microstep.types.protocols import FollowsValidation, Strategy
from microstep.utils.randomness import reseed
from microstep.utils.time_ranges import time_range

log = logging.getLogger(__name__)
MAX_NAMED_SAMPLES = 12  #: samples named in an error message; the log names all of them


def train_epoch(
    epoch: int,
    windows: Iterable[LoadedWindow],
    components: Components,
    optimization: Optimization,
    progress: Progress,
    after_window: Callable[[StepResult], None] = lambda result: None,
) -> None:
    """Take one optimizer step for each of the given windows of an epoch.

    `epoch` counts passes over the data from 1. A resumed epoch passes only its remaining windows.
    The random numbers of a step depend on the seed, the epoch and the window only. Scheduler and average follow the
    steps that are not skipped. `after_window` is called last. Diverged is raised if more windows in a row than the
    precision allows have no finite gradient.
    """
    model, optimizer, step = components.model.train(), optimization.optimizer, optimization.step
    called = model if optimization.compiled is None else optimization.compiled  # not `or`: it has a length
    for window in windows:
        if progress.window == 0:
            step.metrics.reset()
        reseed(components.device, components.loaders.seed, epoch, window.number)
        with use_strategy(components.loaders.strategy):
            result = step(called, optimizer, window.batches, window.weight)
        progress.count(window, result, lr=optimizer.param_groups[0]["lr"])
        if progress.skipped_in_a_row > components.precision.max_skipped:
            raise divergence_error(epoch, window, result, components)
        if result.updated:
            with time_range("update"):
                optimization.scheduler.step()
                optimization.average.update(model, progress.optimizer_steps)
        with time_range("log"):
            after_window(result)


def finish_epoch(epoch: int, val: Mapping[str, float], optimization: Optimization, progress: Progress) -> bool:
    """Count a validated epoch, tell the schedule, and return whether the epoch is the best so far."""
    best = progress.finish_epoch(epoch, val, optimization.monitor)
    if isinstance(optimization.scheduler, FollowsValidation):
        optimization.scheduler.after_validation(progress.value)
    return best


def check_equal_weights(model: nn.Module, strategy: Strategy) -> None:
    """Raise ProcessLost if a rank holds other weights or buffers than rank 0."""
    if strategy.world_size == 1:
        return
    digests = strategy.gather([torch.hash_tensor(value).item() for value in model.state_dict().values()])
    for rank, digest in enumerate(digests):
        if digest != digests[0]:
            remedy = "look for random numbers without a seed, and for a component that keeps a state of its own batches"
            raise ProcessLost(f"rank {rank}", "its weights differ from those of rank 0", remedy)


def divergence_error(epoch: int, window: LoadedWindow, result: StepResult, components: Components) -> Diverged:
    """Return an error that names a window's samples by their index in the official data; fetch them again for it."""
    ranks = components.loaders.strategy.gather(tuple(batch.indices for batch in window.batches))
    indices = torch.cat([batch.cpu() for batches in ranks for batch in batches]).tolist()
    subject = f"epoch {epoch}, step {window.number + 1}"
    log.error("%s is made of samples %s", subject, indices)
    named = ", ".join(map(str, indices[:MAX_NAMED_SAMPLES]))
    more = f", … ({len(indices)}, all in train.log)" if indices[MAX_NAMED_SAMPLES:] else ""
    figures = f"the loss ({result.loss.item():.4g}) or its gradient ({result.grad_norm:.4g})"
    reason = f"{figures} is not finite in {components.precision.name}, over samples {named}{more}"
    return Diverged(subject, reason, "lower optimizer.lr or set max_grad_norm")
