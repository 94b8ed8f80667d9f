"""One experiment on any number of processes."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from microstep.components.strategy.data_parallel import DataParallel
from microstep.components.strategy.running_statistics import RunningStatistics
from tests.conftest import call, error_of

SETTINGS = (
    *("epochs=2", "precision=fp64", "threads=1", "dataset.folds=4", "dataset.fold=0", "step=sam", "augment=mixup"),
    "monitor=min:accuracy",  # the best epoch is not the last, so the weights to report on are not the last average
    *("task.class_weights=balanced", "optimizer=adamw", "optimizer.lr=0.003", "max_grad_norm=1.0", "average=ema"),
)
CUTS = {"1 × 4": ("accum=4",), "2 × 2": ("accum=2", "strategy=ddp", "strategy.processes=2")}


def distance(one: Path, other: Path) -> float:
    """Return the largest relative distance of two runs' tensors."""
    weights, others = (load_file(run / "model.safetensors") for run in (one, other))
    return max(((w - others[name]).norm() / w.norm()).item() for name, w in weights.items() if w.is_floating_point())


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("cuts")
    for number, cut in enumerate(CUTS.values()):
        done = call("train.py", *SETTINGS, "batch_size=16", *cut, f"hydra.run.dir={number}", cwd=home)
        assert (done.returncode, done.stderr) == (0, "")
    return {name: home / str(number) for number, name in enumerate(CUTS)}


def test_two_processes_make_the_steps_of_one(runs) -> None:
    """Processes share a window like micro-batches: the same mathematics, also with two passes, mixing and clipping."""
    assert distance(*runs.values()) < 1e-10


@pytest.mark.parametrize("split", ["val-last", "val", "test"])
def test_the_reports_are_the_same(runs, split: str) -> None:
    """Each sample is evaluated once, in the batches of one process, with the weights of its checkpoint."""
    one, two = (run / f"reports/{split}/predictions.csv" for run in runs.values())
    assert one.read_bytes() == two.read_bytes()


def test_one_process_keeps_the_run(runs) -> None:
    """There is one log, one event file, one row an epoch, and no file of a helper."""
    one, two = (
        sorted(p.name.split(".vm")[0].partition(".tfevents")[0] for p in run.iterdir()) for run in runs.values()
    )
    assert one == two
    assert len((runs["2 × 2"] / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_a_window_is_shared_without_gap_or_overlap(count: int, size: int) -> None:
    """Consecutive micro-batches go to consecutive ranks, and rank 0 has as many as any other."""
    strategies = [DataParallel() for _ in range(size)]
    for rank, strategy in enumerate(strategies):
        strategy.rank, strategy.world_size = rank, size
    shares = [strategy.share(count) for strategy in strategies]
    assert [number for share in shares for number in share] == list(range(count))
    assert max(map(len, shares)) == len(shares[0]) <= min(map(len, shares)) + 1


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_updated_in_order(momentum: float | None) -> None:
    """What two processes record gives the statistics of one that saw all micro-batches, and their count."""
    batches = torch.randn(4, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    plain, shared = (nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64) for _ in range(2))
    for batch in batches:
        plain(batch)
    changes = []
    for rank in range(2):
        recorder = RunningStatistics(shared)
        for batch in batches[2 * rank : 2 * rank + 2]:
            shared(batch)
            recorder.record()
        changes += recorder.changes
        recorder.apply([])
    recorder = RunningStatistics(shared)
    recorder.apply(changes)
    for one, other in zip(plain.buffers(), shared.buffers(), strict=True):
        assert torch.allclose(one, other, rtol=1e-14)


def test_a_number_of_processes_that_can_not_be_guessed_is_asked_for(tmp_path) -> None:
    """Without torchrun and without a GPU, strategy=ddp needs a number."""
    done = call("train.py", "strategy=ddp", cwd=tmp_path)
    assert done.returncode == 2
    assert "strategy.processes=2" in error_of(done)
