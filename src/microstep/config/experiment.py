"""Derives from a config what identifies the experiment: the keys that are hashed, shown and compared."""

import re
from collections.abc import Collection, Iterator, Mapping
from math import ceil
from typing import Any

from omegaconf import DictConfig, OmegaConf

from microstep.config.targets import current
from microstep.errors import ConfigError

STUDY_KEYS = ("search", "until", "decide")  #: keys of a sweep that chooses its runs; the configs of runs lack them
LOGGER = "logger"  #: node that can't change a result, whatever it holds; its group takes any number of options
#: Keys that can't change a result: hashes, resuming and directory names leave them out.
NEUTRAL_KEYS = frozenset(
    {"num_workers", "allocator", "progress", "log_every_steps", "resume", "sweep", "redo", "trust", "check", "rule"}
    | {"checkpoint.keep", "expected_time", "replay", "window"}
    | {LOGGER, "profile", "checkpoint.every_epochs", "checkpoint.every_minutes", "checkpoint.every_steps"}
    | {"strategy.run_on", "dataset.resident", "dataset.budget_gib", "dataset.download", "dataset.cache"}
)
#: Keys of a data set's constructor that say where the data are.
DATA_PATH_KEYS = frozenset({"dataset.root", "dataset.file", "dataset.cache"})
#: Keys that can't change a result while the data's fingerprint is the same. Hashes have the fingerprint instead.
DATA_KEYS = DATA_PATH_KEYS | {"dataset.max_pixels"}
#: Further keys that may change when a run is resumed.
RESUMABLE_KEYS = frozenset({"epochs", "steps", "device", "threads"}) | DATA_KEYS
#: Dotted keys added after 0.1.0, with the values that runs without them used. At that value a key is left out of
#: hashes and comparisons, so that older runs still match. A root key or group that a run lacks is set to it.
LATER: dict[str, Any] = {
    **dict.fromkeys(("init", "param_groups", "monitor", "steps", "validate_every_steps")),
    "compile": False,
    **dict.fromkeys(("dataset.folds", "dataset.fold", "model.freeze", "model.norm", "task.loss", "task.metrics")),
    "model.aux_logits": False,
    "dataset.repeat": 0,
    "model.norm_samples": 16,
    "dataset.fit": "crop",
    "gradient": {"_target_": "microstep.components.gradient.Identity"},
    "average": {"_target_": "microstep.components.average.NoAverage"},
    "stop": {"_target_": "microstep.components.stop.Never"},
    "strategy": {"_target_": "microstep.components.strategy.Single"},
    "reduction": "sum",
    "atom": 32,
}
REPEAT_KEYS = ("seed", "dataset.repeat", "dataset.fold")  #: keys in which the repeats of an experiment differ
#: Keys whose values are taken literally, such as paths. They are quoted before Hydra parses them.
VERBATIM_KEYS = frozenset(
    {"init", "resume", "run", "weights", "baseline", "split", "input", "output", "logger.jsonl.path", *DATA_PATH_KEYS}
    | {"replay", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"}
)
WEIGHTS_FILENAME = "model.safetensors"  #: file of a run's best weights, and their name for evaluate.py
LITERAL_KEYS = frozenset({"trust"})  #: keys whose interpolations are names, and are never resolved


def is_neutral(key: str) -> bool:
    return key in NEUTRAL_KEYS or key.partition(".")[0] == LOGGER


def planned_processes(config: DictConfig) -> int:
    """Return the number of processes that the experiment is planned for, however many run it."""
    return int(config.strategy.get("processes") or 1)


def micro_batches(config: DictConfig) -> int:
    """Return the number of micro-batches in a full window."""
    return int(config.accum) * planned_processes(config)


def is_canonical(config: DictConfig) -> bool:
    return bool(config.reduction == "canonical")


def micro_batch_size(config: DictConfig) -> int:
    """Return the number of samples that pass through the model together in training."""
    planned = planned_batch_size(config)
    return int(config.atom) if is_canonical(config) else planned


def planned_batch_size(config: DictConfig) -> int:
    """Return `batch_size`, or the same derived from `effective_batch_size`."""
    if config.effective_batch_size is None:
        return int(config.batch_size)
    size, rest = divmod(config.effective_batch_size, micro_batches(config))
    if rest or not size:
        subject, processes = f"effective_batch_size={config.effective_batch_size}", planned_processes(config)
        divisor = f"accum={config.accum}" + (f" × strategy.processes={processes}" if processes > 1 else "")
        raise ConfigError(subject, f"it is not a multiple of {divisor}", "change one of them")
    return int(size)


def effective_batch_size(config: DictConfig) -> int:
    """Return the number of samples in a full window."""
    return planned_batch_size(config) * micro_batches(config)


def size_key(config: DictConfig) -> tuple[str, int]:
    """Return the key that sets the size of a micro-batch, and how many times that size its value is."""
    if is_canonical(config) or config.effective_batch_size is None:
        return "atom" if is_canonical(config) else "batch_size", 1
    return "effective_batch_size", micro_batches(config)


def profiled_steps(value: bool | str, done: int = 0) -> range:
    """Return the steps of the run that `profile` records, from 1. True: five, after the first five after `done`."""
    if isinstance(value, bool):
        return range(done + 6, done + 6 + 5 * value)
    first, last = map(int, value.split(":")) if re.fullmatch(r"[1-9]\d{0,8}:[1-9]\d{0,8}", value) else (1, 0)
    if first > last:
        raise ConfigError(f"profile={value}", "it names no steps", "give true, false, or two steps: profile=10:15")
    return range(first, last + 1)


def finds_batch_size(config: DictConfig) -> bool:
    """Return True if `accumulation=auto` finds the size of micro-batches. It is then part of the experiment."""
    return str(OmegaConf.select(config, "accumulation._target_")) == "microstep.components.accumulation.Auto"


def cut_sizes(config: DictConfig) -> list[int | None]:
    """Return the sizes of micro-batches that may be found, in groups of ghost normalization; or None alone."""
    unit = config.model.get("norm_samples", 1) if config.model.get("norm") == "ghost" else 1
    sizes = [micro_batch_size(config)]
    while sizes[-1] > unit:
        sizes.append(ceil(sizes[-1] / unit / 2) * unit)
    return [*sizes] if finds_batch_size(config) else [None]


def precision_is_measured(config: DictConfig) -> bool:
    """Return True if a measurement chooses the precision. The choice is then part of the experiment."""
    return current(str(config.precision.get("_target_"))) == current("microstep.components.precision.auto")


def extract_experiment(config: DictConfig) -> dict[str, Any]:
    """Return the part of a config that is hashed and compared: without neutral keys and the defaults in `LATER`."""
    return without_later(described(config))


def described(config: DictConfig) -> dict[str, Any]:
    """Return the config, resolved and plain, without the neutral keys."""
    settings = OmegaConf.masked_copy(config, [str(key) for key in config if key not in LITERAL_KEYS])
    plain = OmegaConf.to_container(settings, resolve=True)
    assert isinstance(plain, dict)
    return drop_keys(plain, NEUTRAL_KEYS)


def flatten(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the plain, resolved value of each leaf below a node; a list is a leaf."""
    plain = OmegaConf.to_container(node, resolve=key != LOGGER) if OmegaConf.is_config(node) else node
    if isinstance(plain, Mapping) and key != LOGGER:
        for name, inner in plain.items():
            yield from flatten(inner, f"{key}.{name!s}" if key else str(name))
    else:
        yield key, plain


def public_experiment(config: DictConfig) -> dict[str, Any]:
    """Return the config as `described` does, but leave resolvers unresolved: their values may be secrets."""
    return described(OmegaConf.create(escape_resolvers(OmegaConf.to_container(config))))


def without_later(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested config without the keys that have their value in `LATER`. A foreign component keeps all keys."""
    target = str(node.get("_target_", "microstep."))
    kept = set() if target.startswith("microstep.") else set(node)
    kept |= {"freeze"} if target.endswith(".torchvision_model") else set()  # 0.1.0 had it
    return {
        key: without_later(value, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in node.items()
        if key in kept or (name := f"{prefix}{key}") not in LATER or value != LATER[name]
    }


def escape_resolvers(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: escape_resolvers(value) for key, value in node.items()}
    if isinstance(node, list):
        return [escape_resolvers(value) for value in node]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", node) if uses_resolver(node) else node


def uses_resolver(value: Any) -> bool:
    """Return True if a value may use a resolver: `${name:…}` runs code, or reads the environment."""
    return isinstance(value, str) and ":" in value.partition("${")[2]


def get_trusted_names(config: DictConfig) -> list[str]:
    return [str(name) for name in OmegaConf.to_container(config.trust) or ()]


def drop_keys(node: dict[Any, Any], keys: Collection[str], prefix: str = "") -> dict[str, Any]:
    return {
        str(key): drop_keys(value, keys, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in node.items()
        if f"{prefix}{key}" not in keys
    }
