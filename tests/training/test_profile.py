"""`profile=` records steps of a run: a trace, a table, and no other bit."""

from __future__ import annotations

import gzip
import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from microstep.config.compose import compose
from microstep.config.experiment import profiled_steps
from microstep.errors import ConfigError, Stopped
from microstep.run.directory import clear_run_directory
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from microstep.utils.time_ranges import time_range
from tests.conftest import call, error_of, fit
from tests.faults.interruptions import stop_at
from tests.faults.runs import differences

WORDS = ("model=mlp", "model.hidden=[8]", "model.dropout=0.2", "threads=1", "progress=false")


def events_of(run: Path, name: str) -> list[dict[str, Any]]:
    """Return the trace's events of a range, in order."""
    trace = json.loads(gzip.decompress((run / "profile/trace.json.gz").read_bytes()))
    return sorted((e for e in trace["traceEvents"] if e.get("name") == name), key=lambda event: event["ts"])


def table_of(run: Path) -> dict[str, float]:
    """Return the milliseconds a step of each row."""
    rows = (run / "profile/table.txt").read_text().splitlines()[1:]
    return {row.split()[0]: float(row.split()[1]) for row in rows}


def title_of(run: Path) -> str:
    """Return the first cell: the number of steps."""
    return re.split(r"  +", (run / "profile/table.txt").read_text().splitlines()[0].strip())[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a profile."""
    run = tmp_path_factory.mktemp("whole") / "run"
    fit([*WORDS, "epochs=2", "accum=2", "step=sam"], run)
    assert not (run / "profile").exists()
    return run


def test_a_profile_changes_no_bit_and_adds_up(whole: Path, tmp_path: Path, capsys) -> None:
    """The run is the same; the trace has every range of the steps, and the table divides their time."""
    run = tmp_path / "run"
    fit([*WORDS, "epochs=2", "accum=2", "step=sam", "profile=10:14"], run)  # from one epoch of 12 to the next
    assert differences(run, whole) == []
    assert len(events_of(run, "forward")) == len(events_of(run, "backward")) == 2 * (2 * 4 + 1)  # an epoch ends in 1
    assert len(events_of(run, "data")) >= 5
    table = table_of(run)
    assert list(table) == ["data", "forward", "backward", "update", "log", "other", "total"]
    assert sum(table.values()) == pytest.approx(2 * table["total"], abs=0.05)
    assert 0 <= table["other"] < table["total"] / 2
    out = capsys.readouterr().out
    assert (run / "profile/table.txt").read_text() in out
    assert f"{run / 'profile/trace.json.gz'}\n" in out


@pytest.mark.parametrize(("words", "steps"), [("profile=true", 5), ("profile=33:34", 2), ("profile=20:31", 1)])
def test_steps_count_those_of_the_run(tmp_path: Path, words: str, steps: int) -> None:
    """A resumed run can be profiled, too: from its sixth step on, or between two steps of the whole run."""
    run = tmp_path / "run"
    stop_at(build_trainer(compose([*WORDS, "epochs=2"]), run), 30)
    resume(run, [words]).fit()
    assert title_of(run) == f"profile of {steps} step{'s' * (steps > 1)}"


def test_a_run_that_ends_early_has_what_was_recorded(tmp_path: Path) -> None:
    """A signal, or the end of the run, ends a profile that is complete up to there."""
    stop_at(build_trainer(compose([*WORDS, "profile=10:50"]), tmp_path / "run"), 12)
    assert title_of(tmp_path / "run") == "profile of 3 steps"
    fit([*WORDS, "steps=9", "profile=8:50"], tmp_path / "short")
    assert title_of(tmp_path / "short") == "profile of 2 steps"


def test_steps_that_are_not_taken_are_told(tmp_path: Path, capsys) -> None:
    """Before the run if it never has them; at its end if this process had none of them."""
    with pytest.raises(ConfigError, match="profile=true: the run has 5 steps; give earlier ones: profile=1:5"):
        fit([*WORDS, "steps=5", "profile=true"], tmp_path / "short")
    stop_at(build_trainer(compose([*WORDS, "epochs=2", "profile=2:3"]), tmp_path / "run"), 30)
    capsys.readouterr()
    resume(tmp_path / "run").fit()
    assert "profile=2:3: this process took none of these steps" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["10", "0:5", "7:6", "1:2:3", "yes", "'1:'", "-1:4"])
def test_other_values_are_refused(tmp_path: Path, value: str) -> None:
    """Anything but true, false and two steps in their order is an error before torch is imported."""
    with pytest.raises(ConfigError, match=r"^profile=.*(it names no steps|it is a whole number)"):
        compose([f"profile={value}"])


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    done = call("train.py", "profile=5:1", cwd=tmp_path)
    error = "error: profile=5:1: it names no steps; give true, false, or two steps: profile=10:15"
    assert (done.returncode, error_of(done)) == (2, error)


def test_the_steps_survive_a_yaml(tmp_path: Path) -> None:
    """YAML takes 10:15 for a number in base 60; what a run stores is read as it was typed."""
    build_trainer(compose([*WORDS, "profile=10:15"]), tmp_path / "run")
    assert re.search(r"^profile: '?10:15'?$", (tmp_path / "run/config.yaml").read_text(), re.MULTILINE)
    assert profiled_steps("10:15") == range(10, 16)


def test_a_new_run_starts_without_an_old_profile(tmp_path: Path) -> None:
    """What a start may replace includes the profile, and a link in its place is refused."""
    run = tmp_path / "run"
    stop_at(build_trainer(compose([*WORDS, "profile=1:2"]), run), 3, lost=True)
    assert (run / "profile/trace.json.gz").exists()
    build_trainer(compose(WORDS), run).loggers.loggers[-1].close(Stopped(15))
    assert not any((run / "profile").iterdir())
    (run / "profile/table.txt").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="it is a link"):
        build_trainer(compose([*WORDS, "profile=true"]), run)
    (run / "profile/table.txt").unlink()
    clear_run_directory(run)
    assert not (run / "profile").exists()


def test_a_range_is_nothing_without_a_profile() -> None:
    """Training that is not profiled makes no call of torch's profiler."""
    assert isinstance(time_range("forward"), nullcontext)


@pytest.mark.long
def test_processes_have_a_row_for_sums(tmp_path: Path) -> None:
    """With several processes, rank 0 is profiled, and the time in which gradients are summed is told."""
    words = ("strategy=ddp", "strategy.processes=2", "steps=6", "profile=3:4", "hydra.run.dir=run")
    done = call("train.py", *WORDS, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(table_of(tmp_path / "run"))[2:5] == ["backward", "reduce", "update"]
