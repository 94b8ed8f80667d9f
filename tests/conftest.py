"""Real runs, shared by the tests that look at what a run leaves behind."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two pytest workers share two cores

import atexit
import gc
import gzip
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from microstep.utils.signals import STOP_SIGNALS
from tests.faults.zygote import Zygote

ROOT = Path(__file__).resolve().parents[1]
CACHE = tempfile.mkdtemp(prefix="microstep-cache-")
os.environ["XDG_CACHE_HOME"] = CACHE  # subprocesses inherit it: no test reads or writes what the user has cached
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_collection_finish() -> None:
    """Exclude what was imported from garbage collections, which would look at half a million objects each time."""
    gc.freeze()


def call(program: str, *words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of the programs as a user would, from a directory of its own."""
    command = [sys.executable, str(ROOT / program), *words]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | environment
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the only line of stderr."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def fit(overrides: Sequence[str], run_dir: Path):
    """Train in this process and return the results."""
    from microstep.config.compose import compose
    from microstep.training.build import build_trainer

    return build_trainer(compose(["threads=1", "progress=false", *overrides]), run_dir).fit()


def irregular(file: Path, kind: str) -> None:
    """Make something that is not a regular file."""
    if kind == "directory":
        file.mkdir()
    if kind == "pipe":
        os.mkfifo(file)
    if kind == "device":
        file.symlink_to("/dev/zero")
    if kind == "loop":
        file.symlink_to(file)


@contextmanager
def files_limited(size: int) -> Iterator[None]:
    """Limit the size of files, which a program sees as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def kept_handlers() -> Iterator[None]:
    """Put back the handlers of the signals that stop a run."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `python train.py epochs=3`, made by the program itself."""
    home = tmp_path_factory.mktemp("trained")
    done = call("train.py", "epochs=3", "log_every_steps=5", "hydra.run.dir=run", cwd=home)
    assert done.returncode == 0, done.stderr
    (home / "stdout.txt").write_text(done.stdout)
    return home / "run"


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Return a folder of made-up photos in three classes, 60 to train on and 15 to test on, of many sizes."""
    root = tmp_path_factory.mktemp("photos, (made up)")
    generator = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 5)):
        for hue, name in enumerate(("blue", "green", "red")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                height, width = generator.integers(12, 40, 2)
                pixels = generator.integers(0, 120, (height, width, 3), dtype=np.uint8)
                pixels[..., 2 - hue] += 120
                Image.fromarray(pixels).save(root / split / name / f"{number}.jpg")
    return root


@pytest.fixture(scope="session")
def idx_files(tmp_path_factory) -> Path:
    """Return a directory of small Fashion-MNIST files, gzipped."""
    root = tmp_path_factory.mktemp("fashion mnist, (small)")
    generator = np.random.default_rng(0)
    for prefix, count in (("train", 160), ("t10k", 20)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
            (root / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return root


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Start a process that forks the programs as real processes, with all imports done."""
    started = Zygote.started()
    yield started
    started.stop()
