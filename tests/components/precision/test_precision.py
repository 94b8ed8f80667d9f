"""Tests of precisions with a real GradScaler."""

import pytest
import torch
from torch import nn

from microstep.components.precision import amp, bf16, fp16, full
from microstep.components.step import StandardStep
from microstep.errors import DataError
from microstep.types.data import Batch
from tests.components.step.windows import CPU, cut, flat, model, samples, task

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning")
HUGE = 2.0**40  #: a scale that overflows fp16 gradients at once


def stepper(precision, lr: float = 0.1):
    net, job = precision.prepare(model().float()), task()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, fused=True)
    return net, optimizer, StandardStep(precision, job, job.metrics(), None)


def test_an_overflow_skips_the_step_and_halves_the_scale() -> None:
    """An fp16 overflow leaves weights and optimizer unchanged and halves the scale. The next step is taken."""
    precision = fp16(CPU, init_scale=HUGE)
    net, optimizer, step = stepper(precision)
    window, before = cut(*samples(8), [4, 4]), flat(net).clone()
    first = step(net, optimizer, window, 8.0)
    assert (first.updated, precision.loss_scale()) == (False, HUGE / 2)
    assert torch.equal(flat(net), before)
    assert not optimizer.state
    skipped = 1
    while not step(net, optimizer, window, 8.0).updated:
        skipped += 1
    assert precision.loss_scale() == HUGE / 2**skipped
    assert not torch.equal(flat(net), before)


def test_an_overflow_in_the_very_first_window_leaves_finite_weights() -> None:
    """Fused SGD with momentum never gets a nonfinite gradient, even if the first window overflows."""
    for _ in range(20):
        precision = fp16(CPU, init_scale=HUGE)
        net, optimizer, step = stepper(precision)
        for _ in range(40):
            step(net, optimizer, cut(*samples(8), [8]), 8.0)
        assert flat(net).isfinite().all()
        assert all(state["momentum_buffer"].isfinite().all() for state in optimizer.state.values())


def test_the_scheduler_moves_only_when_the_optimizer_did(tmp_path) -> None:
    """In the trainer, skipped windows are counted and advance neither scheduler nor step counter."""
    from tests.conftest import fit

    words = ["precision=fp16", f"precision.init_scale={HUGE}", "precision.max_skipped=40", "model=mlp", "epochs=2"]
    results = fit(words, tmp_path)
    state = torch.load(max((tmp_path / "checkpoints").glob("*.pt")), weights_only=True)
    assert results.skipped_steps > 5
    assert results.optimizer_steps + results.skipped_steps == state["progress"]["windows"] == 46
    assert state["scheduler"]["last_epoch"] == results.optimizer_steps


def test_gradients_are_unscaled_before_they_are_clipped() -> None:
    """A scale changes neither the norm reported nor the clipped step."""
    found = {}
    for scale in (1.0, 1024.0):
        precision = fp16(CPU, init_scale=scale)
        net, job = model().float(), task()
        optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
        before = flat(net)
        result = StandardStep(precision, job, job.metrics(), 0.05)(net, optimizer, cut(*samples(8), [4, 4]), 8.0)
        found[scale] = (result.grad_norm, (before - flat(net)).norm().item())
    assert found[1.0] == pytest.approx(found[1024.0], rel=1e-2)
    assert found[1024.0][1] == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("precision", [full(CPU), full(CPU, "float64"), bf16(CPU), fp16(CPU)], ids=lambda p: p.name)
def test_a_gradient_that_is_not_finite_is_applied_in_no_precision(precision) -> None:
    """An infinite input skips the step in any precision."""
    net, optimizer, step = stepper(precision) if precision.dtype == torch.float32 else fp64_stepper(precision)
    before = flat(net).clone()
    inputs, targets = samples(4)
    inputs[0] = float("inf")
    assert not step(net, optimizer, cut(inputs, targets, [4]), 4.0).updated
    assert torch.equal(flat(net), before)


def fp64_stepper(precision):
    net, job = model(), task()
    return net, torch.optim.SGD(net.parameters(), lr=0.1), StandardStep(precision, job, job.metrics(), None)


def test_amp_is_bf16_without_a_scaler_on_a_cpu() -> None:
    """`precision=amp` reports its choice and the reason."""
    chosen = amp(CPU)
    assert (chosen.describe()["dtype"], chosen.describe()["scaler"]) == ("bfloat16", False)
    assert "bf16" in chosen.reason


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_amp_is_fp16_with_a_scaler_on_cuda() -> None:
    """On CUDA, `precision=amp` scales the gradients."""
    chosen = amp(torch.device("cuda", 0))
    assert (chosen.describe()["dtype"], chosen.describe()["scaler"]) == ("float16", True)


@pytest.mark.parametrize("name", ["float32", "float64"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_integers_that_a_precision_can_hold_are_kept(name: str, dtype: torch.dtype) -> None:
    """All small ones, and large ones with enough zeros at their end."""
    values = torch.tensor([0, 200] + [2**24, 2**24 + 2, -(2**30)] * (dtype.itemsize > 2), dtype=dtype)
    rows = torch.arange(len(values))
    found = full(CPU, name).cast(Batch(values, rows, rows, rows))
    assert found.inputs.dtype == getattr(torch, name)
    assert found.inputs.tolist() == values.tolist()
    assert torch.equal(found.targets, rows)


@pytest.mark.parametrize(("name", "value"), [("float32", 2**24 + 1), ("float32", -(2**62) - 1), ("float64", 2**53 + 1)])
def test_integers_that_a_precision_would_change_are_refused(name: str, value: int) -> None:
    """A number of an id or a count would silently be another one."""
    values, rows = torch.tensor([1, value]), torch.arange(2)
    reason = f"dataset: its inputs are torch.int64, and torch.{name} can't hold all of their values; "
    with pytest.raises(DataError, match=reason):
        full(CPU, name).cast(Batch(values, rows, rows, rows))


def test_autocast_computes_in_the_lower_dtype_and_keeps_fp32_weights() -> None:
    """Under bf16 the activations are bf16 and the weights stay fp32."""
    precision = bf16(CPU)
    net = precision.prepare(nn.Linear(4, 2))
    with precision.forward():
        assert net(torch.ones(1, 4)).dtype == torch.bfloat16
    assert net.weight.dtype == torch.float32


def test_the_scaler_survives_a_checkpoint() -> None:
    """A scaler's scale and growth are restored."""
    one, other = fp16(CPU, init_scale=8.0), fp16(CPU)
    net, optimizer, step = stepper(one)
    step(net, optimizer, cut(*samples(8), [8]), 8.0)
    other.load_state_dict(one.state_dict())
    assert other.state_dict() == one.state_dict()
    assert other.loss_scale() == 8.0
