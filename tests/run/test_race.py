"""Two processes that want one directory: neither loses a file, and neither sees half of what the other discards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.run.racing import REPORT

GIVES_UP = """
import sys
from contextlib import suppress
from pathlib import Path
from microstep.errors import ConfigError
from microstep.run import directory
from microstep.run.lock import directory_lock
remove = directory.remove_directory
def watched(*arguments):
    print("discarding", flush=True)
    sys.stdin.readline()
    remove(*arguments)
directory.remove_directory = watched
with suppress(ConfigError), directory.new_directory(Path(sys.argv[1]), True) as run, directory_lock(run):
    (run / "train.log").write_text("a line")
    raise ConfigError("model", "it doesn't fit the data", "choose another")
"""
BEGINS = """
import sys
from pathlib import Path
from microstep.errors import RunInUse
from microstep.run import directory
from microstep.run.lock import directory_lock
try:
    with directory.new_directory(Path(sys.argv[1]), True, discard_on_error=True) as run, directory_lock(run):
        (run / "train.log").write_text("of another")
        print("begun", flush=True)
        sys.stdin.readline()
except RunInUse:
    print("in use", flush=True)
"""
MAKES = f"""
import sys
from microstep.run import directory
make = directory.make_if_missing
def watched(*arguments):
    made = make(*arguments)
    print("made", flush=True)
    sys.stdin.readline()
    return made
directory.make_if_missing = watched
{BEGINS}
"""
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}


def started(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *command], **PIPES)


def test_a_directory_is_discarded_under_its_lock(tmp_path: Path) -> None:
    """While one process discards the directory that it had made, another can't begin in it; afterwards it can."""
    run = tmp_path / "day" / "run"
    with started("-c", GIVES_UP, str(run)) as one:
        assert one.stdout.readline() == "discarding\n"
        with started("-c", BEGINS, str(run)) as other:
            assert other.stdout.readline() == "in use\n"
        one.communicate("\n")
    assert not run.parent.exists()
    with started("-c", BEGINS, str(run)) as other:
        assert other.stdout.readline() == "begun\n"
        other.communicate("\n")
    assert (run / "train.log").read_text() == "of another"


def test_who_comes_second_discards_nothing(tmp_path: Path) -> None:
    """A check that has made a directory and finds it locked by another process leaves it to that process."""
    with started("-c", MAKES, str(tmp_path / "run")) as first:
        assert first.stdout.readline() == "made\n"
        with started("-c", BEGINS, str(tmp_path / "run")) as owner:
            assert owner.stdout.readline() == "begun\n"
            assert first.communicate("\n")[0] == "in use\n"
            owner.communicate("\n")
    assert (tmp_path / "run" / "train.log").read_text() == "of another"


def raced(home: Path, rounds: int) -> Counter[str]:
    """Let two processes race for a directory a round, check that nothing was lost, and count what they did."""
    counts = Counter[str]()
    with started("-m", "tests.run.racing", "one") as one, started("-m", "tests.run.racing", "two") as two:
        for number in range(rounds):
            run = home / "day" / f"run {number}"
            for racer in (one, two):
                racer.stdin.write(f"{run} {number}\n")
                racer.stdin.flush()
            said = [racer.stdout.readline().strip() for racer in (one, two)]
            assert not [line for line in said if not line or ":" in line], said
            done = Counter(" ".join(said).split())
            check_nothing_is_lost(run, done)
            counts += done
    return counts


def check_nothing_is_lost(run: Path, done: Counter[str]) -> None:
    if done["saved"]:
        assert done["saved"] == 1, "a run was started over another"
        assert json.loads((run / "run.json").read_text())["status"] == "running"
        assert (run / "checkpoints" / "epoch-0001.pt").read_bytes() == b"weights"
    if done["evaluated"]:
        assert {path.name for path in (run / "reports").iterdir()} == {"test"}
        assert {path.name for path in (run / "reports" / "test").iterdir()} == set(REPORT)


def test_two_processes_race(tmp_path: Path) -> None:
    """Starts, resumes, evaluations and starts that are given up, at once: a saved run is never harmed."""
    assert raced(tmp_path, 10)["saved"]


@pytest.mark.long
def test_two_processes_race_200_times(tmp_path: Path) -> None:
    """At least half of the directories get a run, and none loses a file of it."""
    counts = raced(tmp_path, 200)
    assert counts["saved"] > 100
    assert min(counts[name] for name in ("resumed", "evaluated", "died", "discarded")) > 20, counts
