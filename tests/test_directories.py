"""A run directory is one run's."""

import subprocess
import sys

import pytest

from microstep.directories import occupied
from microstep.errors import RunInUse
from tests.conftest import ROOT


def test_of_two_that_start_at_once_in_one_directory_one_runs(tmp_path) -> None:
    """The other is refused in one line with exit code 2 or 5, and takes nothing of the first away."""
    words = ("epochs=1", "model=mlp", "threads=1", "hydra.run.dir=run")
    command = [sys.executable, str(ROOT / "train.py"), *words]
    both = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=200)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes[0] == 0 and codes[1] in (2, 5), said
    assert "it holds a run already" in "".join(said)
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 2


def test_a_directory_is_occupied_once(tmp_path) -> None:
    """run.json is created by one process only: there is no moment in which two believe it theirs."""
    occupied(tmp_path / "run")
    with pytest.raises(RunInUse) as refused:
        occupied(tmp_path / "run")
    assert refused.value.exit_code == 5
