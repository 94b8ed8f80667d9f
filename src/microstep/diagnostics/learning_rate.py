"""check=lr: trains with a growing learning rate, and suggests one from the loss (Smith, WACV 2017)."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import numpy as np
from matplotlib.axes import Axes
from omegaconf import DictConfig
from scipy.ndimage import gaussian_filter1d

from microstep.config.hydra_job import get_typed
from microstep.diagnostics.drift.training import DriftTraining, start_training
from microstep.diagnostics.result import CheckResult
from microstep.diagnostics.variants import change_config, subject_rows
from microstep.errors import Diverged
from microstep.training.device import describe_device
from microstep.training.training_loop import train_epoch
from microstep.types.data import LoadedWindow, StepResult
from microstep.utils.plotting import BLUE, GREY, ORANGE, new_figure, png_bytes
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.tables import format_fields
from microstep.utils.terminal import called

LOWEST, HIGHEST = 1e-6, 10.0  #: learning rates of the first and the last window
WINDOWS = 210  #: 30 for each factor of ten
SMOOTHING = 4.0  #: standard deviation of the weights of a loss's neighbors, in windows
LEAST_WINDOWS = 30  #: before which the test does not end
RISE = 3.0  #: the test ends if the smoothed loss exceeds its lowest value by this factor of the fall so far
FIRST_WINDOWS, CAP = 20, 5.0  #: windows whose median is the first loss; its multiple that losses are capped at
LEAST_FALL = 0.05  #: share of the first loss by which a loss must fall
CONSTANT = {"_target_": "microstep.components.scheduler.constant"}


@dataclass(frozen=True)
class RangeTest:
    """Losses of windows that were trained with growing learning rates."""

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def add(self, rate: float, result: StepResult) -> None:
        if result.loss.isfinite():
            self.rates.append(rate)
            self.losses.append(result.loss.item())

    @property
    def smoothed(self) -> np.ndarray:
        """Losses, each averaged with its neighbors. Very large ones are capped, so that they don't blur the others."""
        return np.asarray(gaussian_filter1d(np.minimum(self.losses, CAP * self.first), SMOOTHING, mode="nearest"))

    @property
    def first(self) -> float:
        """The loss before the rate matters: a median, because single windows differ."""
        return float(np.median(self.losses[:FIRST_WINDOWS]))

    @property
    def has_risen(self) -> bool:
        if len(self.losses) < LEAST_WINDOWS:
            return False
        smoothed = self.smoothed
        fall = max(self.first - smoothed.min(), LEAST_FALL * self.first)
        return bool(smoothed[-1] > smoothed.min() + RISE * fall)

    @property
    def suggestion(self) -> float | None:
        """The rate at which the smoothed loss, once it is clearly lower, falls fastest, to two digits, or None.

        If that is below a tenth of the rate with the lowest loss, it is this tenth: a bias may have been learned first.
        """
        if not self.losses:
            return None
        smoothed = self.smoothed
        lowest, is_high = int(smoothed.argmin()), smoothed >= (1 - LEAST_FALL) * self.first
        if is_high[lowest]:
            return None
        start = int(np.flatnonzero(is_high[:lowest])[-1]) if is_high[:lowest].any() else 0
        steepest = self.rates[start + int(np.gradient(smoothed)[start : lowest + 1].argmin())]
        return float(f"{max(steepest, self.rates[lowest] / 10):.1e}")


def run_learning_rate_check(config: DictConfig) -> CheckResult:
    """Train with learning rates from 1e-6 to 10 and suggest one; pass if some of them lower the loss."""
    config = change_config(config, scheduler=CONSTANT, epochs=WINDOWS, steps=None, validate_every_steps=None)
    training = start_training("range test", config)
    test = measure(training, ProgressBars(config.progress))
    components, found = training.components, test.suggestion
    rows = subject_rows(config, components.dataset, components.model)
    rows |= {"device": describe_device(components.device), "windows": f"{len(test.rates)} of up to {WINDOWS}"}
    rows |= {"rates": f"{test.rates[0]:.2g} to {test.rates[-1]:.2g}"}
    rows |= {"loss": f"{test.losses[0]:.4f} at first, {test.smoothed.min():.4f} at its lowest (smoothed)"}
    numbers = {"suggestion": found, "rates": test.rates, "losses": test.losses, "smoothed": test.smoothed.tolist()}
    images, curves = {"lr": draw_range_test(test)}, {"check/lr/loss": test.losses}
    return CheckResult(format_fields(rows), format_verdict(test), numbers, images, curves, found is not None)


def measure(training: DriftTraining, bars: ProgressBars, number: int = WINDOWS) -> RangeTest:
    """Return the losses of windows, each trained with a higher rate, until the loss rises clearly or is not finite."""
    test, optimizer = RangeTest(), training.optimization.optimizer
    ratios = [group["lr"] / optimizer.defaults["lr"] for group in optimizer.param_groups]
    windows = bars.samples(iter_windows(training), "range test", number, lambda _: 1, dict)
    for rate, (epoch, window) in zip(np.geomspace(LOWEST, HIGHEST, number).tolist(), windows, strict=False):
        for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
            group["lr"] = rate * ratio
        add = partial(test.add, rate)
        try:
            train_epoch(epoch, [window], training.components, training.optimization, training.progress, add)
        except Diverged:
            if not test.rates:
                raise
            break
        if test.has_risen:
            break
    return test


def iter_windows(training: DriftTraining) -> Iterator[tuple[int, LoadedWindow]]:
    for epoch in count(1):
        passes = getattr(training.optimization.step, "passes", 1)
        yield from ((epoch, window) for window in training.components.loaders.train(epoch, passes=passes))


def format_verdict(test: RangeTest) -> str:
    if test.suggestion is None:
        tried = f"{test.rates[0]:g} to {test.rates[-1]:.2g}"
        return f"No learning rate from {tried} lowers the loss by {100 * LEAST_FALL:g} %."
    words = [*get_typed("check", "optimizer.lr"), f"optimizer.lr={test.suggestion:g}"]
    found = f"optimizer.lr={test.suggestion:g}: the loss falls fastest there, or is lowest at ten times this rate"
    return f"{found}. Type: {called('train')} {shlex.join(words)}"


def draw_range_test(test: RangeTest) -> bytes:
    """Return a PNG: the loss by learning rate, with the suggestion."""
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    axes.plot(test.rates, test.losses, ".", color=GREY, alpha=0.5, markersize=4)
    draw_smoothed(axes, test, label="loss, smoothed")
    axes.set(xlabel="learning rate", ylabel="training loss")
    axes.legend(frameon=False)
    return png_bytes(figure)


def draw_smoothed(axes: Axes, test: RangeTest, label: str | None = None) -> None:
    axes.plot(test.rates, test.smoothed, color=BLUE, label=label)
    if test.suggestion is not None:
        axes.axvline(test.suggestion, color=ORANGE, label=f"suggestion {test.suggestion:g}")
    axes.set(xscale="log", ylim=(0, 2 * test.first))
