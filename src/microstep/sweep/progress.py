"""Shows the progress of a sweep: a line for each run that ends, and on a terminal a bar for each run and the sweep."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, RLock, Thread
from time import perf_counter
from typing import Any

from tqdm import tqdm

from microstep.run.record import RunRecord
from microstep.sweep.definition import Job, Sweep
from microstep.utils.terminal import write_above_bars
from microstep.utils.text import format_duration, truncate_middle

REFRESH_SECONDS = 0.5  #: seconds between two reads of the run.json files
BAR_NAME_LETTERS = 44  #: length of a run's name in its bar
ENDED_STATUSES = ("finished", "pruned", "failed", "interrupted")
SWEEP_BAR_FORMAT = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed}, {remaining} left"
RUN_BAR_FORMAT = "  {desc} {n_fmt}/{total_fmt} epochs |{bar:20}|{postfix}"
UPDATE_LOCK = RLock()  #: held while bars are drawn and the summary is plotted
# A fork waits for it. Otherwise the forked run may inherit matplotlib's lock in a locked state, and wait forever.
os.register_at_fork(before=UPDATE_LOCK.acquire, after_in_parent=UPDATE_LOCK.release, after_in_child=UPDATE_LOCK.release)


class SweepProgress:
    """Follows runs through their run.json, which processes anywhere write. `on_run_end` is called after some end."""

    def __init__(self, sweep: Sweep, jobs: Sequence[Job], on_run_end: Callable[[], None], most: int) -> None:
        self.sweep, self.on_run_end = sweep, on_run_end
        self.remaining: dict[str, int] = {}  #: run that has not ended → modification time of its run.json before it
        self.ended: dict[str, RunRecord] = {}
        self.total, self.num_skipped = most, len(sweep.jobs) - len(jobs)
        self.started_at: float | None = None  #: when the first run was seen to have started
        self.expect_jobs(jobs)
        self.bars: dict[str, tqdm[Any]] = {}
        self.sweep_bar: tqdm[Any] | None = None
        if sweep.progress and sys.stderr.isatty() and most > self.num_skipped:
            # the unit of the bar is a run; epochs are fractions of it
            text, total = f"sweep {sweep.directory.name}", float(most - self.num_skipped)
            self.sweep_bar = tqdm(total=total, desc=text, bar_format=SWEEP_BAR_FORMAT, smoothing=0.0)

    def expect_jobs(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self.ended.pop(job.name, None)
            self.remaining[job.name] = get_record_mtime(self.sweep.get_directory(job))

    def skip(self, count: int) -> None:
        """Count runs of a study that need not run."""
        self.num_skipped += count
        if self.sweep_bar is not None:
            self.sweep_bar.total = self.total - self.num_skipped

    @contextmanager
    def update_in_background(self, update: Callable[[], None]) -> Iterator[None]:
        """Call `update` repeatedly in a second thread, while this one waits for the runs or runs one."""
        over = Event()

        def update_until_over() -> None:
            while not over.wait(REFRESH_SECONDS):
                update()

        thread = Thread(target=update_until_over, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.update()

    def update(self) -> None:
        with UPDATE_LOCK:
            records = self.read_changed_records()
            ended = {name: record for name, record in records.items() if record.status in ENDED_STATUSES}
            for name, record in ended.items():
                self.report_end(name, record)
            self.draw_bars({name: record for name, record in records.items() if name not in ended})
            if ended:
                self.on_run_end()

    def redraw(self) -> None:
        """Update the bars only. Reports of ended runs may plot, which must not happen while a run plots."""
        with UPDATE_LOCK:
            self.draw_bars(self.read_changed_records())

    def read_changed_records(self) -> dict[str, RunRecord]:
        directories = {name: self.sweep.directory / name for name in self.remaining}
        started = [name for name, mtime in self.remaining.items() if get_record_mtime(directories[name]) != mtime]
        self.started_at = self.started_at or (perf_counter() if started else None)
        return {name: RunRecord.read(directories[name], tolerant=True) for name in started}

    def report_end(self, name: str, record: RunRecord) -> None:
        del self.remaining[name]
        self.ended[name] = record
        if name in self.bars:
            self.bars.pop(name).close()
        total = str(self.total)
        splits = ("val",) if self.sweep.is_study else ("val", "test")
        position = f"[{self.num_skipped + len(self.ended):>{len(total)}}/{total}]"
        write_above_bars(f"{position} {name}  {format_outcome(record, splits)}{self.format_time_left()}", sys.stdout)

    def format_time_left(self) -> str:
        """Estimate the time left from the runs that have ended; empty if a bar shows it."""
        left = self.total - self.num_skipped - len(self.ended)
        if self.sweep_bar is not None or not left or self.started_at is None:
            return ""
        seconds = (perf_counter() - self.started_at) / len(self.ended) * left
        return f"  (about {format_duration(seconds)} left)"

    def draw_bars(self, records: Mapping[str, RunRecord]) -> None:
        if self.sweep_bar is None:
            return
        fractions = [self.draw_run_bar(name, record) for name, record in records.items()]
        self.sweep_bar.n = len(self.ended) + sum(fractions)
        self.sweep_bar.refresh()

    def draw_run_bar(self, name: str, record: RunRecord) -> float:
        """Draw the bar of a run; return the fraction of the run that is done."""
        done, epochs = (record.numbers.get(key, 0) for key in ("epoch", "epochs"))
        if not epochs:
            return 0.0
        if name not in self.bars:
            label = f"{truncate_middle(name, BAR_NAME_LETTERS):<{min(len(name), BAR_NAME_LETTERS)}}"
            self.bars[name] = tqdm(total=int(epochs), desc=label, bar_format=RUN_BAR_FORMAT, leave=False)
        self.bars[name].n = int(done)
        self.bars[name].refresh()
        return min(1.0, done / epochs)

    def close(self) -> None:
        for bar in (*self.bars.values(), *filter(None, [self.sweep_bar])):
            bar.leave = False
            bar.close()


def get_record_mtime(directory: Path) -> int:
    try:
        return (directory / "run.json").stat().st_mtime_ns
    except OSError:
        return 0


def format_outcome(record: RunRecord, splits: Sequence[str]) -> str:
    if record.status != "finished":
        return str(record.error) if record.status == "pruned" else f"{record.status}: {record.error}"
    monitor, metrics = str(record.monitor), record.metrics
    found = [split for split in splits if monitor in metrics.get(split, ())]
    scores = [f"{split} {monitor} {metrics[split][monitor]:.4f}" for split in found]
    return "  ".join([*scores, f"trained {format_duration(record.numbers.get('train_seconds', 0))}"])
