"""Checks of a composed config: types, ranges, and combinations of keys that exclude each other."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from microstep.config.batch import check_batch, is_foreign
from microstep.config.choices import CHOICES, CLASSIFICATION_CHOICES, DEFAULT_RULE, MICRO_BATCH_CHECKS
from microstep.config.experiment import (
    LITERAL_KEYS,
    micro_batches,
    profiled_steps,
)
from microstep.config.param_groups import read_param_groups
from microstep.config.ranges import POSITIVE_INT, RANGES, Range
from microstep.config.targets import CLASSIFICATION, current
from microstep.errors import ConfigError
from microstep.utils.world import find_world


def check_config(config: DictConfig) -> None:
    """Check ranges, finiteness and choices, and that everything can be resolved."""
    schema: Any = OmegaConf.get_type(config)
    own = fields(schema) if is_dataclass(schema) else ()
    ranges = RANGES | {field.name: field.metadata["range"] for field in own if "range" in field.metadata}
    task = current(str(OmegaConf.select(config, "task._target_", throw_on_resolution_failure=False)))
    choices = CHOICES | (CLASSIFICATION_CHOICES if task == CLASSIFICATION else {})
    foreign = {group for group in config if is_foreign(config, str(group))}
    for key, value in iter_leaves(config):
        name = re.sub(r"\.\d+$", "", re.sub(r"^param_groups\.\d+", "optimizer", key))  # without the index in a list
        known = key.partition(".")[0] not in foreign  # otherwise its keys may mean something else
        check_value(key, value, ranges.get(name) if known else None, choices.get(name) if known else None)
    if "baseline" in config:
        check_evaluated(config)
    for name, node in config.get("logger", {}).items():
        if not str(name).isidentifier() or getattr(node, "_target_", None) is None:
            raise ConfigError(f"logger.{name}", "it builds no logger", "begin its yaml with: # @package logger.NAME")
    if "accum" in config:
        check_batch(config)
        check_diagnostic_keys(config)
        read_param_groups(config)
        profiled_steps(config.profile)
        check_folds(config.dataset)
    if task == CLASSIFICATION:
        check_label_smoothing(config.task)


def check_evaluated(config: DictConfig) -> None:
    """Check that evaluate.py has a run, or weights for unlabeled images and nothing that needs a run."""
    if config.export is not None:
        check_export(config)
    if config.tta is not None and not config.input is config.baseline is None:
        raise ConfigError(f"tta={config.tta}", "it makes the report of a split", "leave out input= and baseline=")
    subject = f"weights={config.weights}"
    if "_target_" in config.dataset and (config.baseline or config.input):
        reason = "it is for run= alone"
        raise ConfigError(f"dataset._target_={config.dataset._target_}", reason, "leave out baseline= and input=")
    if config.weights is None:
        if config.run is None:
            raise ConfigError("run=???", "it has no value", "give one: run=…, or weights=FILE with input=FOLDER")
        return
    for other in ("run", "baseline"):
        if config[other] is not None:
            raise ConfigError(subject, f"{other}= is given as well", "leave out one of the two")
    if config.input is None:
        raise ConfigError(subject, "a file of weights holds no data to evaluate on", "add input=FOLDER, or give run=")
    if config.checkpoint != "best":
        raise ConfigError(f"checkpoint={config.checkpoint}", "weights= names a file itself", "leave out one of the two")


def check_export(config: DictConfig) -> None:
    """Check that `export=` is given with a run alone, and that the packages that it needs are installed."""
    subject = f"export={config.export}"
    for key in ("weights", "baseline", "input", "tta", "device", "dataset._target_"):
        if (value := OmegaConf.select(config, key)) is not None:
            raise ConfigError(f"{key}={value}", f"{subject} takes run= alone", "leave out one of the two")
    if config.export == "card" and config.checkpoint == "last":
        raise ConfigError("checkpoint=last", "a card is of model.safetensors, the best", "leave it out")
    if config.export == "card" and config.split == "train":
        raise ConfigError("split=train", "a card is of images that were not trained on", "leave it out")
    missing = [package for package in ("onnx", "onnxscript", "onnxruntime") if find_spec(package) is None]
    if config.export == "onnx" and missing:
        raise ConfigError(subject, f"{', '.join(missing)} not installed", "pip install 'microstep[onnx]'")


def check_label_smoothing(task: DictConfig) -> None:
    if OmegaConf.is_dict(task.get("loss")) and task.get("label_smoothing"):
        reason = "task.loss is a function of its own, and gets plain labels"
        raise ConfigError(f"task.label_smoothing={task.label_smoothing}", reason, "add task.label_smoothing=0")


def check_folds(dataset: DictConfig) -> None:
    if "folds" not in dataset or "fold" not in dataset:  # of a data set of the user's own, or an older run
        return
    folds, fold = dataset.folds, dataset.fold
    if not (folds is None is fold or (type(folds) is type(fold) is int and fold < folds)):
        typed = {"dataset.fold": fold, "dataset.folds": folds}
        subject = " ".join(f"{key}={'null' if value is None else value}" for key, value in typed.items())
        remedy = "give both: dataset.folds=5 dataset.fold=0"
        raise ConfigError(subject, "a fold is a number from 0 to folds − 1", remedy)
    if folds is None and (repeat := dataset.get("repeat")):
        subject, remedy = f"dataset.repeat={repeat}", "add dataset.folds=5 dataset.fold=0"
        raise ConfigError(subject, "there are no folds to divide the images into again", remedy)


def check_value(key: str, value: Any, allowed: Range | None, choices: tuple[str, ...] | None) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value}", "not a finite number", f"give a number{f' {allowed}' if allowed else ''}")
    if allowed and isinstance(value, int | float) and not isinstance(value, bool) and value not in allowed:
        raise ConfigError(f"{key}={value}", "out of range", f"it must be {allowed}")
    if choices and value is not None and re.sub(r"^cuda:[0-9]+$", "cuda", str(value)) not in choices:
        raise ConfigError(f"{key}={value}", "no such option", f"the options are {', '.join(choices)}")


def iter_leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every (dotted key, resolved value) below a node. Raise ConfigError for a missing or unresolvable one."""
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        name = f"{prefix}{key}"
        if name in LITERAL_KEYS:
            continue
        if OmegaConf.is_missing(node, key):
            raise ConfigError(f"{name}=???", "it has no value", f"give one: {name}=…")
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            reason = f"can't be resolved: {str(error).splitlines()[0]}"
            raise ConfigError(name, reason, "correct the reference") from None
        if OmegaConf.is_config(value):
            yield from iter_leaves(value, f"{name}.")
        else:
            yield name, value


