"""The state of every component is saved, and what is evaluated is what a checkpoint holds as its model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from microstep.components.average import WeightAverage
from microstep.components.step import LookaheadStep
from microstep.config.compose import compose
from microstep.errors import CheckpointRefused, ConfigError
from microstep.training.build import build_trainer
from microstep.training.components import collect_state, load_state
from microstep.training.evaluation_loop import recompute_statistics
from microstep.training.profiling.gradients import relative_distance
from microstep.training.resume import resume
from microstep.training.trainer import Trainer
from tests.faults.interruptions import stop_at
from tests.faults.models import normed
from tests.faults.runs import differences, metrics_of, same, state_of

WORDS = ("model=mlp", "threads=1", "progress=false", "epochs=3", "optimizer.lr=0.1", "model.dropout=0.2")
SWA = ("average=swa", "average.start=0.4", "average.every_steps=5", "average.bn_samples=100")
LOST_AT = 49  #: windows: in the third epoch of 23, after an average


class Momentum:
    """A transform with a state: adds half of the last gradient."""

    def __init__(self) -> None:
        self.last: list[torch.Tensor] = []

    def __call__(self, parameters: Sequence[nn.Parameter], norm: float) -> None:
        for p, last in zip(parameters, self.last, strict=False):
            p.grad.add_(last.to(p.device), alpha=0.5)
        self.last = [p.grad.clone() for p in parameters]

    def state_dict(self) -> dict:
        return {"last": self.last}

    def load_state_dict(self, state: dict) -> None:
        self.last = list(state["last"])


def make(*words: str, model: bool = False, gradient: bool = False) -> DictConfig:
    """Return the config, with BatchNorm and dropout in the model and a transform that has a state, if asked to."""
    config = compose(list({word.split("=")[0]: word for word in (*WORDS, *words)}.values()))
    with open_dict(config):
        if model:
            config.model = OmegaConf.create({"_target_": f"{normed.__module__}.normed"})
        if gradient:
            config.gradient = OmegaConf.create({"_target_": f"{__name__}.Momentum"})
    return config


CONFIGS = {
    "all": lambda: make(*SWA, "step=lookahead", model=True, gradient=True),
    "ema": lambda: make("average=ema", "gradient=agc", model=True),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nothing happens to."""
    run = tmp_path_factory.mktemp("whole") / "run"
    build_trainer(CONFIGS["all"](), run).fit()
    return run


def lost_and_resumed(config: DictConfig, run: Path) -> Path:
    """Return a run that was set back to its last checkpoint, a few windows before, and resumed."""
    with open_dict(config):
        config.checkpoint.every_steps = 8
    stop_at(build_trainer(config, run), LOST_AT, lost=True)
    resume(run).fit()
    return run


def test_a_run_with_any_state_is_resumed_to_the_same_bits(whole, tmp_path) -> None:
    """Set back within an epoch, the run ends with the same checkpoints, reports and logs."""
    assert differences(lost_and_resumed(CONFIGS["all"](), tmp_path / "run"), whole) == []


@pytest.mark.long
def test_so_is_a_run_with_an_exponential_average(tmp_path) -> None:
    """The same for average=ema with gradient=agc."""
    build_trainer(CONFIGS["ema"](), tmp_path / "whole").fit()
    assert differences(lost_and_resumed(CONFIGS["ema"](), tmp_path / "run"), tmp_path / "whole") == []


FORGETFUL = ((LookaheadStep, "load_state_dict"), (Momentum, "load_state_dict"), (WeightAverage, "load_state_dict"))


@pytest.mark.parametrize(("component", "method"), FORGETFUL, ids=lambda value: getattr(value, "__name__", None))
def test_a_component_that_forgets_is_caught(component, method, whole, tmp_path, monkeypatch) -> None:
    """The comparison above fails if a component does not restore its state."""
    monkeypatch.setattr(component, method, lambda self, *_: None)
    assert differences(lost_and_resumed(CONFIGS["all"](), tmp_path / "run"), whole)


def test_what_is_validated_is_what_is_saved(whole, tmp_path) -> None:
    """The model in a checkpoint has the validation loss that was logged; training has other weights."""
    rows, trainer = metrics_of(whole), build_trainer(make(model=True), tmp_path / "other")
    epochs = {"last": 3, "best": json.loads((whole / "run.json").read_text())["metrics"]["best"]["epoch"]}
    for which, epoch in epochs.items():
        trainer.model.load_state_dict(state_of(whole, which)["model"])
        assert trainer.evaluate("val")["loss"] == pytest.approx(float(rows[epoch - 1]["val_loss"]), rel=1e-6)
    assert not same(dict(state_of(whole, "last")["model"]), dict(state_of(whole, "last")["training"]))


def test_an_average_changes_no_weight_of_the_training(whole, tmp_path) -> None:
    """The weights that training continues from are those of a run without an average."""
    build_trainer(make("step=lookahead", model=True, gradient=True), tmp_path / "plain").fit()
    assert same(dict(state_of(whole, "last")["training"]), dict(state_of(tmp_path / "plain", "last")["model"]))


