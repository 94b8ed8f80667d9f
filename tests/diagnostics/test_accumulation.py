"""check=accumulation tells whether micro-batches are equal to one large batch, and names the causes if they are not."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from microstep.components.task import Classification
from microstep.config.choices import CHOICES, RULES
from microstep.config.compose import compose
from microstep.diagnostics.accumulation import gradient, run_accumulation_check
from microstep.diagnostics.accumulation.gradient import CheckedWindow, compute_window_gradient
from microstep.diagnostics.accumulation.loops import LOOPS, Cause, WindowShape
from microstep.diagnostics.accumulation.measure import (
    EXACT_TOLERANCE,
    CauseIsolation,
    WindowMeasurement,
    measure_window,
)
from microstep.diagnostics.accumulation.plot import draw_accumulation_plot
from microstep.diagnostics.accumulation.report import AccumulationCheck, accumulation_as_json, accumulation_report_text
from microstep.diagnostics.accumulation.sample_weights import measure_running_weights
from microstep.diagnostics.accumulation.verdict import accumulation_verdict_text
from microstep.errors import Diverged
from microstep.utils.json_files import write_json
from tests.components.step.windows import cut, samples, task
from tests.components.step.windows import model as small
from tests.conftest import ROOT, call, error_of, files_limited
from tests.diagnostics import models
from tests.diagnostics.loops import BY_HAND

STONE = """
from microstep.components.model import mlp

def stone(input_shape, num_classes, hidden, dropout):
    return mlp(input_shape, num_classes, hidden, dropout).requires_grad_(False)