def check_diagnostic_keys(config: DictConfig) -> None:
    if config.rule != DEFAULT_RULE and config.check != "accumulation":
        reason = "it is a loop to examine, and no training uses it"
        raise ConfigError(f"rule={config.rule}", reason, "add check=accumulation")
    if config.window is not None and config.replay is None:
        raise ConfigError(f"window={config.window}", "it is a step of a run", "add replay=RUN_DIR")
    if config.check in MICRO_BATCH_CHECKS and micro_batches(config) == 1:
        reason = f"check={config.check} compares a batch with its micro-batches, and there is one"
        raise ConfigError("accum=1", reason, "give accum=2 or more")
    if config.check == "drift" and config.steps is not None:
        raise ConfigError(f"steps={config.steps}", "check=drift compares whole epochs", "give epochs=")
    if config.rule == "clip_each" and config.max_grad_norm is None:
        raise ConfigError("rule=clip_each", "it clips, and max_grad_norm is null", "add max_grad_norm=1.0")


def refuse_check(check: object, reason: str, remedy: str) -> None:
    if check is not None:
        raise ConfigError(f"check={check}", reason, remedy)


def check_launcher(job: DictConfig) -> None:
    launcher, choice = job.hydra.launcher, job.hydra.runtime.choices["hydra/launcher"]
    package = ".".join(str(launcher._target_).split(".")[:2])
    if find_spec(package) is None:
        plugin = package.rpartition(".")[2].replace("_", "-")
        raise ConfigError(f"hydra/launcher={choice}", f"{plugin} is not installed", f"pip install {plugin}")
    if choice != "basic" and (world := find_world()):
        raise ConfigError(f"hydra/launcher={choice}", f"{world.launcher} has started this program", "leave it out")
    processes = launcher.get("n_jobs", 1)
    if type(processes) is not int or not (processes == -1 or processes in POSITIVE_INT):
        remedy = "give at least 1, or -1 for one a core"
        raise ConfigError(f"hydra.launcher.n_jobs={processes}", "it is no number of runs", remedy)


def check_unique_names(names: list[str]) -> None:
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        reason = "several jobs have this name: they differ in nothing that can change a result"
        raise ConfigError(twins[0], reason, "sweep over something else, or over seed=0,1,…")
