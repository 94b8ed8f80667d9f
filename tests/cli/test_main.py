"""The error contract, through the programs themselves: one line, the right exit code, nothing left behind."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from threading import get_ident, main_thread
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from microstep.config.compose import compose
from microstep.errors import ConfigError, DataError, Diverged, Stopped, StorageError
from microstep.run import directory as directories
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.training.build import build_trainer
from microstep.utils import files, signals
from tests.config.test_names import within
from tests.conftest import ROOT, call, error_of
from tests.faults.zygote import Zygote

QUICK = ("model=mlp", "epochs=1", "threads=1")
FORM = re.compile(r"error: \S[^\n]*: [^\n]+; [^\n]+")
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


def facts(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "run.json").read_text(encoding="utf-8")))


def tree(directory: Path) -> dict[str, bytes]:
    """Return every file below a directory with its content."""
    files = (path for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def write_idx(root: Path, train: int = 60, test: int = 20, largest: int = 9) -> Path:
    """Write a tiny Fashion-MNIST of 8×8 pixels; one label is as large as told."""
    root.mkdir(parents=True, exist_ok=True)
    for prefix, samples in (("train", train), ("t10k", test)):
        labels = np.arange(samples, dtype=np.uint8) % 10
        labels[-1:] = largest
        pixels = np.random.default_rng(0).integers(0, 256, (samples, 8, 8), dtype=np.uint8)
        for name, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
            (root / f"{prefix}-{name}-ubyte").write_bytes(header + array.tobytes())
    return root


# What can be told from the words alone.


def watched(program: str, *words: str, cwd: Path) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run a program; return what it did, and the modules that it imported."""
    done = call(program, *words, cwd=cwd, PYTHONPROFILEIMPORTTIME="1")
    lines = done.stderr.splitlines(keepends=True)
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    done.stderr = "".join(line for line in lines if not line.startswith("import time:"))
    assert "hydra" in imported  # else nothing was watched
    return done, imported


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("acum=3", "acum=3: no such key; did you mean accum?"),
        ("lr=0.1", "lr=0.1: no such key; did you mean optimizer.lr?"),
        ("precision=fp31", "precision=fp31: no such option; did you mean fp32"),
        ("optimizer.lr=abc", "optimizer.lr=abc: it is text; give a number"),
        ("accum=true", "accum=true: it is true or false; give a whole number"),
        ("accum=0", "accum=0: out of range; it must be at least 1"),
        ("optimizer.lr=nan", "optimizer.lr=nan: not a finite number; "),
        ("device=gpu", "device=gpu: no such option; the options are auto, cpu, cuda, mps"),
        ("~model", "~model: "),
        ("precision=[fp32,amp]", "precision=[fp32,amp]: "),
        ("+optimizer.momentun=0.9", "optimizer.momentun=0.9: no such key; did you mean optimizer.momentum"),
        ("accum=1,2", "accum=1,2: several values; add -m"),
        ("effective_batch_size=64 accum=3", "effective_batch_size=64: it is not a multiple of accum=3; "),
        ("effective_batch_size=64 batch_size=8", "batch_size=8: effective_batch_size sets it; "),
        ("resume=x", "resume=x: "),
        ("--multi-run", "--multi-run: "),
        ("sweep=s seed=1", "sweep=s: it names a sweep, and this is one run; add -m, or leave it out"),
        ("--cfg everything", "--cfg everything: "),
        ("accum=2 -m precision=fp32,fp31", "precision=fp31: no such option; "),
        ("--config-dir nope", "--config-dir nope: no such directory; "),
        ("-m --cfg job", "-m: the other flag shows a single run; leave it out"),
        ("-m accum=2,1,0 epochs=1", "accum=0: out of range; "),
        ("-m precision=fp32,fp31", "precision=fp31: no such option; "),
        ("-m optimizer.lr=interval(1e-3,1)", "optimizer.lr=interval(1e-3,1): a sweep takes single values; list them"),
        ("--resolve", "--resolve: it resolves the output of --cfg; add --cfg job"),
        ("--experimental-rerun x", "--experimental-rerun x: it would load a pickle; "),
    ],
)
def test_a_config_error_is_one_line_before_anything_happens(tmp_path: Path, words: str, says: str) -> None:
    """It ends with exit code 2, without a directory, without a job run, and without torch."""
    done, imported = watched("train.py", *words.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert FORM.fullmatch(error_of(done))
    assert error_of(done).startswith(f"error: {says}")
    assert (done.stdout, list(tmp_path.iterdir())) == ("", [])
    assert "torch" not in imported


@pytest.mark.parametrize(
    ("program", "words", "says"),
    [
        ("evaluate.py", "", "run=???: it has no value; give one: run="),
        ("evaluate.py", "rn=x", "rn=x: no such key; did you mean run?"),
        (
            "evaluate.py",
            "run=x checkpoint=first",
            "checkpoint=first: no such option; the options are best, last, model.safetensors",
        ),
        ("evaluate.py", "-m run=a,b", "-m: only train.py has runs to sweep over; "),
        ("compute_stats.py", "ratio=0", "ratio=0"),
        ("compute_stats.py", "dataset=cifar", "dataset=cifar: no such option; did you mean cifar10 or cifar100?"),
    ],
)
def test_the_other_programs_keep_the_contract(tmp_path: Path, program: str, words: str, says: str) -> None:
    """Their config errors are told the same way."""
    done, imported = watched(program, *words.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert error_of(done).startswith(f"error: {says}")
    assert not list(tmp_path.iterdir())
    assert "torch" not in imported


@pytest.mark.parametrize("words", ["precision=null", "--config-path nope"])
def test_no_word_is_an_unforeseen_error(tmp_path: Path, words: str) -> None:
    """A word that makes no sense is a config error, whatever Hydra makes of it."""
    done = call("train.py", *words.split(), cwd=tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])


@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"], ["--cfg", "job", "--resolve", "accum=2"]])
def test_looking_is_free(tmp_path: Path, words: list[str]) -> None:
    """`--help` and `--cfg job` end well, without torch, and leave nothing behind."""
    done, imported = watched("train.py", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "accum" in done.stdout
    assert not list(tmp_path.iterdir())
    assert "torch" not in imported


def test_the_experiment_is_shown_as_composed(tmp_path: Path) -> None:
    """`--cfg job` shows what was typed and what the yamls say, without Hydra's own keys."""
    done = call("train.py", "--cfg", "job", "precision=amp", "accum=2", cwd=tmp_path)
    assert "\naccum: 2\n" in f"\n{done.stdout}"
    assert "_target_: microstep.components.precision.amp" in done.stdout
    assert "hydra:" not in done.stdout


def test_yamls_of_ones_own_are_found(tmp_path: Path) -> None:
    """`--config-dir` adds options to the groups, checked like the shipped ones."""
    (tmp_path / "my conf, (mine)" / "model").mkdir(parents=True)
    (tmp_path / "my conf, (mine)" / "model" / "wide.yaml").write_text(
        "_target_: microstep.components.model.SmallCNN\nwidth: 99\n"
    )
    words = ["--config-dir", "my conf, (mine)", "model=wide"]
    assert "width: 99" in call("train.py", *words, "--cfg", "job", cwd=tmp_path).stdout
    assert "model.width=x: it is text" in error_of(call("train.py", *words, "model.width=x", cwd=tmp_path))


# What only the data, the machine or the constructors can tell.


@pytest.fixture(scope="module")
def late(
    zygote: Zygote, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[subprocess.CompletedProcess[str], Path]]:
    """Results of some starts that are refused after torch was imported, each made once."""
    data = tmp_path_factory.mktemp("data")
    cases = {
        "device": ["device=cuda"],
        "missing": ["dataset=fashion_mnist", f"dataset.root={data / 'nope'}"],
        "name": ["model=torchvision", "model.name=mobilnet_v3_small"],
    }
    homes = {name: tmp_path_factory.mktemp(name) for name in cases}

    @cache
    def refused(name: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        return zygote.call("train.py", *cases[name], cwd=homes[name]), homes[name]

    return refused


LATE = [
    pytest.param("device", "device=cuda: ", "the options are auto, cpu", marks=NO_CUDA),
    ("missing", "dataset.root=", "train-images-idx3-ubyte or train-images-idx3-ubyte.gz is not there; "),
    ("name", "model", "nearest are mobilenet_v3_small"),
]


@pytest.mark.parametrize(("name", "subject", "says"), LATE)
def test_a_late_refusal_is_one_line_too(late, name: str, subject: str, says: str) -> None:
    """Exit code 2, the subject first, what there is or what to do last; no run directory and no file is left."""
    done, home = late(name)
    assert done.returncode == 2
    assert FORM.fullmatch(error_of(done))
    assert error_of(done).startswith(f"error: {subject}")
    assert says in error_of(done)
    assert not list(home.glob("outputs/*"))


@pytest.mark.parametrize("name", ["missing", "name"])
def test_a_late_refusal_leaves_nothing_at_all(late, name: str) -> None:
    """A first start that is refused leaves no directory, not even an empty one."""
    _, home = late(name)
    assert not list(home.iterdir())


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda root: write_idx(root, largest=12), "labels run from 0 to 12, and there are 10 classes"),
        (lambda root: write_idx(root, test=0), "0 images and 0 labels"),
        (lambda root: write_idx(root, train=0), "0 images and 0 labels"),
        (lambda root: (root / "train-labels-idx1-ubyte").unlink(), r"train-labels-idx1-ubyte or .*\.gz is not there"),
        (lambda root: (root / "t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x01"), r"t10k-images.*: it is no idx"),
        (lambda root: (root / "t10k-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x09abc"), "holds 3"),
        (lambda root: gzipped(root / "train-images-idx3-ubyte", lambda whole: whole[:-20]), r"images.*\.gz: "),
        (lambda root: gzipped(root / "train-images-idx3-ubyte", lambda whole: b"no gzip"), r"images.*\.gz: Not a gzip"),
        (lambda root: gzipped(root / "train-images-idx3-ubyte", flipped), r"images.*\.gz: "),
        (lambda root: [file.unlink() for file in root.iterdir()], "is not there"),
    ],
)
def test_damaged_data_are_named(tmp_path: Path, break_it: Callable[[Path], object], says: str) -> None:
    """Whatever is wrong with the files is a data error in one line, never a run on something else."""
    root = write_idx(tmp_path / "data")
    break_it(root)
    words = [*QUICK, "progress=false", "dataset=fashion_mnist", f"dataset.root={root}", "dataset.val_samples=20"]
    with pytest.raises(DataError, match=says) as caught:
        build_trainer(compose(words), tmp_path / "run")
    assert caught.value.exit_code == 2
    assert FORM.fullmatch(f"error: {caught.value}")
    assert (facts(tmp_path / "run")["status"], facts(tmp_path / "run")["error"]) == ("failed", str(caught.value))


