"""accumulation=auto: the weights are those of a device with enough memory, however often it runs out."""

import csv
import json
from collections.abc import Collection
from pathlib import Path

import pytest
import torch

from microstep.config.compose import compose
from microstep.config.experiment import cut_sizes
from microstep.errors import ConfigError, OutOfMemory
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from microstep.training.trainer import Trainer
from tests.conftest import call
from tests.training.thirsty import exhausted, plant

BASE = ["threads=1", "progress=false", "steps=4", "dataset.val_samples=20"]
AUTO = [*BASE, "effective_batch_size=64", "accumulation=auto"]
EXACT = (  # two passes, running statistics, ragged denominators
    *("precision=fp64", "step=sam", "augment=mixup", "task.class_weights=balanced", "max_grad_norm=1.0"),
    *("model.norm=ghost", "model.norm_samples=8", "optimizer=adamw", "average=ema"),
)


def trained(words: Collection[str], run_dir: Path, fails: Collection[int] = (), error=exhausted) -> Trainer:
    """Train with a model whose calls of these numbers run out of memory."""
    trainer = build_trainer(compose([*words]), run_dir)
    plant(trainer.model, fails, error)
    trainer.fit()
    return trainer


def record(run_dir: Path) -> dict:
    return json.loads((run_dir / "run.json").read_text())


def weights(run_dir: Path, name: str = "last") -> dict[str, torch.Tensor]:
    (file,) = [
        e["file"] for n, e in json.loads((run_dir / "checkpoints/manifest.json").read_text()).items() if n == name
    ]
    return torch.load(run_dir / "checkpoints" / file, weights_only=True)["model"]


def distance(one: Path, other: Path) -> float:
    """Return the largest relative distance of two runs' tensors, and of their training loss."""
    pairs = [(value, weights(other)[name]) for name, value in weights(one).items()]
    rows = [list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))[-1] for run in (one, other)]
    pairs.append(tuple(torch.tensor(float(row["train_loss"])) for row in rows))
    return max(((a.double() - b.double()).norm() / a.double().norm().clamp(min=1e-300)).item() for a, b in pairs)


@pytest.fixture(scope="module")
def enough(tmp_path_factory) -> Path:
    """A run that had enough memory."""
    directory = tmp_path_factory.mktemp("enough") / "run"
    trained([*BASE, *EXACT, "effective_batch_size=64"], directory)
    return directory


@pytest.mark.parametrize("fails", [{0}, {1}, {0, 2}, {0, 3}, {0, 4}, {0, 1, 4}, {3}, {6, 7}], ids=str)
def test_the_weights_are_those_of_a_larger_device(fails, enough, tmp_path) -> None:
    """Whichever micro-batch and pass fails, weights, running statistics and metrics are those of one micro-batch."""
    trained([*AUTO, *EXACT], tmp_path / "run", fails)
    assert record(tmp_path / "run")["micro_batch_size"] == 64 // 2 ** len(fails)
    assert distance(enough, tmp_path / "run") < 1e-10


def test_the_bits_are_those_of_the_cut_that_is_found(tmp_path, capsys) -> None:
    """If the first window fails, the run is bit for bit that with accum=2, and says once what it has found."""
    trained(AUTO, tmp_path / "auto", {0})
    out = capsys.readouterr().out
    trained([*BASE, "effective_batch_size=64", "accum=2"], tmp_path / "fixed")
    assert all(
        torch.equal(value, weights(tmp_path / "fixed")[name]) for name, value in weights(tmp_path / "auto").items()
    )
    assert out.count("micro-batch 64 → 32: out of memory at epoch 1, window 1\n") == 1
    assert "batch          auto → effective 64\n" in out


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_images_are_read_anew(photos, workers, tmp_path) -> None:
    """Images that were announced for larger micro-batches are read for the smaller ones, in the order of the window."""
    data = ["dataset=image_folder", f"dataset.root={photos}", "dataset.val_fraction=0.2", f"num_workers={workers}"]
    words = [*BASE[:3], *data, "dataset.resident=false", "step=sam", "augment=crop_flip", "effective_batch_size=16"]
    trained([*words, "accumulation=auto"], tmp_path / "auto", {1})
    trained([*words, "accum=2"], tmp_path / "fixed")
    assert all(
        torch.equal(value, weights(tmp_path / "fixed")[name]) for name, value in weights(tmp_path / "auto").items()
    )


def test_a_killed_run_resumes_with_the_size_that_was_found(tmp_path) -> None:
    """The size is saved at once: a run that dies two windows later ends with the bits of one that does not."""
    trained(AUTO, tmp_path / "straight", {1})

    class Killed(BaseException):
        pass

    trainer = build_trainer(compose(AUTO), tmp_path / "killed")
    plant(trainer.model, {1}, exhausted)
    plant(trainer.model, {6}, Killed)
    with pytest.raises(Killed):
        trainer.fit()
    resume(tmp_path / "killed").fit()
    one, two = weights(tmp_path / "straight"), weights(tmp_path / "killed")
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    records = [record(tmp_path / name) for name in ("straight", "killed")]
    assert [each["micro_batch_size"] for each in records] == [32, 32]
    assert records[0]["experiment_hash"] == records[1]["experiment_hash"]


