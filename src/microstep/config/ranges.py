"""Ranges of the numeric config keys."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """An interval for a number. `minimum` and `maximum` belong to it, `above` and `below` don't."""

    minimum: float = -math.inf
    maximum: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.minimum <= value <= self.maximum and self.above < value < self.below

    def __str__(self) -> str:
        bounds = {"at least": self.minimum, "above": self.above, "at most": self.maximum, "below": self.below}
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))


POSITIVE_INT = Range(minimum=1)
POSITIVE = Range(above=0)
NON_NEGATIVE = Range(minimum=0)
FRACTION = Range(minimum=0, maximum=1)
BELOW_ONE = Range(minimum=0, below=1)
MAX_COUNT = 1024  #: threads or processes; many more would exhaust a machine
#: Ranges of the numbers in the shipped yamls, by dotted key.
RANGES = {
    **dict.fromkeys(("accumulation.micro_batches", "augment.num_ops", "average.every_steps", "step.k"), POSITIVE_INT),
    **dict.fromkeys(("checkpoint.every_epochs", "checkpoint.every_steps", "precision.max_skipped"), POSITIVE_INT),
    **dict.fromkeys(("dataset.channels", "dataset.size", "dataset.max_pixels", "dataset.samples"), POSITIVE_INT),
    **dict.fromkeys(("dataset.val_samples", "dataset.test_samples", "stop.epochs", "stop.epoch"), POSITIVE_INT),
    **dict.fromkeys(("model.norm_samples", "model.width", "scheduler.cycle_mult"), POSITIVE_INT),
    **dict.fromkeys(("strategy.processes", "strategy.run_on"), Range(minimum=1, maximum=MAX_COUNT)),
    **dict.fromkeys(("augment.alpha", "checkpoint.every_minutes", "gradient.clipping", "gradient.eps"), POSITIVE),
    **dict.fromkeys(("optimizer.lr", "precision.init_scale", "step.rho", "stop.minutes", "task.delta"), POSITIVE),
    **dict.fromkeys(("scheduler.cycle_epochs", "scheduler.gamma", "scheduler.milestones"), POSITIVE),
    **dict.fromkeys(("optimizer.weight_decay", "optimizer.momentum", "optimizer.eps", "stop.min_delta"), NON_NEGATIVE),
    **dict.fromkeys(("dataset.budget_gib", "scheduler.head_epochs", "scheduler.warmup_epochs"), NON_NEGATIVE),
    **dict.fromkeys(("scheduler.patience", "scheduler.min_lr"), NON_NEGATIVE),
    **dict.fromkeys(("augment.padding", "augment.flip", "sampler.power", "scheduler.final", "step.alpha"), FRACTION),
    **dict.fromkeys(("average.decay", "average.start", "model.dropout", "scheduler.warmup"), BELOW_ONE),
    **dict.fromkeys(("dataset.val_fraction", "dataset.test_fraction", "scheduler.threshold"), BELOW_ONE),
    "task.label_smoothing": BELOW_ONE,
    "average.bn_samples": Range(minimum=2),
    **dict.fromkeys(("scheduler.pct_start", "scheduler.factor"), Range(above=0, below=1)),
    **dict.fromkeys(("search.trials", "search.batch", "search.seeds"), POSITIVE_INT),
    "search.seed": NON_NEGATIVE,
    "decide.difference": POSITIVE,
    "decide.max_seeds": Range(minimum=2),
    "augment.hole": Range(above=0, maximum=1),
    "augment.magnitude": Range(minimum=0, maximum=30),
    "dataset.split_seed": Range(minimum=0, maximum=2**32 - 1),
    **dict.fromkeys(("dataset.classes", "dataset.folds"), Range(minimum=2)),
    **dict.fromkeys(("dataset.fold", "dataset.repeat"), NON_NEGATIVE),
}
