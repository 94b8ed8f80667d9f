"""A checkpoint holds copies of tensors and plain values, and nothing whose code would have to run."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from microstep.errors import CheckpointRefused
from microstep.run.checkpoints.archive import snapshot

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
NESTED = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
)


def loaded(state: Any) -> Any:
    """Return what comes back of a state that was written and read by torch."""
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return torch.load(stream, weights_only=True)


@given(NESTED)
def test_plain_values_come_back_equal(value: Any) -> None:
    """Lists are lists, tuples are tuples, and whatever was copied can be loaded without running any code."""
    assert snapshot(value) == value
    assert loaded({"value": snapshot(value)}) == {"value": value}


def test_nothing_done_to_the_original_changes_the_copy() -> None:
    """Neither a step of the optimizer nor another key; a view's copy holds no more than it shows."""
    weight, whole = nn.Parameter(torch.ones(3)), torch.arange(1000.0)
    state = {"weight": weight, "view": whole[:2], "list": [1, {"deep": torch.zeros(2)}]}
    copied = snapshot(state)
    with torch.no_grad():
        weight.zero_()
        whole.zero_()
    state["list"][1]["deep"].fill_(7)
    state["list"].append("late")
    state["new"] = 1
    assert copied["weight"].tolist() == [1, 1, 1]
    assert not copied["weight"].requires_grad
    assert copied["view"].tolist() == [0, 1]
    assert copied["view"].untyped_storage().nbytes() == 8
    assert copied["list"][1]["deep"].tolist() == [0, 0]
    assert set(copied) == {"weight", "view", "list"}
    assert len(copied["list"]) == 2


def test_what_torch_keeps_beside_a_state_dict_stays() -> None:
    """The versions of modules, by which torch reads older states, are copied too; order and kind stay."""
    state = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict()
    copied = snapshot(state)
    assert type(copied) is OrderedDict
    assert list(copied) == list(state)
    assert copied._metadata == state._metadata
    assert copied._metadata is not state._metadata
    assert loaded(copied)._metadata["1"] == {"version": 2}


@pytest.mark.parametrize("value", [np.float64(0.5), np.int64(3), np.bool_(True)])
def test_a_number_of_numpys_becomes_a_plain_one(value: Any) -> None:
    """A metric that numpy has counted is no reason for a refusal, and none for a loader to run numpy's code."""
    copied = snapshot({"value": value})["value"]
    assert copied == value
    assert type(copied) in (float, int, bool)


@pytest.mark.parametrize("value", [torch.Size([2, 3]), torch.float16, torch.device("cpu"), float("inf")])
def test_torchs_own_values_are_plain(value: Any) -> None:
    """They load with weights_only=True."""
    assert loaded({"value": snapshot(value)})["value"] == value


class Quiet(str):
    """Text, and more."""


def double(x: float) -> float:
    return 2 * x


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (Path, "PosixPath"),
        (lambda: double, "function"),
        (lambda: {1, 2}, "set"),
        (lambda: np.ones(2), "ndarray"),
        (lambda: Quiet("text"), "Quiet"),
        (object, "object"),
        (lambda: b"text", "bytes"),
        (lambda: nn.Linear(1, 1), "Linear"),
    ],
)
def test_anything_else_is_refused_by_its_place(make: Callable[[], Any], kind: str) -> None:
    """It fails with exit code 6 when it is saved, not days later when it is loaded."""
    with pytest.raises(CheckpointRefused) as caught:
        snapshot({"scheduler": {"steps": [0, make()]}})
    assert caught.value.exit_code == 6
    assert f"state.scheduler.steps[1] is a {kind}, and a checkpoint holds tensors and plain values only" in str(
        caught.value
    )


def test_a_key_is_a_plain_value_too() -> None:
    """A path as a key is refused as well."""
    with pytest.raises(CheckpointRefused, match="a key of state is a PosixPath"):
        snapshot({Path("a"): 1})
