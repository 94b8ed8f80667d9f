"""Short trainings: on one batch again and again, and on the data of the experiment."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from math import inf, isfinite
from statistics import median
from time import perf_counter
from typing import Any

import torch
from omegaconf import DictConfig

from microstep.config.experiment import LATER
from microstep.diagnostics.drift.training import DriftTraining, start_training
from microstep.diagnostics.learning.losses import LossFacts, examine_loss
from microstep.diagnostics.learning.outputs import predict
from microstep.diagnostics.learning_rate import CONSTANT
from microstep.diagnostics.variants import change_config
from microstep.errors import Diverged
from microstep.training.components import Components
from microstep.training.training_loop import train_epoch
from microstep.types.data import Batch, LoadedWindow, StepResult
from microstep.utils.progress_bar import ProgressBars

OVERFIT_WINDOWS = 200
BATCH_SAMPLES = 16  #: least number of samples of the one batch, if an epoch has as many
NEAR_ZERO = 0.02  #: share of the loss at which the batch is learned, and its training ends
LEARNED = 0.5  #: share at which it counts as learned
SECONDS, LEAST_WINDOWS = 0.4, 30  #: time that a training gets for each of its windows; the least number of windows
OFF = {key: LATER[key] for key in ("average", "stop", "validate_every_steps")}
ONE_BATCH: dict[str, Any] = {
    **OFF,
    "augment": {"_target_": "microstep.components.augment.none"},
    "scheduler": CONSTANT,
    "steps": OVERFIT_WINDOWS,
}


def last_loss(losses: Sequence[float]) -> float:
    """Return the median of the last three losses; infinity if one of them is not finite."""
    last = losses[-3:]
    return median(last) if last and all(map(isfinite, last)) else inf


def train(
    training: DriftTraining,
    windows: Iterable[tuple[int, LoadedWindow]],
    total: int,
    bars: ProgressBars,
    is_done: Callable[[float], bool] = lambda loss: False,
    watch: Callable[[StepResult], None] = lambda result: None,
) -> list[float]:
    """Take a step for each window until it is done or out of time. Return the losses, infinity last if it diverges."""
    losses, start = list[float](), perf_counter()

    def after(result: StepResult) -> None:
        losses.append(result.loss.item())
        watch(result)

    for epoch, window in bars.samples(islice(windows, total), training.name, total, lambda _: 1, dict):
        try:
            train_epoch(epoch, [window], training.components, training.optimization, training.progress, after)
        except Diverged:
            return [*losses, inf]
        is_late = len(losses) >= LEAST_WINDOWS and perf_counter() - start > SECONDS * total
        if is_late or is_done(last_loss(losses)):
            break
    return losses


@dataclass(frozen=True)
class OneBatch:
    """The training on one batch."""

    losses: list[float]  #: by window
    loss: LossFacts
    samples: int

    @property
    def left(self) -> float:
        """Share of the loss that is left: 1 is chance, 0 the least."""
        return (last_loss(self.losses) - self.loss.least) / max(self.loss.chance - self.loss.least, 1e-12)

    @property
    def is_learned(self) -> bool:
        return self.left <= LEARNED


def overfit(config: DictConfig, bars: ProgressBars, **changes: Any) -> OneBatch:
    """Train on one batch without augmentation, at the learning rate of the config, until its loss is near the least."""
    training = start_training("one batch", change_config(config, **ONE_BATCH | changes))
    window, components = take_batch(training.components), training.components
    outputs, targets = predict(components.model.eval(), window.batches, components)
    loss = examine_loss(components.task, targets, outputs.shape)
    enough = loss.least + NEAR_ZERO * (loss.chance - loss.least)
    windows = ((1, replace(window, number=number)) for number in count())  # the number seeds dropout
    losses = train(training, windows, OVERFIT_WINDOWS, bars, lambda last: last <= enough)
    return OneBatch(losses, loss, len(targets))


def take_batch(components: Components) -> LoadedWindow:
    """Return a window of the first micro-batches of epoch 1 that have enough samples together."""
    taken = list[Batch]()
    for batch in chain.from_iterable(window.batches for window in components.loaders.train(1)):
        taken.append(batch)
        if sum(len(each.targets) for each in taken) >= BATCH_SAMPLES:
            break
    targets = torch.cat([batch.targets for batch in taken])
    return LoadedWindow(0, len(targets), components.task.weight(targets).sum().item(), taken)
