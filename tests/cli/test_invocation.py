"""The commands that are printed: they work when typed where the user stands, as the program was started."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from microstep.cli.invocation import find_commands, find_start_words
from microstep.cli.main import parse_command_line
from tests.conftest import ROOT
from tests.faults.zygote import Zygote

QUICK = ("model=mlp", "epochs=1", "threads=1", "progress=false")


def commands(monkeypatch: pytest.MonkeyPatch, start: str, *arguments: str) -> tuple[str, str]:
    """Return the commands that train and evaluate, for train.py started with some words."""
    monkeypatch.setattr(sys, "orig_argv", [*shlex.split(start), *arguments])
    words = find_start_words("train", list(arguments))
    found = find_commands("train", words, parse_command_line(list(arguments)))
    return found["train"], found["evaluate"]


@pytest.mark.parametrize(
    ("start", "train", "evaluate"),
    [
        ("python train.py", "python train.py", "python evaluate.py"),
        (".venv/bin/python -u train.py", ".venv/bin/python -u train.py", ".venv/bin/python -u evaluate.py"),
        (f"python3 {ROOT}/train.py", f"python3 {ROOT}/train.py", f"python3 {ROOT}/evaluate.py"),
        ("python -m microstep train", "python -m microstep train", "python -m microstep evaluate"),
        ("python /x/bin/microstep-train", "/x/bin/microstep-train", "/x/bin/microstep-evaluate"),
        ("python -c 'import this'", "python -c 'import this'", "python -m microstep evaluate"),
        ("python mine.py", "python mine.py", "python -m microstep evaluate"),
    ],
)
def test_a_command_begins_as_the_program_was_started(
    monkeypatch: pytest.MonkeyPatch, start: str, train: str, evaluate: str
) -> None:
    """By a script, a module or a console script, with the interpreter and its flags."""
    monkeypatch.chdir(ROOT)
    assert commands(monkeypatch, start, "accum=2", "seed=1") == (train, evaluate)


def test_a_command_has_the_flags_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags that say where options are, and what is trusted; evaluate.py has a primary config of its own."""
    flags = [
        "--config-dir",
        "my conf",
        "--config-name",
        "mine",
        "hydra.searchpath=[file://x]",
        "trust=[a.b]",
        "accum=2",
    ]
    kept = "--config-dir 'my conf' 'hydra.searchpath=[file://x]' 'trust=[a.b]'"
    monkeypatch.chdir(ROOT)
    train, evaluate = commands(monkeypatch, "python train.py", *flags)
    assert train == f"python train.py --config-name mine {kept}"
    assert evaluate == f"python evaluate.py {kept}"


def test_a_program_that_is_called_from_python_is_that_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arguments were not typed, so what was typed does not start it."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "notebook.py"])
    assert find_start_words("train", ["accum=2"]) == ["python", "-m", "microstep", "train"]


SCRIPT = "from microstep.cli.programs import train\n\nif __name__ == '__main__':\n    train()\n"
NET = """from torch import nn

def net(input_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a directory with a train script, a model and a conf/ of one's own, and a primary config."""
    (tmp_path / "my project" / "conf" / "model").mkdir(parents=True)
    (tmp_path / "my project" / "my_train.py").write_text(SCRIPT)
    (tmp_path / "my project" / "nets.py").write_text(NET)
    (tmp_path / "my project" / "conf" / "model" / "mine.yaml").write_text("_target_: nets.net\n")
    defaults = "defaults:\n  - train\n  - override model: mine\n  - _self_\n"
    (tmp_path / "my project" / "conf" / "mine.yaml").write_text(f"{defaults}epochs: 1\nthreads: 1\nprogress: false\n")
    return tmp_path / "my project"


def typed(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell would, with this Python as `python`."""
    path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | path
    return subprocess.run(command, shell=True, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


HERE = pytest.param("my_train.py", ".", marks=pytest.mark.long)


@pytest.mark.parametrize(("script", "place"), [HERE, ("'my project/my_train.py'", "..")])
def test_a_script_of_ones_own_is_named_and_works(project: Path, script: str, place: str) -> None:
    """It trains a model beside it from a conf/ beside it, here and from elsewhere, and so do its printed commands."""
    done = typed(f"python {script} --config-name mine hydra.run.dir=run", project / place)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("  again, any split"))
    again = typed(line.removeprefix("  again, any split"), project / place)
    assert (again.returncode, again.stderr) == (0, "")
    sweep = typed(f"python {script} -m --config-name mine optimizer.lr=0.1,1e30 sweep=s", project / place)
    assert f"to run only those again:  python {script} -m --config-name mine " in sweep.stdout


def test_a_script_of_ones_own_has_a_help(project: Path) -> None:
    """Its conf/ needs no primary config of the program's name; the examples name the script."""
    done = typed("python my_train.py --help", project)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\npython my_train.py precision=amp accum=2 " in done.stdout


def test_paths_are_those_of_the_directory_that_the_user_stands_in(zygote: Zygote, tmp_path: Path) -> None:
    """hydra.job.chdir changes the working directory of the run, not what is printed."""
    done = zygote.call("train.py", *QUICK, "hydra.run.dir=a run", "hydra.job.chdir=true", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python {ROOT / 'evaluate.py'} run='a run' split=test" in done.stdout
    assert "tensorboard --logdir .\n" in done.stdout
    assert "  run directory  a run\n" in done.stdout
