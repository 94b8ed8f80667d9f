"""Everything about an experiment's config that needs no torch: schema, checks, composing, names, allowlist."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from microstep.checks import CHECKS, OURS, RULES, refuse_empty_checks
from microstep.errors import ConfigError
from microstep.targets import current

#: Keys that can't change a result: hashes, resuming and directory names leave them out.
NEUTRAL_KEYS = frozenset(
    {"num_workers", "progress", "log_every_steps", "resume", "sweep", "redo", "trust", "check", "rule"}
    | {"checkpoint.every_epochs", "checkpoint.every_minutes", "checkpoint.every_steps"}
    | {"dataset.resident", "dataset.budget_gib", "dataset.download"}
)

#: Keys that a resume may set besides those: the first more epochs, the others where it goes on, and with which data.
RESUMABLE_KEYS = frozenset({"epochs", "device", "threads", "dataset.root"})

#: Dotted keys that were added after 0.1.0, with the values that runs without them were made with. At that value a key
#: is left out of hashes and comparisons, so that older runs still fit. A root key that a run lacks is set to it.
LATER: dict[str, Any] = {}

#: Keys whose values mean themselves, paths above all: quoted before Hydra's grammar sees them.
VERBATIM_KEYS = frozenset(
    {
        "dataset.root",
        "resume",
        "run",
        "baseline",
        "split",
        "input",
        "output",
        "hydra.run.dir",
        "hydra.sweep.dir",
        "hydra.sweep.subdir",
    }
)

#: A run's best weights for others, in its directory; also what evaluate.py calls them.
EXPORTED = "model.safetensors"

#: Keys whose interpolations are names like any other: nobody asks for their values.
LITERAL_KEYS = frozenset({"trust"})


@dataclass(frozen=True)
class Range:
    """The interval a number must lie in: closed, except where `above` or `below` opens it."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        bounds = [("at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below)]
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound))


POSITIVE_INT = Range(least=1)
POSITIVE = Range(above=0)
NOT_NEGATIVE = Range(least=0)
MANY = 1024  #: threads or processes at most: far more of them than a machine can start bring it down

#: Ranges of the numbers that the shipped yamls hold, by dotted key.
RANGES = {
    "accumulation.micro_batches": POSITIVE_INT,
    "augment.padding": Range(least=0, most=1),
    "augment.flip": Range(least=0, most=1),
    "augment.hole": Range(above=0, most=1),
    "augment.alpha": POSITIVE,
    "augment.num_ops": POSITIVE_INT,
    "augment.magnitude": Range(least=0, most=30),
    "checkpoint.every_epochs": POSITIVE_INT,
    "checkpoint.every_minutes": POSITIVE,
    "checkpoint.every_steps": POSITIVE_INT,
    "dataset.val_samples": POSITIVE_INT,
    "dataset.test_samples": POSITIVE_INT,
    "dataset.split_seed": Range(least=0, most=2**32 - 1),
    "dataset.samples": POSITIVE_INT,
    "dataset.classes": Range(least=2),
    "dataset.channels": POSITIVE_INT,
    "dataset.size": POSITIVE_INT,
    "dataset.val_fraction": Range(above=0, below=1),
    "dataset.test_fraction": Range(above=0, below=1),
    "dataset.budget_gib": NOT_NEGATIVE,
    "dataset.max_pixels": POSITIVE_INT,
    "model.dropout": Range(least=0, below=1),
    "model.width": POSITIVE_INT,
    "optimizer.lr": POSITIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": NOT_NEGATIVE,
    "optimizer.eps": NOT_NEGATIVE,
    "precision.init_scale": POSITIVE,
    "precision.max_skipped": POSITIVE_INT,
    "sampler.power": Range(least=0, most=1),
    "scheduler.warmup": Range(least=0, below=1),
    "scheduler.final": Range(least=0, most=1),
    "scheduler.pct_start": Range(above=0, below=1),
    "step.rho": POSITIVE,
    "task.label_smoothing": Range(least=0, below=1),
}


