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
    **dict.fromkeys(("accumulation.micro_batches", "augment.num_ops", "model.width"), POSITIVE_INT),
    **dict.fromkeys(("checkpoint.every_epochs", "checkpoint.every_steps", "precision.max_skipped"), POSITIVE_INT),
    **dict.fromkeys(("dataset.channels", "dataset.size", "dataset.max_pixels", "model.norm_samples"), POSITIVE_INT),
    **dict.fromkeys(("dataset.val_samples", "dataset.test_samples", "dataset.samples"), POSITIVE_INT),
    **dict.fromkeys(("augment.alpha", "checkpoint.every_minutes", "optimizer.lr", "scheduler.cycle_epochs"), POSITIVE),
    **dict.fromkeys(("precision.init_scale", "scheduler.gamma", "scheduler.milestones", "step.rho"), POSITIVE),
    "scheduler.cycle_mult": POSITIVE_INT,
    **dict.fromkeys(("optimizer.weight_decay", "optimizer.momentum", "optimizer.eps"), NON_NEGATIVE),
    **dict.fromkeys(("dataset.budget_gib", "scheduler.warmup_epochs"), NON_NEGATIVE),
    **dict.fromkeys(("augment.padding", "augment.flip", "sampler.power", "scheduler.final"), FRACTION),
    **dict.fromkeys(("model.dropout", "scheduler.warmup", "task.label_smoothing"), BELOW_ONE),
    **dict.fromkeys(("dataset.val_fraction", "dataset.test_fraction"), BELOW_ONE),
    "scheduler.pct_start": Range(above=0, below=1),
    "augment.hole": Range(above=0, maximum=1),
    "augment.magnitude": Range(minimum=0, maximum=30),
    "dataset.split_seed": Range(minimum=0, maximum=2**32 - 1),
    "dataset.classes": Range(minimum=2),
}
