"""A start, a resume and an evaluation replace and remove only what a run has written, and only in its own directory."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import compose
from microstep.errors import ConfigError, StorageError
from microstep.evaluation.evaluate import evaluate_run
from microstep.run.directory import clear_run_directory, lock_new_run, new_directory
from microstep.run.layout import matches, remove_temporaries
from microstep.sweep.definition import is_left_by_sweep
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from microstep.utils.files import write_directory
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import error_of, fit
from tests.faults.interruptions import stop_at
from tests.faults.zygote import Zygote

WORDS = ("model=mlp", "epochs=2", "threads=1", "progress=false")
PROJECT = {  # of somebody else, with names that a run uses, too
    "config.yaml": b"mine",
    "run.json": b'{"mine": 1}',
    "metrics.csv": b"mine",
    "events.out.tfevents.1.mine": b"mine",
    "checkpoints/epoch-0007.pt": b"mine",
    "deep/er/.draft.tmp": b"mine",
    ".notes.tmp": b"mine",
    "main.py": b"mine",
}
SAYS = "it is not empty ({}) and was not left by an earlier start; name a new or an empty directory"


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def filled(directory: Path, content: dict[str, bytes]) -> Path:
    for name, text in content.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(text)
    return directory


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in its second epoch."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    stop_at(build_trainer(compose(WORDS), run), 30, False)
    return run


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def died_early(run: Path) -> Path:
    """Take the checkpoints away, as if the run had died before the first."""
    shutil.rmtree(run / "checkpoints")
    return run


@pytest.mark.parametrize(
    "words",
    [
        ["hydra.run.dir=a project"],
        ["check=drift", "accum=2", "hydra.run.dir=a project"],
        ["-m", "seed=0,1", "hydra.sweep.dir=a project"],
        ["resume=auto", "hydra.run.dir=a project"],
    ],
    ids=["run", "check", "sweep", "auto"],
)
def test_a_directory_that_is_no_run_is_refused(zygote: Zygote, tmp_path: Path, words: list[str]) -> None:
    """One line names the directory and the way out, with exit code 2, and no byte is changed."""
    filled(tmp_path / "a project", PROJECT)
    done = zygote.call("train.py", *WORDS, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "a project: " in error_of(done)
    if "resume=auto" not in words:
        assert error_of(done) == f"error: a project: {SAYS.format('.notes.tmp')}"
    assert tree(tmp_path / "a project") == PROJECT
    assert [path.name for path in tmp_path.iterdir()] == ["a project"]


def test_a_jobs_directory_that_is_no_run_is_refused(zygote: Zygote, tmp_path: Path) -> None:
    """A sweep stops before its first job, and nothing in the directory is removed."""
    job = filled(tmp_path / "s" / "seed-0", PROJECT | {"run.json": b"{}"})
    (tmp_path / "s" / "sweep.json").write_text('{"jobs": {}}')
    done = zygote.call("train.py", "-m", *WORDS, "seed=0,1", "hydra.sweep.dir=s", cwd=tmp_path)
    assert done.returncode == 2
    assert error_of(done).endswith(f"{job.name}: {SAYS.format('.notes.tmp')}")
    assert tree(job) == PROJECT | {"run.json": b"{}"}


@pytest.mark.parametrize(
    "content",
    [PROJECT, {"config.yaml": b"mine"}, {"run.json": b'{"status": "active"}'}, {"checkpoints/epoch-0007.pt": b""}],
)
def test_the_library_refuses_it_too(tmp_path: Path, content: dict[str, bytes]) -> None:
    """`build_trainer` raises ConfigError, also if all names are those of a run, and leaves no lock behind."""
    filled(tmp_path, content)
    with pytest.raises(ConfigError, match="was not left by an earlier start; name a new"):
        build_trainer(compose(WORDS), tmp_path)
    assert tree(tmp_path) == content


@pytest.mark.parametrize(
    ("content", "accepted"),
    [
        ({"summary.csv": b"mine"}, False),
        ({"sweep.json": b"[]", "summary.csv": b"mine"}, False),
        ({"sweep.json": b'{"jobs": {}}', "notes.md": b"mine"}, True),
        ({".lock": b"", "notes.md": b"mine"}, True),
        ({"seed-0/run.json": b'{"status": "failed"}', "seed-1/train.log": b""}, True),
        ({"seed-0/run.json": b'{"status": "failed"}', "data/train.csv": b"mine"}, False),
    ],
)
def test_a_sweep_knows_its_directory(tmp_path: Path, content: dict[str, bytes], accepted: bool) -> None:
    """By its lock, by sweep.json, or because it holds nothing but runs."""
    assert is_left_by_sweep(filled(tmp_path, content)) == accepted


def test_files_of_a_users_own_loggers_stop_no_job(zygote: Zygote, tmp_path: Path) -> None:
    """Hydra's logging may write into the directory of a job before the trainer is built, also in a sweep."""
    log = "hydra.job_logging.handlers.file.filename=${hydra.runtime.output_dir}/mine.log"
    for words in (["hydra.run.dir=run"], ["-m", "seed=0", "hydra.sweep.dir=s"]):
        done = zygote.call("train.py", *WORDS, log, *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("mine.log"))) == 2