"""
FULL, RAGGED = (5, 5, 5, 5), (5, 5, 3)
UNEVEN = (1.0, 2.0, 3.0, 40.0)  #: class weights


def window(sizes: tuple[int, ...], job: Classification, full: int = 4) -> CheckedWindow:
    """Return a window of random images."""
    batches = cut(*samples(sum(sizes)), sizes)
    weights = tuple(job.weight(batch.targets).sum().item() for batch in batches)
    return CheckedWindow("window", 0, batches, WindowShape(sizes, weights, full))


def measured(model, sizes=FULL, rule="weighted_mean", weights=None, clip=None, full=4) -> WindowMeasurement:
    """Return the measurement of a model, a loop and a window."""
    job = task(weights)
    one = window(sizes, job, full)
    return measure_window(CauseIsolation(model, one, LOOPS[rule](one.shape), job, clip, seed=0))


@pytest.mark.parametrize("sizes", [FULL, RAGGED])
def test_frozen_batch_norm_is_exact(sizes) -> None:
    """Fine-tuning with a frozen backbone needs no GroupNorm: its running statistics neither move nor differ."""
    found = measured(models.frozen_batch_norm(), sizes)
    assert found.is_exact
    assert found.running_weights is None


LOOP_CAUSES = {
    "sum_of_means": ("sum_of_means", FULL, None, {Cause.SUM}),
    "leftover": ("mean_over_accum", (5, 5), None, {Cause.LEFTOVER}),
    "ragged": ("mean_over_accum", (5, 5, 5, 2), None, {Cause.RAGGED}),
    "class weights": ("mean_over_accum", FULL, UNEVEN, {Cause.CLASS_WEIGHTS}),
    "all of mean_over_accum": ("mean_over_accum", RAGGED, UNEVEN, {Cause.LEFTOVER, Cause.RAGGED, Cause.CLASS_WEIGHTS}),
    "mean_of_means": ("mean_of_means", RAGGED, None, {Cause.RAGGED}),
    "dropped_tail": ("dropped_tail", RAGGED, None, {Cause.DROPPED}),
    "zero_grad_each": ("zero_grad_each", FULL, None, {Cause.ZEROED}),
    "clip_each": ("clip_each", FULL, None, {Cause.CLIPPING}),
    "scale_doubles": ("scale_doubles", FULL, None, {Cause.SCALE}),
}
MODEL_CAUSES = {
    models.batch_norm: {Cause.NORMALISATION, Cause.STATISTICS},
    models.batch_norm_without_statistics: {Cause.NORMALISATION},
    models.instance_norm_with_statistics: {Cause.STATISTICS},
    models.dropout: {Cause.DRAWS},
    models.drawn_by_a_function: {Cause.DRAWS},
    models.stochastic_depth: {Cause.DRAWS},
}


@pytest.mark.parametrize("sizes", [FULL, RAGGED])
@pytest.mark.parametrize(("weights", "clip"), [(None, None), (UNEVEN, 0.05)])
def test_a_clean_model_is_exact(sizes, weights, clip) -> None:
    """GroupNorm, class weights, clipping, ragged micro-batches: to 1e-12 in every layer, and no cause is named."""
    found = measured(models.clean(), sizes, weights=weights, clip=clip)
    assert found.is_exact
    assert max(found.layer_differences.values()) < 1e-12
    assert not found.causes
    assert not any(found.sample_weights.is_wrong)


@pytest.mark.parametrize(("rule", "sizes", "weights", "causes"), LOOP_CAUSES.values(), ids=LOOP_CAUSES)
def test_each_cause_in_a_loop_is_named(rule, sizes, weights, causes) -> None:
    """The causes in a loop are named, no other cause is, and without them the window is exact."""
    found = measured(models.clean(), sizes, rule, weights, clip=0.05 if rule == "clip_each" else None)
    assert set(found.causes) == causes
    assert found.total_difference > 1e-3
    assert found.remaining_difference <= EXACT_TOLERANCE
    assert not found.is_exact


@pytest.mark.parametrize(("model", "causes"), MODEL_CAUSES.items(), ids=lambda of: getattr(of, "__name__", ""))
def test_each_cause_in_a_model_is_named(model, causes) -> None:
    """Modules that normalize by their batch, keep statistics or draw are found, whatever their type."""
    found = measured(model())
    assert set(found.causes) == causes
    assert found.remaining_difference <= EXACT_TOLERANCE
    assert not found.is_exact


@pytest.mark.parametrize("rule", ["weighted_mean", "clip_each", "scale_doubles"])
def test_layers_without_gradient_are_exact(rule) -> None:
    """An unused layer has a difference of 0, a frozen one has none, and the window is exact with weighted_mean."""
    found = measured(models.unused_and_frozen(), RAGGED, rule, clip=0.05)
    assert found.layer_differences["1.unused"] == 0
    assert set(found.layer_differences) == {"0", "1.unused", "4"}
    assert found.is_exact == (rule == "weighted_mean")


def test_a_difference_from_zero_is_infinite_but_readable(tmp_path) -> None:
    """If one large batch has no gradient at all, the table says inf, the verdict says why, and the JSON has null."""
    found = measured(models.no_gradient_in_large_batches())
    assert not found.is_exact and found.total_difference == math.inf
    check = AccumulationCheck("weighted_mean", "a model", {}, dict.fromkeys(found.layer_differences, 1), [found])
    assert "  all             3     inf" in accumulation_report_text(check)
    assert "is not zero, but one big batch's is" in accumulation_verdict_text(check)
    assert draw_accumulation_plot(check).startswith(b"\x89PNG")
    write_json(tmp_path / "check.json", accumulation_as_json(check))
    (read,) = json.loads((tmp_path / "check.json").read_text(), parse_constant=pytest.fail)["windows"]
    assert read["difference"] is None and not read["exact"]


def test_nan_is_not_exact() -> None:
    """A gradient that is not finite only with micro-batches is not called exact."""
    found = replace(measured(models.clean()), total_difference=math.nan)
    assert not found.is_exact
    check = AccumulationCheck("weighted_mean", "a model", {}, {}, [found])
    assert "is not finite, but one big batch's is" in accumulation_verdict_text(check)


def test_masks_that_happen_to_be_the_same_are_told_of() -> None:
    """One layer's masks are one stream on a CPU, cut or not: exact, and said with a caution."""
    found = measured(models.one_dropout())
    assert found.is_exact
    told = accumulation_verdict_text(AccumulationCheck("weighted_mean", "a model", {}, {}, [found]))
    assert told.startswith("Exact: ")
    assert "dropout's masks came out the same" in told
    clean = accumulation_verdict_text(AccumulationCheck("weighted_mean", "a model", {}, {}, [measured(models.clean())]))
    assert "dropout" not in clean


