"""Shows the progress of a sweep: a line for each run that ends, and on a terminal a bar for each run and the sweep."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock, Thread
from time import perf_counter
from typing import Any

from tqdm import tqdm

from microstep.run.record import RunRecord
from microstep.sweep.definition import Job, Sweep
from microstep.utils.terminal import write_above_bars
from microstep.utils.text import format_duration, truncate_middle

REFRESH_SECONDS = 0.5  #: seconds between two reads of the run.json files
BAR_NAME_LETTERS = 44  #: of a run's name in its bar
ENDED_STATUSES = ("finished", "failed", "interrupted")


class SweepProgress:
    """Follows runs through their run.json, so their processes may be anywhere.

    Args:
        sweep: the sweep.
        jobs: jobs that are run now.
        on_run_end: called each time some of them have ended.
    """

    def __init__(self, sweep: Sweep, jobs: Sequence[Job], on_run_end: Callable[[], None]) -> None:
        self.sweep, self.tell = sweep, on_run_end
        self.left: dict[str, int] = {}  #: for each run that has not ended, the time stamp of its run.json before it
        self.ended: dict[str, RunRecord] = {}
        self.total, self.skipped = len(jobs), len(sweep.jobs) - len(jobs)
        self.began: float | None = None  #: when the first run was seen to have begun
        self.looking = Lock()
        self.expect(jobs)
        self.bars: dict[str, tqdm[Any]] = {}
        self.shown = sweep.progress and sys.stderr.isatty() and self.total > 0
        self.whole: tqdm[Any] | None = self.bar() if self.shown else None

    def bar(self) -> tqdm[Any]:
        """Return the bar of the sweep. Its unit is a run, of which an epoch is a fraction."""
        form = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed}, {remaining} left"
        return tqdm(total=float(self.total), desc=f"sweep {self.sweep.directory.name}", bar_format=form, smoothing=0.0)

    def expect(self, jobs: Sequence[Job]) -> None:
        """Expect jobs to run, again if they have ended."""
        for job in jobs:
            self.ended.pop(job.name, None)
            self.left[job.name] = get_record_mtime(self.sweep.place(job))

    @contextmanager
    def watching(self, update: Callable[[], None]) -> Iterator[None]:
        """Call `update` repeatedly in a second thread, while this one waits for the runs or runs one."""
        over = Event()

        def watch() -> None:
            while not over.wait(REFRESH_SECONDS):
                update()

        thread = Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.look()

    def look(self) -> None:
        """Update the bars, and report the runs that have ended."""
        with self.looking:
            records = self.changed()
            ended = {name: record for name, record in records.items() if record.status in ENDED_STATUSES}
            for name, record in ended.items():
                self.end(name, record)
            self.draw({name: record for name, record in records.items() if name not in ended})
            if ended:
                self.tell()

    def glance(self) -> None:
        """Update the bars only. Reports of ended runs may plot, which must not happen while a run plots."""
        with self.looking:
            self.draw(self.changed())

    def changed(self) -> dict[str, RunRecord]:
        """Return the records of the runs that have begun."""
        begun = [name for name, before in self.left.items() if get_record_mtime(self.sweep.directory / name) != before]
        self.began = self.began or (perf_counter() if begun else None)
        return {name: RunRecord.read(self.sweep.directory / name) for name in begun}

    def end(self, name: str, record: RunRecord) -> None:
        """Report one run that has ended."""
        del self.left[name]
        self.ended[name] = record
        if name in self.bars:
            self.bars.pop(name).close()
        write_above_bars(f"{self.place()} {name}  {format_outcome(record)}{self.time_left()}", sys.stdout)

    def place(self) -> str:
        """Return how many runs of the sweep have ended."""
        count = str(len(self.sweep.jobs))
        return f"[{self.skipped + len(self.ended):>{len(count)}}/{count}]"

    def time_left(self) -> str:
        """Estimate the time left from the runs that have ended; empty if a bar shows it."""
        if self.shown or not self.left or self.began is None:
            return ""
        seconds = (perf_counter() - self.began) / len(self.ended) * len(self.left)
        return f"  (about {format_duration(seconds)} left)"

    def draw(self, records: Mapping[str, RunRecord]) -> None:
        """Draw the bars if they are shown."""
        if self.whole is None:
            return
        shares = [self.draw_run(name, record) for name, record in records.items()]
        self.whole.n = len(self.ended) + sum(shares)
        self.whole.refresh()

    def draw_run(self, name: str, record: RunRecord) -> float:
        """Draw the bar of a run; return the fraction of it that is done."""
        done, epochs = (record.numbers.get(key, 0) for key in ("epoch", "epochs"))
        if not epochs:
            return 0.0
        if name not in self.bars:
            form = "  {desc} {n_fmt}/{total_fmt} epochs |{bar:20}|{postfix}"
            label = f"{truncate_middle(name, BAR_NAME_LETTERS):<{min(len(name), BAR_NAME_LETTERS)}}"
            self.bars[name] = tqdm(total=int(epochs), desc=label, bar_format=form, leave=False)
        self.bars[name].n = int(done)
        self.bars[name].refresh()
        return min(1.0, done / epochs)

    def close(self) -> None:
        """Remove the bars."""
        for bar in (*self.bars.values(), *filter(None, [self.whole])):
            bar.leave = False
            bar.close()


def get_record_mtime(directory: Path) -> int:
    """Return the modification time of a run.json; 0 if there is none."""
    try:
        return (directory / "run.json").stat().st_mtime_ns
    except OSError:
        return 0


def format_outcome(record: RunRecord) -> str:
    """Return how a run ended: its scores and training time, or its error."""
    if record.status != "finished":
        return f"{record.status}: {record.error}"
    monitor, metrics = str(record.monitor), record.metrics
    scores = [
        f"{one} {monitor} {metrics[one][monitor]:.4f}" for one in ("val", "test") if monitor in metrics.get(one, ())
    ]
    return "  ".join([*scores, f"trained {format_duration(record.numbers.get('train_seconds', 0))}"])