def test_a_run_of_a_sweep_that_died_at_once_is_started_again(zygote: Zygote, tmp_path: Path) -> None:
    """A run may die when only Hydra has written its files."""
    (tmp_path / "s").mkdir()
    filled(tmp_path / "s" / "epochs-2_model-mlp_seed-0_threads-1", {".hydra/config.yaml": b"", "train.log": b""})
    done = zygote.call("train.py", "-m", *WORDS, "seed=0", "hydra.sweep.dir=s", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_exported_config_is_no_run(tmp_path: Path, stopped: Path) -> None:
    """A resume of a directory with a valid config.yaml and no run is refused; the table beside it stays."""
    shutil.copy(stopped / "config.yaml", tmp_path)
    filled(tmp_path, {"metrics.csv": b"mine"})
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match="was not left by an earlier start; name a new"):
        resume(tmp_path)
    assert tree(tmp_path) == before


def test_a_run_that_died_early_is_started_again(run: Path) -> None:
    """Its remains are replaced. Files that somebody has put beside them are kept, also hidden ones."""
    (died_early(run) / "run.json").write_text('{"status": "running", "error": null}')
    mine = {"notes.txt": b"mine", "deep/.x.1.tmp": b"mine", "checkpoints/epoch-best.pt": b"mine"}
    filled(run, mine)
    (run / f".run.json.elsewhere.{os.getpid()}.tmp").write_text("half")
    fit(WORDS, run)
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert len((run / "metrics.csv").read_text().splitlines()) == 3
    assert {name: tree(run)[name] for name in mine} == mine
    assert not list(run.glob(".*.tmp"))


def test_a_lost_manifest_is_no_reason_to_start_over(run: Path) -> None:
    """Several checkpoints without a manifest are a damaged run, not one that died in its first save."""
    (run / "checkpoints" / "manifest.json").unlink()
    filled(run, {"checkpoints/epoch-0007.pt": b"one more"})
    with pytest.raises(ConfigError, match="it holds a run already"):
        lock_new_run(run)


def test_a_resume_removes_only_names_of_its_own(run: Path) -> None:
    """Temporaries of dead writers go; a checkpoint under a name of the user's and others' temporaries stay."""
    mine = {"checkpoints/epoch-0001-keep.pt": b"mine", "deep/.x.1.tmp": b"mine", ".y.1.tmp": b"mine"}
    filled(run, mine | {"checkpoints/.epoch-0009.pt.1.tmp": b"half"})
    resume(run).fit()
    assert {name: tree(run).get(name) for name in mine} == mine
    assert not (run / "checkpoints" / ".epoch-0009.pt.1.tmp").exists()


def test_clearing_a_run_keeps_what_others_have_put_there(run: Path) -> None:
    """A run that is started again in a sweep loses its own files except the log."""
    mine = {"notes.txt": b"mine", "checkpoints/epoch-0001-keep.pt": b"mine", "reports/text.md": b"mine"}
    filled(run, mine | {"train.log": b"a line", "reports/val/predictions.csv": b"", "model.safetensors": b""})
    clear_run_directory(run)
    assert {name for name in tree(run) if not name.startswith(".lock")} == {*mine, "train.log"}
    lock_new_run(run).release()


def test_every_file_of_a_run_is_known(trained: Path) -> None:
    """Otherwise a run that died could not be started again."""
    assert [path.name for path in trained.iterdir() if not matches(path.name)] == []


# Links.

LINKS = ["metrics.csv", "train.log", "checkpoints", "reports", "reports/test", "run.json", "config.yaml"]
LINKS += ["model.safetensors", ".hydra", ".hydra/config.yaml", "events.out.tfevents.9", "checkpoints/manifest.json"]


def linked(run: Path, name: str, content: bytes | None) -> dict[str, bytes]:
    """Replace a file by a link to one outside with more in it, or to nothing; return what is outside."""
    outside, file = run.parent / "outside", run / name
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir()
    if content is not None and file.is_dir():
        shutil.copytree(file, outside / "it")
        filled(outside / "it", {"epoch-0042.pt": content})
    elif content is not None:
        (outside / "it").write_bytes(file.read_bytes() * 40 if file.exists() else content)
    if file.is_dir():
        shutil.rmtree(file)
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    file.symlink_to(outside / "it")
    return tree(outside)


@pytest.mark.parametrize("name", LINKS)
def test_a_link_out_of_a_run_is_refused(run: Path, name: str) -> None:
    """A resume ends with one line that names the link; what it leads to is not changed, and nothing is created."""
    outside = linked(run, name, b"mine" * 1000)
    with pytest.raises(ConfigError, match=rf"run/{name}: it is a link, and a run writes only its own files; rep"):
        resume(run)
    assert tree(run.parent / "outside") == outside


