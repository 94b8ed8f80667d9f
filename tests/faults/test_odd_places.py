"""Directories of any name work from end to end, or are refused at once in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from microstep.cli.paths import check_command_line_paths, get_hydra_directory
from microstep.errors import ConfigError
from tests.conftest import call, error_of
from tests.faults.zygote import Zygote

ODD = """it's (a) "b", c=d [e] {f} $g %s %(message)s %d{} ~ & ; \\ 数据 é 😀"""  #: a name that the file system takes
QUICK = ("model=mlp", "epochs=1", "threads=1")
BYTES = os.fsdecode(b"caf\xe9")  #: Latin-1, as an old archive may hold it


def status(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["status"])


def test_an_odd_working_directory_will_do(zygote: Zygote, tmp_path: Path, idx_files: Path) -> None:
    """Spaces, commas, quotes, `%`, Chinese and emoji in it, in the data's root and in the run's name all work."""
    home = tmp_path / ODD
    home.mkdir()
    (home / f"data {ODD}").symlink_to(idx_files)
    words = ["dataset=fashion_mnist", f"dataset.root=data {ODD}", "dataset.val_samples=20", "batch_size=16"]
    words += ["dataset.mean=null", "dataset.std=null", f"hydra.run.dir=run {ODD}"]
    done = zygote.call("train.py", *QUICK, *words, cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert status(home / f"run {ODD}") == "finished"
    assert sorted(path.name for path in home.iterdir()) == [f"data {ODD}", f"run {ODD}"]
    again = zygote.call("evaluate.py", f"run=run {ODD}", f"input=data {ODD}", cwd=home)
    assert again.returncode == 2  # there are no pictures in it, which is told of by its name
    assert f"input=data {ODD}" in error_of(again)
    again = zygote.call("evaluate.py", f"run=run {ODD}", cwd=home)
    assert (again.returncode, again.stderr) == (0, "")
    assert ODD in again.stdout


def test_a_sweep_in_an_odd_place_will_do(zygote: Zygote, tmp_path: Path) -> None:
    """Its directory has such a name, each run's own is safe to type, and an option's value may be odd as well."""
    done = zygote.call("train.py", "-m", *QUICK, "accum=1,2", f"hydra.sweep.dir={ODD}/s", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    runs = sorted(path for path in (tmp_path / ODD / "s").iterdir() if path.is_dir())
    assert [path.name for path in runs] == [f"accum-{n}" for n in (1, 2)]
    assert [status(run) for run in runs] == ["finished", "finished"]


def refusal(program: str, *words: str, cwd: Path) -> str:
    """Return the one line of a program that refuses at once, and leaves everything as it was."""
    before = sorted(os.walk(cwd.parent))
    done = call(program, *words, cwd=cwd)
    assert (done.returncode, done.stdout) == (2, "")
    assert sorted(os.walk(cwd.parent)) == before
    return error_of(done)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("train.py", ("epochs=1", f"hydra.run.dir={BYTES}/run")),
        ("evaluate.py", ("run=nowhere", f"input={BYTES}")),
    ],
)
def test_bytes_that_are_no_utf_8_are_refused(tmp_path: Path, program: str, words: tuple[str, ...]) -> None:
    """Exit code 2 before anything is created or read; the byte is shown as its number."""
    line = f"error: {words[-1]}: it has bytes that are not UTF-8; rename it, or name another"
    assert refusal(program, *words, cwd=tmp_path) == line.replace(BYTES, r"caf\udce9")


def test_a_working_directory_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    """A name with `${`, which Hydra would resolve, is refused, too."""
    for name, said in (
        (BYTES, r"caf\udce9: it has bytes"),
        ("a${b}", "a${b}: ${ in a directory's name is a reference"),
    ):
        (tmp_path / name).mkdir()
        assert said in refusal("train.py", "epochs=1", cwd=tmp_path / name)


@pytest.mark.parametrize("word", [f"hydra.run.dir={BYTES}", f"run={BYTES}", f"input=a/{BYTES}", BYTES, f"{BYTES}=1"])
def test_any_word_is_looked_at(word: str) -> None:
    """This holds for every key; text in any script is accepted."""
    check_command_line_paths("train.py", "epochs=1", f"run={ODD}")
    with pytest.raises(ConfigError, match="not UTF-8") as caught:
        check_command_line_paths("train.py", "epochs=1", word)
    assert str(caught.value).isprintable()


def test_where_the_program_lies_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its yamls are found; a working directory that was removed is an error in one line."""
    for name in (BYTES, "a${b}"):
        with pytest.raises(ConfigError):
            check_command_line_paths(str(tmp_path / name / "train.py"))
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match=r"^the working directory: "):
        check_command_line_paths("train.py")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("out/${nowhere}", r"^hydra\.run\.dir: can't be resolved: Interpolation key 'nowhere' not found"),
        (r"out/\${accum}", r"^hydra\.run\.dir=out/\$\{accum\}: \$\{ in a directory's name"),
        ("out/${oc.env:BYTES}", "^hydra.run.dir out/caf.*: it has bytes that are not UTF-8"),
        ("out/${oc.env:NOBODY_SET_THIS}", r"^hydra\.run\.dir: can't be resolved: "),
    ],
)
def test_references_in_a_run_directory_s_name(monkeypatch: pytest.MonkeyPatch, named: str, said: str) -> None:
    """References that resolve are followed; the others, and text that only looks like one, are refused at once."""
    monkeypatch.setenv("BYTES", BYTES)
    job = OmegaConf.create({"accum": 2, "hydra": {"run": {"dir": "out/${accum}"}}})
    assert get_hydra_directory(job, "hydra.run.dir") == Path("out/2")
    job.hydra.run.dir = named
    with pytest.raises(ConfigError, match=said):
        get_hydra_directory(job, "hydra.run.dir")


def test_a_reference_that_leads_nowhere_is_refused_by_the_program(tmp_path: Path) -> None:
    """Exit code 2, one line, nothing left behind."""
    assert refusal("train.py", "hydra.run.dir=a${b}", cwd=tmp_path).startswith(
        "error: hydra.run.dir: can't be resolved"
    )
