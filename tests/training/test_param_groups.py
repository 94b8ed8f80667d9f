"""Parameter groups: parameters with options of the optimizer of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from microstep.components.precision import full
from microstep.components.step.sam import perturbed_weights
from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import compose
from microstep.config.param_groups import read_param_groups
from microstep.diagnostics.drift.training import start_training
from microstep.errors import ConfigError
from microstep.training.build import build_trainer
from microstep.training.builders import build_optimizer, build_partial_components
from microstep.training.profiling.profile import make_profiled_step
from microstep.training.resume import resume
from tests.conftest import error_of, fit
from tests.faults.interruptions import stop_at
from tests.faults.runs import differences
from tests.tasks.weights import last_weights, relative

TINY = ("model=mlp", "model.hidden=[8]", "threads=1", "progress=false", "epochs=2")
HEAD = "param_groups=[{match:'^(head|4)',lr:0.3},{match:bias,weight_decay:0,momentum:0.5}]"


class Net(nn.Module):
    """Has a frozen stem, a normalization and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4).requires_grad_(False)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 2)


def groups_of(*words: str, model: nn.Module | None = None) -> list[dict[str, Any]]:
    """Return the groups of the optimizer, with the names of their parameters."""
    model = model or Net()
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = build_optimizer(compose(words), ALLOW_ALL, model).param_groups
    return [{**group, "params": [names[p] for p in group["params"]]} for group in groups]


def test_the_first_match_counts_and_the_rest_keeps_the_optimizer_s_options() -> None:
    """Each parameter is in one group; those that match nothing come first, and unnamed options are the optimizer's."""
    rest, head, bias = groups_of(HEAD, "optimizer.lr=0.1")
    assert [one["params"] for one in (rest, head, bias)] == [
        ["stem.weight", "norm.weight"],
        ["head.weight", "head.bias"],
        ["stem.bias", "norm.bias"],
    ]
    assert [(one["lr"], one["weight_decay"], one["momentum"]) for one in (rest, head, bias)] == [
        (0.1, 0.0005, 0.9),
        (0.3, 0.0005, 0.9),
        (0.1, 0.0, 0.5),
    ]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "adam", "rmsprop"])
def test_norm_bias_leaves_biases_and_normalization_undecayed(optimizer: str) -> None:
    """Parameters with one dimension have no weight decay, all others have the optimizer's."""
    decayed, others = groups_of("param_groups=norm_bias", f"optimizer={optimizer}", "optimizer.weight_decay=0.1")
    assert decayed["params"] == ["stem.weight", "head.weight"]
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize("words", [[], ["param_groups=null"], ["param_groups=[]"]])
def test_without_groups_the_optimizer_has_one_as_before(words: list[str]) -> None:
    """Its parameters are in the order of the model's, so that older checkpoints can be loaded."""
    (group,) = groups_of(*words)
    assert group["params"] == [name for name, _ in Net().named_parameters()]
    assert "match" not in group


def test_groups_of_all_parameters_leave_no_empty_one() -> None:
    """If each parameter matches, there is no group of others."""
    assert [one["lr"] for one in groups_of("param_groups=[{match:'',lr:0.3}]")] == [0.3]


@pytest.mark.parametrize("match", ["nothing", "stem", "^bias"])
def test_a_pattern_that_trains_nothing_is_refused(match: str) -> None:
    """It matches no name, only frozen parameters, or only those of an earlier group."""
    with pytest.raises(ConfigError) as caught:
        groups_of(f"param_groups=[{{match:bias,lr:1}},{{match:'{match}',lr:1}}]")
    assert str(caught.value).startswith(f"param_groups.1.match={match}: it matches no trained parameter outside of ")
    assert str(caught.value).endswith("; there are stem.weight, norm.weight, head.weight")


REFUSED = {
    "norm": "param_groups=norm: it is no list of groups with a match each; give norm_bias, or a list ",
    "{match:bias}": "param_groups={'match': 'bias'}: it is no list of groups",
    "[{lr:1}]": "param_groups=[{'lr': 1}]: it is no list of groups",
    "[bias]": "param_groups=['bias']: it is no list of groups",
    "[{match:'(',lr:1}]": "param_groups.0.match=(: it is no regular expression: missing )",
    "[{match:3,lr:1}]": "param_groups.0.match=3: it is no regular expression: ",
    "[{match:0,lr:1}]": "param_groups.0.match=0: it is no regular expression: ",
    "[{match:bias,lrr:1}]": "param_groups.0.lrr=1: torch.optim.SGD has no such option; did you mean lr?",
    "[{match:bias,betas:[1,1]}]": "param_groups.0.betas=[1, 1]: torch.optim.SGD has no such option; the options are ",
    "[{match:bias,params:1}]": "param_groups.0.params=1: torch.optim.SGD has no such option",
    "[{match:bias,lr:abc}]": "param_groups.0.lr=abc: it is text; give a number",
    "[{match:bias,lr:null}]": "param_groups.0.lr=None: it is null; give a number",
    "[{match:bias,lr:-1}]": "param_groups.0.lr=-1: out of range; it must be above 0",
    "[{match:bias},{match:head,weight_decay:-1}]": "param_groups.1.weight_decay=-1: out of range; ",
}


