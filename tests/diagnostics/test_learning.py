"""check=learning tells whether an experiment learns, and names the fault if it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf, open_dict

from microstep.config.compose import compose
from microstep.diagnostics.drift.training import start_training
from microstep.diagnostics.learning import run_learning_check
from microstep.diagnostics.learning.losses import least_loss, measure_neighbors, measure_relation
from microstep.diagnostics.result import CheckResult
from tests.conftest import call

WORDS = ("check=learning", "model=mlp", "threads=1", "progress=false")


def checked(*words: str, **nodes: Any) -> CheckResult:
    """Check the default experiment with some words, and with some nodes replaced by parts of `faulty`."""
    config = compose([*WORDS, *words])
    with open_dict(config):
        for key, node in nodes.items():
            place = key.replace("__", ".")
            OmegaConf.update(config, place, planted(**node), merge=False, force_add=True)
    return run_learning_check(config)


def planted(name: str, **options: Any) -> dict[str, Any]:
    return {"_target_": f"tests.diagnostics.faulty.{name}", **options}


MODELS = [
    ("softmax", "softmax twice", "are probabilities already"),
    ("frozen", "frozen", "1.weight, 1.bias ask for no gradient"),
    ("detached", "cut graph", "depend on 1.weight, 1.bias, and no gradient reaches them"),
    ("dead", "dead units", "100 % of the units of layer 3 are dead"),
    pytest.param("deep_sigmoid", "gradient", "the gradient vanishes, in layer 3 it is", marks=pytest.mark.long),
    ("exploding", "initial weights", "the initial weights are too large"),
    ("blind", "constant outputs", "they are the same for all samples from layer 3 on"),
    ("more_outputs", "outputs", "returns 1000 numbers a sample, and the task has 10"),
    ("fewer_outputs", "outputs", "returns 7 numbers a sample, and the task has 10"),
    ("over_samples", "mixed samples", "depend on the other samples of its batch"),
    ("always_dropping", "random", "evaluation mode is random"),
    pytest.param("sigmoid", "softmax twice", "remove the model's softmax or sigmoid", marks=pytest.mark.long),
    ("logarithm", "not finite", "the first loss is not finite"),
    ("stale_statistics", "modes", "training and evaluation mode differ"),
]
SETTINGS = [
    ("optimizer.lr=1e-6", "setting", "type optimizer.lr=0.0"),
    ("optimizer.lr=30", "setting", "type optimizer.lr=0.0"),
    pytest.param("optimizer.lr=1e3", "setting", "type optimizer.lr=0.0", marks=pytest.mark.long),
    ("optimizer.weight_decay=20", "setting", "type optimizer.weight_decay=0"),
    ("max_grad_norm=1e-5", "setting", "type max_grad_norm=null"),
    ("dataset.mean=[0.0] dataset.std=[0.004]", "inputs", "the inputs are not normalized"),
    pytest.param("dataset.std=[1e-30]", "inputs", "the inputs are not normalized", marks=pytest.mark.long),
]
LABELS = [
    ("shuffled", "targets", "what the targets of train have to do with the images: they may be shuffled"),
    pytest.param("equal", "constant targets", "all training samples have the same target", marks=pytest.mark.long),
    ("order", "targets", "what holds for train is wrong for val"),
    pytest.param(
        "val shuffled",
        "targets",
        "what the targets of val have to do with the images: they may be shuffled",
        marks=pytest.mark.long,
    ),
]
PARTS = [
    ({"optimizer": {"name": "forgetful_sgd", "lr": 0.1}}, "not optimized", "the optimizer was not given 1.weight"),
    (
        {"task__loss": {"name": "negative", "_partial_": True}},
        "loss",
        "the loss has no lower bound: larger outputs always lower it; look at its sign",
    ),
    ({"task__loss": {"name": "shifted", "_partial_": True}}, "loss", "for the right class in 0 % of the samples"),
    ({"task__loss": {"name": "unbounded", "_partial_": True}}, "loss", "and at its softmax"),
    ({"augment": {"name": "Blank"}}, "inputs", "all inputs are the same"),
]


def assert_named(result: CheckResult, fault: str, words: str) -> None:
    assert not result.passed
    assert next(iter(result.numbers["faults"])) == fault
    assert words in result.verdict_text
    assert "\n" not in result.verdict_text


@pytest.mark.parametrize(("model", "fault", "words"), MODELS)
def test_a_fault_of_the_model_is_named(model: str, fault: str, words: str) -> None:
    """The verdict is one sentence that names it, and the check does not pass."""
    assert_named(checked(model={"name": model}), fault, words)


@pytest.mark.parametrize(("typed", "fault", "words"), SETTINGS)
def test_a_setting_that_keeps_a_batch_from_being_learned_is_named(typed: str, fault: str, words: str) -> None:
    """The verdict has another value, with which it was learned."""
    assert_named(checked(*typed.split()), fault, words)


@pytest.mark.parametrize(("change", "fault", "words"), LABELS)
def test_wrong_labels_are_named(change: str, fault: str, words: str) -> None:
    """Labels that the images do not tell are told from those that differ between the splits."""
    assert_named(checked(dataset={"name": "relabeled_digits", "fault": change}), fault, words)


@pytest.mark.parametrize(("nodes", "fault", "words"), PARTS, ids=[words for *_, words in PARTS])
def test_a_fault_of_another_part_is_named(nodes: dict[str, Any], fault: str, words: str) -> None:
    """So it is for the user's own optimizer, loss and augmentation."""
    assert_named(checked(**nodes), fault, words)


