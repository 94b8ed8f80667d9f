"""Sends scalars and files to a sink in a thread of its own, so that a slow or failing server does not delay a run."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from microstep.components.logger.event_file import EVENT_FILE_PREFIX
from microstep.errors import format_error, truncate
from microstep.types.events import Results
from microstep.types.protocols import Sink
from microstep.utils.json_files import read_json_or_empty, write_json

log = logging.getLogger("microstep.notice")
INTERVAL = 0.1  #: seconds between two looks into the event files
OPENING, PATIENCE, LONGEST_WAIT = 5.0, 1.0, 60.0  #: seconds for `open`, for another request, and for all at the end
SLOWEST_UPLOAD = 1e7  #: bytes per second of a file, which has more time


class RemoteLogger:
    """Sends the scalars in TensorBoard's event files, which are the queue, then reports and weights, to a sink."""

    def __init__(self, sink: Sink, name: str, node: object, run_dir: Path, settings: Mapping[str, Any]) -> None:
        self.sink, self.name, self.node, self.run_dir, self.settings = sink, name, node, run_dir, settings
        self.mark = read_json_or_empty(run_dir / f"logger.{name}.json")  #: what the sink has: last step of each stream
        self.thread, self.ended = Thread(target=self.send_all, daemon=True), Event()
        self.run_failed = self.given_up = False
        self.best_epoch, self.deadline = 0, 0.0  #: of a finished run; by which the sink should answer

    def start(self, report: object = None) -> None:
        if self.thread.ident is None:
            self.thread.start()

    window = epoch = start  # TensorBoard has written the report to the event file

    def finish(self, results: Results) -> None:
        self.best_epoch = results.best_epoch

    def close(self, error: BaseException | None) -> None:
        self.run_failed, now = error is not None, monotonic()
        self.start()
        self.ended.set()
        while self.thread.is_alive() and not self.given_up:
            self.thread.join(0.02)
            if monotonic() > min(max(self.deadline, now + PATIENCE), now + LONGEST_WAIT):
                self.give_up("it does not answer in time")

    def send_all(self) -> None:
        """Send everything until the run has ended or the sink fails. Runs in the thread."""
        try:
            self.deadline = monotonic() + OPENING
            known = self.mark.get("id") if self.mark.get("node") == self.node else None
            remote = self.sink.open(known, self.run_dir.name, self.settings)
            self.record(self.mark if remote == known else {"id": remote, "node": self.node})
            loaders = [LegacyEventFileLoader(str(f)) for f in sorted(self.run_dir.glob(f"{EVENT_FILE_PREFIX}.*"))]
            while not self.ended.wait(INTERVAL):
                self.send_points(loaders)
            self.send_points(loaders)
            for file in sorted([*self.run_dir.glob("reports/[!.]*/*.*"), *self.run_dir.glob("model.safetensors")]):
                self.send(str(file.relative_to(self.run_dir)), self.best_epoch, self.sink.file, file)
            self.sink.end(self.run_failed)
        except BaseException as error:
            logging.getLogger(__name__).info("logger.%s failed", self.name, exc_info=True)
            self.give_up(truncate(format_error(error), 300))

    def send_points(self, loaders: list[LegacyEventFileLoader]) -> None:
        for event in (event for loader in loaders for event in loader.Load()):
            values = {value.tag: value.simple_value for value in event.summary.value if value.HasField("simple_value")}
            if values:
                self.send(next(iter(values)).partition("/")[0], event.step, self.sink.scalars, values, event.step)

    def send(self, stream: str, step: int, call: Callable[..., None], *arguments: Any) -> None:
        if step > self.mark.get(stream, -1):  # otherwise the sink has it
            seconds = (file.stat().st_size / SLOWEST_UPLOAD for file in arguments if isinstance(file, Path))
            self.deadline = monotonic() + PATIENCE + sum(seconds)
            call(*arguments)
            self.record(self.mark | {stream: step})

    def record(self, mark: dict[str, Any]) -> None:
        if self.given_up:
            raise TimeoutError("the run may have ended, and another process may have resumed it")
        self.mark = mark
        write_json(self.run_dir / f"logger.{self.name}.json", mark)

    def give_up(self, reason: str) -> None:
        if not self.given_up:
            self.given_up = True
            log.warning("logger.%s: %s; it gets no more of this run, TensorBoard has all", self.name, reason)