def cut_apart(run: Path, *words: str, accum_updates: bool = False) -> float:
    """Return how far 64 × 1 and 16 × 4 are apart in fp64, in the average and in the weights of the training."""
    found, words = (
        [],
        ("threads=1", "progress=false", "model=mlp", "precision=fp64", "epochs=2", "optimizer.lr=0.05", *words),
    )
    for size, accum in ((64, 1), (16, 4)):
        trainer = build_trainer(compose([*words, f"batch_size={size}", f"accum={accum}"]), run / str(size))
        update, times = trainer.optimization.average.update, accum if accum_updates else 1
        trainer.optimization.average.update = lambda *a, u=update, n=times: [u(*a) for _ in range(n)]
        for epoch in (1, 2):
            trainer.run_epoch(epoch)
        found.append(collect_state(trainer.components, trainer.optimization))
        trainer.checkpoints.wait()
    parts = [(part, name) for part in ("model", "training") for name in found[0][part]]
    return relative_distance([(found[0][part][name], found[1][part][name]) for part, name in parts])


@pytest.mark.parametrize("average", [("average=ema",), SWA], ids=["ema", "swa"])
def test_micro_batches_leave_the_averages_of_whole_windows(average, tmp_path) -> None:
    """In fp64 the cuts agree to 1e-10, with Lookahead and adaptive clipping too."""
    assert cut_apart(tmp_path, "step=lookahead", "gradient=agc", *average) < 1e-10


def test_an_average_over_micro_batches_is_caught(tmp_path) -> None:
    """The test above fails if the average is updated once a micro-batch."""
    assert cut_apart(tmp_path, "average=ema", accum_updates=True) > 1e-6


def test_statistics_do_not_depend_on_the_cut_and_draw_nothing(tmp_path) -> None:
    """BatchNorm's statistics are the means over batches of bn_samples, whatever batch_size and accum are."""
    trainers = [build_trainer(make(f"batch_size={n}", model=True), tmp_path / f"{n}") for n in (64, 16)]
    trainers[1].model.load_state_dict(trainers[0].model.state_dict())
    before, weights = torch.get_rng_state(), dict(trainers[0].model.state_dict())
    one, other = (recompute_statistics(trainer.components, weights, 100) for trainer in trainers)
    assert same(one, other)
    assert one["1.num_batches_tracked"] == 14  # 1,437 samples
    assert torch.equal(torch.get_rng_state(), before)
    assert same(dict(trainers[0].model.state_dict()), weights)
    images = [batch.inputs for batch in trainers[0].loaders.evaluation("train")]
    everything = recompute_statistics(trainers[0].components, weights, 10_000)
    expected = trainers[0].model[0](torch.cat(images)).mean((0, 2, 3))
    assert torch.allclose(everything["1.running_mean"], expected, rtol=1e-4, atol=1e-6)


def test_workers_change_no_bit_of_an_average(tmp_path) -> None:
    """Streamed by 0 or 2 workers, the checkpoints of a run with SWA are the same."""
    for workers in (0, 2):
        words = ("dataset.resident=false", f"num_workers={workers}", "epochs=2", "batch_size=256", "average.start=0.5")
        build_trainer(make("average=swa", *words, model=True), tmp_path / f"{workers}").fit()
    assert differences(tmp_path / "0", tmp_path / "2") == []


def test_skipped_windows_move_no_average(tmp_path) -> None:
    """Under fp16 with a scale that overflows at first, only applied steps are counted."""
    config = make("average=ema", "step=lookahead", "precision=fp16", "precision.init_scale=1e9", "epochs=1")
    trainer = build_trainer(config, tmp_path / "run")
    trainer.fit()
    progress = trainer.progress
    assert progress.skipped_steps > 3
    assert trainer.optimization.average.included == trainer.step.updates == progress.optimizer_steps


def test_a_checkpoint_without_the_state_of_a_component_is_refused(tmp_path) -> None:
    """The error names the component."""
    trainer = build_trainer(make("step=lookahead"), tmp_path / "run")
    state = collect_state(trainer.components, trainer.optimization)
    del state["step"]
    with pytest.raises(CheckpointRefused, match="it holds no state of step; start a new run"):
        load_state(trainer.components, trainer.optimization, state)


@pytest.mark.parametrize(("words", "refused"), [(("average=swa",), True), (("average=ema",), False)])
def test_more_epochs_are_refused_if_the_average_depends_on_them(words, refused, tmp_path) -> None:
    """SWA begins after a share of the run's steps, so the run can't be made longer; with EMA it can."""
    build_trainer(make("epochs=1", "scheduler=constant", *words), tmp_path / "run").fit()
    if not refused:
        assert isinstance(resume(tmp_path / "run", ["epochs=2"]), Trainer)
        return
    with pytest.raises(ConfigError, match="its average was planned for 1 epochs; start a new run, or use average=ema"):
        resume(tmp_path / "run", ["epochs=2"])