#: Sections of `--help`, in their order.
SECTIONS = RECIPES, DATA, MODEL, OPTIMIZATION, BATCH, PRECISION, RUN, COMPARISON, SWEEP, DIAGNOSTICS, OUTPUT = (
    "Recipes",
    "Data",
    "Model and task",
    "Optimization",
    "Batch and accumulation",
    "Precision and device",
    "Run, checkpoints and resuming",
    "Comparison",
    "Sweep (-m)",
    "Diagnostics",
    "Output",
)


def key(default: Any, section: str, about: str, allowed: Range | None = None) -> Any:
    """Return a dataclass field with its section and description for `--help`, and its range if it has one."""
    metadata = {"section": section, "help": about} | ({"range": allowed} if allowed else {})
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Checkpointing:
    """When a run saves, besides after its last epoch and after its best."""

    every_epochs: int = key(1, RUN, "epochs between two checkpoints")
    every_minutes: float | None = key(None, RUN, "also save during an epoch: minutes between two checkpoints")
    every_steps: int | None = key(None, RUN, "the same, in optimizer steps")


@dataclass
class Experiment:
    """The root of an experiment. Groups are nodes of their own; `train.yaml` says which are chosen by default."""

    accum: int = key(1, BATCH, "micro-batches per optimizer step", POSITIVE_INT)
    batch_size: int = key(64, BATCH, "samples per micro-batch", POSITIVE_INT)
    effective_batch_size: int | None = key(
        None, BATCH, "samples per optimizer step; batch_size becomes this divided by accum", POSITIVE_INT
    )
    epochs: int = key(20, OPTIMIZATION, "passes over the training split", POSITIVE_INT)
    seed: int = key(0, RUN, "seeds initial weights, order, augmentation and dropout", Range(least=0, most=2**63 - 1))
    device: str = key("auto", PRECISION, "where to train; cuda:1 selects the second GPU")
    threads: int | None = key(None, PRECISION, "CPU threads; null: torch's choice", Range(least=1, most=MANY))
    deterministic: bool = key(True, PRECISION, "use deterministic algorithms only")
    num_workers: int | None = key(
        None, DATA, "processes that load images; null: one per core, at most 8", Range(least=0, most=MANY)
    )
    max_grad_norm: float | None = key(None, OPTIMIZATION, "clip the gradient of a step to this norm", POSITIVE)
    log_every_steps: int = key(10, OUTPUT, "optimizer steps between two points of the train/… charts", POSITIVE_INT)
    resume: str | None = key(None, RUN, "run directory to resume; auto: resume hydra.run.dir if it holds a run")
    sweep: str | None = key(None, SWEEP, "name of the sweep's directory; null: date and time")
    redo: str | None = key(None, SWEEP, "stale: repeat finished runs whose code or data have changed since")
    check: str | None = key(
        None,
        DIAGNOSTICS,
        "measure instead of training: is accumulation exact; speed and error of each precision; "
        "drift by rounding, compared with another seed",
    )
    rule: str = key(OURS, DIAGNOSTICS, "loop that check=accumulation examines; weighted_mean is microstep's own")
    progress: bool = key(True, OUTPUT, "show progress bars on a terminal")
    trust: list[str] = key(list, RUN, "targets and ${…} that the run to be resumed may use besides those in conf/")
    checkpoint: Checkpointing = key(Checkpointing, RUN, "when to save; the best and the last epoch are always saved")
    precision: Any = key(MISSING, PRECISION, "number format")
    accumulation: Any = key(MISSING, BATCH, "how an epoch is cut into optimizer steps")
    step: Any = key(MISSING, OPTIMIZATION, "optimizer step")
    dataset: Any = key(MISSING, DATA, "data set")
    sampler: Any = key(MISSING, DATA, "order of the training samples")
    augment: Any = key(MISSING, DATA, "augmentation of the training images")
    model: Any = key(MISSING, MODEL, "network")
    task: Any = key(MISSING, MODEL, "loss, metrics and report")
    optimizer: Any = key(MISSING, OPTIMIZATION, "optimizer")
    scheduler: Any = key(MISSING, OPTIMIZATION, "learning rate schedule, by optimizer step")