@pytest.mark.parametrize("value", REFUSED)
def test_what_is_no_group_is_refused_before_anything_is_built(value: str) -> None:
    """The line names the group, the option and the way out."""
    with pytest.raises(ConfigError) as caught:
        compose([f"param_groups={value}"])
    assert str(caught.value).startswith(REFUSED[value])


def test_a_reference_to_another_key_is_followed() -> None:
    """`lr: ${optimizer.lr}` is the value of that key."""
    config = compose(["param_groups=[{match:bias,lr:'${optimizer.lr}'}]", "optimizer.lr=0.25"])
    assert read_param_groups(config) == [{"match": "bias", "lr": 0.25}]


def test_the_program_ends_with_exit_code_2(zygote, tmp_path: Path) -> None:
    """A pattern without parameters leaves one line and no directory behind."""
    done = zygote.call("train.py", *TINY, "param_groups=[{match:haed,lr:1}]", cwd=tmp_path)
    assert done.returncode == 2
    assert error_of(done).startswith("error: param_groups.0.match=haed: it matches no trained parameter")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["scheduler=onecycle"], ["optimizer=adamw", "scheduler=warm_restarts"], ["step=sam"]]
)
def test_a_killed_run_with_groups_ends_with_the_same_bits(tmp_path: Path, words: list[str]) -> None:
    """Optimizer, schedule and weights after a kill and a resume are those of an undisturbed run."""
    own = HEAD.replace("momentum:0.5", "lr:0.001") if "optimizer=adamw" in words else HEAD
    words = [*TINY, own, *words, "max_grad_norm=1", "log_every_steps=5"]
    fit(words, tmp_path / "whole")
    stop_at(build_trainer(compose([*words, "checkpoint.every_steps=3"]), tmp_path / "run"), 31, lost=True)
    resume(tmp_path / "run").fit()
    assert differences(tmp_path / "run", tmp_path / "whole") == []


def test_other_groups_are_another_experiment(tmp_path: Path) -> None:
    """A resume can't change them."""
    stop_at(build_trainer(compose([*TINY, "param_groups=norm_bias"]), tmp_path), 3)
    with pytest.raises(ConfigError, match=r"another experiment: param_groups=None \(it has norm_bias\)"):
        resume(tmp_path, ["param_groups=null"])


def test_a_cut_batch_is_clipped_over_all_groups(tmp_path: Path) -> None:
    """In fp64, 60 and 20 × 3 end within 1e-10 with groups and clipping, and elsewhere than without groups."""
    words = [
        "precision=fp64",
        *TINY,
        "dataset.val_samples=900",
        HEAD,
        "max_grad_norm=0.5",
    ]
    whole, cut, plain = tmp_path / "whole", tmp_path / "cut", tmp_path / "plain"
    fit([*words, "batch_size=60"], whole)
    fit([*words, "batch_size=20", "accum=3"], cut)
    fit([*words, "batch_size=60", "param_groups=null"], plain)
    assert relative(last_weights(cut), last_weights(whole)) < 1e-10
    assert relative(last_weights(plain), last_weights(whole)) > 1e-6


def test_clipping_and_perturbation_see_every_group() -> None:
    """One norm over all groups is clipped, and SAM moves the weights of all."""
    a, b = (nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=1.0)
    a.grad, b.grad = torch.full_like(a, 3.0), torch.full_like(b, 4.0)
    with perturbed_weights(optimizer, 5.0):
        assert (a.item(), b.item()) == (3.0, 4.0)
    assert full(torch.device("cpu"), "float64").update(optimizer, 1.0).grad_norm == 5.0
    assert (a.item(), b.item()) == pytest.approx((-0.6, -0.4))


def test_checks_train_the_groups_too() -> None:
    """The optimizers of check=drift and check=precision have the groups of a run; the latter's rates are all zero."""
    config = compose([*TINY, "param_groups=norm_bias"])
    assert len(start_training("x", config).optimization.optimizer.param_groups) == 2
    step = make_profiled_step(build_partial_components(config), full(torch.device("cpu"), "float32"))
    assert [group["lr"] for group in step.optimizer.param_groups] == [0.0, 0.0]
