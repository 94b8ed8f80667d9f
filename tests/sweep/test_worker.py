"""A launcher's process learns how a run ended, whatever the run's process says last, and never waits for more."""

from __future__ import annotations

import gc
import logging
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from mmap import mmap
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import pytest
from omegaconf import DictConfig

from microstep.components.dataset.workers import ReadRequest, WorkerPool
from microstep.sweep import job
from microstep.sweep.launchers.worker import Worker, read_outcome
from microstep.sweep.progress import UPDATE_LOCK
from microstep.sweep.reporter import JobOutcome
from microstep.utils.terminal import install_notice_handler
from tests.components.dataset.test_workers import PICTURES
from tests.config.test_names import within
from tests.conftest import ROOT

LONG = "a long text, " * 20_000  #: four times what a pipe holds


pytestmark = pytest.mark.usefixtures("kept_handlers")


def outcome_of(function: Callable[[DictConfig], str | None], sweep: Path) -> JobOutcome:
    with within(20):
        return Worker(function, sweep)(DictConfig({}))


def fail(config: DictConfig, resumed: None) -> None:
    raise RuntimeError(LONG)


def warn(config: DictConfig) -> None:
    install_notice_handler()
    for number in range(10_000):
        logging.getLogger("microstep.notice").warning("%d %s", number, LONG[:200])


def leave_a_child(config: DictConfig) -> None:
    """Leave a process that holds whatever this one has open, and end without a word."""
    if not os.fork():
        time.sleep(30)
    os._exit(0)


def leave_loaders(config: DictConfig) -> None:
    """Leave loader processes in a reference cycle, as a trainer does."""
    gc.disable()
    pool = WorkerPool({"train": PICTURES}, 2)
    pool.expect(requests := [ReadRequest("train", [0]), ReadRequest("train", [1])])
    pool.take_batch(requests[0])
    cycle: list[Any] = [pool]
    cycle.append(cycle)


def test_an_error_of_any_length_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its beginning is, on one line."""
    monkeypatch.setattr(job, "plan_job_resume", lambda config: None)
    error = outcome_of(partial(job.run_job, fail), tmp_path).error
    assert error is not None and error.startswith("RuntimeError: a long text, ") and len(error) == 2000


def test_any_number_of_warnings_is_reported(tmp_path: Path) -> None:
    """The first hundred are."""
    warnings = outcome_of(warn, tmp_path).warnings
    assert [int(text.split()[0]) for text in warnings] == list(range(100))


def test_a_process_that_ends_without_a_word_is_not_waited_for(tmp_path: Path) -> None:
    """Nor is a process that it has left running."""
    assert outcome_of(leave_a_child, tmp_path).error == "its process ended with exit code 0 and reported no result"


def test_loader_processes_end_with_the_run(tmp_path: Path) -> None:
    """Python would wait for them without limit."""
    assert outcome_of(leave_loaders, tmp_path) == JobOutcome()


def test_a_run_does_not_inherit_a_lock_that_the_summary_holds(tmp_path: Path) -> None:
    """With `n_jobs=1` runs are forked from the process that plots the summary in a second thread."""
    matplotlib_lock, held = Lock(), Event()

    def plot() -> None:
        with UPDATE_LOCK, matplotlib_lock:
            held.set()
            time.sleep(0.5)

    thread = Thread(target=plot)
    thread.start()
    held.wait()
    assert outcome_of(lambda config: None if matplotlib_lock.acquire(timeout=5) else "deadlock", tmp_path).error is None
    thread.join()


def test_an_outcome_that_is_not_whole_is_none() -> None:
    """Wherever the process was killed while it wrote it."""
    whole = JobOutcome.of("an error", ["a warning", "a warning", "another"])
    content = pickle.dumps(whole)
    for size in range(len(content) + 1):
        memory = mmap(-1, 2**12)
        memory.write(content[:size])
        assert read_outcome(memory) == (whole if size == len(content) else None)


LATE = """
import sys
from pathlib import Path
from microstep.sweep.launchers.worker import import_run_modules
import_run_modules()
before = set(sys.modules)
from tests.conftest import fit
fit(["model=resnet18", "model.norm=group", "steps=1", "batch_size=8"], Path(sys.argv[1]))
large = {"torchvision", "torch._dynamo", "sympy", "sklearn.metrics", "scipy.stats", "matplotlib.figure", "tensorboard"}
print(sorted(large & set(sys.modules) - before))
"""


def test_a_launchers_process_has_imported_what_its_runs_import(tmp_path):
    """The fork of each run imports none of the large packages again."""
    command = [sys.executable, "-c", LATE, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