@dataclass
class Evaluation:
    """The root of evaluate.py."""

    run: str = key(MISSING, RUN, "run directory; with baseline= also a quoted pattern of several")
    baseline: str | None = key(None, COMPARISON, "run directory, or pattern, to compare run= with; reads reports only")
    split: str = key("test", DATA, "split to evaluate or compare on: test, val or train")
    input: str | None = key(None, DATA, "image, or folder of images, to classify instead of a split")
    checkpoint: str = key("best", RUN, "weights: best by validation, last, or the exported model.safetensors")
    device: str | None = key(None, OUTPUT, "where to evaluate; null: the run's own")
    progress: bool = key(True, OUTPUT, "show progress bars on a terminal")
    trust: list[str] = key(list, RUN, "targets and ${…} that the run directory may use besides those in conf/")


@dataclass
class Statistics:
    """The root of compute_stats.py."""

    dataset: Any = key(MISSING, DATA, "data set")
    split: str = key("train", DATA, "official splits to examine, comma-separated: train, val, test")
    ratio: float | None = key(None, DATA, "share of the images to sample; null: all, exactly", Range(above=0, most=1))
    seed: int = key(0, DATA, "seeds the sample that ratio= draws", NOT_NEGATIVE)
    output: str = key("outputs/stats", OUTPUT, "directory of the JSON file and the page of images")
    num_workers: int | None = key(
        None, OUTPUT, "processes that decode images; null: one per core, at most 8", Range(least=0, most=MANY)
    )
    progress: bool = key(True, OUTPUT, "show progress bars on a terminal")


SCHEMAS: dict[str, type[Any]] = {"train": Experiment, "evaluate": Evaluation, "compute_stats": Statistics}

#: Words that a string key may take.
CHOICES = {
    "check": CHECKS,
    "rule": RULES,
    "redo": ("stale",),
    "device": ("auto", "cpu", "cuda", "mps"),
    "checkpoint": ("best", "last", EXPORTED),
}


def register() -> None:
    """Put the schemas where the yamls' defaults lists find them."""
    for name, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{name}_schema", node=schema)


def check(config: DictConfig) -> None:
    """Check ranges, finiteness, choices and that everything is resolved.

    Raises:
        ConfigError: naming the first key that can't be right.
    """
    ranges = RANGES | {f.name: f.metadata["range"] for f in fields_of(config) if "range" in f.metadata}
    for key, value in leaves(config):
        check_value(key, value, ranges.get(key), CHOICES.get(key))
    if "accum" in config:
        micro_batch_size(config)
        refuse_two_accums(config)
        refuse_empty_checks(config)


def refuse_two_accums(config: DictConfig) -> None:
    """Refuse an accumulation that cuts otherwise than the root's `accum`, which everything reported is made from."""
    cut = config.accumulation.get("micro_batches", config.accum)
    if cut != config.accum:
        raise ConfigError(f"accumulation.micro_batches={cut}", f"accum={config.accum} sets it", f"write accum={cut}")


def fields_of(config: DictConfig) -> tuple[Any, ...]:
    """Return the dataclass fields of a typed root; none for a plain one."""
    schema: Any = OmegaConf.get_type(config)
    return fields(schema) if schema in SCHEMAS.values() else ()