def test_the_causes_of_loop_and_model_are_told_apart() -> None:
    """Each is measured with all the others switched off: what one does alone, it does beside others, too."""
    both = measured(models.batch_norm(), RAGGED, "mean_over_accum")
    loop, model = measured(models.clean(), RAGGED, "mean_over_accum"), measured(models.batch_norm(), RAGGED)
    assert set(both.causes) == {*loop.causes, *model.causes}
    assert both.cause_differences[Cause.NORMALISATION] == model.cause_differences[Cause.NORMALISATION]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (models.centred, 'layer "1" (Centred) mixes samples'),
        (models.spectral, "_u changes at every call"),
        (models.drawn_elsewhere, 'layer "1" (DrawingElsewhere) gives other outputs for the same inputs'),
        (models.counting, "something that changes from call to call"),
    ],
)
def test_what_has_no_name_is_pointed_at(model, words) -> None:
    """If a difference remains without every known cause, the layer or buffer is named."""
    found = measured(model())
    assert found.remaining_difference > EXACT_TOLERANCE
    assert words in found.unexplained


def test_a_loss_that_is_no_sum_is_pointed_at() -> None:
    """A task whose losses don't add up over samples is told as such."""

    class Mean(Classification):
        def loss_sum(self, outputs, targets, mix=None):
            return super().loss_sum(outputs, targets) ** 2

    job = Mean("abcd", torch.arange(4), torch.device("cpu"))
    one = window(FULL, job)
    found = measure_window(CauseIsolation(models.clean(), one, LOOPS["weighted_mean"](one.shape), job, None, seed=0))
    assert "no sum over samples" in found.unexplained


@pytest.mark.parametrize("weights", [None, UNEVEN])
@pytest.mark.parametrize("sizes", [FULL, RAGGED])
@pytest.mark.parametrize("rule", RULES)
def test_a_rules_name_is_the_loop_of_that_name(rule, sizes, weights) -> None:
    """The gradient is that of the loop written by hand in plain PyTorch, to 1e-12."""
    job, model = task(weights), models.clean()
    one, clip = window(sizes, job), 0.05
    found = compute_window_gradient(
        model, one.batches, one.shape.weight, LOOPS[rule](one.shape), job, clip if rule == "clip_each" else None
    )
    pairs, weight = [(batch.inputs, batch.targets) for batch in one.batches], job.class_weights
    model.zero_grad()
    BY_HAND[rule](model, pairs, 4, weight, clip)
    by_hand = {name: p.grad for name, p in model.named_parameters()}
    for name, expected in by_hand.items():
        assert torch.allclose(found.gradients[name], expected, rtol=1e-12, atol=1e-15), name


def test_every_rule_has_a_loop() -> None:
    """The command line, the check and the loops written by hand have the same names."""
    assert set(RULES) == set(LOOPS) == set(BY_HAND) == set(CHOICES["rule"])


@pytest.mark.parametrize("rule", RULES)
def test_samples_times_their_weights_are_the_gradient(rule) -> None:
    """The measured weights are true: each sample's own gradient, times its weight, adds up to the loop's."""
    job, model, clip = task(UNEVEN), models.clean(), 0.05 if rule == "clip_each" else None
    one = window(RAGGED, job)
    found = compute_window_gradient(model, one.batches, one.shape.weight, LOOPS[rule](one.shape), job, clip)
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for place, weight in enumerate(found.sample_weights):
        model.zero_grad()
        inputs, targets = one.full_batch.inputs[place : place + 1], one.full_batch.targets[place : place + 1]
        (job.loss_sum(model(inputs), targets) / job.weight(targets).sum()).backward()
        for name, p in model.named_parameters():
            total[name] += weight * p.grad
    for name, expected in total.items():
        assert torch.allclose(found.gradients[name], expected, rtol=1e-9, atol=1e-14), name


@pytest.mark.parametrize("rule", ["clip_each", "scale_doubles", "zero_grad_each"])
def test_where_the_last_backward_weighs_more_it_is_seen(rule) -> None:
    """With these loops, the last of four equal micro-batches weighs more than the first."""
    found = measured(models.clean(), FULL, rule, clip=0.05 if rule == "clip_each" else None).micro_batch_weights
    assert found.measured[-1] > 1.9 * found.measured[0]


