"""Sweeps as they are typed: one run after the other in one process."""

import csv
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from microstep.run.lock import directory_lock
from tests.faults.runs import differences, unfinished
from tests.faults.zygote import ROOT, Zygote

CONF = str(Path(__file__).parent / "conf")
LEAST = ("model=mlp", "threads=1", "epochs=1")
SWEEP = Path("outputs/sweeps/s")
COUNTS = ("epoch", "optimizer_steps", "skipped_steps", "samples_seen", "samples_per_second")


def record(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text()))


def said(home: Path) -> list[str]:
    """Return the lines that the last program of a zygote has printed."""
    text = (home / "output.txt").read_text()
    (home / "output.txt").unlink()
    return text.splitlines()


def ran(lines: list[str]) -> list[str]:
    """Return the names of the runs that have ended, in their order."""
    return [match[1] for line in lines if (match := re.match(r"\[ *\d+/\d+\] (\S+)", line))]


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def home(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep over two seeds, and its output."""
    home = tmp_path_factory.mktemp("sweep")
    assert zygote.run("train.py", "-m", *LEAST, "seed=0,1", "sweep=s", cwd=home) == 0
    (home / "said.txt").write_text("\n".join(said(home)))
    return home


@pytest.fixture
def swept(home: Path, tmp_path: Path) -> Path:
    """A copy of the sweep, to be changed."""
    return Path(shutil.copytree(home, tmp_path / "home"))


def name(seed: int) -> str:
    return f"seed-{seed}"


def test_a_run_is_one_line(home: Path) -> None:
    """A line has the position, the name, both accuracies, the duration and, except in the last, the time left."""
    first, *lines, last = (home / "said.txt").read_text().splitlines()
    assert first == f"sweep {SWEEP}: 2 runs"
    assert ran(lines) == [name(0), name(1)]
    form = r"\[\d/2\] \S+  val accuracy 0\.\d{4}  test accuracy 0\.\d{4}  trained [\d.]+ s"
    assert re.fullmatch(rf"{form}  \(about [\d.]+ (s|min) left\)", lines[0])
    assert re.fullmatch(form, lines[1])
    assert last == f"summary: {SWEEP}/summary.html"


def test_what_is_finished_is_skipped(zygote: Zygote, swept: Path) -> None:
    """The same command again runs nothing and changes no run; more seeds run just those."""
    before = tree(swept / SWEEP / name(0)), tree(swept / SWEEP / name(1))
    assert zygote.run("train.py", "-m", *LEAST, "seed=0,1", "sweep=s", cwd=swept) == 0
    assert said(swept)[0] == f"sweep {SWEEP}: 2 runs, 2 finished already, 0 to do"
    assert zygote.run("train.py", "-m", *LEAST, "seed=0,1,2", "sweep=s", "resume=auto", cwd=swept) == 0
    assert ran(said(swept)) == [name(2)]
    assert (tree(swept / SWEEP / name(0)), tree(swept / SWEEP / name(1))) == before


def test_a_sweep_may_be_widened_by_another_key(zygote: Zygote, swept: Path) -> None:
    """A run with a shorter name is recognized by its experiment hash and not run again."""
    words = ("-m", *LEAST, "seed=0,1", "optimizer.lr=0.03,0.01", "sweep=s")  # 0.03 is the default
    assert zygote.run("train.py", *words, cwd=swept) == 0
    lines = said(swept)
    assert lines[0] == f"sweep {SWEEP}: 4 runs, 2 finished already, 2 to do"
    assert all("optimizer.lr-0.01" in run for run in ran(lines))
    roster = json.loads((swept / SWEEP / "sweep.json").read_text())["jobs"]
    assert set(roster) == {name(0), name(1), *ran(lines)}


def test_a_job_is_named_by_what_is_swept(zygote: Zygote, swept: Path) -> None:
    """Other fixed values have names with a hash beside those that are there, and each command finds its own again."""
    others = ("-m", *LEAST, "optimizer.lr=0.011", "seed=0,1", "sweep=s")
    assert zygote.run("train.py", *others, cwd=swept) == 0
    new = ran(said(swept))
    assert [re.sub(r"-[0-9a-f]{8}$", "-HASH", run) for run in new] == [f"{name(seed)}-HASH" for seed in (0, 1)]
    for words in (others, ("-m", *LEAST, "seed=0,1", "sweep=s"), ("-m", *LEAST, "seed=0", "sweep=s")):
        assert zygote.run("train.py", *words, cwd=swept) == 0
        assert ran(said(swept)) == []


def test_runs_under_the_names_of_an_earlier_version_are_found(zygote: Zygote, swept: Path) -> None:
    """All that was typed named them: a finished one is skipped, an interrupted one resumed."""
    long = "epochs-1_model-mlp_seed-{}_threads-1"
    whole = shutil.copytree(swept / SWEEP, swept / "whole")
    (swept / SWEEP / name(0)).rename(swept / SWEEP / long.format(0))
    shutil.rmtree(swept / SWEEP / name(1))
    unfinished(whole / name(1), swept / SWEEP / long.format(1))
    roster = json.loads((swept / SWEEP / "sweep.json").read_text())
    roster["jobs"] = {long.format(seed): roster["jobs"][name(seed)] for seed in (0, 1)}
    (swept / SWEEP / "sweep.json").write_text(json.dumps(roster))
    assert zygote.run("train.py", "-m", *LEAST, "seed=0,1", "sweep=s", cwd=swept) == 0
    assert ran(said(swept)) == [long.format(1)]
    assert differences(whole / name(1), swept / SWEEP / long.format(1)) == []
    listed = json.loads((swept / SWEEP / "sweep.json").read_text())["jobs"]
    assert set(listed) == {long.format(0), long.format(1)}


def test_what_was_interrupted_goes_on_and_what_is_missing_is_run(zygote: Zygote, swept: Path) -> None:
    """Resumed runs are equal bit for bit; a failed run starts from the beginning and keeps its log."""
    whole = shutil.copytree(swept / SWEEP, swept / "whole")
    shutil.rmtree(swept / SWEEP / name(0))
    unfinished(whole / name(0), swept / SWEEP / name(0))
    failed = swept / SWEEP / name(1)
    (failed / "run.json").write_text(json.dumps(record(failed) | {"status": "failed", "error": "planted"}))
    log = (failed / "train.log").read_text()
    assert zygote.run("train.py", "-m", *LEAST, "seed=0,1", "sweep=s", cwd=swept) == 0
    assert ran(said(swept)) == [name(0), name(1)]
    for run in (name(0), name(1)):
        assert differences(whole / run, swept / SWEEP / run) == []
    assert len(record(swept / SWEEP / name(0))["resumed"]) == 1
    assert all(record(swept / SWEEP / name(0))[key] == record(whole / name(0))[key] for key in COUNTS)
    assert "resumed" not in record(failed)
    assert (failed / "train.log").read_text().startswith(log)


def test_a_sweep_that_other_commands_widen_is_one_table(zygote: Zygote, swept: Path) -> None:
    """Each experiment is one row with its value of every key. A run that an earlier command found stale stays so."""
    stale = swept / SWEEP / name(1)
    (stale / "run.json").write_text(json.dumps(record(stale) | {"experiment_hash": "of before"}))
    for words in (["seed=0,1"], ["accum=1,2"], ["accum=2", "precision=amp,fp32"], ["optimizer.lr=0.1", "seed=0,2"]):
        assert zygote.run("train.py", "-m", *LEAST, *words, "sweep=s", cwd=swept) == 0
    with (swept / SWEEP / "summary.csv").open() as table:
        rows = list(csv.DictReader(table))
    found = {tuple(row[key] for key in ("accum", "precision", "optimizer.lr", "seed", "status")) for row in rows}
    assert found == {
        ("1", "fp32", "0.03", "0", "finished"),
        ("1", "fp32", "0.03", "1", "stale"),
        ("2", "fp32", "0.03", "0", "finished"),
        ("2", "amp (bf16)", "0.03", "0", "finished"),
        ("1", "fp32", "0.1", "0", "finished"),
        ("1", "fp32", "0.1", "2", "finished"),
    }
    assert len(rows) == len(found)


def test_a_stale_run_is_told_of_and_left_alone(zygote: Zygote, swept: Path) -> None:
    """One line says what has changed; the run is run again only on request."""
    stale = swept / SWEEP / name(1)
    (stale / "run.json").write_text(
        json.dumps(record(stale) | {"experiment_hash": "of before", "source_hash": "of before"})
    )
    before = tree(stale)
    words = ("-m", *LEAST, "seed=0,1", "sweep=s")
    assert zygote.run("train.py", *words, cwd=swept) == 0
    warning = f"warning: {name(1)} is stale: the source has changed since; redo=stale runs it again"
    assert said(swept)[:2] == [f"sweep {SWEEP}: 2 runs, 1 finished already, 1 stale, 0 to do", warning]
    assert tree(stale) == before
    with (swept / SWEEP / "summary.csv").open() as table:
        told = {row["run"]: (row["status"], row["error"]) for row in csv.DictReader(table)}
    assert told[name(1)][0] == "stale" and "the source has changed since" in told[name(1)][1]
    assert zygote.run("train.py", *words, "redo=stale", cwd=swept) == 0
    assert ran(said(swept)) == [name(1)]
    assert zygote.run("train.py", *words, cwd=swept) == 0
    assert ran(said(swept)) == []


def test_a_run_that_is_not_this_sweeps_is_untouched(zygote: Zygote, tmp_path: Path) -> None:
    """A directory of a job's name with a finished run or a checkpoint is stale, and nothing in it is lost."""
    kinds = {"run.json": b'{"status": "finished"}', "checkpoints/manifest.json": b"{}"}
    for seed, (file, content) in enumerate(kinds.items()):
        path = tmp_path / SWEEP / name(seed) / file
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    before = tree(tmp_path / SWEEP)
    assert zygote.run("train.py", "-m", *LEAST, "seed=0,1", "sweep=s", cwd=tmp_path) == 0
    assert "2 stale" in said(tmp_path)[0]
    after = tree(tmp_path / SWEEP)
    assert {path: after[path] for path in before} == before


def test_failures_are_contained_and_told_of(zygote: Zygote, tmp_path: Path) -> None:
    """An exception, no memory, sys.exit: each is in its run.json, the others finish, the table has the way to go on.

    What follows a failure is the same as alone; data that a run has changed are read again.
    """
    fates = ("leaks", "raises", "exhausts", "leaves", "fine")
    words = ("--config-dir", CONF, "-m", *LEAST, "model=unlucky", f"model.fate={','.join(fates)}", "sweep=s")
    luck = tmp_path / "luck"
    assert zygote.run("train.py", *words, cwd=tmp_path, LUCK=str(luck)) == 1
    lines = said(tmp_path)
    sweep = tmp_path / SWEEP
    runs = {fate: sweep / f"model.fate-{fate}" for fate in fates}
    assert {fate: record(run)["error"] for fate, run in runs.items()} == {
        "leaks": "RuntimeError: planted, after leaks",
        "raises": "RuntimeError: planted",
        "exhausts": "MemoryError: planted",
        "leaves": "SystemExit: 3",
        "fine": None,
    }
    table = lines[lines.index("not finished:") + 1 :]
    assert table[:4] == [f"  {runs[fate].name}  {record(runs[fate])['error']}" for fate in fates[:4]]
    (again,) = (line for line in table if line.startswith("to run only those again:"))
    assert again.endswith(f"sweep={SWEEP.name}") and "--config-dir" in again
    assert lines[-1] == f"error: sweep {SWEEP}: 4 of 5 runs are not finished; the command above runs only those again"
    assert any(line.startswith("warning: a run has changed the data") for line in lines)

    alone = ("--config-dir", CONF, *LEAST, "model=unlucky", "model.fate=fine", "hydra.run.dir=alone")
    assert zygote.run("train.py", *alone, cwd=tmp_path, LUCK=str(luck)) == 0
    assert differences(tmp_path / "alone", runs["fine"]) == []
    for file in ("summary.csv", "summary.md", "summary.html"):
        assert all(run.name in (sweep / file).read_text() for run in runs.values())

    luck.write_text("")
    assert zygote.run("train.py", *words, cwd=tmp_path, LUCK=str(luck)) == 0
    assert {record(run)["status"] for run in runs.values()} == {"finished"}


def test_a_sweep_without_a_name_goes_on_under_the_one_it_got(zygote: Zygote, tmp_path: Path) -> None:
    """The printed command names the directory that was named by date and time."""
    words = ("--config-dir", CONF, "-m", *LEAST, "model=unlucky", "model.fate=raises,leaves")
    assert zygote.run("train.py", *words, cwd=tmp_path, LUCK="none") == 1
    (again,) = (line for line in said(tmp_path) if line.startswith("to run only those again:"))
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    assert again.endswith(f" sweep={sweep.name}")


def test_jobs_may_be_numbered(zygote: Zygote, tmp_path: Path) -> None:
    """Directories named by Hydra's `${hydra.job.num}` stay those of the same runs across commands."""
    words = ("-m", *LEAST, "sweep=s", "hydra.sweep.subdir=${hydra.job.num}")
    assert zygote.run("train.py", *words, "seed=0,1", cwd=tmp_path) == 0
    shutil.rmtree(tmp_path / SWEEP / "0")
    assert zygote.run("train.py", *words, "seed=0,1", cwd=tmp_path) == 0
    assert ran(said(tmp_path)) == ["0", "1", "0"]
    assert [record(tmp_path / SWEEP / number)["status"] for number in "01"] == ["finished"] * 2


def test_two_sweeps_of_one_name_at_once(zygote: Zygote, tmp_path: Path) -> None:
    """The second sweep is refused with exit code 5 and the pid of the first; nothing is started."""
    (tmp_path / SWEEP).mkdir(parents=True)
    with directory_lock(tmp_path / SWEEP):
        assert zygote.run("train.py", "-m", *LEAST, "seed=0,1", "sweep=s", cwd=tmp_path) == 5
    assert said(tmp_path)[-1].startswith(f"error: {SWEEP}: another process is at work in it (pid {os.getpid()} on ")
    assert {path.name for path in (tmp_path / SWEEP).iterdir()} == {".lock", ".lock.holder"}


def test_a_run_that_another_process_has_is_left_to_it(zygote: Zygote, swept: Path) -> None:
    """A job whose directory is in use is reported and not changed; the others run."""
    held = swept / SWEEP / name(1)
    (held / "run.json").write_text(json.dumps(record(held) | {"status": "running"}))
    with directory_lock(held):
        before = record(held)
        assert zygote.run("train.py", "-m", *LEAST, "seed=1,2", "sweep=s", cwd=swept) == 1
        assert record(held) == before
    lines = said(swept)
    assert ran(lines) == [name(2)]
    assert any(name(1) in line and "another process is at work in it" in line for line in lines)
    assert "another process is at work in it" in (swept / SWEEP / "summary.md").read_text()


def test_the_sweep_describes_itself(home: Path) -> None:
    """sweep.json has every job with its overrides, and the command; the summary has a row for each."""
    roster = json.loads((home / SWEEP / "sweep.json").read_text())
    assert roster["name"] == "s"
    assert roster["command"] == f"python {ROOT / 'train.py'} -m {' '.join(LEAST)} seed=0,1 sweep=s"
    assert roster["jobs"] == {name(n): {"overrides": [*LEAST, f"seed={n}", "sweep=s"]} for n in (0, 1)}
    with (home / SWEEP / "summary.csv").open() as table:
        assert [(row["run"], row["status"]) for row in csv.DictReader(table)] == [(name(n), "finished") for n in (0, 1)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("seed=0,1 redo=all", "redo=all: no such option; the options are stale"),
        ("seed=0,x", "seed=x: "),
        ("sed=0,1", "sed=0: no such key; did you mean seed?"),
        ("seed=0,1 sweep=a/b", "sweep=a/b: it can't name a directory; "),
        ("seed=0,1 hydra/launcher=locl", "hydra/launcher=locl: no such option; did you mean local?"),
    ],
)
def test_bad_input_stops_a_sweep_before_its_first_job(zygote: Zygote, tmp_path: Path, words: str, says: str) -> None:
    """One line that names what was typed, exit code 2, and nothing left behind."""
    assert zygote.run("train.py", "-m", *words.split(), cwd=tmp_path) == 2
    (line,) = said(tmp_path)
    assert line.startswith(f"error: {says}")
    assert list(tmp_path.iterdir()) == []
