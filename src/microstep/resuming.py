"""A run that is taken up again where its newest checkpoint was made."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from microstep.build import Run, assemble, begin, build_parts
from microstep.checkpoint import Checkpoints
from microstep.composer import CONF, Composer, quote
from microstep.dataset.workers import explained
from microstep.errors import CheckpointRefused, DataError, legible
from microstep.files import known_json, remove_temporaries
from microstep.gate import own
from microstep.identity import differences, identity
from microstep.logger import RunRecord, cut_back, say, show_notices
from microstep.owner import owned
from microstep.progress import Progress
from microstep.recovery import Recovered, recovered
from microstep.resumption import Resumption, named
from microstep.trainer import Trainer

log = logging.getLogger("microstep.notice")
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)  #: what loading something else raises


def resume(run_dir: str | Path, overrides: Sequence[str] = ()) -> Trainer:
    """Return the trainer of a run of one's own, where its newest checkpoint was made. For use from Python.

    Args:
        run_dir: what the run left behind.
        overrides: as on the command line: workers, logging, more epochs, another device.

    Raises:
        ConfigError: where it is no run directory, or an override would make another run of it.
        RunInUse, CheckpointRefused, DataError: see `resume_trainer`.
    """
    with Composer.opened(CONF, "train") as composer:
        return resume_trainer(named(Path(run_dir), composer, [quote(word) for word in overrides], own))


def resume_trainer(resumed: Resumption) -> Trainer:
    """Return the trainer of a run, at the window after its newest checkpoint; at the start where it has none.

    On the same machine, with the same versions, device and threads, the run is the same, bit for bit, as if it had
    never been interrupted; otherwise a warning says what differs.

    Raises:
        RunInUse: where another process is at work in it.
        CheckpointRefused: where no checkpoint is whole, or it is not this run's.
        DataError: where the data have changed.
    """
    show_notices()
    lock = owned(resumed.directory)
    try:
        checkpoints = Checkpoints(resumed.directory / "checkpoints")
        found = recovered(checkpoints)
        record = RunRecord(resumed.directory, lock, noted(resumed, found))
    except BaseException:
        lock.release()
        raise
    run = Run(resumed.config, resumed.directory, record, resumed.gate, names={})
    with record.building(), explained():
        return begin(run) if found is None else take_up(run, found, checkpoints.directory)


def noted(resumed: Resumption, found: Recovered | None) -> dict[str, Any]:
    """Return what run.json goes on from: the best epoch so far, and every resume, this one the last."""
    before = known_json(resumed.directory / "run.json")  # the checkpoint knows all that matters
    now = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "after": str(found.progress.place) if found else None,
        "overrides": resumed.changes,
        "command": shlex.join(sys.orig_argv),
    }
    kept = {"metrics": before["metrics"]} if found and isinstance(before.get("metrics"), dict) else {}
    times = before.get("resumed")
    return kept | {"resumed": [*(times if isinstance(times, list) else ()), now]}


def take_up(run: Run, found: Recovered, checkpoints: Path) -> Trainer:
    """Return the trainer in the state that was found, once it is known to be this run's."""
    with telling_of_another_run(checkpoints):
        before, sizes = dict(found.state["run"]), dict(found.state["logs"])
        names = {str(group): legible(str(option)) for group, option in found.state["choices"].items() if option}
        dtype, name = (str(before["precision"][key]) for key in ("dtype", "name"))
    parts = build_parts(run.config, run.gate, fresh=False, saved_dtype=dtype, saved_name=name)
    now = identity(run.config, parts)
    insist_on_same_experiment(before, now, run.directory)
    remove_temporaries(run.directory)
    cut_back(run.directory, sizes)
    trainer = assemble(replace(run, names=names), parts)
    with telling_of_another_run(checkpoints):
        trainer.load_state_dict(found.state, found.progress)
    say_how(before, now, found.progress)
    return trainer


@contextmanager
def telling_of_another_run(checkpoints: Path) -> Iterator[None]:
    """Turn what a state raises that is another run's, or a stranger's, into a refusal."""
    try:
        yield
    except UNREADABLE as error:
        reason = f"it is not this run's: {' '.join(f'{type(error).__name__}: {error}'.split())}"
        raise CheckpointRefused(str(checkpoints), reason, "start a new run") from None


def insist_on_same_experiment(before: Mapping[str, Any], now: Mapping[str, Any], directory: Path) -> None:
    """Refuse other data, and a config that was edited."""
    if before.get("data") != now["data"]:
        reason = "the data have changed since the run"
        raise DataError(f"resume={directory}", reason, "put back what dataset.root held then")
    if before.get("config") != now["config"]:
        raise CheckpointRefused(str(directory / "config.yaml"), "it was changed since the run", "start a new run")


def say_how(before: Mapping[str, Any], now: Mapping[str, Any], progress: Progress) -> None:
    """Say where the run goes on, and whether it is the same."""
    place = f"resumed after {progress.place}" if progress.windows else "resumed at the start"
    if differing := differences(before, now):
        log.warning("%s: the run continues, but is not the same bit for bit: %s", place, ", ".join(differing))
    elif not now["deterministic"]:
        log.warning("%s: with deterministic=false the run continues, and may not be the same bit for bit", place)
    else:
        say(f"{place}: it is the same run, bit for bit")
