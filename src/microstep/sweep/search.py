"""Searches for the best values of swept keys with Optuna's samplers. The runs are its only memory."""

from collections.abc import Sequence
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
import optuna
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from microstep.config.search_space import Dimension, SearchSpace
from microstep.config.sweep_jobs import ComposedStudy
from microstep.errors import ConfigError
from microstep.run.monitor import choose_monitor
from microstep.run.pruning import MedianRule, best_so_far
from microstep.run.saved_run import SavedRun

DIGITS = 5  #: significant digits of a proposed number


class Search:
    """Proposes the trials of a search, a generation at a time.

    Trial n is a function of the space, the search's seed, n, and the results of earlier generations. A repeated command
    therefore proposes the same trials, whatever has stopped it before.
    """

    def __init__(self, keys: DictConfig, space: SearchSpace, monitor: tuple[str, str] | None = None) -> None:
        """Make a search. `monitor` has name and direction of its objective; None for the metric that runs monitor."""
        self.keys, self.space, self.monitor = keys, space, monitor
        self.asked: list[dict[str, str]] = []  #: values of each trial, by key
        self.told: list[FrozenTrial] = []
        self.finished: list[SavedRun] = []  #: runs of complete trials

    @property
    def most_jobs(self) -> int:
        return int(self.keys.trials) * len(self.space.repeats)

    @property
    def title(self) -> str:
        repeats = len(self.space.repeats)
        runs = f" of {repeats} runs" if repeats > 1 else ""
        return f"{self.keys.trials} trials{runs} by {self.keys.sampler}"

    @property
    def description(self) -> dict[str, Any]:
        """Return the content of sweep.json about the search."""
        metric, direction = self.monitor or (None, None)
        found = {"kind": "search", "sampler": self.keys.sampler, "objective": metric, "direction": direction}
        keys = {dimension.key.lstrip("+"): dimension.typed for dimension in self.space.dimensions}
        return found | {"keys": keys, "repeats": len(self.space.repeats)}

    @property
    def settings(self) -> dict[str, Any]:
        if self.keys.prune is None or self.monitor is None:
            return {}
        return {"prune": MedianRule.of(self.finished, self.monitor)}

    def ask(self) -> list[list[str]]:
        """Return the overrides of the runs of the next generation; none if all trials are done."""
        first = len(self.told)
        numbers = range(first, min(first + self.keys.batch, self.keys.trials))
        self.asked += [self.propose(number) for number in numbers]
        trials = self.asked[first:]
        return [self.space.make_job(trial, repeat) for trial in trials for repeat in self.space.repeats]

    def tell(self, runs: Sequence[SavedRun]) -> str:
        """Take the runs of the generation that was asked for last, in its order."""
        monitors = [run.record for run in runs if run.record.monitor and run.record.direction]
        if self.monitor is None and monitors:
            self.monitor = str(monitors[0].monitor), str(monitors[0].direction)
        repeats = len(self.space.repeats)
        for start in range(0, len(runs), repeats):
            self.told.append(self.make_trial(self.asked[len(self.told)], runs[start : start + repeats]))
        return ""

    def conclude(self) -> str:
        scored = [(trial.value, number) for number, trial in enumerate(self.told) if trial.value is not None]
        if not scored or self.monitor is None:
            return "no trial has a score"
        name, direction = self.monitor
        value, number = (max if direction == "max" else min)(scored, key=lambda one: one[0])
        values = " ".join(f"{key}={value}" for key, value in self.asked[number].items())
        return f"best of {len(scored)} trials: validation {name} {value:.4f} by {values}"

    def propose(self, number: int) -> dict[str, str]:
        """Return the values of a trial as they are typed. Its sampler is new, and seeded by its number."""
        minimizes = self.monitor is not None and self.monitor[1] == "min"
        direction = StudyDirection.MINIMIZE if minimizes else StudyDirection.MAXIMIZE
        study = optuna.create_study(direction=direction, sampler=self.make_sampler(number))
        study.add_trials(self.told)  # of earlier generations
        params = study.ask(self.distributions).params
        return {one.key: format_value(one, params[one.key]) for one in self.space.dimensions}

    def make_sampler(self, number: int) -> BaseSampler:
        seed = int(np.random.SeedSequence([self.keys.seed, number]).generate_state(1)[0])
        return RandomSampler(seed=seed) if self.keys.sampler == "random" else TPESampler(seed=seed)

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        return {dimension.key: make_distribution(dimension) for dimension in self.space.dimensions}

    def make_trial(self, values: dict[str, str], runs: Sequence[SavedRun]) -> FrozenTrial:
        """Return a trial for the sampler. Its value is the mean over its runs, if all of them have finished.

        A run that was pruned counts as pruned if it was resumed later, too: otherwise later trials would change.
        """
        scores = [self.get_score(run) for run in runs]
        params = {one.key: parse_value(one, values[one.key]) for one in self.space.dimensions}
        found: dict[str, Any] = {"params": params, "distributions": self.distributions}
        if any(run.record.pruned_epoch for run in runs):
            return create_trial(state=TrialState.PRUNED, intermediate_values=self.get_reached(runs), **found)
        if None in scores:
            return create_trial(state=TrialState.FAIL, **found)
        self.finished += runs
        return create_trial(value=fmean(score for score in scores if score is not None), **found)

    def get_score(self, run: SavedRun) -> float | None:
        finished, (name, _) = run.record.status == "finished", self.monitor or ("", "")
        return run.record.metrics.get("val", {}).get(name) if finished else None

    def get_reached(self, runs: Sequence[SavedRun]) -> dict[int, float]:
        """Return the mean of what the pruned runs had reached, by the first of their epochs."""
        name, direction = self.monitor or ("", "max")
        epoch = min(run.record.pruned_epoch or 2**31 for run in runs)
        values = [curve[:epoch][-1] for run in runs if (curve := best_so_far(run, name, direction))]
        return {epoch: fmean(values) * (1 if direction == "max" else -1)} if values else {}


