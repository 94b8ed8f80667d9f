"""Decides which of two settings is better: their seeds are run in pairs until validation tells."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from omegaconf import DictConfig

from microstep.config.search_space import SearchSpace
from microstep.errors import ConfigError, MicrostepError
from microstep.run.saved_run import SavedRun
from microstep.sweep.definition import MakeJobs
from microstep.utils.anytime import anytime_interval, seeds_needed
from microstep.utils.tables import format_table
from microstep.utils.text import format_count

PLANNED_POINTS = (0.25, 0.5, 1.0, 2.0, 5.0)  #: differences for which decide.plan tells the number of seeds
MIN_PLAN_PAIRS = 3


class Decision:
    """Runs the next seed with both settings until the interval of their difference on validation decides.

    The interval holds at every number of seeds at once, to look after each pair makes no false verdict likelier.
    """

    def __init__(self, keys: DictConfig, space: SearchSpace) -> None:
        self.keys, self.space = keys, space
        self.first_seed = int(space.repeats[0][0].partition("=")[2])
        (self.dimension,) = space.dimensions
        self.names = [f"{self.dimension.key.lstrip('+')}={value}" for value in self.dimension.choices]
        self.pairs: list[tuple[SavedRun, SavedRun]] = []
        self.settings: dict[str, Any] = {}

    @property
    def most_jobs(self) -> int:
        return 2 * int(self.keys.max_seeds)

    @property
    def title(self) -> str:
        return f"{' and '.join(self.names)}, seed by seed until decided, with at most {self.keys.max_seeds} seeds"

    @property
    def description(self) -> dict[str, Any]:
        """Return the content of sweep.json about the decision."""
        return {"kind": "decide", "settings": self.names, "verdict": self.verdict or ("undecided" * self.is_over)}

    def ask(self) -> list[list[str]]:
        """Return the overrides of the next pair; none if it is decided, or if there were enough."""
        return [] if self.is_over else self.make_pair(self.first_seed + len(self.pairs))

    @property
    def is_over(self) -> bool:
        return self.verdict is not None or len(self.pairs) >= self.keys.max_seeds

    def make_pair(self, seed: int) -> list[list[str]]:
        return [self.space.make_job({self.dimension.key: value}, [f"seed={seed}"]) for value in self.dimension.choices]

    def tell(self, runs: Sequence[SavedRun]) -> str:
        for run in runs:
            if run.record.status != "finished":
                remedy = "compare settings that train, or lower optimizer.lr"
                raise MicrostepError(str(run.directory), f"it has no score: {run.record.error}", remedy)
        self.pairs.append((runs[0], runs[1]))
        return self.format_known()

    def conclude(self) -> str:
        """Return the verdict on validation, and the scores on the test split, which were not looked at before."""
        remedy = f"undecided; decide.max_seeds={2 * self.keys.max_seeds} adds seeds, decide.plan=true plans them"
        lines = [f"verdict on validation: {self.verdict or remedy}"]
        if all(self.metric in run.record.metrics.get("test", {}) for pair in self.pairs for run in pair):
            scores = [format_scores(self.get_scores("test")[:, side]) for side in (0, 1)]
            named = "; ".join(f"{name} {score}" for name, score in zip(self.names, scores, strict=True))
            lines.append(f"test {self.metric}: {named}; {self.format_difference('test')}")
        return "\n".join(lines)

    @property
    def metric(self) -> str:
        return str(self.pairs[0][0].record.monitor)

    @property
    def is_minimized(self) -> bool:
        return self.pairs[0][0].record.direction == "min"

    def get_scores(self, split: str) -> Any:
        """Return the scores of both settings, one row a pair."""
        return np.array([[run.record.metrics[split][self.metric] for run in pair] for pair in self.pairs])

    def find_interval(self, split: str) -> tuple[float, float]:
        """Return the ends of the interval of the difference, in points."""
        samples = self.pairs[0][0].record.samples.get(split)
        resolution = 1 / samples if samples and not self.is_minimized else 0.0
        low, high = anytime_interval(-np.diff(self.get_scores(split))[:, 0], resolution=resolution)
        return 100 * low, 100 * high

    @property
    def verdict(self) -> str | None:
        """Return what is decided; None if nothing is yet."""
        if not self.pairs:
            return None
        low, high = self.find_interval("val")
        if low > 0 or high < 0:
            word = "worse" if (high < 0) != self.is_minimized else "better"
            return f"{self.names[0]} is {word} than {self.names[1]}"
        limit = self.keys.difference
        return f"no difference larger than {limit:g} points" if -limit < low and high < limit else None

    def format_known(self) -> str:
        verdict = self.verdict or "undecided"
        return f"after {format_count(len(self.pairs), 'pair')}: {verdict}; validation: {self.format_difference('val')}"

    def format_difference(self, split: str) -> str:
        low, high = self.find_interval(split)
        difference = 100 * float(-np.diff(self.get_scores(split)).mean()) + 0.0  # not -0
        interval = f"95 % at any time: {low:+.2f} to {high:+.2f}" if np.isfinite(low) else "too few for an interval"
        return f"a difference of {difference:+.2f} points of {self.metric} ({interval})".replace("-", "−")


def format_scores(values: Sequence[float]) -> str:
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def plan_seeds(decision: Decision, directory: Path, make_jobs: MakeJobs) -> str:
    """Return how many seeds differences need, by the finished pairs of a sweep's directory.

    Raise ConfigError if there are too few pairs.
    """
    for seed in range(decision.first_seed, decision.first_seed + int(decision.keys.max_seeds)):
        runs = [SavedRun.read(directory / job.name) for job in make_jobs(decision.make_pair(seed))]
        if any(run.record.status != "finished" for run in runs):
            break
        decision.pairs.append((runs[0], runs[1]))
    if len(decision.pairs) < MIN_PLAN_PAIRS:
        pairs = format_count(len(decision.pairs), "finished pair")
        reason = f"{directory} has {pairs}, and {MIN_PLAN_PAIRS} are needed"
        remedy = f"make some: until=decided decide.max_seeds={MIN_PLAN_PAIRS}, with the same sweep="
        raise ConfigError("decide.plan=true", reason, remedy)
    differences = -100 * np.diff(decision.get_scores("val"))[:, 0]
    deviation = float(np.std(differences, ddof=1))
    rows: list[tuple[str, ...]] = [("points of difference", "seeds to see it", "seeds to exclude as much", "runs")]
    for points in sorted({*PLANNED_POINTS, float(decision.keys.difference)}):
        needed = [seeds_needed(deviation, points, equivalence) for equivalence in (False, True)]
        texts = ["over 500" if number is None else str(number) for number in needed]
        total = "–" if None in needed else str(2 * max(number for number in needed if number is not None))
        rows.append((f"{points:g}", *texts, total))
    head = f"{decision.format_known()}; standard deviation over seeds {deviation:.2f}"
    return "\n".join([head, *format_table(rows, "<>"), "with so many, 4 of 5 comparisons are decided"])
