"""check=resume trains with resumes in between, and names the component that forgets its state."""

from __future__ import annotations

import json
from collections import deque

import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from microstep.components.sampler import Shuffle
from microstep.components.step import LookaheadStep, StandardStep
from microstep.config.compose import compose
from microstep.diagnostics.resume import digest, run_resume_check
from tests.faults.zygote import Zygote

WORDS = ("check=resume", "model=mlp", "threads=1", "progress=false")


class ForgetfulStep(LookaheadStep):
    """Lookahead without a state for checkpoints."""

    state_dict = load_state_dict = None


class HalfForgetfulStep(LookaheadStep):
    """Lookahead that restores all but its count."""

    def load_state_dict(self, state) -> None:
        super().load_state_dict(state | {"updates": 0})


class CountingSampler(Shuffle):
    """A sampler whose order depends on how often it was asked."""

    calls = 0

    def order(self, *key: int) -> torch.Tensor:
        self.calls += 1
        return super().order(*key, self.calls)


class NamingStep(StandardStep):
    """A step that remembers what changes no result."""

    def __call__(self, *arguments):
        self.seen = [*getattr(self, "seen", []), 1]
        return super().__call__(*arguments)


class Counted(nn.Linear):
    """A layer whose factor grows with each call, outside its state dict."""

    calls = 0

    def forward(self, inputs):
        self.calls += 1
        return super().forward(inputs) * (1 + self.calls / 100)


def counted(num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), Counted(64, num_classes))


def composed(*words: str, **targets: str) -> DictConfig:
    config = compose([*WORDS, *words])
    for group, name in targets.items():
        with open_dict(config):
            config[group] = OmegaConf.create({"_target_": f"{__name__}.{name}"})
    return config


ALL = ("step=lookahead", "gradient=agc", "average=swa", "precision=fp16", "augment=crop_flip")


FEW = ("step=sam", "average=ema", "batch_size=700")
STEPS = ("steps=10", "scheduler=onecycle")


@pytest.mark.parametrize("words", [(), ALL, FEW, STEPS], ids=["default", "all", "few", "steps"])
def test_what_ships_restores_its_state(words) -> None:
    """The check passes, also with few windows or steps, and has the digest of each component's state."""
    result = run_resume_check(composed(*words))
    assert result.passed
    assert result.verdict_text == "Exact: after 16 windows and 3 resumes, no bit differs."
    assert result.numbers["lost"] == {}
    assert result.numbers["straight"] == result.numbers["resumed"]
    assert {"model", "optimizer", "scheduler", "precision", "metrics"} <= result.numbers["straight"].keys()


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        ({"step": "ForgetfulStep"}, "step (ForgetfulStep) loses slow_weights, updates at a resume: let state_dict()"),
        ({"step": "HalfForgetfulStep"}, "step (HalfForgetfulStep) loses updates at a resume"),
        ({"sampler": "CountingSampler"}, "sampler (CountingSampler) loses calls at a resume"),
        ({"model": "counted"}, "no component is seen to lose anything: look for state outside them"),
    ],
)
def test_a_component_that_forgets_is_named(targets, named) -> None:
    """The check fails and its verdict says which attributes of which component are lost, or where to look."""
    result = run_resume_check(composed(**targets))
    assert not result.passed
    assert result.verdict_text.startswith("Not exact: after 16 windows model, ")
    assert named in result.verdict_text


def test_what_changes_no_result_is_a_caution() -> None:
    """A component that loses an attribute without an effect passes, and is named."""
    result = run_resume_check(composed(step="NamingStep"))
    assert result.passed
    assert "no bit differs; but if more windows need it, step (NamingStep) loses seen" in result.verdict_text


def test_a_digest_sees_every_bit_of_nested_values() -> None:
    """Equal values have equal digests. Type, shape, order and any bit count."""
    values = [
        0.0,
        -0.0,
        1,
        True,
        None,
        "1",
        [1],
        [[1]],
        {"a": 1},
        {"b": 1},
        deque([1, 2]),
        torch.zeros(1),
        torch.ones(1),
    ]
    values += [torch.zeros(1, 1), torch.zeros(1, dtype=torch.bfloat16), torch.tensor([float("nan")])]
    assert len({digest(value) for value in values}) == len(values)
    assert digest({"a": [torch.ones(2)]}) == digest({"a": [torch.ones(2)]})


def test_the_program_says_it_in_one_line_and_exits_with_1(zygote: Zygote, tmp_path) -> None:
    """From the command line: the verdict is printed last, and resume.json holds the numbers."""
    (tmp_path / "conf" / "step").mkdir(parents=True)
    (tmp_path / "conf" / "step" / "mine.yaml").write_text(f"_target_: {__name__}.ForgetfulStep\n")
    words = ("--config-dir", "conf", *WORDS, "step=mine", "hydra.run.dir=here")
    done = zygote.call("train.py", *words, cwd=tmp_path)
    assert done.returncode == 1
    last = done.stdout.splitlines()[-1]
    assert last.startswith("Not exact: ") and "step (ForgetfulStep) loses slow_weights, updates" in last
    assert json.loads((tmp_path / "here" / "resume.json").read_text())["lost"] == {"step": ["slow_weights", "updates"]}