@pytest.mark.parametrize("words", [(), ("model.norm=ghost", "model.norm_samples=16")])
def test_the_smallest_micro_batch_has_to_fit(words, tmp_path) -> None:
    """If one sample, or one group of ghost normalization, does not fit, the run ends with one line."""
    with pytest.raises(OutOfMemory, match=rf"^accumulation=auto: a micro-batch of {16 if words else 1} doesn't fit"):
        trained([*AUTO, *words], tmp_path / "run", range(1000))


def test_memory_that_runs_out_in_the_update_ends_the_run(tmp_path) -> None:
    """The optimizer may have changed some weights by then, so the window is not repeated."""
    trainer = build_trainer(compose(AUTO), tmp_path / "run")
    trainer.optimization.optimizer.register_step_pre_hook(lambda *_: (_ for _ in ()).throw(exhausted()))
    with pytest.raises(
        OutOfMemory, match=r"^memory: it ran out after the micro-batches: OutOfMemoryError: CUDA out of"
    ):
        trainer.fit()
    assert record(tmp_path / "run")["micro_batch_size"] == 64


def test_other_accumulations_keep_the_error(tmp_path) -> None:
    """Without accumulation=auto, the error of the allocator ends the run."""
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        trained([*BASE, "accum=2"], tmp_path / "run", {0})


def test_other_errors_are_not_repeated(tmp_path) -> None:
    """An error that is not about memory ends the run as it is."""
    with pytest.raises(RuntimeError, match=r"^shape"):
        trained(AUTO, tmp_path / "run", {0}, lambda: RuntimeError("shape"))


@pytest.mark.parametrize(
    ("words", "subject"),
    [
        (["accumulation=auto"], "accumulation=auto: .*effective_batch_size=64"),
        (["accumulation=auto", "effective_batch_size=64", "accum=2"], "accum=2: accumulation=auto finds it"),
        (["accumulation=auto", "effective_batch_size=24", "model.norm=ghost"], "model.norm_samples=16: "),
    ],
)
def test_what_it_needs_is_checked_before_anything_starts(words, subject) -> None:
    """The size of the whole batch is needed, and accum is not."""
    with pytest.raises(ConfigError, match=f"^{subject}"):
        compose(words)


def test_sizes_are_halves_in_groups_of_ghost_normalization() -> None:
    """A half is rounded up; with ghost normalization, to a multiple of the group."""
    words = ["accumulation=auto", "effective_batch_size=96"]
    assert cut_sizes(compose(words)) == [96, 48, 24, 12, 6, 3, 2, 1]
    assert cut_sizes(compose([*words, "model.norm=ghost"])) == [96, 48, 32, 16]
    assert cut_sizes(compose(["effective_batch_size=96"])) == [None]


REAL = (
    *("precision=fp64", "dataset=synthetic", "dataset.samples=330", "dataset.val_samples=50", "epochs=1", "threads=1"),
    *("dataset.test_samples=50", "dataset.size=64", "effective_batch_size=256", "accumulation=auto", "progress=false"),
)


TWO = pytest.param(("strategy=ddp", "strategy.processes=2"), id="two", marks=pytest.mark.long)


@pytest.mark.parametrize("strategy", [pytest.param((), id="one"), TWO])
def test_real_refusals_of_the_allocator_change_nothing(strategy, tmp_path) -> None:
    """Under a limit of the address space, in one process and in two, the weights are those without."""
    words = [*REAL, *strategy, "model._target_=tests.training.thirsty.limited_cnn"]
    done = {
        name: call("train.py", *words, f"hydra.run.dir={name}", cwd=tmp_path, **env)
        for name, env in {"enough": {}, "limited": {"MEBIBYTES": "400"}}.items()
    }
    assert [(each.returncode, each.stderr) for each in done.values()] == [(0, "")] * 2
    assert record(tmp_path / "enough")["micro_batch_size"] == 256 // (1 + bool(strategy))
    assert record(tmp_path / "limited")["micro_batch_size"] < record(tmp_path / "enough")["micro_batch_size"]
    assert "out of memory at epoch 1, window 1" in done["limited"].stdout
    assert distance(tmp_path / "enough", tmp_path / "limited") < 1e-10


def test_one_process_that_runs_out_reduces_all(tmp_path) -> None:
    """If memory runs out in one of two processes, both repeat the window with the same smaller micro-batches."""
    model = ["model._target_=tests.training.thirsty.thirsty_cnn"]
    words = [*AUTO, "precision=fp64", "strategy=ddp", "strategy.processes=2"]
    done = [
        call("train.py", *words, *more, cwd=tmp_path)
        for more in (["hydra.run.dir=enough"], [*model, "hydra.run.dir=one"])
    ]
    assert [(each.returncode, each.stderr) for each in done] == [(0, "")] * 2
    assert "micro-batch 32 → 16: out of memory at epoch 1, window 2\n" in done[1].stdout
    assert distance(tmp_path / "enough", tmp_path / "one") < 1e-10
