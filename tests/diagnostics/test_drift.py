"""check=drift measures the distance between trainings that are equal to runs, and its verdict fits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from math import isclose, sqrt

import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from PIL import Image
from torch import nn

from microstep.components.step import standard
from microstep.config.compose import compose
from microstep.diagnostics.drift import run_drift_check
from microstep.diagnostics.drift import trajectories as course
from microstep.diagnostics.drift.report import format_distance, select_shown_epochs
from microstep.diagnostics.drift.training import start_training
from microstep.diagnostics.drift.trajectories import make_compared_configs
from microstep.diagnostics.result import CheckResult
from microstep.training.profiling.gradients import relative_distance
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import error_of, fit
from tests.mutants import dropped_tail, mean_of_means
from tests.tasks.test_tasks import CONF, REGRESSION
from tests.tasks.weights import identical, last_weights

EPOCHS = 3
WORDS = ("check=drift", "model=mlp", "accum=4", "batch_size=16", "threads=1", "progress=false")


def composed(*words: str, model: str | None = None) -> DictConfig:
    """Return the config; `model` names a function of this module that makes one."""
    config = compose([*WORDS, *words])
    if model is not None:
        with open_dict(config):
            config.model = OmegaConf.create({"_target_": f"{__name__}.{model}"})
    return config


def normed(num_classes: int) -> nn.Module:
    """Return a network that normalizes by the batch, with a name of its own for the layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, num_classes))


class Centred(nn.Module):
    """Takes the micro-batch's mean away, which no list of layers knows of."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs - inputs.mean(0) if self.training else inputs


def centred(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), Centred(), nn.Linear(16, num_classes))


def weights(finding: CheckResult, pair: str) -> Sequence[float]:
    """Return how far a pair's weights are apart, by epoch."""
    return finding.numbers["apart"][pair]["weights"]


@pytest.fixture(scope="module")
def found() -> CheckResult:
    """Three epochs of a perceptron on digits."""
    return run_drift_check(composed(f"epochs={EPOCHS}"))


def test_in_fp64_the_cuts_agree_and_the_sentence_says_what_is_left(found) -> None:
    """On an exact model fp64 shows no more than 1e-10 after any epoch; what fp32 shows then is rounding, it is said."""
    assert max(weights(found, "cuts_fp64")) < 1e-10
    assert max(found.numbers["apart"]["cuts_fp64"]["outputs"]) < 1e-10
    assert found.verdict_text.endswith("what is left is rounding.")
    assert found.numbers["rounding_alone"] and found.passed


def test_rounding_is_neither_nothing_nor_another_seed(found) -> None:
    """In fp32 the cuts are apart, by far more than in fp64 and far less than two seeds."""
    for ours, seeds, exact in zip(*(weights(found, pair) for pair in ("cuts", "seeds", "cuts_fp64")), strict=True):
        assert 100 * exact < ours < seeds / 100
    assert found.numbers["apart"]["seeds"]["predictions"][-1] > 0


def test_two_seeds_have_nothing_in_common_whatever_they_start_from(found) -> None:
    """Seeds' weights are compared by how they have moved, at first not at all: about √2 of that apart."""
    assert not any(
        move.any() for move in start_training("seed", make_compared_configs(composed())["seed"]).iter_weight_changes()
    )
    assert all(0.8 * sqrt(2) < value < 1.25 * sqrt(2) for value in weights(found, "seeds"))


def ended(name: str, config: DictConfig) -> dict[str, torch.Tensor]:
    """Return the weights that a training ends with."""
    ours = start_training(name, config)
    for epoch in range(1, config.epochs + 1):
        ours.train(epoch, ProgressBars(False))
        ours.validate()
    return ours.components.model.state_dict()


@pytest.mark.parametrize("average", [("average=ema", "average.decay=0.9"), ("average=swa", "average.start=0.5")])
def test_an_average_is_what_is_compared(average) -> None:
    """The distances are those of the averaged weights and their outputs; in fp64 the cuts agree."""
    config = composed("epochs=2", "step=lookahead", "gradient=agc", *average)
    with_average, plain = (start_training("whole", one) for one in (config, composed("epochs=2")))
    for training in (with_average, plain):
        training.train(1, ProgressBars(False))
        training.train(2, ProgressBars(False))
    weights = with_average.optimization.average.weights(with_average.components.model)
    moved = dict(zip(dict(plain.components.model.named_parameters()), with_average.iter_weight_changes(), strict=True))
    last = weights["1.weight"].double() if "1.weight" in weights else next(iter(weights.values())).double()
    assert torch.equal(next(iter(moved.values())), last - with_average.start[0].double())
    assert run_drift_check(config).numbers["rounding_alone"]


