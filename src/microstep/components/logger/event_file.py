"""Writes TensorBoard event files in the calling thread, so that an error reaches the caller.

The thread of torch's SummaryWriter prints a traceback and stops if the disk is full.
"""

import os
import socket
import time
from itertools import count
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from microstep.utils.files import append_bytes

EVENT_FILE_PREFIX = "events.out.tfevents"
FILE_NUMBERS = count()  #: number the files that this process creates


class EventFile:
    """New event file in a directory. TensorBoard reads all event files of a directory as one run, sorted by name.

    Each method raises a StorageError if the disk is full. The file then ends with the last complete event.
    """

    def __init__(self, directory: Path) -> None:
        origin = f"{socket.gethostname()}.{os.getpid()}.{next(FILE_NUMBERS)}"
        self.file = directory / f"{EVENT_FILE_PREFIX}.{next_timestamp(directory):010d}.{origin}"
        self.records = RecordWriter(self)
        self.write_event(file_version="brain.Event:2")

    def add(self, summary: Summary, step: int | None = None) -> None:
        self.write_event(summary=summary, step=step)

    def write_event(self, **fields: Any) -> None:
        self.records.write(Event(wall_time=time.time(), **fields).SerializeToString())

    def write(self, record: bytes) -> None:
        """Append a record completely or not at all. `RecordWriter` calls this method."""
        append_bytes(self.file, record)


def next_timestamp(directory: Path) -> int:
    """Return the current second, or a later one that sorts the new file's name after those of existing files."""
    prefix = f"{EVENT_FILE_PREFIX}."
    stamps = (file.name.removeprefix(prefix).split(".")[0] for file in directory.glob(f"{prefix}*"))
    return max([int(time.time()), *(int(stamp) + 1 for stamp in stamps if stamp.isdecimal())])
