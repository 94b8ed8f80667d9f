"""Resumes a run from its newest checkpoint."""

import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from microstep.components.model.metadata import parse_normalization
from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import Composer
from microstep.config.experiment import is_canonical, micro_batches
from microstep.config.overrides import quote_verbatim
from microstep.config.processes import find_run_world
from microstep.config.search_path import CONF
from microstep.errors import CheckpointRefused, DataError, escape_unprintable
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.checkpoints.recovery import RecoveredState, recover_state
from microstep.run.config import load_run_config
from microstep.run.directory import check_left_by_start, was_started_in
from microstep.run.layout import remove_temporaries
from microstep.run.lock import lock_directory
from microstep.run.progress import Progress
from microstep.run.record import of_type
from microstep.run.record_logger import RunRecordLogger, truncate_logs
from microstep.run.resume import ResumePlan, plan_resume
from microstep.run.saved_run import CHANGED_DATA, SavedRun
from microstep.training.build import RunSpec, assemble_trainer, build_new_trainer
from microstep.training.builders import build_components
from microstep.training.components import Components
from microstep.training.device import torch_errors
from microstep.training.provenance import SEEDING, compute_identity, config_hash, format_differences
from microstep.training.run_info import find_training_modules
from microstep.training.source import digest_files
from microstep.training.trainer import Trainer
from microstep.utils.terminal import install_notice_handler, print_and_log

log = logging.getLogger("microstep.notice")
#: by which a sweep finds a run that dies while it is built
IDENTITY_FACTS = ("pruned", "data", "experiment_hash", "source_hash", "files", "working_directory")
#: Keys in the config hash of runs that were started before they could be changed by a resume.
ONCE_HASHED_KEYS = ("dataset.file", "dataset.max_pixels")
RANDOM_LAYERS = ("Dropout", "StochasticDepth", "DropPath")  #: how the names of layers that draw random numbers begin
COUNT_FACTS = ("epoch", "optimizer_steps", "skipped_steps", "samples_seen", "samples_per_second")
#: Raised when the state of another run is loaded.
FOREIGN_STATE_ERRORS = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)


def resume(run_dir: str | Path, overrides: Sequence[str] = ()) -> Trainer:
    """Resume a run that you trust from its newest checkpoint.

    Args:
        run_dir: the run directory.
        overrides: as on the command line: more epochs, another device, workers or logging.

    Returns:
        The trainer; call its `fit`.

    Raises:
        ConfigError: if the directory holds no run, or an override describes another experiment.
        RunInUse, CheckpointRefused, DataError: see `resume_trainer`.
    """
    with Composer.open(CONF, "train") as composer:
        plan = plan_resume(Path(run_dir), composer, [quote_verbatim(word) for word in overrides], ALLOW_ALL)
        return resume_trainer(plan)


def resume_trainer(plan: ResumePlan) -> Trainer:
    """Return the trainer of a run in the state of its newest checkpoint, or at the start if it has none.

    On the same machine, with the same versions, device and threads, the result equals that of an uninterrupted run,
    bit for bit. Otherwise a warning names the differences.

    Raises:
        RunInUse: if another process uses the directory.
        CheckpointRefused: if no checkpoint is intact, or it belongs to another run.
        DataError: if the data have changed.
    """
    install_notice_handler()
    check_left_by_start(plan.directory, was_started_in)
    lock = lock_directory(plan.directory)
    try:
        checkpoints = Checkpoints(plan.directory / "checkpoints")
        found = recover_state(checkpoints)
        record = RunRecordLogger(plan.directory, lock, resume_record(plan, found))
    except BaseException:
        lock.release()
        raise
    run = RunSpec(plan.config, plan.directory, record, plan.allowlist, names={})
    with record.record_build_failure(), torch_errors():
        if found is not None:
            return restore_trainer(run, found, checkpoints.directory)
        config = SavedRun.read(plan.directory).absolute_paths(plan.config, {"init", "model.weights"})
        return build_new_trainer(replace(run, config=config))


def resume_record(plan: ResumePlan, recovered_state: RecoveredState | None) -> dict[str, Any]:
    """Return what run.json keeps: the run's identity, counts, best metrics, and the resumes including this one."""
    run = SavedRun.read(plan.directory, "resume")
    now = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "after": str(recovered_state.progress.position) if recovered_state else None,
        "overrides": plan.overrides,
        "command": shlex.join(sys.orig_argv),
    }
    names = IDENTITY_FACTS + (COUNT_FACTS if recovered_state else ())
    kept = {name: run.record.content[name] for name in names if name in run.record.content}
    if recovered_state and (best := best_metrics(run, recovered_state.progress.best_epoch)):
        kept["metrics"] = {"best": best}
    if recovered_state and (reason := recovered_state.progress.stopped):
        kept["stopped"] = {"by": reason, "epoch": recovered_state.progress.epoch}
    return kept | {"resumed": [*run.record.resumed, now]}


