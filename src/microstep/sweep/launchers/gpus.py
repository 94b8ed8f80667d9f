"""Gives each run that a launcher starts on this machine a GPU of its own."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from itertools import count, islice
from pathlib import Path

from microstep.errors import RunInUse
from microstep.run.lock import acquire_lock

LOCKS = ".gpus"  #: directory of a sweep with a lock for each run that is active at once
CLAIMS = ExitStack()  #: keeps locks until this process ends


def claim_gpus(gpus: Sequence[str], sweep: Path, needed: int = 1) -> None:
    """Restrict this process to some GPUs until it ends. Active runs share only if they have to, and then evenly."""
    claimed = dict.fromkeys(gpus[slot % len(gpus)] for slot in islice(free_slots(sweep), needed))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(claimed)  # CUDA reads it at its first use


def free_slots(sweep: Path) -> Iterator[int]:
    """Yield the numbers of the locks that no other process holds, each locked by this one until it ends."""
    for slot in count():
        (directory := sweep / LOCKS / str(slot)).mkdir(parents=True, exist_ok=True)
        with suppress(RunInUse):
            CLAIMS.callback(acquire_lock(directory).release)
            yield slot