def check_value(key: str, value: Any, allowed: Range | None, choices: tuple[str, ...] | None) -> None:
    """Check one leaf."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value}", "not a finite number", f"give a number{f' {allowed}' if allowed else ''}")
    if allowed and isinstance(value, int | float) and not isinstance(value, bool) and value not in allowed:
        raise ConfigError(f"{key}={value}", "out of range", f"it must be {allowed}")
    if choices and value is not None and re.sub(r"^cuda:[0-9]+$", "cuda", str(value)) not in choices:
        raise ConfigError(f"{key}={value}", "no such option", f"the options are {', '.join(choices)}")


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every (dotted key, resolved value) below a node.

    Raises:
        ConfigError: for a value that is missing or whose interpolation leads nowhere.
    """
    keys = range(len(node)) if isinstance(node, ListConfig) else list(node)
    for key in keys:
        name = f"{prefix}{key}"
        if name in LITERAL_KEYS:
            continue
        if OmegaConf.is_missing(node, key):
            raise ConfigError(f"{name}=???", "it has no value", f"give one: {name}=…")
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            raise ConfigError(name, f"can't be resolved: {str(error).splitlines()[0]}", "mend the reference") from None
        if OmegaConf.is_config(value):
            yield from leaves(value, f"{name}.")
        else:
            yield name, value


def micro_batch_size(config: DictConfig) -> int:
    """Return the micro-batch's size: `batch_size`, or what `effective_batch_size` and `accum` make it."""
    if config.effective_batch_size is None:
        return int(config.batch_size)
    size, rest = divmod(config.effective_batch_size, config.accum)
    if rest or not size:
        subject = f"effective_batch_size={config.effective_batch_size}"
        raise ConfigError(subject, f"it is not a multiple of accum={config.accum}", "change one of the two")
    return int(size)


def measures(config: DictConfig) -> bool:
    """Say whether a measurement chooses the precision: what was chosen is part of the experiment then."""
    return current(str(config.precision.get("_target_"))) == current("microstep.precision.auto")


def experiment_of(config: DictConfig) -> dict[str, Any]:
    """Return what describes the experiment, to be hashed and compared: without what `LATER` leaves out."""
    return without_later(described(config))


def described(config: DictConfig) -> dict[str, Any]:
    """Return the config, resolved and plain, without the neutral keys."""
    settings = OmegaConf.masked_copy(config, [str(key) for key in config if key not in LITERAL_KEYS])
    plain = OmegaConf.to_container(settings, resolve=True)
    assert isinstance(plain, dict)
    return without(plain, NEUTRAL_KEYS)


def flatten(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the plain, resolved value of each leaf below a node; a list is a leaf."""
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    if isinstance(plain, Mapping):
        for name, inner in plain.items():
            yield from flatten(inner, f"{key}.{name!s}" if key else str(name))
    else:
        yield key, plain


def displayed(config: DictConfig) -> dict[str, Any]:
    """Return the same to be shown and kept: what asks a resolver stands as it was written, for it may be a secret."""
    return described(OmegaConf.create(literal(OmegaConf.to_container(config))))


def without_later(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested config without the keys that `LATER` has at the same value. A foreign node keeps all its keys."""
    foreign = not str(node.get("_target_", "microstep.")).startswith("microstep.")
    return {
        key: without_later(value, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in node.items()
        if foreign or (name := f"{prefix}{key}") not in LATER or value != LATER[name]
    }


def literal(node: Any) -> Any:
    """Return a plain structure in which no resolver is asked for anything: `${name:…}` means itself."""
    if isinstance(node, dict):
        return {key: literal(value) for key, value in node.items()}
    if isinstance(node, list):
        return [literal(value) for value in node]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", node) if asks_resolver(node) else node


def asks_resolver(value: Any) -> bool:
    """Say whether a value may ask a resolver: `${name:…}` runs code, or reads the environment."""
    return isinstance(value, str) and ":" in value.partition("${")[2]


def trusted(config: DictConfig) -> list[str]:
    """Return what is trusted by name, as it was typed: an interpolation in the list is a name, not its value."""
    return [str(name) for name in OmegaConf.to_container(config.trust) or ()]


def without(node: dict[Any, Any], keys: Collection[str], prefix: str = "") -> dict[str, Any]:
    """Return a nested config without some keys, dotted."""
    return {
        str(key): without(value, keys, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in node.items()
        if f"{prefix}{key}" not in keys
    }