def gzipped(file: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace a file by a gzipped one that has been changed."""
    file.with_name(f"{file.name}.gz").write_bytes(change(gzip.compress(file.read_bytes(), mtime=0)))
    file.unlink()


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model._target_=nope.Net"], r"^model.*No module named 'nope'"),
        (["model._target_=microstep.model.nope"], "^model.*nope"),
        (["scheduler=constant", "scheduler._target_=torch.nn.Identity"], "it makes no Scheduler"),
        (["model=resnet18", "model.norm=layer"], "the options are batch, group"),
        (["precision.dtype=float16"], "the options are float32, float64"),
        (["optimizer.nesterov=true", "optimizer.momentum=0"], "^optimizer.*Nesterov"),
        (["dataset.val_samples=5000"], "^dataset.val_samples=5000: "),
        (["dataset.std=[0.0]"], r"^dataset\.std=\[0\.0\]: "),
    ],
)
def test_a_constructor_that_refuses_is_a_config_error(tmp_path: Path, words: list[str], says: str) -> None:
    """An error that only the constructor finds is one line with exit code 2, and is in run.json."""
    with pytest.raises((ConfigError, DataError), match=says) as caught:
        build_trainer(compose(["threads=1", "progress=false", *words]), tmp_path / "run")
    assert FORM.fullmatch(f"error: {caught.value}")
    assert facts(tmp_path / "run")["status"] == "failed"


@pytest.mark.parametrize(("program", "word"), [("evaluate.py", "run=nope"), ("compute_stats.py", "split=nope")])
def test_the_other_programs_say_a_late_refusal_in_one_line(
    zygote: Zygote, tmp_path: Path, program: str, word: str
) -> None:
    """A traceback is never shown."""
    done = zygote.call(program, word, cwd=tmp_path)
    assert done.returncode == 2
    assert error_of(done).startswith(f"error: {word}: ")


# Run directories.


@pytest.mark.parametrize("words", [["hydra.run.dir=file/run"], ["-m", "hydra.sweep.dir=file/s", "accum=1,2"]])
def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path: Path, words: list[str]) -> None:
    """A file in the way ends it with exit code 4, before torch, and stays as it is."""
    (tmp_path / "file").write_text("mine")
    done, imported = watched("train.py", *words, cwd=tmp_path)
    assert done.returncode == 4
    assert FORM.fullmatch(error_of(done))
    assert re.match(r"error: \S*file/(run|s): Not a directory; ", error_of(done))
    assert tree(tmp_path) == {"file": b"mine"}
    assert "torch" not in imported


RUN = {
    "run.json": b'{"status": "finished"}',
    "config.yaml": b"seed: 7\n",
    "checkpoints/epoch-0001.pt": b"weights",
    ".hydra/overrides.yaml": b"- seed=7\n",
    "train.log": b"a line\n",
}


def test_a_directory_that_holds_a_run_is_untouched(tmp_path: Path) -> None:
    """It is refused with exit code 2 before any job starts, and neither the run nor its log is changed."""
    for name, content in RUN.items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_bytes(content)
    done, imported = watched("train.py", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 2
    assert re.fullmatch(r"error: [\w.]+=\S*run: it holds a run already; .*", error_of(done))
    assert tree(tmp_path / "run") == RUN
    assert len(list(tmp_path.rglob("run.json"))) == 1
    assert "torch" not in imported


def test_jobs_never_share_a_directory(zygote: Zygote, tmp_path: Path) -> None:
    """A sweep whose jobs would have one name is refused before the first, or gives each a directory of its own."""
    done = zygote.call("train.py", "-m", *QUICK, "dataset.val_samples=5000", "num_workers=0,1", cwd=tmp_path)
    runs = len(list(tmp_path.rglob("run.json")))
    assert (done.returncode, runs) in {(2, 0), (1, 2)}


def test_a_refused_directory_is_taken_away_and_others_are_not(tmp_path: Path) -> None:
    """Exit code 2 discards the directory that was made, and no run beside it; other failures keep theirs."""
    (tmp_path / "day" / "other").mkdir(parents=True)
    for error, kept in ((ConfigError, False), (DataError, False), (Diverged, True), (StorageError, True)):
        with pytest.raises(error), directories.new_directory(tmp_path / "day" / "run", exact_name=False) as own:
            (own / "train.log").write_text("")
            raise error("a", "b", "c")
        assert own.exists() == kept
    assert (tmp_path / "day" / "other").exists()


def test_a_directory_that_was_there_is_kept(tmp_path: Path) -> None:
    """A directory of the user's own, typed by name, is not discarded with what is in it."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError), directories.new_directory(tmp_path / "mine", exact_name=True):
        raise ConfigError("a", "b", "c")
    assert tree(tmp_path) == {"mine/notes.txt": b"mine"}


def test_a_parent_that_was_there_is_kept(tmp_path: Path) -> None:
    """Only directories that the program made are taken away."""
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError), directories.new_directory(tmp_path / "mine" / "run", exact_name=True):
        raise ConfigError("a", "b", "c")
    assert (tmp_path / "mine").exists()


