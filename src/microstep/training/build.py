"""Builds the trainer of a new run."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from microstep.components.logger.console import Console
from microstep.components.logger.metrics_csv import MetricsCsv
from microstep.components.logger.remote import RemoteLogger
from microstep.components.logger.tensorboard import TensorBoard
from microstep.config.allowlist import ALLOW_ALL, Allowlist
from microstep.config.experiment import finds_batch_size, is_canonical, micro_batches
from microstep.config.hparams import extract_hparams
from microstep.config.hydra_job import get_choices, get_run_directory
from microstep.config.processes import find_run_world
from microstep.config.search_path import users_options
from microstep.run.checkpoints.checkpoints import Checkpoints, CheckpointSchedule
from microstep.run.directory import lock_new_run
from microstep.run.layout import LOGGER_FILES, PROFILE_FILES, remove_path, remove_temporaries
from microstep.run.record_logger import RunRecordLogger, truncate_logs
from microstep.run.weights import fitted_metadata, weights_file
from microstep.training.builders import build_components
from microstep.training.components import Components
from microstep.training.device import torch_errors
from microstep.training.instantiation import build_component
from microstep.training.monitoring import LoggerCollection
from microstep.training.optimization import build_optimization
from microstep.training.periods import Periods
from microstep.training.processes import Connect, build_strategy, connect_helpers, describe_job, run_alone
from microstep.training.profiling.expected_time import format_expected_time
from microstep.training.provenance import compute_identity
from microstep.training.run_info import option_name, run_facts, start_summary, warn_inexact_accumulation
from microstep.training.step_profiler import StepProfiler
from microstep.training.trainer import Trainer
from microstep.types.protocols import Sink
from microstep.utils.files import write_atomic
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.tables import format_fields
from microstep.utils.terminal import install_notice_handler, print_and_log
from microstep.utils.world import World

NUM_LOGGED_IMAGES = 32  #: training images shown in TensorBoard


@dataclass(frozen=True)
class RunSpec:
    """Specification of the run that a trainer is built for."""

    config: DictConfig
    directory: Path  #: locked by this process
    record: RunRecordLogger
    allowlist: Allowlist  #: of the `_target_`s in the config
    names: Mapping[str, str]  #: option of each group, if known
    users_options: str = ""  #: options from the user's own yamls, for the summary
    files: Mapping[str, str] | None = None  #: digests of the files that a resumed run began with


def build_trainer(config: DictConfig, run_dir: str | Path) -> Trainer:
    """Build the trainer of a new run.

    The directory is locked until `fit` returns or this process ends.

    Args:
        config: a checked config, as `compose` returns it.
        run_dir: run directory, created if needed. It may hold a run that ended before its first checkpoint, which is
            replaced, but no other run.

    Returns:
        The trainer; call its `fit`.

    Raises:
        ConfigError: if a constructor refuses its arguments, the device is missing, or the directory holds a run.
        RunInUse: if another process uses the directory.
        DataError: if the data are missing or damaged.
        StorageError: if the directory can't be written.
    """
    install_notice_handler()
    directory = Path(run_dir)
    in_job = HydraConfig.initialized() and get_run_directory() == directory
    record = RunRecordLogger(directory, lock_new_run(directory, in_job), {"working_directory": str(Path.cwd())})
    with record.record_build_failure(), torch_errors():
        for file in (file for pattern in (*LOGGER_FILES, *PROFILE_FILES) for file in directory.glob(pattern)):
            remove_path(file)  # a new run starts remote runs of its own
        options = users_options(HydraConfig.get()) if HydraConfig.initialized() else ""
        return build_new_trainer(RunSpec(config, directory.resolve(), record, ALLOW_ALL, get_choices(), options))


def build_new_trainer(run: RunSpec) -> Trainer:
    """Build the trainer after removing what an earlier attempt left in the directory."""
    remove_temporaries(run.directory)
    truncate_logs(run.directory, {})
    write_atomic(run.directory / "config.yaml", OmegaConf.to_yaml(run.config).encode())
    world = find_run_world(run.config)
    components = build_components(run.config, run.allowlist, local_processes=world.core_shares)
    trainer = assemble_trainer(run, components, world)
    if run.config.expected_time and world.size == 1:
        print_and_log(format_fields({"expected time": format_expected_time(trainer)}))
    return trainer


def assemble_trainer(run: RunSpec, components: Components, world: World) -> Trainer:
    """Build the trainer of a run, which trains in the processes of `world`."""
    config = run.config
    make_strategy = partial(build_strategy, config, run.allowlist)
    components.loaders.strategy = make_strategy()
    identity = {"run": compute_identity(config, components, run.files, world.size), "choices": dict(run.names)}
    run.record.update(**run_facts(config, components, run.names, identity["run"]))
    rows = start_summary(config, run.names, components, run.directory, world.size)
    print_and_log(format_fields(rows | ({"your options": run.users_options} if run.users_options else {})))
    if not is_canonical(config):
        warn_inexact_accumulation(components.model, None if finds_batch_size(config) else micro_batches(config))
    optimization = build_optimization(config, components, run.allowlist)
    checkpoints, schedule = Checkpoints(run.directory / "checkpoints"), CheckpointSchedule(**config.checkpoint)
    output = checkpoints, build_loggers(run, components.loaders.first_images(NUM_LOGGED_IMAGES)), schedule
    weights = weights_file(run.directory, config, components.dataset, option_name(config, run.names, "dataset"))
    identity["metadata"] = {**weights.metadata, **fitted_metadata(components.task)}
    connect: Connect = run_alone
    if world.size > 1:
        job = describe_job(config, components, identity, run.directory)
        connect = partial(connect_helpers, world=world, job=job, make_strategy=make_strategy)
    periods = Periods.of(config, components.steps)
    profiler = StepProfiler(config.profile, periods.total, run.directory) if config.profile else None
    trainer = Trainer(components, optimization, *output, identity, weights, run.directory, periods, connect, profiler)
    trainer.record_found_size = partial(record_found_size, run, components, identity["run"])
    return trainer


def record_found_size(run: RunSpec, components: Components, identity: dict[str, Any]) -> bool:
    """Record the size of micro-batches and the hash that depends on it. Return whether it has changed."""
    size = components.loaders.found_size
    if has_changed := size != run.record.facts.get("micro_batch_size"):
        identity |= compute_identity(run.config, components, identity["files"], identity["processes"])
        run.record.update(micro_batch_size=size, experiment_hash=identity["experiment"])
    return has_changed


def build_loggers(run: RunSpec, images: Tensor | None) -> LoggerCollection:
    """Build progress bars and loggers; `images` are a sample of the training images."""
    bars = ProgressBars(run.config.progress)
    settings = extract_hparams(run.config, run.names)
    tensorboard = TensorBoard(run.directory, OmegaConf.to_yaml(run.config), settings, images)
    local = Console(bars.is_shown), MetricsCsv(run.directory / "metrics.csv"), tensorboard
    nodes, own = dict(OmegaConf.to_container(run.config.logger)), {"run_dir": run.directory}  # type: ignore[arg-type]
    sinks = {name: build_component(run.config, f"logger.{name}", Sink, run.allowlist, **own) for name in nodes}
    remote = [RemoteLogger(sinks[name], name, node, run.directory, settings) for name, node in nodes.items()]
    return LoggerCollection(bars, (*local, *remote, run.record), run.config.log_every_steps)