def best_metrics(run: SavedRun, epoch: int) -> dict[str, Any]:
    """Return the validation metrics of an epoch, from metrics.csv if run.json has those of another one."""
    best = of_type(of_type(run.record.content.get("metrics"), dict).get("best"), dict)
    if best.get("epoch") == epoch:
        return best
    row = next((row for row in run.epochs if row["epoch"] == epoch), {})
    val = {name.removeprefix("val_"): value for name, value in row.items() if name.startswith("val_")}
    return {"epoch": epoch, **val} if val else {}


def restore_trainer(run: RunSpec, recovered_state: RecoveredState, checkpoints: Path) -> Trainer:
    """Return the trainer in the recovered state, after checking that the state belongs to this run."""
    with foreign_state_refused(checkpoints):
        before, sizes = dict(recovered_state.state["run"]), dict(recovered_state.state["logs"])
        choices = recovered_state.state["choices"].items()
        names = {str(group): escape_unprintable(str(option)) for group, option in choices if option}
        dtype, name = (str(before["precision"][key]) for key in ("dtype", "name"))
        files = {str(key): str(digest) for key, digest in before.get("files", {}).items()}  # 0.1.0 wrote none
        normalization = parse_normalization(recovered_state.state.get("metadata", {}))
    world = find_run_world(run.config)
    built = (run.allowlist, None, False, dtype, name, normalization, world.core_shares)
    components = build_components(run.config, *built)
    located = SavedRun.read(run.directory).absolute_paths(run.config, files)
    now = compute_identity(run.config, components, digest_files(located), world.size)
    before |= {"processes": now["processes"]} if is_canonical(run.config) else {}  # they change no bit
    check_unchanged(before, now, run)
    check_seeding(before, run, components)
    remove_temporaries(run.directory)
    truncate_logs(run.directory, sizes)
    trainer = assemble_trainer(replace(run, names=names, files=files), components, world)
    with foreign_state_refused(checkpoints):
        trainer.load_state_dict(recovered_state.state, recovered_state.progress)
        trainer.record_found_size()
    log_resume_point(before, now, recovered_state.progress)
    return trainer


@contextmanager
def foreign_state_refused(checkpoints: Path) -> Iterator[None]:
    try:
        yield
    except FOREIGN_STATE_ERRORS as error:
        reason = f"it is not this run's: {' '.join(f'{type(error).__name__}: {error}'.split())}"
        raise CheckpointRefused(str(checkpoints), reason, "start a new run") from None


def check_unchanged(before: Mapping[str, Any], now: Mapping[str, Any], run: RunSpec) -> None:
    if before.get("data") != now["data"]:
        raise DataError(f"resume={run.directory}", *CHANGED_DATA)
    written = load_run_config(run.directory, run.allowlist, "resume")
    if before.get("config") not in (now["config"], config_hash(written, kept=ONCE_HASHED_KEYS)):
        raise CheckpointRefused(str(run.directory / "config.yaml"), "it was changed since the run", "start a new run")


def check_seeding(before: Mapping[str, Any], run: RunSpec, components: Components) -> None:
    """Refuse a run whose dropout was seeded by window, if its windows have several micro-batches."""
    active = [m for m in find_training_modules(components.model) if getattr(m, "p", 1) != 0]
    draws = any(type(m).__name__.startswith(RANDOM_LAYERS) for m in active)
    if before.get("seeding") != SEEDING and draws and micro_batches(run.config) > 1:
        reason = "its model has dropout, which this version seeds for each micro-batch, and accum is over 1"
        raise CheckpointRefused(f"resume={run.directory}", reason, "start a new run")


def log_resume_point(before: Mapping[str, Any], now: Mapping[str, Any], progress: Progress) -> None:
    if changed := [key for key, digest in before.get("files", {}).items() if now["files"].get(key) != digest]:
        text = "%s: the file is gone or has changed since the run began; the run continues from its checkpoint"
        log.warning(text, ", ".join(changed))
    position_text = f"resumed after {progress.position}" if progress.windows else "resumed at the start"
    if differing := format_differences(before, now):
        log.warning("%s: the run continues, but is not the same bit for bit: %s", position_text, ", ".join(differing))
    elif not now["deterministic"]:
        reason = "with deterministic=false the run continues, and may not be the same bit for bit"
        log.warning("%s: %s", position_text, reason)
    else:
        print_and_log(f"{position_text}: it is the same run, bit for bit")