def test_a_plain_name_can_be_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`hydra.run.dir=run` in an empty directory is refused like any other."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError), directories.new_directory(Path("run"), exact_name=True):
        raise ConfigError("a", "b", "c")
    assert not list(tmp_path.iterdir())


def test_starts_at_the_same_second_have_a_directory_each(tmp_path: Path) -> None:
    """The name that the time makes is never shared, a finished run's neither; one that was typed is taken as it is."""
    for name in ("run", "run-2", "run-3"):
        with directories.new_directory(tmp_path / "run", exact_name=False) as own:
            assert own == tmp_path / name
            (own / "run.json").write_text("{}")
    with directories.new_directory(tmp_path / "typed", exact_name=True) as own:
        assert own == tmp_path / "typed"


def test_a_refusal_in_the_working_directory_leaves_nothing(zygote: Zygote, tmp_path: Path) -> None:
    """If the run directory is the working directory itself, the files written into it are removed."""
    done = zygote.call("train.py", "model._target_=nope.Net", "hydra.run.dir=.", cwd=tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])


WEIRD = 'it\'s (a) "b", c=d [é] {x}, 数据 #!$HOME & \\z ~ 100%'


def test_any_path_will_do(zygote: Zygote, tmp_path: Path) -> None:
    """Run directory and data may lie under spaces, commas, `=`, quotes, parentheses and any script."""
    root = write_idx(tmp_path / WEIRD / "data")
    words = [f"dataset.root={root}", "dataset=fashion_mnist", "dataset.val_samples=20", f"hydra.run.dir={WEIRD}/run"]
    words += ["batch_size=16", "dataset.mean=null", "dataset.std=null"]
    done = zygote.call("train.py", *QUICK, *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    run = tmp_path / WEIRD / "run"
    assert facts(run)["status"] == "finished"
    assert [path.name for path in tmp_path.iterdir()] == [WEIRD]
    again = zygote.call("evaluate.py", f"run={run}", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert "accuracy" in again.stdout


# Resuming.


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("resume=nope", "resume=nope: config.yaml is not there; give the directory that a run left behind"),
        ("-m resume=nope seed=0,1", "resume=nope: it is one run, and -m starts several; leave -m out, or resume=auto"),
        ("resume=auto", "resume=auto: each start has a new directory; name one: hydra.run.dir=DIR"),
        ("-m resume=auto seed=0,1", "resume=auto: each start of a sweep has a new directory; name it: sweep=NAME"),
        ("resume=a hydra.run.dir=b", "resume=a: it names the directory already; leave hydra.run.dir= out"),
        ("resume=auto hydra.run.dir=.", "hydra.run.dir=.: a run needs a directory of its own; name one"),
    ],
)
def test_a_resume_that_names_no_run_is_refused(tmp_path: Path, words: str, says: str) -> None:
    """Exit code 2 in one line, before torch; no directory is made, not even that which was named."""
    done, imported = watched("train.py", *words.split(), cwd=tmp_path)
    assert (done.returncode, error_of(done)) == (2, f"error: {says}")
    assert not list(tmp_path.iterdir())
    assert "torch" not in imported


