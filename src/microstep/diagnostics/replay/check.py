"""Trains a copy of a run up to one of its steps, by the code of training, and examines the step."""

import logging
import shutil
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor

from microstep.config.experiment import effective_batch_size
from microstep.diagnostics.replay.observer import WindowObserver
from microstep.diagnostics.replay.report import ReplayedStep, make_result, norms_by_layer
from microstep.diagnostics.result import write_result
from microstep.errors import ConfigError, Diverged
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.checkpoints.manifest import CheckpointEntry, write_manifest
from microstep.run.checkpoints.recovery import iter_intact_checkpoints
from microstep.run.resume import ResumePlan
from microstep.run.saved_run import SavedRun, apply_overrides
from microstep.training.device import torch_errors
from microstep.training.resume import resume_trainer
from microstep.training.trainer import Trainer
from microstep.utils.signals import defer_signals
from microstep.utils.terminal import install_notice_handler, print_and_log, silenced
from microstep.utils.text import format_count, format_duration

log = logging.getLogger("microstep.notice")


@torch_errors()
def run_replay(plan: ResumePlan, window: int | None, directory: Path) -> int:
    """Repeat a step of a run, by default that at which it diverged; write a report, and return 1 if it has a fault."""
    install_notice_handler()
    saved, checkpoints = SavedRun.read(plan.directory, "replay"), Checkpoints(plan.directory / "checkpoints")
    with silenced():
        entries = {progress.windows: entry for entry, _, progress in iter_intact_checkpoints(checkpoints)}
    counts = defaultdict(float, saved.record.numbers)
    last = int(counts["diverged_window"] or max([counts["optimizer_steps"] + counts["skipped_steps"], *entries]))
    number = window or last
    if saved.record.is_result:  # otherwise the run's length is known once it is built
        check_number(number, last)
    start = max((windows for windows in entries if windows < number), default=0)
    after = f"the checkpoint of {entries[start].position}" if start else "the initial weights"
    speed = counts["samples_per_second"] / effective_batch_size(plan.config)
    seconds = f", about {format_duration((number - start) / speed)}" if speed > 0 else ""
    print_and_log(f"window {number:,}: {format_count(number - start, 'window')} after {after}{seconds}")
    with TemporaryDirectory(prefix=".copy-", dir=directory) as copied:
        with silenced() as warnings:
            trainer = restore_copy(saved, plan, Path(copied), entries.get(start))
        for text in warnings:
            log.warning(text)
        if not saved.record.is_result:
            check_number(number, trainer.periods.total)
        with silenced(), defer_signals(), trainer.loggers:
            step = replay_step(trainer, number)
            trainer.checkpoints.wait()
    write_result(result := make_result(step), "replay", directory)
    return 0 if result.passed else 1


def check_number(number: int, steps: int) -> None:
    if not 0 < number <= steps:
        raise ConfigError(f"window={number}", f"the run has {format_count(steps, 'step')}", "give one of them")


def restore_copy(saved: SavedRun, plan: ResumePlan, copied: Path, entry: CheckpointEntry | None) -> Trainer:
    """Return the trainer of a copy of the run that has this checkpoint, or none."""
    (copied / "checkpoints").mkdir()
    for name in ("config.yaml", "run.json", *([f"checkpoints/{entry.file}"] if entry else [])):
        with suppress(FileNotFoundError):
            shutil.copyfile(saved.directory / name, copied / name)
    write_manifest(copied / "checkpoints", {"last": entry, "best": entry} if entry else {})
    one = {"strategy.run_on": 1} if "run_on" in plan.config.strategy else {}
    config = apply_overrides(
        plan.config, {"logger": {}, "profile": False, "expected_time": False, **one}, saved.subject
    )
    trainer = resume_trainer(replace(plan, directory=copied, config=config))
    saved.check_data(trainer.components.dataset.fingerprint)
    return trainer


def replay_step(trainer: Trainer, number: int) -> ReplayedStep:
    """Train until a window of the run, compute its gradient with a copy of the model, and take the step."""
    data_pass, first = divmod(number - 1, trainer.periods.data_pass)
    load = partial(trainer.loaders.train, data_pass + 1, first, 1, first + 1)
    observe = partial(WindowObserver, trainer.components, data_pass + 1)
    weights = [train_until(trainer, windows) for windows in (number - 2, number - 1)]
    seen = observe(next(load()))
    unscaled = seen if seen.is_finite or seen.scale == 1 else observe(next(load()), scaled=False)
    weights.append(train_until(trainer, number))
    changes = [{name: after[name] - before[name] for name in before} for before, after in pairwise(weights)]
    norms, updates = ([norms_by_layer(one) for one in each] for each in (weights[:2], changes))
    position = f"window {number:,}: epoch {data_pass + 1}, step {first + 1}"
    return ReplayedStep(position, trainer.progress, seen, unscaled.is_finite, norms, updates)


def train_until(trainer: Trainer, windows: int) -> dict[str, Tensor]:
    """Train whole epochs with their validations, then the windows that are left, and return the weights."""
    periods, progress = trainer.periods, trainer.progress
    while progress.windows < windows:
        whole = periods.bounds(progress)[1] < windows
        trainer.periods = periods if whole else replace(periods, total=windows)
        with suppress(Diverged):
            (trainer.run_epoch if whole else trainer.train_epoch)(progress.epoch + 1)
    trainer.periods = periods
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