@pytest.mark.parametrize("name", ["metrics.csv", "train.log", "checkpoints"])
def test_a_link_is_refused_before_a_program_writes(zygote: Zygote, run: Path, name: str) -> None:
    """Hydra writes before the trainer is built: the program looks first, and a new start looks, too."""
    outside = linked(run, name, None)
    for words in (["resume=run"], [*WORDS, "hydra.run.dir=run"]):
        done = zygote.call("train.py", *words, cwd=run.parent)
        assert done.returncode == 2
        assert f"run/{name}: it is a link" in error_of(done) or name != "checkpoints"
        assert tree(run.parent / "outside") == outside


def test_a_sweep_follows_no_link(zygote: Zygote, stopped: Path, tmp_path: Path) -> None:
    """Neither one in a run that it would resume, nor one in a run that it would clear."""
    words = ("-m", *WORDS, "seed=0", "hydra.sweep.dir=s")
    job = tmp_path / "s" / "epochs-2_model-mlp_seed-0_threads-1"
    filled(tmp_path / "s", {"sweep.json": b'{"jobs": {}}'})
    for status in ("interrupted", "failed"):
        shutil.rmtree(job, ignore_errors=True)
        shutil.copytree(stopped, job)
        record = json.loads((job / "run.json").read_text())
        (job / "run.json").write_text(json.dumps(record | {"status": status}))
        outside = linked(job, "checkpoints" if status == "failed" else "train.log", b"mine")
        done = zygote.call("train.py", *words, cwd=tmp_path)
        assert (done.returncode, "it is a link" in error_of(done)) == (2, True)
        assert tree(job.parent / "outside") == outside
        shutil.rmtree(job.parent / "outside")


@pytest.mark.parametrize("name", ["reports", "reports/test"])
def test_a_report_is_not_written_through_a_link(run: Path, name: str) -> None:
    """evaluate.py refuses it before it computes anything."""
    (run / "reports" / "test").mkdir(parents=True)
    outside = linked(run, name, b"mine")
    with pytest.raises(ConfigError, match="run/reports/test: a link leads out of the run; replace it by a copy"):
        evaluate_run(run, "test", "best", ALLOW_ALL, None, ProgressBars(False))
    assert tree(run.parent / "outside") == outside


def test_a_run_may_be_reached_through_a_link(run: Path) -> None:
    """The run directory and its parents may be links: on another disk, say. Links that no run writes are ignored."""
    (run.parent / "a link").symlink_to(run)
    (run / "data").symlink_to("/")
    (run / "checkpoints" / "latest.pt").symlink_to("epoch-0001.pt")
    resume(run.parent / "a link").fit()
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    (run.parent / "disk").mkdir()
    (run.parent / "outputs").symlink_to("disk")
    with new_directory(run.parent / "outputs" / "new", exact_name=True) as created:
        assert created.resolve() == run.parent / "disk" / "new"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_directory_is_not_made_one(tmp_path: Path, kind: str) -> None:
    """A link to a disk that is not mounted is a failure of storage: nothing is created at its other end."""
    (tmp_path / "run").symlink_to(tmp_path / "unmounted") if kind == "link" else (tmp_path / "run").touch()
    with pytest.raises(StorageError, match="it is a file or a broken link; choose another"):
        lock_new_run(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


# Drafts.

DRAFTING = """
import sys
from pathlib import Path
from microstep.utils.files import write_directory
with write_directory(Path(sys.argv[1])) as draft:
    (draft / "table.csv").write_text("whole")
    print("drafted", flush=True)
    sys.stdin.readline()
"""


def test_a_draft_at_work_is_left_alone(run: Path) -> None:
    """evaluate.py writes without the lock: a resume or a clearing does not remove its draft, but that of a dead one."""
    command = [sys.executable, "-c", DRAFTING, str(run / "reports" / "test")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen(command, **pipes) as alive,
        subprocess.Popen([*command[:-1], f"{command[-1]}-last"], **pipes) as dead,
    ):
        assert alive.stdout.readline() == dead.stdout.readline() == "drafted\n"
        dead.kill()
        dead.wait()
        assert len(list(run.glob("reports/.*.tmp"))) == 2
        remove_temporaries(run)
        clear_run_directory(run)
        assert [path.name for path in (run / "reports").iterdir()] == [f".test.{socket.gethostname()}.{alive.pid}.tmp"]
        alive.communicate("\n")
        assert alive.returncode == 0
    assert tree(run / "reports") == {"test/table.csv": b"whole"}


def test_a_draft_of_another_host_is_left_alone(run: Path) -> None:
    """Its process can't be asked after, so it may be alive."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = [f".test.{host}.{dead.pid}.tmp" for host in (socket.gethostname(), "elsewhere")]
    filled(run / "reports", {f"{name}/test/table.csv": b"half" for name in names})
    remove_temporaries(run)
    assert [path.name for path in (run / "reports").iterdir()] == names[1:]


def test_a_draft_of_this_process_is_removed(run: Path) -> None:
    """In a container every process may have the same number: the lock says that no other is at work."""
    context = write_directory(run / "reports" / "test")
    context.__enter__()
    remove_temporaries(run)
    assert not list((run / "reports").iterdir())
