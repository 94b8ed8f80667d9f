"""Gives each run that a launcher starts on this machine a GPU of its own."""

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import count, takewhile
from pathlib import Path

from microstep.errors import RunInUse
from microstep.run.lock import acquire_lock

LOCKS = ".gpus"  #: directory of a sweep with a lock for each run that is active at once
CLAIMS = ExitStack()  #: keeps locks until this process ends


def list_gpus() -> list[str]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES lists, or else the indices of those that have a device file."""
    indices = (str(index) for index, _ in enumerate(Path("/dev").glob("nvidia[0-9]*")))
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(indices))
    return list(takewhile(lambda gpu: gpu not in ("", "-1"), map(str.strip, listed.split(","))))  # CUDA stops there


def claim_gpu(gpus: Sequence[str], sweep: Path) -> None:
    """Restrict this process to one GPU until it ends. Active runs of a sweep share evenly, and only if they have to."""
    for slot in count():
        (directory := sweep / LOCKS / str(slot)).mkdir(parents=True, exist_ok=True)
        with suppress(RunInUse):
            CLAIMS.callback(acquire_lock(directory).release)
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]  # CUDA reads it at its first use
            return
