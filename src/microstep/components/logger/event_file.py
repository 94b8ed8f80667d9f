"""A TensorBoard events file, written in the thread that writes: what goes wrong is told where it happens.

torch's SummaryWriter has a queue and a thread: on a full disk that one dies with a traceback of its own.
"""

from __future__ import annotations

import os
import socket
import time
from itertools import count
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from microstep.utils.files import append_bytes

EVENT_FILE_PREFIX = "events.out.tfevents"
FILE_NUMBERS = count()  #: of the files that this process has begun


class EventFile:
    """A new events file in a directory; TensorBoard reads all of a directory's as one run, in the order of their names.

    Raises:
        StorageError: from each method, where there is no room; the file is as it was then.
    """

    def __init__(self, directory: Path) -> None:
        origin = f"{socket.gethostname()}.{os.getpid()}.{next(FILE_NUMBERS)}"
        name = f"{EVENT_FILE_PREFIX}.{next_timestamp(directory):010d}.{origin}"
        self.file = directory / name
        self.records = RecordWriter(self)
        self.add_event(Event(file_version="brain.Event:2"))

    def add(self, summary: Summary, step: int | None = None) -> None:
        """Write one event."""
        self.add_event(Event(summary=summary, step=step))

    def add_event(self, event: Event) -> None:
        """Write an event, now."""
        event.wall_time = time.time()
        self.records.write(event.SerializeToString())

    def write(self, record: bytes) -> None:
        """Append a record, whole or not at all."""
        append_bytes(self.file, record)


def next_timestamp(directory: Path) -> int:
    """Return the second for a new file's name: after those of the files that are there, whose order is their names'."""
    names = [
        file.name.removeprefix(f"{EVENT_FILE_PREFIX}.").split(".")[0]
        for file in directory.glob(f"{EVENT_FILE_PREFIX}.*")
    ]
    return max([int(time.time()), *(int(name) + 1 for name in names if name.isdecimal())])
