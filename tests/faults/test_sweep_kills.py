"""After kill -9 at random moments, a launcher's sweep that is repeated until it finishes equals the uninterrupted one.

Bit for bit, each of its runs. A kill hits one process of the sweep, its process group, or all of its processes.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from tests.faults.runs import differences, manifest_of
from tests.faults.zygote import Zygote

pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="pip install -e .[local]")
KILLS = int(os.environ.get("SWEEP_KILLS", "25"))  #: in each part: 100 in all
PARTS = [pytest.param(part, jobs, id=f"{part}-{jobs}") for part, jobs in enumerate((1, 1, 1, 2))]  #: runs at once
LIMIT = 180  #: seconds after which a sweep counts as one that hangs
COMMON = ("threads=1", "progress=false", "checkpoint.every_steps=4", "log_every_steps=3", "augment=crop_flip")
RUNS = ("model=mlp", "model.dropout=0.2", "batch_size=64", "epochs=3", "seed=0,1", "precision=fp32,bf16")
TIMED_COLUMNS = ("train_seconds", "samples_per_second", "peak_memory_bytes")


@pytest.mark.long
@pytest.mark.parametrize(("part", "jobs"), PARTS)
def test_a_sweep_that_is_killed_and_repeated_is_the_same_sweep(
    zygote: Zygote, tmp_path: Path, part: int, jobs: int
) -> None:
    """Weights, optimizer, reports, metrics.csv, scalars and the summary's scores; no file is left over."""
    began = time.monotonic()
    assert ended(zygote, start(zygote, tmp_path, jobs, "whole")) == 0, said(tmp_path)
    seconds, chance, killed, number = time.monotonic() - began, random.Random(part), 0, 0
    while killed < KILLS:
        sweep = start(zygote, tmp_path, jobs, f"sweep{number}")
        time.sleep(chance.uniform(0.05, 1.0) * seconds)
        killed += kill(sweep, chance)
        if ended(zygote, sweep) == 0:
            number, seconds = number + 1, 0.9 * seconds  # the machine was busier when it was measured
    repeat(zygote, tmp_path, jobs, f"sweep{number}")
    for sweep_number in range(number + 1):
        assert sweep_differences(tmp_path / f"sweep{sweep_number}", tmp_path / "whole") == []


def start(zygote: Zygote, home: Path, jobs: int, name: str) -> int:
    words = ("-m", "hydra/launcher=local", f"hydra.launcher.n_jobs={jobs}", *COMMON, *RUNS, f"hydra.sweep.dir={name}")
    return zygote.start("train.py", *words, cwd=home)


def ended(zygote: Zygote, pid: int) -> int:
    """Wait for a sweep and return its exit code: 0, 1 if a run has not finished, or that of a kill."""
    hung: list[int] = []
    timer = Timer(LIMIT, lambda: hung.append(pid) or os.killpg(pid, signal.SIGKILL))
    timer.start()
    code = zygote.wait(pid)
    timer.cancel()
    assert not hung, "the sweep hangs"
    assert code in (0, 1, 5, -signal.SIGKILL), code
    return code


def repeat(zygote: Zygote, home: Path, jobs: int, name: str) -> None:
    """Repeat a sweep until it finishes. Runs that the last kill has spared may be at work for a moment."""
    for _ in range(10):
        if ended(zygote, start(zygote, home, jobs, name)) == 0:
            return
    raise AssertionError(said(home))


def kill(sweep: int, chance: random.Random) -> bool:
    """Kill one process of a sweep, its process group, or all of its processes; return whether there was any."""
    processes = [pid for pid in (sweep, *descendants(sweep)) if is_running(pid)]
    if not processes:
        return False
    kind = chance.choice(("one", "group", "all"))
    with suppress(ProcessLookupError):
        if kind == "group":
            os.killpg(sweep, signal.SIGKILL)
        for pid in {"one": [chance.choice(processes)], "group": [], "all": processes}[kind]:
            os.kill(pid, signal.SIGKILL)
    return True


def descendants(pid: int) -> list[int]:
    parents = {int(stat.parent.name): int(fields_of(stat)[1]) for stat in Path("/proc").glob("[0-9]*/stat")}
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]


def is_running(pid: int) -> bool:
    return fields_of(Path(f"/proc/{pid}/stat"))[0] not in "ZX"


def fields_of(stat: Path) -> list[str]:
    """Return state, parent and further fields of a process; state X if it is gone."""
    try:
        return stat.read_text().rpartition(")")[2].split()
    except OSError:
        return ["X", "0"]


def sweep_differences(one: Path, other: Path) -> list[str]:
    names = sorted(file.parent.name for file in other.glob("*/run.json"))
    found = [] if sorted(file.parent.name for file in one.glob("*/run.json")) == names else ["the runs"]
    for run in (one / name for name in names):
        found += [f"{run.name}: {part}" for part in differences(run, other / run.name)]
        kept = {entry["file"] for entry in manifest_of(run).values()}
        found += (
            [f"{run.name}: its checkpoints"] if {file.name for file in run.glob("checkpoints/*.pt")} != kept else []
        )
        found += (
            [f"{run.name}: its status"] if json.loads((run / "run.json").read_text())["status"] != "finished" else []
        )
    found += [str(file) for file in one.rglob(".*.tmp")]
    return found + (["the summary"] if scores_of(one) != scores_of(other) else [])


def scores_of(sweep: Path) -> list[dict[str, Any]]:
    with (sweep / "summary.csv").open() as table:
        return [{key: row[key] for key in row if key not in TIMED_COLUMNS} for row in csv.DictReader(table)]


def said(home: Path) -> str:
    return (home / "output.txt").read_text()
