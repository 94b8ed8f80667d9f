"""Records some optimizer steps with torch.profiler: a trace for the browser, and a table of times."""

import logging
import os
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch

from microstep.config.experiment import profiled_steps
from microstep.errors import ConfigError
from microstep.run.layout import PROFILE_TABLE, PROFILE_TRACE
from microstep.types.data import LoadedWindow
from microstep.utils.files import write_atomic
from microstep.utils.tables import format_table
from microstep.utils.terminal import print_and_log
from microstep.utils.text import display_path, format_count, format_percent
from microstep.utils.time_ranges import time_range

RANGES = ("data", "forward", "backward", "reduce", "update", "log")  #: names of `time_range` in a step


class StepProfiler:
    """Profiles the steps that the key `profile` names. Raise ConfigError if a run of `total` steps has none of them."""

    def __init__(self, key: bool | str, total: int, run_dir: Path) -> None:
        self.key, self.run_dir, self.subject = key, run_dir, f"profile={str(key).lower()}"
        if profiled_steps(key)[0] > total:
            raise ConfigError(self.subject, f"the run has {total} steps", f"give earlier ones: profile=1:{total}")
        self.steps, self.seconds = range(0), list[float]()
        self.recording: torch.profiler.profile | None = None

    def windows(self, windows: Iterable[LoadedWindow], done: int) -> Iterator[LoadedWindow]:
        """Yield windows, and time each from the request for it to the next request; `done` windows precede them."""
        self.steps, iterator = self.steps or profiled_steps(self.key, done), iter(windows)
        for number in count(done + 1):
            if number in self.steps and not self.recording:
                os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences its messages on stderr
                self.recording = torch.profiler.profile(acc_events=True)
                self.recording.start()
            start = perf_counter()
            with time_range("data"):
                window = next(iterator, None)
            if window is None:
                return
            yield window
            self.seconds += [perf_counter() - start] if self.recording else []
            if number == self.steps[-1]:
                self.close()

    def close(self) -> None:
        """Write the trace and the table of what was recorded, if they are not written yet."""
        recording, self.recording = self.recording, None
        if recording is not None:
            recording.stop()
        if not self.seconds:
            logging.getLogger("microstep.notice").warning("%s: this process took none of these steps", self.subject)
        elif recording is not None:
            write_profile(recording, self.seconds, self.run_dir)


def write_profile(recording: torch.profiler.profile, seconds: list[float], run_dir: Path) -> None:
    trace, totals = run_dir / PROFILE_TRACE, {e.key: e.cpu_time_total / 1e6 for e in recording.key_averages()}
    ranges, total = {name: totals[name] for name in RANGES if name in totals}, sum(seconds)
    times = ranges | {"other": total - sum(ranges.values()), "total": total}
    rows = [(name, f"{1e3 * t / len(seconds):,.2f}", format_percent(t / total)) for name, t in times.items()]
    lines = format_table([(f"profile of {format_count(len(seconds), 'step')}", "ms a step", "share"), *rows], "<>")
    trace.parent.mkdir(exist_ok=True)
    with TemporaryDirectory() as directory:
        recording.export_chrome_trace(f"{directory}/{trace.name}")  # compressed because of its suffix
        write_atomic(trace, Path(directory, trace.name).read_bytes())
    write_atomic(run_dir / PROFILE_TABLE, "\n".join([*lines, ""]).encode())
    print_and_log("\n".join([*lines, f"trace for chrome://tracing or ui.perfetto.dev: {display_path(trace)}"]))
