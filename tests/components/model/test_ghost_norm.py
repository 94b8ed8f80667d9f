"""Tests of BatchNorm over groups of a fixed number of samples."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from microstep.components.model.ghost_norm import GhostBatchNorm
from microstep.config.compose import compose
from microstep.config.experiment import extract_experiment, public_experiment
from microstep.diagnostics.accumulation import run_accumulation_check
from microstep.diagnostics.accumulation.batch_dependence import find_batch_dependent_modules
from microstep.errors import ConfigError
from microstep.run.weights import drop_later_defaults
from microstep.training.build import build_trainer
from microstep.training.run_info import warn_inexact_accumulation
from microstep.types.data import Batch

SMALL = ("model.width=4", "precision=fp64", "threads=1", "progress=false", "epochs=1")
GHOST = (*SMALL, "model.norm=ghost")


def layer(samples: int = 16, features: int = 3) -> GhostBatchNorm:
    return GhostBatchNorm(features, samples).double()


def inputs(count: int, *shape: int) -> Tensor:
    return torch.randn(count, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(count))


def cut(norm: nn.Module, images: Tensor, size: int) -> Tensor:
    """Return the layer's outputs for micro-batches of this size."""
    return torch.cat([norm(batch) for batch in images.split(size)])


def trained(directory, *words: str) -> dict[str, Tensor]:
    """Return the state of a model after an epoch of the digits, which ends with 29 samples."""
    trainer = build_trainer(compose([*SMALL, *words]), directory)
    trainer.model.train()
    for window in trainer.loaders.train(epoch=1):
        trainer.step(trainer.model, trainer.optimization.optimizer, window.batches, window.weight)
    return trainer.model.state_dict()


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest relative difference of two tensors of one name."""
    return max(float((one[n] - other[n]).double().norm() / other[n].double().norm().clamp(1e-30)) for n in other)


@pytest.mark.parametrize("count", [64, 29, 17])
@pytest.mark.parametrize("shape", [(4, 4), ()], ids=["images", "vectors"])
def test_the_outputs_and_statistics_do_not_depend_on_the_cut(count, shape) -> None:
    """Micro-batches that are multiples of the group give the same outputs and running statistics, also for a tail."""
    whole, pieces = layer(), layer()
    images = inputs(count, *shape)
    assert torch.equal(cut(whole, images, 64), cut(pieces, images, 16))
    assert all(torch.equal(tensor, pieces.state_dict()[name]) for name, tensor in whole.state_dict().items())


def test_each_group_is_normalized_as_batch_norm_does_it() -> None:
    """Outputs and running statistics are those of BatchNorm that sees one group after the other."""
    ghost, plain, images = layer(8), nn.BatchNorm2d(3).double(), inputs(20, 4, 4)
    assert torch.equal(ghost(images), cut(plain, images, 8))
    assert torch.equal(ghost.running_var, plain.running_var) and ghost.num_batches_tracked == 3
    assert torch.equal(ghost.eval()(images), plain.eval()(images))


def test_a_single_value_is_normalized_by_the_running_statistics() -> None:
    """A last group of one vector has no variance: it uses the running statistics, and leaves them alone."""
    ghost, vectors = layer(4), inputs(5)
    outputs, mean = ghost(vectors), ghost.running_mean.clone()
    assert ghost.num_batches_tracked == 1
    assert torch.equal(outputs[4:], ghost.eval()(vectors[4:])) and torch.equal(ghost.running_mean, mean)


@pytest.mark.parametrize("step", ["standard", "sam"])
def test_training_does_not_depend_on_the_cut(step, tmp_path) -> None:
    """In fp64, an epoch of 64 × 1 and one of 16 × 4 give the same weights and running statistics to 1e-10."""
    words = ("model.norm=ghost", f"step={step}", "effective_batch_size=64")
    whole = trained(tmp_path / "whole", *words)
    assert apart(trained(tmp_path / "cut", *words, "accum=4"), whole) < 1e-10
    assert whole["features.1.num_batches_tracked"] == 22 * 4 + 2


def test_what_depends_on_the_cut_is_seen(tmp_path) -> None:
    """The test above fails for BatchNorm."""
    words = ("model.norm=batch", "effective_batch_size=64")
    assert apart(trained(tmp_path / "whole", *words), trained(tmp_path / "cut", *words, "accum=4")) > 0.1


@pytest.mark.parametrize(
    ("words", "subject", "remedy"),
    [
        (["batch_size=24"], "batch_size=24 makes micro-batches of 24", "batch_size=32"),
        (["batch_size=8", "accum=2"], "batch_size=8 makes micro-batches of 8", "batch_size=16"),
        (["effective_batch_size=96", "accum=4"], "effective_batch_size=96 makes micro-batches of 24", "_size=128"),
    ],
)
def test_a_group_has_to_divide_the_micro_batch(words, subject, remedy) -> None:
    """Otherwise a cut divides groups: it is refused, without torch, by the keys and with a size that is accepted."""
    with pytest.raises(ConfigError, match=rf"^model\.norm_samples=16: {subject}, .*{remedy}$"):
        compose([*GHOST, *words])
    compose([*GHOST, *words, "model.norm_samples=8"])
    compose([*SMALL, "model.norm=batch", *words])


def test_nothing_is_said_of_what_is_exact(caplog) -> None:
    """The warning about accumulation names BatchNorm, and not ghost normalization."""
    with caplog.at_level(logging.INFO, logger="microstep.notice"):
        warn_inexact_accumulation(nn.Sequential(layer()), 4)
    assert caplog.records == []


def test_the_check_finds_it_exact() -> None:
    """check=accumulation measures windows of ghost normalization, and names no cause."""
    batch = Batch(inputs(4, 2, 2), *[torch.zeros(4)] * 3)
    assert find_batch_dependent_modules(nn.Sequential(layer()), batch).causes == ()
    assert run_accumulation_check(compose([*GHOST, "check=accumulation", "batch_size=16", "accum=4"])).passed


def test_older_runs_have_no_norm() -> None:
    """Without a norm, experiment and exported weights are those of runs that lack the keys."""
    assert extract_experiment(compose(["model=small_cnn"]))["model"].keys() == {"_target_", "width"}
    assert extract_experiment(compose(["model=resnet18"]))["model"].keys() == {"_target_", "norm"}
    node = public_experiment(compose(["model=small_cnn", "model.norm=ghost"]))["model"]
    assert drop_later_defaults(node).keys() == {"_target_", "width", "norm"}
