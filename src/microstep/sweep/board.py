"""What is seen of a sweep: a line a run as it ends, and on a terminal a bar a run at work and one for the sweep."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock, Thread
from time import perf_counter
from typing import Any

from tqdm import tqdm

from microstep.roster import Job, Sweep
from microstep.sweep.records import record_of
from microstep.terminal import write
from microstep.utils.text import format_duration, truncate_middle

EVERY = 0.5  #: seconds between two looks at the runs
LETTERS = 44  #: of a run's name on its bar
ENDED = ("finished", "failed", "interrupted")


class Board:
    """Follows runs by their run.json, wherever their processes are.

    Args:
        sweep: whose runs they are.
        todo: those that are to be run now.
        tell: called whenever some of them have ended.
    """

    def __init__(self, sweep: Sweep, todo: Sequence[Job], tell: Callable[[], None]) -> None:
        self.sweep, self.tell = sweep, tell
        self.left: dict[str, int] = {}  #: the state of run.json from which those go on that haven't ended
        self.ended: dict[str, Mapping[str, Any]] = {}
        self.total, self.skipped = len(todo), len(sweep.jobs) - len(todo)
        self.began: float | None = None  #: when the first run was seen at work
        self.looking = Lock()
        self.expect(todo)
        self.bars: dict[str, tqdm[Any]] = {}
        self.shown = sweep.progress and sys.stderr.isatty() and self.total > 0
        self.whole: tqdm[Any] | None = self.bar() if self.shown else None

    def bar(self) -> tqdm[Any]:
        """Return the bar of the whole sweep, whose unit is a run: an epoch is a part of one."""
        form = "{desc} {percentage:3.0f}% |{bar:20}| {elapsed}, {remaining} left"
        return tqdm(total=float(self.total), desc=f"sweep {self.sweep.directory.name}", bar_format=form, smoothing=0.0)

    def expect(self, jobs: Sequence[Job]) -> None:
        """Take note that these are to run, once more where they have ended."""
        for job in jobs:
            self.ended.pop(job.name, None)
            self.left[job.name] = stamp(self.sweep.place(job))

    @contextmanager
    def watching(self, look: Callable[[], None]) -> Iterator[None]:
        """Look at the runs again and again, in a second thread, while this one waits for them or runs one."""
        over = Event()

        def watch() -> None:
            while not over.wait(EVERY):
                look()

        thread = Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.look()

    def look(self) -> None:
        """See how far the runs are, and tell of those that have ended."""
        with self.looking:
            records = self.changed()
            ended = {name: record for name, record in records.items() if record.get("status") in ENDED}
            for name, record in ended.items():
                self.end(name, record)
            self.draw({name: record for name, record in records.items() if name not in ended})
            if ended:
                self.tell()

    def glance(self) -> None:
        """Draw how far the runs are, and no more: what is told of their ends may draw pictures, as a run may."""
        with self.looking:
            self.draw(self.changed())

    def changed(self) -> dict[str, Mapping[str, Any]]:
        """Return what is known of the runs that have begun."""
        begun = [name for name, before in self.left.items() if stamp(self.sweep.directory / name) != before]
        self.began = self.began or (perf_counter() if begun else None)
        return {name: record_of(self.sweep.directory / name) for name in begun}

    def end(self, name: str, record: Mapping[str, Any]) -> None:
        """Tell of one run that has ended."""
        del self.left[name]
        self.ended[name] = record
        if name in self.bars:
            self.bars.pop(name).close()
        write(f"{self.place()} {name}  {outcome(record)}{self.time_left()}", sys.stdout)

    def place(self) -> str:
        """Return how many of the sweep's runs have ended."""
        count = str(len(self.sweep.jobs))
        return f"[{self.skipped + len(self.ended):>{len(count)}}/{count}]"

    def time_left(self) -> str:
        """Return how long the rest will take, where no bar says so: as long a run as those that have ended."""
        if self.shown or not self.left or self.began is None:
            return ""
        seconds = (perf_counter() - self.began) / len(self.ended) * len(self.left)
        return f"  (about {format_duration(seconds)} left)"

    def draw(self, records: Mapping[str, Mapping[str, Any]]) -> None:
        """Draw the bars, where they are shown."""
        if self.whole is None:
            return
        shares = [self.draw_run(name, record) for name, record in records.items()]
        self.whole.n = len(self.ended) + sum(shares)
        self.whole.refresh()

    def draw_run(self, name: str, record: Mapping[str, Any]) -> float:
        """Draw the bar of a run at work; return how much of it is done."""
        done, epochs = (number(record.get(key)) for key in ("epoch", "epochs"))
        if not epochs:
            return 0.0
        if name not in self.bars:
            form = "  {desc} {n_fmt}/{total_fmt} epochs |{bar:20}|{postfix}"
            label = f"{truncate_middle(name, LETTERS):<{min(len(name), LETTERS)}}"
            self.bars[name] = tqdm(total=int(epochs), desc=label, bar_format=form, leave=False)
        self.bars[name].n = int(done)
        self.bars[name].refresh()
        return min(1.0, done / epochs)

    def close(self) -> None:
        """Take the bars away."""
        for bar in (*self.bars.values(), *filter(None, [self.whole])):
            bar.leave = False
            bar.close()


def stamp(place: Path) -> int:
    """Return what tells one state of a run's run.json from another."""
    try:
        return (place / "run.json").stat().st_mtime_ns
    except OSError:
        return 0


def number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def outcome(record: Mapping[str, Any]) -> str:
    """Return in a few words how a run ended."""
    if record.get("status") != "finished":
        return f"{record.get('status')}: {record.get('error')}"
    metrics = record.get("metrics")
    told = [f"{split} {value}" for split in ("val", "test") if (value := monitored(metrics, split))]
    return "  ".join([*told, f"trained {format_duration(number(record.get('train_seconds')))}"])


def monitored(metrics: Any, split: str) -> str:
    """Return a split's accuracy, or what else its task calls its second metric: the first is the loss."""
    found = metrics.get(split) if isinstance(metrics, Mapping) else None
    named = [(name, value) for name, value in (found or {}).items() if name not in ("loss", "epoch")]
    name, value = next(iter([pair for pair in named if pair[0] == "accuracy"] or named), ("", 0.0))
    return f"{name} {number(value):.4f}" if name else ""