LEARNS = [
    "",
    "model=small_cnn model.norm=batch accum=2 optimizer=adamw scheduler=onecycle precision=bf16",
]
ALSO_LEARNS = [
    *(
        "model=small_cnn",
        "model=small_cnn model.norm=ghost",
        "model=small_cnn batch_size=8 accum=4",
        "model.dropout=0.5",
    ),
    *("optimizer=rmsprop", "optimizer=adam precision=amp", "step=sam", "step=lookahead gradient=agc", "average=swa"),
    *("augment=mixup", "augment=cutmix", "model=small_cnn augment=randaugment", "task.loss=focal", "task.loss=bce"),
    *("precision=fp16", "precision=fp64", "max_grad_norm=1.0", "reduction=canonical", "accumulation=auto"),
    *("scheduler=multistep", "scheduler=linear", "scheduler=warm_restarts", "scheduler=plateau", "model=resnet18"),
    *("dataset=synthetic", "dataset=synthetic model=small_cnn task.class_weights=balanced sampler=balanced"),
]
LONG = [pytest.param(words, marks=pytest.mark.long) for words in ALSO_LEARNS]


@pytest.mark.parametrize("words", [*LEARNS, *LONG])
def test_no_fault_is_found_in_what_ships(words: str) -> None:
    """Each of these learns, and the check says so."""
    result = checked(*words.split())
    assert result.numbers["faults"] == {}
    assert result.passed, result.verdict_text
    assert result.verdict_text.startswith("It learns: ")


def test_running_statistics_that_are_not_settled_are_no_fault() -> None:
    """A small momentum takes more steps than the short training has."""
    result = checked(model={"name": "slow_statistics"})
    assert result.passed, result.verdict_text