def test_uncut_it_is_the_run_of_the_whole_batch(trained) -> None:
    """Bit for bit what `python train.py` ends with, whose batches are as large as four micro-batches here."""
    typed = composed("model=small_cnn", "epochs=3")
    assert identical(ended("whole", make_compared_configs(typed)["whole"]), last_weights(trained))


def test_cut_it_is_the_run_that_was_typed(tmp_path) -> None:
    """Bit for bit what the same words without check= end with, dropout's masks among it."""
    words = ["epochs=2", "model.dropout=0.2"]
    fit([*WORDS[1:], *words], tmp_path)
    assert identical(ended("cut", composed(*words)), last_weights(tmp_path))


def test_trainings_side_by_side_are_those_alone(found) -> None:
    """Five in one process take nothing from each other: the metrics are those of one that trains alone."""
    alone = start_training("whole", make_compared_configs(composed(f"epochs={EPOCHS}"))["whole"])
    for epoch in range(1, EPOCHS + 1):
        alone.train(epoch, ProgressBars(False))
    assert alone.validate().metrics == {name: rows[-1] for name, rows in found.numbers["metrics"]["whole"].items()}


@pytest.mark.parametrize(
    ("changes", "model", "said"), [((), "normed", "BatchNorm"), (("model.dropout=0.2",), None, "dropout")]
)
def test_a_layer_that_a_cut_changes_is_named(changes, model, said) -> None:
    """BatchNorm and dropout take the cuts apart in fp64 as well: it isn't called rounding, and the layer is named."""
    finding = run_drift_check(composed("epochs=1", *changes, model=model))
    assert weights(finding, "cuts_fp64")[-1] > 1e-3
    assert "not rounding" in finding.verdict_text and said in finding.verdict_text
    assert not finding.numbers["rounding_alone"] and finding.passed


def test_what_no_list_of_layers_knows_of_is_seen(found) -> None:
    """A layer of one's own that looks at its micro-batch shows in fp64; that its name is unknown is said."""
    finding = run_drift_check(composed("epochs=1", model="centred"))
    assert "not rounding" in finding.verdict_text and "no layer of the model is known" in finding.verdict_text


@pytest.mark.parametrize("mutant", [mean_of_means, dropped_tail], ids=lambda rule: rule.__name__)
def test_a_wrong_rule_shows_in_fp64(monkeypatch, mutant) -> None:
    """Rules that are wrong in an epoch's last window alone take the cuts apart in fp64, after one epoch."""
    monkeypatch.setattr(standard, "accumulate_gradient", mutant(nominal=4))
    finding = run_drift_check(composed("epochs=1"))
    assert weights(finding, "cuts_fp64")[0] > 1e-6
    assert "not rounding" in finding.verdict_text


def test_in_fp64_nothing_is_trained_twice() -> None:
    """precision=fp64 is its own reference: three trainings, the verdict is made from them, no fourth column."""
    finding = run_drift_check(composed("epochs=1", "precision=fp64"))
    assert finding.numbers["metrics"].keys() == {"cut", "whole", "seed"}
    assert finding.verdict_text.count("fp64") == 2 and finding.verdict_text.endswith("what is left is rounding.")
    assert "cuts, fp64" not in finding.report_text


def test_the_page_the_sentence_and_the_curves_are_the_numbers(found) -> None:
    """The last row is the sentence's, every epoch is a row and a point of a curve, and the picture is a PNG of ~900."""
    last = next(line for line in found.report_text.splitlines() if line.split()[:1] == [str(EPOCHS)])
    shown = [format_distance(weights(found, pair)[-1]) for pair in ("cuts", "seeds", "cuts_fp64")]
    assert " ".join(shown) in " ".join(last.split())
    assert all(one in found.verdict_text for one in shown)
    assert "(4 × 16 and 64)" in found.verdict_text and "180 validation predictions" in found.verdict_text
    assert found.curves["weights_apart/cuts"] == weights(found, "cuts")
    assert found.curves["predictions_apart/seeds"][-1] == found.numbers["apart"]["seeds"]["predictions"][-1]


def test_a_block_of_the_table_has_its_name_over_its_columns(found) -> None:
    """Each name ends where the last column of its block does."""
    lines = found.report_text.splitlines()
    names, heads = next((one, two) for one, two in pairwise(lines) if one.split()[:2] == ["weights", "apart"])
    for name in ("weights apart", "outputs apart"):
        end = names.index(name) + len(name)
        assert heads[:end].endswith("cuts, fp64") and heads[end : end + 2] == "  "
    assert names.endswith("predictions differ") and len(names) == len(heads)


