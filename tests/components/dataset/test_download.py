"""Several processes may download one data set at once, and a process that is killed blocks no other."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import md5
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision

from microstep.components.dataset import mnist

FORK = multiprocessing.get_context("fork")
TIMEOUT = 20


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def address(idx_files: Path) -> Iterator[str]:
    """The address of a server that has the files, which is a process of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=idx_files)) as server:
        process = FORK.Process(target=server.serve_forever, daemon=True)
        process.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        process.kill()
        process.join()


@pytest.fixture
def local(address: str, idx_files: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let MNIST be downloaded from here; return a function that sets what happens when all files have arrived."""

    def set_arrival(arrived: Callable[[], object]) -> None:
        files = {name: md5((idx_files / name).read_bytes()).hexdigest() for name in names}
        keys = {"mirrors": [address], "resources": list(files.items()), "download": download}
        monkeypatch.setattr(torchvision.datasets, "MNIST", type("MNIST", (original,), keys))
        download.arrived = arrived

    def download(self) -> None:
        original.download(self)
        download.arrived()

    original = torchvision.datasets.MNIST
    names = sorted(file.name for file in idx_files.iterdir())
    return set_arrival


def opened(root: Path) -> str:
    """Return the fingerprint of the data below a root, downloaded if they are missing."""
    return mnist(torch.device("cpu"), "MNIST", str(root), download=True, val_samples=20).fingerprint


def started(root: Path, found) -> multiprocessing.Process:
    process = FORK.Process(target=lambda: found.put(opened(root)))
    process.start()
    return process


def test_processes_that_download_at_once_all_get_the_data(local, tmp_path) -> None:
    """Three processes have all files at the same moment: each opens the data, and one copy is left."""
    local(FORK.Barrier(3, timeout=TIMEOUT).wait)
    found, root = FORK.Queue(), tmp_path / "da ta"
    processes = [started(root, found) for _ in range(3)]
    for process in processes:
        process.join(TIMEOUT)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [found.get(timeout=TIMEOUT) for _ in processes] == [opened(root)] * 3
    assert [path.name for path in root.iterdir()] == ["MNIST"]


def test_a_process_killed_while_downloading_blocks_no_other(local, tmp_path) -> None:
    """The next process downloads the data itself."""
    arrived = FORK.Event()
    local(lambda: (arrived.set(), FORK.Event().wait()))
    killed = started(tmp_path, FORK.Queue())
    assert arrived.wait(TIMEOUT)
    killed.kill()
    killed.join()
    local(lambda: None)
    assert opened(tmp_path) == opened(tmp_path)
