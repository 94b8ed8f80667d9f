"""The rule, on made-up measurements; and what is remembered of it."""

from __future__ import annotations

import pytest
import torch

from microstep.config.compose import compose
from microstep.training.profiling import recommendation as remembered
from microstep.training.profiling.gradients import PrecisionAccuracy
from microstep.training.profiling.profile import Measurement, Profile
from microstep.training.profiling.recommendation import (
    Recommendation,
    format_percent,
    recommend,
    recommend_or_load,
    store_recommendation,
)
from microstep.training.provenance import recommendation_key
from microstep.utils import json_files as cache
from tests.training.profiling.trials import CPU, trial

NOISE = 1.0


def measured(seconds: float, drift: float = 0.001, settled: bool = True) -> Measurement:
    return Measurement((seconds,), 10, 1000, PrecisionAccuracy(0.0, drift, 0.0, 0.0, None, 0, 1.0, settled))


@pytest.mark.parametrize(
    ("others", "name", "told"),
    [
        (
            {"bf16": measured(0.5)},
            "bf16",
            "2.00 times as fast as fp32, its rounding (0.1 %) far below the gradient's own",
        ),
        ({"bf16": measured(0.5), "fp16": measured(0.4)}, "fp16", "2.50 times as fast"),
        (
            {"bf16": measured(0.5, drift=0.2)},
            "fp32",
            "bf16 is 2.00 times as fast as fp32, but its rounding (20 %) is not",
        ),
        ({"bf16": measured(0.5, drift=float("nan"))}, "fp32", "but its rounding (not finite) is not far below"),
        ({"bf16": measured(0.92)}, "fp32", "nothing else is 1.1 times as fast (bf16 1.09)"),
        ({"fp16": measured(0.3, settled=False)}, "fp32", "fp16 is 3.33 times as fast as fp32, but it overflows"),
        ({"fp16": measured(0.3, drift=0.5), "tf32": measured(0.6)}, "tf32", "1.67 times as fast"),
        ({}, "fp32", "nothing else is 1.1 times as fast"),
    ],
)
def test_the_rule(others: dict[str, Measurement], name: str, told: str) -> None:
    """The fastest that is at least 1.1 times as fast, rounds below a tenth of the noise, and doesn't overflow."""
    found = recommend(Profile({"fp32": measured(1.0, 0.0), **others}, {}, NOISE, 64))
    assert found.name == name
    assert found.reason.startswith(told) or told in found.reason


def test_where_fp32_does_not_fit_anything_that_does_is_better() -> None:
    """However fast it is."""
    found = recommend(Profile({"bf16": measured(9.0)}, {"fp32": "out of memory"}, NOISE, 64))
    assert (found.name, found.reason[:50]) == ("bf16", "the fastest that can be had (fp32: out of memory),")
    assert recommend(Profile({}, {"fp32": "out of memory"}, NOISE, 64)).name == "fp32"


def test_a_speed_up_is_of_turns_side_by_side() -> None:
    """A moment in which the machine was busy slows both down, and changes nothing."""
    one, other = (Measurement(turns, 3, 0, measured(1.0).accuracy) for turns in ((2.0, 20.0, 2.2), (1.0, 10.0, 1.1)))
    assert Profile({"fp32": one, "bf16": other}, {}, NOISE, 64).speed_up("bf16") == 2
    hindered = Measurement((1.0, 10.0, 10.0), 3, 0, measured(1.0).accuracy)  # for a turn of its own
    assert Profile({"fp32": one, "bf16": hindered}, {}, NOISE, 64).speed_up("bf16") == 2  # not 2.2 / 10


def test_shares_are_readable() -> None:
    """Two digits where they are few; no share is shown as 0 that isn't."""
    shown = [format_percent(share) for share in (1.12, 0.0083, 1e-9, 0.0, 0.1, float("inf"))]
    assert shown == ["112 %", "0.83 %", "< 0.001 %", "0 %", "10 %", "not finite"]


def key(*words: str, data: str = "these data") -> dict[str, object]:
    return recommendation_key(compose(["threads=1", *words]), CPU, data)


def test_a_recommendation_is_of_the_machine_the_model_and_the_batch() -> None:
    """Not of seed, epochs, learning rate or logging: they make no other step."""
    base = key()
    same = ("seed=7", "epochs=3", "optimizer.lr=0.5", "precision=bf16", "num_workers=0", "scheduler=constant")
    assert key(*same) == base
    others = ("batch_size=32", "accum=2", "model=mlp", "step=sam", "augment=crop_flip", "sampler=balanced")
    assert all(key(word) != base for word in (*others, "max_grad_norm=1", "optimizer.momentum=0.5"))
    assert key(data="other data") != base
    assert key("effective_batch_size=64", "accum=2") == key("batch_size=32", "accum=2")
    assert {"machine", "versions", "threads", "device", "source"} <= set(base)


def test_what_is_remembered_is_what_is_recommended(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Nothing is measured then; what isn't whole is measured anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(remembered, "profile_precisions", lambda *_: pytest.fail("it was measured"))
    store_recommendation({"a": 1}, Recommendation("bf16", "as planted"))
    assert recommend_or_load(trial(), {"a": 1}) == ("bf16", "as planted")
    for content in ({"name": "tf32", "reason": "no such thing on a CPU"}, {"name": ["bf16"]}, {"name": "fp32"}):
        cache.store_cached(remembered.get_cache_name({"a": 1}), content)
        with pytest.raises(pytest.fail.Exception, match="it was measured"):
            recommend_or_load(trial(), {"a": 1})


def test_what_is_measured_is_remembered_once(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """The next to ask gets the same; and so does one that has measured meanwhile, however the machine was."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made_up = Profile({"fp32": measured(1.0), "bf16": measured(0.5)}, {}, NOISE, 64)
    monkeypatch.setattr(remembered, "profile_precisions", lambda *_: made_up)
    assert recommend_or_load(trial(), {"b": 1})[0] == "bf16"

    def late(*_: object) -> Profile:
        store_recommendation({"c": 1}, Recommendation("bf16", "by another process"))
        return Profile({"fp32": measured(1.0)}, {}, NOISE, 64)

    monkeypatch.setattr(remembered, "profile_precisions", late)
    assert recommend_or_load(trial(), {"b": 1})[0] == "bf16"
    assert recommend_or_load(trial(), {"c": 1}) == ("bf16", "by another process")


def test_fp16_is_not_tried_on_a_cpu_only_to_choose() -> None:
    """It is never the fastest there, and takes the longest to find that out."""
    assert remembered.recommendable_precisions(trial()) == ("fp32", "bf16")
    assert torch.device("cpu") == trial().device