def test_a_task_that_is_no_classification_is_examined_too(zygote, tmp_path) -> None:
    """Without predictions, the weights, outputs and metrics of the task are compared."""
    words = ("--config-dir", str(CONF), *REGRESSION, "check=drift", "batch_size=8", "accum=5", "epochs=2")
    done = zygote.call("train.py", *words, "hydra.run.dir=look", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "predictions" not in done.stdout and "apart in their weights and" in done.stdout
    kept = json.loads((tmp_path / "look/drift.json").read_text())
    assert kept["apart"]["cuts"]["predictions"] == [None, None]
    assert 0 < kept["apart"]["cuts_fp64"]["weights"][-1] < 1e-10 < kept["apart"]["cuts"]["weights"][-1]
    with Image.open(tmp_path / "look/drift.png") as picture:
        assert 850 < picture.width < 950
    assert not list(tmp_path.rglob("checkpoints")), "it is no run"


def test_a_training_that_diverges_is_told_of_in_one_line(zygote, tmp_path) -> None:
    """Exit 3, with the training's name, and no word of checkpoints, of which there are none."""
    done = zygote.call("train.py", *WORDS, "optimizer.lr=1e9", "hydra.run.dir=look", cwd=tmp_path)
    assert done.returncode == 3
    assert error_of(done).startswith("error: cut, epoch 1, step ")
    assert "not finite in fp32" in done.stderr and "checkpoint" not in done.stderr


@pytest.mark.parametrize(
    ("words", "subject"),
    [
        (("batch_size=500", "accum=4"), "batch_size=500 accum=4: uncut, that is one batch of 2,000"),
        (("effective_batch_size=2000", "accum=4"), "effective_batch_size=2000: uncut"),
        (("accum=1",), "accum=1: check=drift compares"),
    ],
)
def test_what_can_not_be_compared_is_refused(zygote, tmp_path, words, subject) -> None:
    """A window that is no batch of this data, or one that isn't cut: exit 2 in the typed words, nothing left behind."""
    done = zygote.call("train.py", "check=drift", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert error_of(done).startswith(f"error: {subject}")
    assert not list(tmp_path.rglob("*.log"))


def test_a_device_that_is_too_small_is_told_of(monkeypatch) -> None:
    """The uncut batch may be what accumulation was to avoid: a line in the typed words, not torch's."""

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(course.DriftTraining, "train", full)
    with pytest.raises(Exception, match=r"batch_size=16 accum=4: the device's memory doesn't hold"):
        run_drift_check(composed("epochs=1"))


@pytest.mark.parametrize("sizes", [["effective_batch_size=64"], ["batch_size=16"]])
def test_what_is_compared_differs_in_nothing_else(sizes) -> None:
    """Each config is the typed one but for the keys that make it; references follow, and the typed one stays."""
    typed = compose(["check=drift", "accum=4", *sizes])
    before = OmegaConf.to_container(typed, resolve=True)
    differing = {}
    for name, config in make_compared_configs(typed).items():
        plain = OmegaConf.to_container(config, resolve=True)
        differing[name] = {key for key in before if plain[key] != before[key]}
    cut = {"accum", "accumulation", "batch_size"} - ({"batch_size"} if typed.batch_size == 64 else set())
    assert differing == {
        "whole": cut,
        "seed": cut | {"seed"},
        "cut_fp64": {"precision"},
        "whole_fp64": cut | {"precision"},
    }
    assert OmegaConf.to_container(typed, resolve=True) == before


def test_distances_are_relative_to_the_second() -> None:
    """Over all tensors together: nothing apart is 0, even where nothing moves; the unit is what the second has."""
    one, two = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0])
    assert isclose(relative_distance([(one, two)]), 5 / 4)
    assert isclose(relative_distance([(one, two), (two, two)]), 5 / sqrt(32))
    assert relative_distance([(one * 0, one * 0)]) == 0


@pytest.mark.parametrize("epochs", [1, 2, 19, 20, 21, 90, 1000])
def test_a_table_is_no_longer_than_a_screen(epochs) -> None:
    """At most 20 rows, the first epoch and the last among them; all where there are no more."""
    rows = select_shown_epochs(epochs)
    assert len(rows) <= 20 and rows[0] == 1 and rows[-1] == epochs
    assert epochs > 20 or len(rows) == epochs


def test_a_share_is_in_words_that_can_be_compared() -> None:
    """Percents where they are read well, powers of ten where they aren't, 0 only where no bit differs."""
    assert [format_distance(value) for value in (0, 2.2e-13, 4e-7, 3.54e-4, 0.031, 1.41)] == [
        "0",
        "2e-13",
        "4e-7",
        "0.0354 %",
        "3.10 %",
        "141 %",
    ]
