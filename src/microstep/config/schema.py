"""Schemas of the primary configs."""

from __future__ import annotations  # --help and the checks of overrides read the types as text

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from microstep.config.choices import DEFAULT_RULE
from microstep.config.ranges import MAX_COUNT, NON_NEGATIVE, POSITIVE, POSITIVE_INT, Range

WORKERS = Range(minimum=0, maximum=MAX_COUNT)
SEEDS = Range(minimum=0, maximum=2**63 - 1)
#: Sections of `--help`, in their order.
SECTIONS = RECIPES, DATA, MODEL, OPTIMIZATION, BATCH, PRECISION, RUN, COMPARISON, SWEEP, DIAGNOSTICS, OUTPUT = (
    *("Recipes", "Data", "Model and task", "Optimization", "Batch and accumulation", "Precision and device"),
    *("Run, checkpoints and resuming", "Comparison", "Sweep (-m)", "Diagnostics", "Output"),
)
CHECK_HELP = (
    "measure instead of training. accumulation: is it exact; precision: speed and error; "
    "drift: effect of rounding; lr: which learning rate; resume: is any bit lost"
)


def key(default: Any, section: str, about: str, allowed: Range | None = None) -> Any:
    """Return a dataclass field with its section and description for `--help`, and its range if it has one."""
    metadata = {"section": section, "help": about} | ({"range": allowed} if allowed else {})
    return field(**{"default_factory" if callable(default) else "default": default}, metadata=metadata)


@dataclass
class CheckpointConfig:
    """Checkpoint schedule. The best and the last epoch are always saved."""

    every_epochs: int = key(1, RUN, "epochs between two checkpoints")
    every_minutes: float | None = key(None, RUN, "also save during an epoch: minutes between two checkpoints")
    every_steps: int | None = key(None, RUN, "the same, in windows (optimizer steps, skipped ones too)")
    keep: str = key("all", RUN, "best: a finished run keeps only its best checkpoint")


@dataclass
class DecideConfig:
    """Settings of until=decided."""

    difference: float = key(0.5, SWEEP, "with until=decided: points, hundredths of the metric, that make no difference")
    max_seeds: int = key(20, SWEEP, "the same: most seeds of each of the two settings")
    plan: bool = key(False, SWEEP, "the same: run nothing, and tell how many seeds a difference needs")


@dataclass
class SearchConfig:
    """Settings of search=."""

    sampler: str = key("tpe", SWEEP, "with search=: what chooses the values")
    trials: int = key(20, SWEEP, "the same: settings to try")
    batch: int = key(1, SWEEP, "the same: trials that run side by side, and see the results of earlier ones only")
    seeds: int = key(1, SWEEP, "the same: runs of a trial, whose scores are averaged")
    seed: int = key(0, SWEEP, "the same: seed of the sampler")
    objective: str | None = key(None, SWEEP, "validation metric: NAME, max:NAME or min:NAME; null: the monitored one")
    prune: str | None = key(None, SWEEP, "median: end a run whose best value is below the median of earlier ones")


