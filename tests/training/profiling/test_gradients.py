"""Error of the gradient in each precision, for models with a known answer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microstep.components.precision import bf16, full
from microstep.components.precision.presets import make_fp16
from microstep.training.profiling.gradients import (
    PrecisionAccuracy,
    compute_reference_gradient,
    measure_accuracy,
    relative_distance,
)
from tests.training.profiling.trials import CPU, Faint, trial

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning")


def found(precision, model: nn.Module | None = None) -> PrecisionAccuracy:
    experiment = trial(model)
    window, _ = experiment.windows()
    return measure_accuracy(experiment, precision, window, compute_reference_gradient(experiment, window))


def test_fp64_held_against_itself_is_the_same() -> None:
    """No drift, nothing over or under: what is measured is the precision's, not the measurement's."""
    exact = found(full(CPU, "float64"))
    assert exact == PrecisionAccuracy(0.0, 0.0, 0.0, 0.0, None, 0, 1.0, True)


def test_coarser_arithmetic_is_farther_off() -> None:
    """fp32 rounds at 2⁻²⁴, fp16 at 2⁻¹¹, bf16 at 2⁻⁸: the gradient's drift is in that order, and of that size."""
    fp32, fp16, coarse = (found(one(CPU)).gradient_drift for one in (full, make_fp16, bf16))
    assert 0 < fp32 < 2**-20 < fp16 < 2**-9 < 2 * coarse < 2**-4


def test_gradients_that_vanish_without_a_scaler_are_counted() -> None:
    """Half of the entries are of a layer whose gradient is 10⁻⁹: all 0 in fp16, and with the scaler hardly any."""
    faint = found(make_fp16(CPU), Faint(1e-7))
    assert faint.unscaled_underflow == pytest.approx(0.5, abs=0.01)
    assert faint.underflow < 0.01
    assert found(bf16(CPU), Faint(1e-7)).underflow == 0  # fp32's range needs no scaler
    assert found(bf16(CPU), Faint(1e-7)).unscaled_underflow is None


def test_a_scale_that_overflows_is_halved_until_it_settles() -> None:
    """As often as it takes; what is left at the end is finite, and the drift is that of a finite gradient."""
    large = found(make_fp16(CPU), Faint(3e2))
    assert large.skipped > 0
    assert large.scale == 65536 / 2**large.skipped
    assert (large.settled, large.overflow) == (True, 0)
    assert large.gradient_drift < 0.1


def test_what_overflows_at_any_scale_is_told_of() -> None:
    """A loss that is infinite in fp16 is no matter of the scale: it isn't halved, and the drift is not finite."""
    lost = found(make_fp16(CPU), Faint(1e7))
    assert (lost.settled, lost.skipped, lost.gradient_drift) == (False, 0, float("inf"))
    assert lost.overflow > 0


def test_dropout_is_no_drift() -> None:
    """Masks are other ones in each dtype: a model with dropout is measured as if it had none."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Dropout(0.5), nn.Linear(64, 10))
    with_dropout = found(bf16(CPU), model)
    model[2].p = 0.0
    assert found(bf16(CPU), model) == with_dropout


def test_a_parameter_without_a_gradient_counts_as_zeros() -> None:
    """An unused layer is no error, and a frozen one isn't counted at all."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model.register_parameter("unused", nn.Parameter(torch.ones(7)))
    model.register_parameter("frozen", nn.Parameter(torch.ones(5), requires_grad=False))
    experiment = trial(model)
    assert len(compute_reference_gradient(experiment, experiment.windows()[0]).entries) == 64 * 10 + 10 + 7
    assert found(full(CPU), model).underflow == 0


def test_distances_are_relative() -> None:
    """‖a − b‖ / ‖b‖, also where b is nothing."""
    one, other = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.0])
    assert relative_distance([(2 * one, one)]) == 1
    assert relative_distance([(one, other)]) == float("inf")
    assert relative_distance([(other, other)]) == 0
    assert relative_distance([(2 * one, one)], floor=10) == 0.5