def make_distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices:
        return CategoricalDistribution(dimension.choices)
    if dimension.is_whole:
        return IntDistribution(int(dimension.low), int(dimension.high), dimension.log, int(dimension.step or 1))
    return FloatDistribution(dimension.low, dimension.high, dimension.log, dimension.step)


def format_value(dimension: Dimension, value: Any) -> str:
    """Return a proposed value as it is typed: a number between others with few digits, so that names stay short."""
    if dimension.choices or dimension.is_whole:
        return str(value)
    if dimension.step is not None:
        return f"{value:.10g}"
    return repr(min(max(float(f"{value:.{DIGITS}g}"), dimension.low), dimension.high))


def parse_value(dimension: Dimension, text: str) -> Any:
    return text if dimension.choices else int(text) if dimension.is_whole else float(text)


def build_search(composed: ComposedStudy) -> Search:
    """Return the search of a composed study.

    Raise ConfigError if the objective is no metric of the task, or one of the test split.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings, typed = composed.settings, composed.settings.objective
    name = str(typed).rpartition(":")[2]
    if name.startswith("test") and name[4:5] in ("_", "/", "."):
        reason = "a search that sees the test split fits it, and its test results mean nothing"
        raise ConfigError(f"search.objective={typed}", reason, f"name a metric of validation: {name[5:]}")
    if settings.prune and typed is not None:
        reason, remedy = "it compares the monitored metric", f"give monitor={typed} instead of search.objective"
        raise ConfigError(f"search.prune={settings.prune}", reason, remedy)
    return Search(settings, composed.space, None if typed is None else find_objective(typed, composed.examples[0]))


def find_objective(typed: str, config: DictConfig) -> tuple[str, str]:
    """Return name and direction of a metric that the task computes."""
    from microstep.training.builders import build_partial_components  # imports torch

    try:
        monitor = choose_monitor(typed, build_partial_components(config, device="cpu").task.metrics())
    except ConfigError as error:
        subject, reason, remedy = error.args
        raise ConfigError(subject.replace("monitor=", "search.objective=", 1), reason, remedy) from None
    return monitor.name, monitor.direction
