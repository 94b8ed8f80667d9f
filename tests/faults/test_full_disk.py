"""A full disk: exit 4 with the bytes needed and free, no partial file, what was there before whole; then it goes on."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from microstep.config.compose import compose
from microstep.errors import StorageError
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from microstep.types.events import EpochReport, Results, WindowReport
from microstep.utils.files import append_bytes
from tests.conftest import files_limited
from tests.faults.runs import differences, manifest_of
from tests.faults.zygote import Zygote

WORDS = ("model=mlp", "threads=1", "progress=false", "epochs=4")
SIZE = 2**20  #: bytes of the small disk: the logs and two checkpoints of an mlp, and not a third


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MB, where this process may."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system can't be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_run_on_a_disk_that_fills_up_ends_with_4_and_goes_on_later(
    zygote: Zygote, small_disk: Path, tmp_path: Path
) -> None:
    """The line has the file, the bytes needed and the bytes free; with room again the run ends with the same bits."""
    words = [*WORDS, "model.hidden=[256,128]", "log_every_steps=1000"]
    assert zygote.run("train.py", *words, "hydra.run.dir=whole", cwd=tmp_path) == 0, said(tmp_path)
    run = small_disk / "run"
    assert zygote.run("train.py", *words, f"hydra.run.dir={run}", cwd=tmp_path) == 4, said(tmp_path)
    line = said(tmp_path).splitlines()[-1]
    found = re.fullmatch(
        rf"error: ({run}\S*): No space left on device: ([\d,]+) bytes are needed, ([\d,]+) are free; .*", line
    )
    assert found, line
    needed, left = (int(number.replace(",", "")) for number in found.groups()[1:])
    assert needed > left
    assert not list(run.rglob("*.tmp"))
    for which in manifest_of(run):
        Checkpoints(run / "checkpoints").load(which)
    subprocess.run(["mount", "-o", "remount,size=64M", small_disk], check=True)
    assert zygote.run("train.py", f"resume={run}", cwd=tmp_path) == 0, said(tmp_path)
    assert differences(run, tmp_path / "whole") == []


def test_a_sweep_on_a_disk_that_fills_up_goes_on_later(zygote: Zygote, small_disk: Path, tmp_path: Path) -> None:
    """The same command resumes the run, which ends with the same bits."""
    words = [*WORDS, "model.hidden=[256,128]", "log_every_steps=1000"]
    assert zygote.run("train.py", *words, "hydra.run.dir=whole", cwd=tmp_path) == 0, said(tmp_path)
    sweep = ["-m", *words, "seed=0", f"hydra.sweep.dir={small_disk / 'sweep'}"]
    assert zygote.run("train.py", *sweep, cwd=tmp_path) == 1, said(tmp_path)
    assert "No space left on device" in said(tmp_path)
    (run,) = (small_disk / "sweep").glob("*seed-0*")
    subprocess.run(["mount", "-o", "remount,size=64M", small_disk], check=True)
    assert zygote.run("train.py", *sweep, cwd=tmp_path) == 0, said(tmp_path)
    assert len(json.loads((run / "run.json").read_text())["resumed"]) == 1
    assert differences(run, tmp_path / "whole") == []


def said(home: Path) -> str:
    return (home / "output.txt").read_text()


def test_a_disk_that_is_full_from_the_start_is_told_of_before_any_work(
    zygote: Zygote, small_disk: Path, tmp_path: Path
) -> None:
    """No data are read, no model is made: exit code 4."""
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    assert zygote.run("train.py", *WORDS, f"hydra.run.dir={small_disk / 'run'}", cwd=tmp_path) == 4, said(tmp_path)
    assert "digits" not in said(tmp_path)


@pytest.mark.parametrize("limit", [200, 2_000, 100_000])
def test_a_limit_on_file_sizes_is_a_failure_of_storage(tmp_path: Path, limit: int) -> None:
    """RLIMIT_FSIZE at any size: whatever was being written when it struck, the checkpoints are those of before."""
    trainer = build_trainer(compose([*WORDS, "epochs=2"]), tmp_path / "run")
    trainer.run_epoch(1)
    trainer.checkpoints.wait()
    before = {file: file.read_bytes() for file in (tmp_path / "run" / "checkpoints").iterdir()}
    with files_limited(limit), pytest.raises(StorageError) as caught:
        trainer.fit()
    assert caught.value.exit_code == 4
    assert {file: file.read_bytes() for file in (tmp_path / "run" / "checkpoints").iterdir()} == before
    assert not list((tmp_path / "run").rglob("*.tmp"))
    resume(tmp_path / "run").fit()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"


def test_a_row_that_has_no_room_is_not_half_there(tmp_path: Path) -> None:
    """metrics.csv stays as it was."""
    file = tmp_path / "metrics.csv"
    file.write_text("a" * 90)
    with files_limited(100), pytest.raises(StorageError, match="20 bytes are needed"):
        append_bytes(file, b"b" * 20)
    assert file.read_text() == "a" * 90


def test_a_failure_in_the_second_thread_is_not_kept_for_an_epoch(tmp_path: Path) -> None:
    """A checkpoint that could not be written ends the run within a window of it."""
    trainer = build_trainer(compose([*WORDS, "checkpoint.every_steps=2"]), tmp_path / "run")
    (tmp_path / "run" / "checkpoints").write_text("in the way")
    with pytest.raises(StorageError):
        trainer.fit()
    assert trainer.progress.windows < 23


class Filler:
    """A logger that leaves no room for another byte in the event files once it has got the results."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def window(self, report: WindowReport) -> None: ...

    def epoch(self, report: EpochReport) -> None: ...

    def finish(self, results: Results) -> None:
        size = max(file.stat().st_size for file in self.run.glob("events.*"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def close(self, error: BaseException | None) -> None: ...


def test_a_disk_that_is_full_at_the_very_end_is_in_the_record(tmp_path: Path) -> None:
    """If a logger can't be closed, the run is not called finished while it ends with exit code 4; it can be resumed."""
    trainer = build_trainer(compose([*WORDS, "epochs=1"]), tmp_path / "run")
    trainer.loggers.loggers = (*trainer.loggers.loggers, Filler(tmp_path / "run"))
    with files_limited(2**30), pytest.raises(StorageError) as caught:
        trainer.fit()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["error"]) == ("failed", str(caught.value))
    resume(tmp_path / "run").fit()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["error"]) == ("finished", None)


@pytest.mark.parametrize("limit", [300, 3_000, 30_000])
def test_a_report_that_has_no_room_is_not_half_there(tmp_path: Path, limit: int) -> None:
    """Whichever of its files is the one: none is there, or those of an earlier report are as they were."""
    trainer = build_trainer(compose([*WORDS, "epochs=1"]), tmp_path / "run")
    trainer.fit()
    report = tmp_path / "run" / "reports" / "val"
    before = {file.name: file.read_bytes() for file in report.iterdir()}
    with files_limited(limit), pytest.raises(StorageError, match="File too large"):
        trainer.report("val", Path("reports/val"))
    assert {file.name: file.read_bytes() for file in report.iterdir()} == before
    shutil.rmtree(report)
    with files_limited(limit), pytest.raises(StorageError):
        trainer.report("val", Path("reports/val"))
    assert [file.name for file in report.parent.iterdir()] == ["test"]