def test_a_short_micro_batchs_samples_weigh_more_under_mean_over_accum() -> None:
    """2 samples after three times 5: each weighs 1/8 where the others weigh 1/20."""
    weights = measured(models.clean(), (5, 5, 5, 2), "mean_over_accum").sample_weights.measured
    assert weights[0] == pytest.approx(1 / 20, rel=1e-12)
    assert weights[-1] == pytest.approx(1 / 8, rel=1e-12)


@pytest.mark.parametrize("layer", [torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d])
def test_the_last_micro_batch_weighs_more_in_running_statistics(layer) -> None:
    """With momentum 0.1 the four weigh .0729, .081, .09 and .1; in one big batch .025 each."""
    found = measure_running_weights(layer(3), (16, 16, 16, 16))
    assert found.measured == pytest.approx((0.0729, 0.081, 0.09, 0.1), rel=1e-6)
    assert found.due == pytest.approx((0.025,) * 4, rel=1e-6)


def test_a_fault_in_training_itself_would_be_seen(monkeypatch) -> None:
    """The check runs the code that trains: with a fault planted there, our own rule is no longer exact."""
    honest = gradient.add_gradient

    def forgets_the_window(model, batch, weight, *others):
        return honest(model, batch, weight * len(batch.positions) / 5, *others)

    monkeypatch.setattr(gradient, "add_gradient", forgets_the_window)
    assert not measured(models.clean(), RAGGED).is_exact


def test_a_gradient_that_is_not_finite_is_called_that() -> None:
    """A NaN among the weights is no inexactness: exit code 3, as in training."""
    model = models.clean()
    model[0].weight.data[0] = torch.nan
    with pytest.raises(Diverged, match="the window: the gradient of one big batch is not finite"):
        measured(model)


def test_a_model_of_which_nothing_is_trained_is_refused(zygote, tmp_path) -> None:
    """In one line, by the check and by a training alike."""
    (tmp_path / "stone.py").write_text(STONE)
    for words in (("check=accumulation", "accum=2"), ("check=precision",), ()):
        done = zygote.call(
            "train.py", *words, "model=mlp", "model._target_=stone.stone", cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}"
        )
        assert (done.returncode, done.stderr) == (
            2,
            "error: model: none of its parameters asks for a gradient; leave some of them unfrozen\n",
        )


def test_the_model_stays_as_it_is() -> None:
    """Neither weights, buffers nor modes are touched by the search for causes."""
    model = models.batch_norm()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    model.eval()
    measured(model)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_a_transform_is_examined_with_the_gradient() -> None:
    """The compared gradient is that after the transform, in its state at the start for each of them."""

    class Growing:
        calls = 0

        def __call__(self, parameters, norm) -> None:
            self.calls += 1
            assert norm > 0
            for p in parameters:
                p.grad.pow_(1 + 2 * self.calls)

    job, gradients = task(), []
    one = window(FULL, job)
    for transform in (None, Growing()):
        isolation = CauseIsolation(small(), one, LOOPS["weighted_mean"](one.shape), job, None, 0, transform)
        assert measure_window(isolation).is_exact
        gradients.append(isolation.full_batch_gradient(()).gradients["0.weight"])
    assert torch.allclose(gradients[1], gradients[0] ** 3)


def test_an_experiments_own_windows_are_looked_at() -> None:
    """Augmented, mixed, class-weighted and clipped, the real windows of an experiment are exact: full and last ones."""
    words = ["check=accumulation", "accum=4", "batch_size=16", "model=mlp", "augment=cutmix", "sampler=balanced"]
    found = run_accumulation_check(compose([*words, "task.class_weights=balanced", "max_grad_norm=0.1", "threads=1"]))
    assert found.passed
    assert [one["micro_batches"] for one in found.numbers["windows"]] == [[16] * 4, [16, 13]]


@pytest.mark.parametrize(("sampler", "last"), [("Half", [14]), ("Twice", [16, 16, 16, 10])])
def test_windows_are_those_of_the_samplers_order(sampler, last) -> None:
    """The last window of an epoch that is half or twice as long as the training split is checked, too."""
    words = ["check=accumulation", "accum=4", "batch_size=16", "model=mlp", "augment=mixup", "threads=1"]
    found = run_accumulation_check(compose([*words, f"sampler._target_=tests.training.test_build.{sampler}"]))
    assert found.passed
    assert [one["micro_batches"] for one in found.numbers["windows"]] == [[16] * 4, last]