def test_a_longer_training_decides_if_the_short_one_learns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has 600 steps, and is made only if no setting is at fault."""
    monkeypatch.setattr("microstep.diagnostics.learning.check.SHORT_WINDOWS", 2)
    result = checked()
    assert (result.passed, len(result.numbers["short"]["losses"])) == (True, 600)
    assert len(checked("max_grad_norm=1e-5").numbers["short"]["losses"]) == 2


def test_a_loss_that_is_not_finite_cuts_no_graph() -> None:
    """No gradient was computed, so nothing is said of the graph."""
    assert "cut graph" not in checked(model={"name": "logarithm"}).numbers["faults"]


def test_images_are_normalized_as_pretrained_weights_expect() -> None:
    """Otherwise it is named; without typed values they are."""
    model = {"name": "pretrained"}
    assert_named(
        checked("dataset.mean=[0.0]", "dataset.std=[1.0]", model=model), "pretrained normalization", "dataset.mean"
    )
    assert checked(model=model).passed


@pytest.mark.parametrize(("loss", "model"), [("squared", "unused"), ("of_probabilities", "softmax")])
def test_another_sound_loss_is_no_fault(loss: str, model: str) -> None:
    """What is right is asked of the loss itself: its outputs may be probabilities, or no logits."""
    result = checked("optimizer.lr=0.01", model={"name": model}, task__loss={"name": loss, "_partial_": True})
    assert result.numbers["faults"] == {}
    assert result.passed, result.verdict_text


def test_a_layer_that_is_never_called_is_no_fault() -> None:
    """Its parameters get no gradient, but the outputs do not depend on them; the report says so."""
    result = checked(model={"name": "unused"})
    assert result.passed
    assert "2 parameters, such as 1.unused.weight: outputs do not depend on them" in " ".join(
        result.report_text.split()
    )


def test_the_result_is_repeatable_and_changes_nothing(tmp_path: Path) -> None:
    """Two checks give the same numbers to the bit; the terminal, JSON and picture agree; no run is left."""
    done = call("train.py", *WORDS, "hydra.run.dir=out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    numbers = json.loads((tmp_path / "out/learning.json").read_text())
    assert numbers["sentence"] == done.stdout.splitlines()[-1]
    assert numbers == json.loads(json.dumps({"sentence": numbers["sentence"], **checked().numbers}))
    assert (tmp_path / "out/learning.png").read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.rglob("run.json"))


def test_the_exit_code_of_a_fault_is_1(tmp_path: Path) -> None:
    done = call("train.py", *WORDS, "max_grad_norm=1e-5", "hydra.run.dir=out", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")


def test_the_least_loss_is_that_of_theory() -> None:
    """With label smoothing it is the entropy of the smoothed target; without, 0; of constants, that of the labels."""
    words = ("threads=1", "progress=false", "task.label_smoothing=0.1")
    task, targets = start_training("test", compose([*words])).components.task, torch.arange(10).repeat(4)
    smooth = torch.full((10,), 0.01).index_fill(0, torch.tensor([0]), 0.91)
    assert least_loss(task, targets, torch.Size([40, 10])) == pytest.approx(
        -(smooth * smooth.log()).sum().item(), rel=1e-3
    )
    plain = start_training("test", compose([*words[:2], "task.label_smoothing=0"])).components.task
    assert least_loss(plain, targets, torch.Size([40, 10])) < 1e-3
    skewed = torch.tensor([0] * 30 + [1] * 10)
    entropy = -(0.75 * torch.tensor(0.75).log() + 0.25 * torch.tensor(0.25).log()).item()
    assert least_loss(plain, skewed, torch.Size([40, 10]), constant=True) == pytest.approx(entropy, rel=1e-2)


def test_a_relation_is_seen_in_standard_deviations() -> None:
    """Right outputs are far above, unrelated and constant ones within three; the same holds for neighbors."""
    task, generator = start_training("test", compose(["threads=1"])).components.task, torch.Generator().manual_seed(1)
    targets = torch.randint(10, (300,), generator=generator)
    right, noise = torch.eye(10)[targets], torch.randn(300, 10, generator=generator)
    assert measure_relation(task, right, targets) > 10
    assert abs(measure_relation(task, noise, targets)) < 3
    assert measure_relation(task, torch.zeros(300, 10), targets) == 0
    related, unrelated = (right + 0.1 * noise, targets), (noise, targets)
    assert measure_neighbors(related, related) > 10
    assert measure_neighbors(related, (related[0] + 0.1, targets)) > 10
    assert abs(measure_neighbors(unrelated, unrelated)) < 3
    assert measure_neighbors(related, (related[0], (targets + 1) % 10)) < 0
