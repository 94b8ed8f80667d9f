"""Accepted values of the text keys of the configs."""

from microstep.config.experiment import WEIGHTS_FILENAME

CHECKS = ("accumulation", "precision", "drift", "resume", "learning", "lr")
CHECK_KEYS = ("check", "rule")
MICRO_BATCH_CHECKS = ("accumulation", "drift")  #: checks that compare a batch with its micro-batches
#: Loops that check=accumulation can examine; the first is the one that training uses.
RULES = (
    *("weighted_mean", "mean_over_accum", "mean_of_means", "sum_of_means"),
    *("dropped_tail", "zero_grad_each", "clip_each", "scale_doubles"),
)
DEFAULT_RULE = RULES[0]
#: Accepted values of string keys.
CHOICES = {
    "check": CHECKS,
    "rule": RULES,
    "redo": ("stale",),
    "reduction": ("sum", "canonical"),
    "tta": ("flip",),
    "export": ("onnx", "torch", "card"),
    "allocator": ("keep", "default"),
    "checkpoint.keep": ("all", "best"),
    "device": ("auto", "cpu", "cuda", "mps"),
    "dataset.fit": ("crop", "pad", "squash"),
    "until": ("decided",),
    "search.sampler": ("tpe", "random"),
    "search.prune": ("median",),
    **dict.fromkeys(("checkpoint", "baseline_checkpoint"), ("best", "last", WEIGHTS_FILENAME)),
}
#: The same for the task `Classification`.
CLASSIFICATION_CHOICES = {
    "task.loss": ("cross_entropy", "focal", "bce"),
    "task.metrics": ("accuracy", "f1_macro", "f1_weighted", "balanced_accuracy", "top5", "auroc", "nll", "ece"),
}
