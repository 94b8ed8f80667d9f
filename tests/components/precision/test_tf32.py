"""Tests of fp32 and tf32 on CUDA."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from microstep.components.precision import TorchPrecision, amp, auto, bf16, full, tf32
from microstep.components.precision.presets import PRESETS, available_precisions
from microstep.errors import CheckpointRefused, ConfigError
from microstep.sweep.launchers.isolation import isolate_job

CPU = torch.device("cpu")
CUDA = torch.device("cuda", 0)  # only named: what is built is not moved there


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    with isolate_job():
        yield


def switches() -> list[object]:
    """Return torch's older and newer settings for products and convolutions."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    newer = [matmul.fp32_precision, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision]
    return [matmul.allow_tf32, cudnn.allow_tf32, *newer]


@pytest.mark.parametrize("precision", [full(CPU), full(CPU, "float64"), bf16(CPU), amp(CPU)], ids=lambda p: p.name)
def test_no_other_precision_multiplies_in_tf32(precision: TorchPrecision) -> None:
    """TF32 is off after a model is prepared, whatever earlier runs and torch's defaults allow."""
    torch.backends.fp32_precision = "tf32"
    TorchPrecision("tf32", "as chosen", CPU, tf32=True).prepare(nn.Linear(1, 1))
    assert switches() == [True, True, "tf32", "tf32", "tf32"]
    precision.prepare(nn.Linear(1, 1))
    assert switches() == [False, False, "ieee", "ieee", "ieee"]


def test_a_job_leaves_the_switches_as_they_were() -> None:
    """The next job of a process finds torch's own settings, readable by both names."""
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, False  # torch's own defaults
    before = switches()
    for allowed in (True, False):
        with isolate_job():
            TorchPrecision("any", "", CPU, tf32=allowed).prepare(nn.Linear(1, 1))
            assert switches() != before
        assert switches() == before


def test_tf32_is_fp32_in_all_else() -> None:
    """On CUDA, tf32 has fp32 weights, neither autocast nor scaler, and its own name in run.json."""
    described = tf32(CUDA).describe()
    assert (described["name"], described["dtype"], described["scaler"]) == ("tf32", "float32", False)
    assert tf32(CUDA).tf32 and tf32(CUDA).autocast is None


def test_tf32_is_refused_away_from_cuda() -> None:
    """A new run is refused. A resumed or evaluated run continues in fp32 with that reason."""
    with pytest.raises(
        ConfigError, match="precision=tf32: only CUDA's tensor cores compute so, and the device is cpu; "
    ):
        tf32(CPU)
    elsewhere = tf32(CPU, saved_name="tf32")
    assert elsewhere.name == "fp32"
    assert "tf32 exists on CUDA alone" in elsewhere.reason


def test_auto_takes_what_is_recommended() -> None:
    """The measured precision and reason are used."""
    chosen = auto(CPU, measured=lambda: ("bf16", "2.0 times as fast"))
    assert (chosen.name, chosen.reason, chosen.autocast) == ("bf16", "auto: 2.0 times as fast", torch.bfloat16)


@pytest.mark.parametrize("name", available_precisions(CUDA))
def test_auto_goes_on_in_what_was_chosen(name: str) -> None:
    """A saved precision is used without a measurement. tf32 becomes fp32 on a CPU."""
    again = auto(CPU, saved_name=name, measured=lambda: pytest.fail("it was measured"))
    assert again.name == ("fp32" if name == "tf32" else name)
    assert name == "fp16" or auto(CUDA, saved_name=name).name == name  # fp16 needs a scaler on a GPU


def test_auto_refuses_what_it_never_chose() -> None:
    """An unknown saved name is refused, and so is a missing name without a measurement."""
    with pytest.raises(CheckpointRefused, match="precision=eval: precision=auto never chooses it"):
        auto(CPU, saved_name="eval")
    with pytest.raises(ConfigError, match="json doesn't say what was chosen"):
        auto(CPU)


def test_candidates_are_those_of_the_device() -> None:
    """tf32 is available on CUDA only. Presets log no warning."""
    assert available_precisions(CPU) == ("fp32", "bf16", "fp16")
    assert available_precisions(CUDA) == ("fp32", "tf32", "bf16", "fp16")
    assert [PRESETS[name](CPU).name for name in available_precisions(CPU)] == list(available_precisions(CPU))