@dataclass
class TrainConfig:
    """Root of train.yaml, which also names the default option of each group."""

    accum: int = key(1, BATCH, "micro-batches per optimizer step", POSITIVE_INT)
    batch_size: int = key(64, BATCH, "samples per micro-batch", POSITIVE_INT)
    effective_batch_size: int | None = key(
        None, BATCH, "samples per optimizer step; sets batch_size to this divided by accum", POSITIVE_INT
    )
    reduction: str = key("sum", BATCH, "canonical: the same bits for any accum and number of processes; sum: faster")
    atom: int = key(32, BATCH, "samples that pass through the model together with reduction=canonical", POSITIVE_INT)
    epochs: int = key(20, OPTIMIZATION, "passes over the training split", POSITIVE_INT)
    steps: int | None = key(None, OPTIMIZATION, "optimizer steps instead of epochs, skipped ones too", POSITIVE_INT)
    validate_every_steps: int | None = key(None, RUN, "steps between two validations; null: an epoch", POSITIVE_INT)
    monitor: str | None = key(None, RUN, "metric that chooses the best: NAME, max:NAME, min:NAME; null: the task's")
    seed: int = key(0, RUN, "seeds initial weights, order, augmentation and dropout", SEEDS)
    device: str = key("auto", PRECISION, "where to train; cuda:1 selects the second GPU")
    threads: int | None = key(None, PRECISION, "CPU threads; null: torch's choice", Range(minimum=1, maximum=MAX_COUNT))
    allocator: str = key(
        "keep", PRECISION, "keep: freed memory stays in the process, which is faster; or glibc's default"
    )
    deterministic: bool = key(True, PRECISION, "use deterministic algorithms only")
    compile: bool = key(False, PRECISION, "compile the model for training (torch.compile); needs g++")
    num_workers: int | None = key(None, DATA, "processes that load images; null: one per core, at most 8", WORKERS)
    param_groups: Any = key(None, OPTIMIZATION, "[{match: REGEX, lr: 0.1}, …], or norm_bias: these do not decay")
    max_grad_norm: float | None = key(None, OPTIMIZATION, "clip the gradient of a step to this norm", POSITIVE)
    log_every_steps: int = key(10, OUTPUT, "windows between two points of the train/… charts", POSITIVE_INT)
    init: str | None = key(None, MODEL, "run directory, model.safetensors or checkpoint with weights to start from")
    resume: str | None = key(None, RUN, "run directory to resume; auto: resume hydra.run.dir if it holds a run")
    sweep: str | None = key(None, SWEEP, "name of the sweep's directory; null: date and time")
    search: SearchConfig | None = key(None, SWEEP, "let a sampler choose the values of -m")
    until: str | None = key(None, SWEEP, "decided: run seeds of two settings until validation tells which is better")
    decide: DecideConfig = key(DecideConfig, SWEEP, "settings of until=decided")
    redo: str | None = key(None, SWEEP, "stale: repeat finished runs whose code or data have changed since")
    check: str | None = key(None, DIAGNOSTICS, CHECK_HELP)
    replay: str | None = key(None, DIAGNOSTICS, "run directory: repeat one optimizer step of it, and show what it did")
    window: int | None = key(None, DIAGNOSTICS, "which step, from 1; null: at which it diverged, or last", POSITIVE_INT)
    rule: str = key(DEFAULT_RULE, DIAGNOSTICS, "loop for check=accumulation; training uses weighted_mean")
    progress: bool = key(True, OUTPUT, "show progress bars on a terminal")
    profile: bool | str = key(False, OUTPUT, "true: trace and time five steps; FIRST:LAST: these steps of the run")
    expected_time: bool = key(False, OUTPUT, "time a few steps on a copy and print how long the run will take")
    trust: list[str] = key(list, RUN, "targets and ${…} that the run to be resumed may use besides those in conf/")
    checkpoint: CheckpointConfig = key(CheckpointConfig, RUN, "when to save; the best and last epoch always are")
    precision: Any = key(MISSING, PRECISION, "number format")
    accumulation: Any = key(MISSING, BATCH, "how an epoch is cut into optimizer steps")
    strategy: Any = key(MISSING, BATCH, "processes that a step's micro-batches are distributed over")
    step: Any = key(MISSING, OPTIMIZATION, "optimizer step")
    dataset: Any = key(MISSING, DATA, "data set")
    sampler: Any = key(MISSING, DATA, "order of the training samples")
    augment: Any = key(MISSING, DATA, "augmentation of the training images")
    model: Any = key(MISSING, MODEL, "network")
    task: Any = key(MISSING, MODEL, "loss, metrics and report")
    gradient: Any = key(MISSING, OPTIMIZATION, "transform of the gradient, before it is clipped")
    optimizer: Any = key(MISSING, OPTIMIZATION, "optimizer")
    average: Any = key(MISSING, OPTIMIZATION, "average of the weights, which is validated and kept")
    scheduler: Any = key(MISSING, OPTIMIZATION, "learning rate schedule, by optimizer step")
    logger: dict[str, Any] = key(dict, OUTPUT, "more loggers; several: 'logger=[jsonl,mlflow]'")
    stop: Any = key(MISSING, OPTIMIZATION, "what ends a run before its last epoch")