LEAST = ("model=mlp", "threads=1", "progress=false", "epochs=2", "scheduler=constant")


def lines(home: Path) -> list[str]:
    """Return what the last programs of a zygote have said."""
    text = (home / "output.txt").read_text()
    (home / "output.txt").unlink()
    return text.splitlines()


@pytest.fixture(scope="module")
def finished(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a finished run."""
    home = tmp_path_factory.mktemp("finished")
    assert zygote.run("train.py", *LEAST, "hydra.run.dir=run", cwd=home) == 0, lines(home)
    lines(home)
    return home


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "home")


@pytest.mark.parametrize("words", [["resume=run"], [*LEAST, "hydra.run.dir=run", "resume=auto"]])
def test_a_finished_run_has_nothing_left_to_do(home: Path, words: list[str]) -> None:
    """It says so and how to go further, with exit code 0, without torch; no byte is changed."""
    before = tree(home)
    done, imported = watched("train.py", *words, cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "run: the run is finished already; epochs=N extends it, if its schedule allows that\n"
    assert tree(home) == before
    assert "torch" not in imported


def test_a_resume_leaves_hydras_record_and_the_config_alone(zygote: Zygote, home: Path) -> None:
    """The changes of a resume are in run.json: `.hydra/` and config.yaml say how the run was started."""
    before = {name: content for name, content in tree(home).items() if ".hydra" in name or name == "run/config.yaml"}
    assert len(before) == 4
    assert zygote.run("train.py", "resume=run", "epochs=3", "num_workers=1", cwd=home) == 0, lines(home)
    assert {name: tree(home)[name] for name in before} == before
    assert facts(home / "run")["resumed"][0]["overrides"] == {"epochs": 3, "num_workers": 1}
    assert [path.name for path in home.iterdir() if path.is_dir()] == ["run"]
    assert "resumed after epoch 2: it is the same run, bit for bit" in (home / "run" / "train.log").read_text()


def test_what_would_make_another_run_of_it_is_refused(home: Path) -> None:
    """Exit code 2 in one line, before torch; no byte of the run is changed."""
    before = tree(home)
    done, imported = watched("train.py", "resume=run", "seed=1", "epochs=3", cwd=home)
    says = "resume=run: this is another experiment: seed=1 (it has 0); leave it as it was, or start a new run"
    assert (done.returncode, error_of(done)) == (2, f"error: {says}")
    assert tree(home) == before
    assert "torch" not in imported


def test_auto_starts_and_then_goes_on(zygote: Zygote, tmp_path: Path) -> None:
    """One command for a job that a scheduler may stop and start: another experiment's is refused."""
    words = ("resume=auto", "hydra.run.dir=run", *LEAST)
    assert zygote.run("train.py", *words, cwd=tmp_path) == 0, lines(tmp_path)
    assert zygote.run("train.py", *words, "epochs=3", cwd=tmp_path) == 0, lines(tmp_path)
    assert facts(tmp_path / "run")["epoch"] == 3
    lines(tmp_path)
    assert zygote.run("train.py", *words, "seed=7", cwd=tmp_path) == 2
    assert "this is another experiment: seed=7 (it has 0)" in lines(tmp_path)[-1]


def test_a_run_goes_on_wherever_it_lies(zygote: Zygote, home: Path) -> None:
    """Under a name of spaces, quotes and any script."""
    (home / "run").rename(home / WEIRD[:40])
    assert zygote.run("train.py", f"resume={WEIRD[:40]}", "epochs=3", cwd=home) == 0, lines(home)
    assert facts(home / WEIRD[:40])["status"] == "finished"
    assert len([path for path in home.iterdir() if path.is_dir()]) == 1


# What runs a job: Hydra's run_job.

COUNTING = """
import sys
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from microstep.cli.main import Program
from microstep.cli.launch import prepare_sweep

composed, loads, argv = [], ConfigLoaderImpl._load_configuration_impl, list(sys.argv)
ConfigLoaderImpl._load_configuration_impl = lambda *args, **kwargs: composed.append(1) or loads(*args, **kwargs)
Program("train", lambda config, resumed: print(len(composed), sys.argv == argv), prepare_sweep)()
"""


def test_a_config_is_composed_twice(tmp_path: Path) -> None:
    """Once as the options make it, once with what was typed; sys.argv stays as it is."""
    command = [sys.executable, "-c", COUNTING, "precision=amp", "accum=2", "hydra.run.dir=run"]
    assert subprocess.check_output(command, cwd=tmp_path, text=True) == "2 True\n"


CALLBACK = """
from pathlib import Path
import os
from hydra.experimental.callback import Callback

class Noted(Callback):
    def note(self, what):
        with Path(os.environ["NOTED"]).open("a") as file:
            print(what, file=file)
    def on_run_start(self, config, **kwargs): self.note("run starts")
    def on_job_start(self, config, **kwargs): self.note(f"job starts, {os.environ['ASKED']}, {Path.cwd().name}")
    def on_job_end(self, config, job_return, **kwargs): self.note(f"job ends: {job_return.status.name}")
    def on_run_end(self, config, **kwargs): self.note("run ends")
    def on_multirun_start(self, config, **kwargs): self.note("sweep starts")
    def on_multirun_end(self, config, **kwargs): self.note("sweep ends")
"""


def test_hydra_s_own_keys_do_what_they_say(zygote: Zygote, tmp_path: Path) -> None:
    """Callbacks are told of runs, jobs, failures and sweeps; hydra.job.env_set and chdir hold while a job runs."""
    (tmp_path / "noted.py").write_text(CALLBACK)
    words = ("+hydra.callbacks.noted._target_=noted.Noted", "hydra.job.env_set.ASKED=yes", "hydra.job.chdir=true")
    environment = {"PYTHONPATH": str(tmp_path), "NOTED": str(tmp_path / "noted.txt")}
    words = (*QUICK, words[0], f"+{words[1]}", words[2])

    def noted(*more: str) -> tuple[int, list[str]]:
        code = zygote.run("train.py", *words, *more, cwd=tmp_path, **environment)
        lines = (tmp_path / "noted.txt").read_text().splitlines()
        (tmp_path / "noted.txt").unlink()
        return code, lines

    good, bad = ("job starts, yes, run", "job ends: COMPLETED"), ("job starts, yes, bad", "job ends: FAILED")
    assert noted("hydra.run.dir=run") == (0, ["run starts", *good, "run ends"])
    assert noted("hydra.run.dir=bad", "optimizer.lr=1e12") == (3, ["run starts", *bad, "run ends"])
    told = noted("-m", "seed=0,1", "sweep=s", "hydra.sweep.subdir=${seed}")
    jobs = [line for seed in "01" for line in (f"job starts, yes, {seed}", "job ends: COMPLETED")]
    assert told == (0, ["sweep starts", *jobs, "sweep ends"])


def test_a_directory_is_typed_in_any_form(home: Path) -> None:
    """`++hydra.run.dir=DIR` names it like `hydra.run.dir=DIR`: it is taken as it is, or refused."""
    words = (*LEAST, "++hydra.run.dir=run")
    done = call("train.py", *words, cwd=home)
    assert error_of(done).startswith("error: hydra.run.dir=run: it holds a run already; ")
    done = call("train.py", *words, "resume=auto", cwd=home)
    assert done.stdout.startswith("run: the run is finished already")
    done = call("train.py", "resume=run", "++hydra.run.dir=other", cwd=home)
    assert error_of(done) == "error: resume=run: it names the directory already; leave hydra.run.dir= out"


UNEXPECTED = "def broken(**given):\n    raise RuntimeError('planted')\n"


@pytest.mark.parametrize(
    ("program", "word"),
    [("train.py", "hydra.run.dir=run"), ("compute_stats.py", "ratio=1"), ("evaluate.py", "run=run")],
)
def test_the_traceback_of_an_unexpected_error_is_kept(
    zygote: Zygote, home: Path, tmp_path: Path, program: str, word: str
) -> None:
    """One line names the file that has it: the run's log, else one in the user's cache; exit code 1."""
    (tmp_path / "unexpected.py").write_text(UNEXPECTED)
    (home / "conf" / "dataset").mkdir(parents=True)
    (home / "conf" / "dataset" / "broken.yaml").write_text("_target_: unexpected.broken\n")
    words = [word] if program == "evaluate.py" else ["dataset=broken", word]
    if program == "evaluate.py":
        config = (home / "run" / "config.yaml").read_text()
        (home / "run" / "config.yaml").write_text(
            config.replace("microstep.components.dataset.digits", "unexpected.broken")
        )
    else:
        shutil.rmtree(home / "run")
    environment = {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = zygote.call(program, *words, cwd=home, **environment)
    assert done.returncode == 1
    told = re.fullmatch(r"error: RuntimeError: planted; the traceback is in (\S+), or set .*", error_of(done))
    assert told
    assert "in broken\n" in (home / told[1]).read_text()
    assert told[1].startswith("run/train.log" if program == "train.py" else str(tmp_path / "cache"))


def test_a_traceback_that_cannot_be_kept_can_be_had(zygote: Zygote, tmp_path: Path) -> None:
    """The line says how, and it works."""
    (tmp_path / "unexpected.py").write_text(UNEXPECTED)
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "broken.yaml").write_text("_target_: unexpected.broken\n")
    environment = {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": "/dev/null"}
    done = zygote.call("compute_stats.py", "dataset=broken", cwd=tmp_path, **environment)
    assert error_of(done).endswith("; its traceback can't be written: set HYDRA_FULL_ERROR=1 to see it")
    command = [sys.executable, ROOT / "compute_stats.py", "dataset=broken"]
    environment = os.environ | environment | {"HYDRA_FULL_ERROR": "1"}
    assert (
        "in broken\n" in subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stderr
    )


SWEEPER = """
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

class Ends(Sweeper):
    def setup(self, *, hydra_context, task_function, config):
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        (swept,) = (o for o in OverridesParser.create().parse_overrides(arguments) if o.is_sweep_override())
        others = [word for word in arguments if word != swept.input_line]
        ends = (swept.value().start, swept.value().end)
        jobs = [[*others, f"{swept.key_or_group}={value}"] for value in ends]
        values = [done.return_value for done in self.launcher.launch(jobs, 0)]
        best = ends[values.index(max(values))]
        self.launcher.launch([[*others, f"{swept.key_or_group}={best}", "seed=1"]], len(jobs))
"""


def test_a_sweeper_of_hydra_s_is_served(tmp_path: Path) -> None:
    """It starts jobs, and chooses one by the monitored validation metric that they return.

    A misspelt key is refused before the first.
    """
    (tmp_path / "hydra_plugins").mkdir()
    (tmp_path / "hydra_plugins" / "ends.py").write_text(SWEEPER)
    (tmp_path / "conf" / "hydra" / "sweeper").mkdir(parents=True)
    (tmp_path / "conf" / "hydra" / "sweeper" / "ends.yaml").write_text("_target_: hydra_plugins.ends.Ends\n")
    path = f"{tmp_path}{os.pathsep}{ROOT}"
    words = ("-m", "hydra/sweeper=ends", *QUICK, "sweep=s")
    done = call("train.py", *words, "optimiser.lr=interval(0.1,0.2)", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 2
    assert error_of(done).startswith("error: optimiser.lr=0.1: no such key; did you mean optimizer.lr")
    done = call("train.py", *words, "optimizer.lr=interval(1e-6,0.2)", cwd=tmp_path, PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (0, "")
    runs = sorted((tmp_path / "outputs/sweeps/s").glob("*/config.yaml"))
    values = [yaml.safe_load(file.read_text()) for file in runs]
    assert sorted((value["seed"], value["optimizer"]["lr"]) for value in values) == [(0, 1e-6), (0, 0.2), (1, 0.2)]


# Divergence, warnings, sweeps.


DIVERGED = (
    r"error: epoch 1, step \d+: the loss \(.+\) or its gradient \(.+\) is not finite in fp32, "
    r"over samples (\d+, ){12}… \(64, all in train\.log\); lower optimizer\.lr or set max_grad_norm; .*"
)


def test_a_loss_that_is_no_number_ends_the_run(zygote: Zygote, tmp_path: Path) -> None:
    """Exit code 3; the line names epoch, step, both values and the samples; run.json tells the same; all stays."""
    done = zygote.call("train.py", *QUICK, "optimizer.lr=1e12", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 3
    assert re.fullmatch(DIVERGED, error_of(done))
    assert "no checkpoint was written yet" in error_of(done)
    (named,) = re.findall(r"is made of samples \[(.*)\]", (tmp_path / "run" / "train.log").read_text())
    assert len(set(named.split(", "))) == 64
    assert ", ".join(named.split(", ")[:12]) in error_of(done)
    assert (facts(tmp_path / "run")["status"], facts(tmp_path / "run")["error"]) == ("failed", error_of(done)[7:])


def explodes(optimizer: Optimizer, total_steps: int) -> LambdaLR:
    """A schedule that goes well for half of the steps."""
    return LambdaLR(optimizer, lambda step: 1.0 if step < total_steps // 2 else 1e30)


def test_what_was_reached_before_diverging_is_kept(tmp_path: Path) -> None:
    """A run that diverges in its second epoch keeps the first one's checkpoint, and says so."""
    words = ["model=mlp", "epochs=2", "threads=1", "progress=false", "scheduler=constant"]
    config = compose([*words, "scheduler._target_=tests.cli.test_main.explodes"])
    with pytest.raises(Diverged, match=r"^epoch 2, step \d+: .*the checkpoint of epoch 1 is kept$") as caught:
        build_trainer(config, tmp_path / "run").fit()
    assert (facts(tmp_path / "run")["status"], facts(tmp_path / "run")["error"]) == ("failed", str(caught.value))
    kept = Checkpoints(tmp_path / "run" / "checkpoints").load("best")
    assert kept["progress"]["epoch"] == 1
    assert all(weight.isfinite().all() for weight in kept["model"].values())


def test_fp16_on_a_cpu_runs_with_one_warning(zygote: Zygote, tmp_path: Path) -> None:
    """It is slow and meant for checks: one line says so and names bf16, and nothing else is on stderr."""
    done = zygote.call("train.py", *QUICK, "precision=fp16", "device=cpu", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0
    assert re.fullmatch(r"warning: [^\n]*bf16[^\n]*\n", done.stderr)
    assert facts(tmp_path / "run")["precision"]["name"] == "fp16"


# Signals.

LONG = ("model.width=8", "epochs=100000", "threads=1", "log_every_steps=100000")


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start train.py without waiting for it; what still runs at the end is killed."""
    programs: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(ROOT / "train.py"), *words]
        with (tmp_path / "stdout.txt").open("w") as stdout:
            program = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True)
        programs.append(program)
        return program

    yield start
    for program in programs:
        if program.poll() is None:
            program.kill()
            program.communicate()


def wait_for_an_epoch(program: subprocess.Popen[str], home: Path) -> Path:
    """Return the run directory as soon as one epoch is over."""
    for _ in count():
        for file in home.rglob("run.json"):
            if "epoch" in facts(file.parent):
                return file.parent
        assert program.poll() is None, program.communicate()
        time.sleep(0.05)
    raise AssertionError("unreachable")


def test_control_c_stops_a_run_cleanly(tmp_path: Path, started) -> None:
    """Exit code 130, one line that says how to go on, status interrupted, and a last checkpoint that loads."""
    program = started(*LONG, "hydra.run.dir=run")
    run = wait_for_an_epoch(program, tmp_path)
    program.send_signal(signal.SIGINT)
    _, stderr = program.communicate(timeout=60)
    assert program.returncode == 128 + signal.SIGINT
    assert stderr == f"error: stopped by SIGINT; resume it with {sys.executable} {ROOT / 'train.py'} resume=run\n"
    assert facts(run)["status"] == "interrupted"
    progress = Checkpoints(run / "checkpoints").load("last")["progress"]
    assert progress["epoch"] >= 1
    assert progress["windows"] == 23 * progress["epoch"] + progress["window"]  # it is of the very window


def test_a_signal_in_an_unlucky_moment_stops_a_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come while a row is half written: the row is finished, and so is the run, which says interrupted."""
    trainer = build_trainer(compose(["model=mlp", "epochs=2", "threads=1", "progress=false"]), tmp_path / "run")
    before = signal.signal(signal.SIGTERM, signals.handle_stop_signal)
    monkeypatch.setattr(files, "write_fully", half_and_be_stopped)
    try:
        with within(5), pytest.raises(Stopped):
            trainer.fit()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert facts(tmp_path / "run")["status"] == "interrupted"
    (header, row) = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert header.count(",") == row.count(",")


PUT = files.write_fully


def half_and_be_stopped(descriptor: int, content: bytes) -> None:
    """Do as `put` does; in the middle of the first row that the main thread writes a signal comes."""
    if get_ident() != main_thread().ident or not content.startswith(b"epoch,"):
        return PUT(descriptor, content)
    PUT(descriptor, content[:20])
    signal.raise_signal(signal.SIGTERM)
    return PUT(descriptor, content[20:])


ASCII = {"PYTHONIOENCODING": "ascii"}
POSIX = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("environment", [pytest.param(ASCII, marks=pytest.mark.long), POSIX], ids=["ascii", "POSIX"])
def test_a_terminal_without_utf_8_shows_what_it_can(environment, tmp_path):
    """A character that it can't show is replaced; the run, its exit code and its files are the same."""
    done = call("train.py", "epochs=1", "model=mlp", "hydra.run.dir=run", cwd=tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "64 ? accum 1 ? effective 64" in done.stdout
    assert "64 × accum 1 → effective 64" in (tmp_path / "run" / "train.log").read_text(encoding="utf-8")


def test_a_check_on_a_terminal_without_utf_8_is_exact(tmp_path):
    """Exit code 1 would mean that it is not exact."""
    done = call("train.py", "check=accumulation", "accum=2", "batch_size=32", "model=mlp", cwd=tmp_path, **ASCII)
    assert done.returncode == 0, done.stderr
    assert "Exact" in done.stdout


@pytest.mark.parametrize(
    ("program", "key"), [("train.py", "hydra.run.dir"), ("evaluate.py", "run"), ("compute_stats.py", "dataset.root")]
)
def test_a_name_that_is_too_long_is_refused(zygote, program, key, tmp_path):
    """Exit code 2 in one line, and nothing is made."""
    words = ["dataset=image_folder"] if key == "dataset.root" else []
    done = zygote.call(program, *words, f"{key}={'a' * 300}", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "a" * 300 in error_of(done)
    assert list(tmp_path.iterdir()) == []
