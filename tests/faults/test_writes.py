"""A save that dies at any of its system calls leaves an intact checkpoint."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from microstep.errors import CheckpointRefused
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.checkpoints.recovery import recover_state
from tests.conftest import ROOT

FILE, MANIFEST = "epoch-0003.pt", "manifest.json"


def cut_off(directory: Path, *mutant: str) -> list[tuple[str, str]]:
    """Let a save die at each of its calls; return the calls of a whole one: (call, file), temporaries by their name."""
    command = [sys.executable, "-m", "tests.faults.dying", str(directory), *mutant]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=200)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    last = max(fatal for fatal, _, _ in lines)
    assert last == 1 + sum(fatal == last for fatal, _, _ in lines)  # the last child outlived all its calls
    return [(call, plain(name)) for fatal, call, name in lines if fatal == last]


def plain(name: str) -> str:
    return ".tmp" if name.endswith(".tmp") else name


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    """Runs that died in their third save, `n` at its n-th call, and the calls of one that did not."""
    directory = tmp_path_factory.mktemp("deaths")
    return directory, cut_off(directory)


def test_the_order_is_write_fsync_replace_fsync_of_the_directory(deaths) -> None:
    """First the name of `checkpoints` is on the disk; files that the manifest no longer names are removed last."""
    written = [("open", ".tmp"), ("write", ".tmp"), ("fsync", ".tmp")]
    checkpoint, manifest = ([*written, ("replace", name), ("fsync", "checkpoints")] for name in (FILE, MANIFEST))
    run = str(len(deaths[1]) + 1)  # the directory that is named after the first call that there was not
    assert deaths[1] == [("fsync", run), *checkpoint, *manifest, ("unlink", "epoch-0001.pt")]


def test_whenever_it_dies_a_good_checkpoint_loads(deaths) -> None:
    """The second or the third loads, best and last alike, and the next save removes all leftovers."""
    directory, calls = deaths
    found = []
    for fatal in range(1, len(calls) + 2):
        place = directory / str(fatal) / "checkpoints"
        state = recover_state(Checkpoints(place))
        assert state is not None
        assert Checkpoints(place).load("best")["progress"]["epoch"] == state.progress.epoch
        found.append(state.progress.epoch)
    renamed = [i for i, (call, _) in enumerate(calls) if call == "replace"][1]  # the manifest's: the moment it counts
    assert found == [2] * (renamed + 1) + [3] * (len(calls) - renamed)


def test_writing_in_place_is_caught(tmp_path: Path) -> None:
    """The test above can fail: if files are written in place, some deaths leave nothing to load."""
    calls = cut_off(tmp_path, "in_place")
    lost = [fatal for fatal in range(1, len(calls) + 1) if is_lost(tmp_path / str(fatal) / "checkpoints")]
    assert lost


def is_lost(place: Path) -> bool:
    try:
        return recover_state(Checkpoints(place)) is None
    except CheckpointRefused:
        return True