@dataclass
class EvaluatedDataConfig:
    """Keys of the data set that can't change a result. The data's fingerprint is checked."""

    root: str | None = key(None, DATA, "directory of the data if they have moved; null: the run's own")
    file: str | None = key(None, DATA, "the same for a data set in one file")
    max_pixels: int | None = key(None, DATA, "most pixels that an image file may declare; null: the run's own")
    cache: str | None = key(None, DATA, "directory of decoded images; null: the run's own")
    resident: bool | str | None = key(None, DATA, "true, false or auto: keep images on the device; null: the run's own")
    budget_gib: float | None = key(None, DATA, "most memory for that with auto, in GiB; null: the run's own")


@dataclass
class EvaluateConfig:
    """Root of evaluate.yaml."""

    run: str | None = key(None, RUN, "run directory, needed without weights=; with baseline= also a quoted pattern")
    weights: str | None = key(None, RUN, "model.safetensors to classify input= with, instead of a run")
    baseline: str | None = key(None, COMPARISON, "run directory, or pattern, to compare run= with, by their reports")
    split: str = key("test", DATA, "split to evaluate or compare on: test, val or train")
    dataset: EvaluatedDataConfig = key(EvaluatedDataConfig, DATA, "where the data are and how they are read")
    num_workers: int | None = key(None, DATA, "processes that load images; null: the run's own", WORKERS)
    input: str | None = key(None, DATA, "image, or folder of images, to classify instead of a split")
    checkpoint: str = key("best", RUN, "weights: best by validation, last, or the exported model.safetensors")
    baseline_checkpoint: str | None = key(None, COMPARISON, "checkpoint of baseline=; null: the same as of run=")
    tta: str | None = key(None, DATA, "flip: average the predictions for each image and its mirror image")
    export: str | None = key(None, OUTPUT, "onnx, torch: a file that needs no microstep; card: a README.md for a hub")
    device: str | None = key(None, OUTPUT, "where to evaluate; null: the run's own")
    allocator: str | None = key(None, OUTPUT, "keep or default, as for train.py; null: the run's own")
    progress: bool = key(True, OUTPUT, "show progress bars on a terminal")
    trust: list[str] = key(list, RUN, "targets and ${…} that the run directory may use besides those in conf/")


@dataclass
class EvaluateOtherConfig(EvaluateConfig):
    """Root of evaluate_other.yaml, which takes the place of evaluate.yaml if `dataset=` names other data."""

    dataset: Any = key(MISSING, DATA, "other data to evaluate on")


@dataclass
class ComputeStatsConfig:
    """Root of compute_stats.yaml."""

    dataset: Any = key(MISSING, DATA, "data set")
    split: str = key("train", DATA, "official splits to examine, comma-separated: train, val, test")
    ratio: float | None = key(None, DATA, "share of the images to sample; null: all", Range(above=0, maximum=1))
    seed: int = key(0, DATA, "seeds the sample that ratio= draws", NON_NEGATIVE)
    output: str = key("outputs/stats", OUTPUT, "directory of the JSON file and the page of images")
    num_workers: int | None = key(None, OUTPUT, "processes that decode images; null: one per core, at most 8", WORKERS)
    progress: bool = key(True, OUTPUT, "show progress bars on a terminal")


SCHEMAS: dict[str, type[Any]] = {"train": TrainConfig, "evaluate": EvaluateConfig, "compute_stats": ComputeStatsConfig}


def register_schemas() -> None:
    for name, schema in {**SCHEMAS, "evaluate_other": EvaluateOtherConfig}.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=schema)
