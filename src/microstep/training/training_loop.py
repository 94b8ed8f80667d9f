"""Optimizer steps over the windows of an epoch."""

import gc
import logging
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy

import torch
from torch import nn

from microstep.components.accumulation import Auto
from microstep.components.strategy import use_strategy
from microstep.errors import Diverged, OutOfMemory, ProcessLost, format_error
from microstep.run.progress import Progress
from microstep.training.components import Components, Optimization
from microstep.types.data import LoadedWindow, StepResult
from microstep.types.protocols import FollowsValidation, Strategy
from microstep.utils.randomness import reseed
from microstep.utils.tensors import is_out_of_memory
from microstep.utils.terminal import print_and_log
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
    for window in windows:
        if progress.window == 0:
            step.metrics.reset()
        reseed(components.device, components.loaders.seed, epoch, window.number)
        result = try_step(epoch, window, components, optimization)
        if result is None:
            continue  # the window comes again, in smaller micro-batches
        progress.count(window, result, lr=optimizer.param_groups[0]["lr"])
        if progress.skipped_in_a_row > components.precision.max_skipped:
            raise divergence_error(epoch, window, result, components)
        if result.updated:
            with time_range("update"):
                optimization.scheduler.step()
                optimization.average.update(model, progress.optimizer_steps)
        if progress.window == 1:
            check_equal_weights(model, components.loaders.strategy)
        with time_range("log"):
            after_window(result)


def try_step(epoch: int, window: LoadedWindow, components: Components, optimization: Optimization) -> StepResult | None:
    """Take the step of a window. If memory runs out with `accumulation=auto`, reduce the micro-batches; return None.

    Otherwise everything is then as before. OutOfMemory is raised if they can't be reduced, or it would not help.
    """
    plan, model, metrics = components.accumulation, components.model, optimization.step.metrics
    called = model if optimization.compiled is None else optimization.compiled  # not `or`: it has a length
    before = deepcopy((list(model.buffers()), metrics.state_dict())) if isinstance(plan, Auto) else None
    try:
        with use_strategy(components.loaders.strategy):
            return optimization.step(called, optimization.optimizer, window.batches, window.weight)
    except (RuntimeError, MemoryError, OutOfMemory) as error:
        if before is None or not isinstance(plan, Auto):
            raise
        reason = describe_shortage(error, window, components.loaders.strategy)
    optimization.optimizer.zero_grad()
    gc.collect()  # frees what the failed pass held
    for buffer, value in zip(model.buffers(), before[0], strict=True):
        buffer.copy_(value)
    metrics.load_state_dict(before[1])
    print_and_log(f"micro-batch {plan.reduce(reason)}: out of memory at epoch {epoch}, window {window.number + 1}")
    return None


def describe_shortage(error: Exception, window: LoadedWindow, strategy: Strategy) -> str:
    """Return in which micro-batch memory ran out. If it was in none, raise OutOfMemory; raise other errors again."""
    if isinstance(error, OutOfMemory):  # all ranks raise it
        return f"{error.args[0]}, {error.args[1]}"
    if not is_out_of_memory(error):
        raise error
    if strategy.world_size > 1 or not getattr(window.batches, "is_open", False):
        remedy = "choose a smaller model, or an optimizer with less state"
        raise OutOfMemory("memory", f"it ran out after the micro-batches: {format_error(error)}", remedy) from error
    return format_error(error)


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
            remedy = "look for a step without accumulate_gradient, unseeded random numbers, or a state of its own"
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
