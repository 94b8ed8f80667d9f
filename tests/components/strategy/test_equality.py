"""The same experiment on any number of processes, cut by cut. benchmarks/processes.py prints the distances."""

import socket
from pathlib import Path

import pytest
from benchmarks.processes import CUTS, FP64, SETTINGS, distance

from tests.faults.zygote import Zygote

HARDEST = "cutmix, 5 samples in the last window"
CELLS = {**SETTINGS, HARDEST: ("augment=cutmix", "dataset.val_samples=76", "task.class_weights=balanced", "epochs=1")}
MANY = [pytest.param(cut, marks=pytest.mark.long) for cut in ("2 × (16, 4)", "2 × (32, 2)")]
ROWS = [pytest.param(name, marks=[] if name == HARDEST else pytest.mark.long) for name in CELLS]


@pytest.fixture(scope="module", params=ROWS)
def one_process(request, zygote, tmp_path_factory) -> tuple[str, Path]:
    """A setting, and its run in one process."""
    home = tmp_path_factory.mktemp("one")
    return request.param, train(zygote, request.param, "1 × (32, 4)", home)


def train(zygote: Zygote, setting: str, cut: str, home: Path) -> Path:
    """Train in processes that are started together, as torchrun starts them."""
    processes, batch_size, accum = CUTS[cut]
    strategy = ("strategy=ddp", f"strategy.processes={processes}") if processes > 1 else ()
    words = (*FP64, *CELLS[setting], *strategy, f"batch_size={batch_size}", f"accum={accum}", "hydra.run.dir=run")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_PORT": port}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank), **world} for rank in range(processes)] if strategy else [{}]
    pids = [zygote.start("train.py", *words, cwd=home, **rank) for rank in ranks]
    codes = [zygote.wait(pid) for pid in pids]
    assert codes[0] == 0, (home / "output.txt").read_text()
    return home / "run"


@pytest.mark.parametrize("cut", [*MANY, "4 × (8, 4)"])
def test_processes_share_a_window_like_micro_batches(one_process, zygote, tmp_path, cut) -> None:
    """In fp64 the final weights are those of one process to 1e-10, also if processes have no sample of a window."""
    setting, one = one_process
    assert distance(one, train(zygote, setting, cut, tmp_path)) < 1e-10