def test_the_readers_loop_is_told_where_and_why_it_is_wrong(zygote, tmp_path) -> None:
    """A page that ends in one sentence, exit code 1, and the same as numbers, picture and TensorBoard events."""
    words = ("check=accumulation", "accum=4", "batch_size=16", "rule=mean_over_accum", "hydra.run.dir=here")
    done = zygote.call("train.py", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    sentence = done.stdout.rstrip().splitlines()[-1]
    assert sentence.startswith("Not exact: in the last window (16 + 13 = 29 samples)")
    assert "leftover window (0.5000), ragged micro-batches" in sentence
    (first, last) = json.loads((tmp_path / "here/accumulation.json").read_text())["windows"]
    assert first["exact"] and not last["exact"]
    assert (tmp_path / "here/weights.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "here/accumulation.txt").read_text().rstrip().endswith(sentence)
    assert EventAccumulator(str(tmp_path / "here")).Reload().Tags()["images"] == ["check/weights"]


def test_ours_is_exact_and_says_so(zygote, tmp_path) -> None:
    """Exit code 0; nothing is trained, and the files lie below outputs/checks."""
    done = zygote.call("train.py", "check=accumulation", "accum=4", "batch_size=16", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip().splitlines()[-1].startswith("Exact: by weighted_mean ")
    (place,) = (tmp_path / "outputs" / "checks").iterdir()
    assert place.name.endswith("_accumulation_digits_small_cnn")
    assert not list(tmp_path.rglob("checkpoints"))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("check=accumulation", "error: accum=1: check=accumulation compares a batch with its micro-batches"),
        ("check=drift", "error: accum=1: check=drift compares"),
        ("check=drift,precision", "error: check=drift,precision: several values; a check takes one"),
        ("check=accumulaton", "error: check=accumulaton: no such option; the options are accumulation,"),
        ("check=accumulation accum=2 rule=mean", "error: rule=mean: no such option; the options are weighted_mean,"),
        ("rule=mean_over_accum", "error: rule=mean_over_accum: it is a loop to examine"),
        ("check=precision rule=mean_over_accum", "error: rule=mean_over_accum: it is a loop to examine"),
        ("check=accumulation accum=2 rule=clip_each", "error: rule=clip_each: it clips, and max_grad_norm is null"),
        ("-m check=precision seed=0,1", "error: check=precision: it examines one experiment"),
        ("check=precision resume=outputs", "error: check=precision: it examines a new experiment, not a run"),
        ("check=precision resume=auto hydra.run.dir=r", "error: check=precision: it examines a new experiment"),
        (
            "check=accumulation accum=90 batch_size=16",
            "error: batch_size=16 accum=90: uncut, that is one batch of 1,440, and an epoch has",
        ),
        ("check=accumulation accum=2 batch_size=4000", "error: batch_size=4000: an epoch has 1,437"),
        ("check=accumulation accum=3 effective_batch_size=64", "error: effective_batch_size=64: it is not a multiple"),
    ],
)
def test_what_cant_be_looked_at_is_refused(zygote, tmp_path, words, error) -> None:
    """One line that names the key, exit code 2, and no directory."""
    done = zygote.call("train.py", *words.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert error_of(done).startswith(error)
    assert not list(tmp_path.iterdir())


def test_a_check_that_is_stopped_leaves_nothing(tmp_path) -> None:
    """Ctrl-C ends it with one line and exit code 130; no half-written directory is left."""
    words = ("check=drift", "accum=2", "batch_size=8", "epochs=1000", "hydra.run.dir=here")
    command = [sys.executable, str(ROOT / "train.py"), *words]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while not (tmp_path / "here" / "train.log").exists():
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert (process.returncode, error) == (130, "error: stopped by SIGINT\n")
    assert not list(tmp_path.iterdir())


def test_a_check_on_a_full_disk_leaves_nothing(tmp_path) -> None:
    """One line, exit code 4, and no half-written directory."""
    with files_limited(20_000):
        done = call("train.py", "check=accumulation", "accum=4", "batch_size=16", cwd=tmp_path)
    assert done.returncode == 4
    assert "weights.png: " in error_of(done)
    assert not list(tmp_path.iterdir())
