"""A component that has moved is the same component, under the name of any version."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from torch import nn

from microstep.components.model import mlp
from microstep.config import targets
from microstep.config.allowlist import ALLOW_ALL, allowlist_from, find_targets
from microstep.config.compose import compose
from microstep.config.experiment import precision_is_measured
from microstep.config.search_path import CONF
from microstep.config.signatures import find_signature
from microstep.config.targets import NAMES, current, original, renamed
from microstep.errors import ConfigError
from microstep.evaluation.comparison.groups import group_runs
from microstep.evaluation.comparison.runs import ReportRequest, read_compared_run
from microstep.run.resume import check_no_changes, experiment_differences, resume_overrides
from microstep.training.instantiation import build_component
from microstep.training.provenance import config_hash, experiment_hash, source_hash

OLD = Path(__file__).parents[1] / "old_runs"
MOVED = "microstep.components"


def moved(target: str) -> str:
    """Return the name of a component after the move."""
    found = targets.match_component(target)
    return f"{MOVED}.{found['group']}.{found['name']}" if found else target


def respelled(config: DictConfig) -> DictConfig:
    """Return the config with the other name of each component: that of 0.1.0, or the one after the move."""
    copy = config.copy()
    for group in NAMES:
        target = copy[group]._target_
        OmegaConf.update(copy, f"{group}._target_", moved(target) if original(target) == target else original(target))
    assert copy != config
    return copy


@pytest.fixture(params=["microstep", MOVED])
def components(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Root package of the components: before they moved, and after."""
    find_signature.cache_clear()
    monkeypatch.setattr(targets, "COMPONENTS", request.param)
    yield request.param
    find_signature.cache_clear()


def test_conf_still_names_every_component_of_0_1_0() -> None:
    """But for the optimizers, which are torch's. Later components have one name only."""
    files = [file for file in CONF.glob("*/*.yaml") if file.parent.name not in ("experiment", "hydra", "optimizer")]
    named = {target for file in files for target in find_targets(yaml.safe_load(file.read_text()))}
    assert {original(target) for target in named} >= {f"microstep.{g}.{n}" for g, names in NAMES.items() for n in names}


@pytest.mark.parametrize(
    "target",
    [
        "microstep.precision.auto",
        "microstep.precision.automatic.auto",
        "microstep.components.precision.auto",
        "microstep.components.precision.presets.auto",
    ],
)
def test_every_spelling_is_one_component(components: str, target: str) -> None:
    """With or without the module between the group and the name."""
    assert current(target) == f"{components}.precision.auto"


@pytest.mark.parametrize(
    "target",
    [
        *(
            "torch.optim.SGD",
            "mine.model.mlp",
            "os.system",
            "",
            "microstep.mlp",
            "microstep.model",
            "microstep.model.",
        ),
        *(
            "microstep.model.mine",
            "microstep.modelx.mlp",
            "microstep.components.mine.mlp",
            "microstep.model.mlp()",
        ),
    ],
)
def test_any_other_target_passes(components: str, target: str) -> None:
    """A name that is not in the table is never renamed."""
    assert (current(target), original(target)) == (target, target)


def test_a_target_is_renamed_at_any_depth() -> None:
    """And nothing else: a value that reads like a target is none."""
    node = {"_target_": "a", "x": [{"_target_": "b", "y": "c"}], "z": {"_target_": 3}}
    assert renamed(node, str.upper) == {"_target_": "A", "x": [{"_target_": "B", "y": "c"}], "z": {"_target_": 3}}


def test_hashes_are_of_the_first_spelling(components: str) -> None:
    """A run described today has the hash that the same run got from 0.1.0, and a stored config keeps its own."""
    one = compose(["precision=fp32"])
    long = one.copy()
    long.precision._target_ = "microstep.precision.plain.full"
    assert config_hash(respelled(one)) == config_hash(one) != config_hash(long)
    assert experiment_hash(respelled(one), "data") == experiment_hash(one, "data")
    assert source_hash(respelled(one)) == source_hash(one)


def test_a_moved_experiment_is_not_another_one(components: str) -> None:
    """`resume=auto` and typed words: the spelling makes no difference, the component does."""
    run = compose(["model=mlp", "scheduler=constant"])
    for one, other in ((run, respelled(run)), (respelled(run), run)):
        assert not experiment_differences(one, other)
        assert resume_overrides(one, other, ["model", "scheduler._target_"], "resume=run") == {}
    different = experiment_differences(run, respelled(compose(["scheduler=constant", "model=small_cnn"])))
    with pytest.raises(ConfigError, match=rf"model\._target_={components}\.model\.SmallCNN \(it has microstep"):
        check_no_changes(different, set(), run, "resume=run")


@pytest.mark.parametrize("spelled", [str, moved])
def test_the_allowlist_knows_a_component_under_every_name(components: str, tmp_path: Path, spelled) -> None:
    """Whether it is named in a yaml or in `trust`, and however the run directory spells it."""
    (tmp_path / "net.yaml").write_text(f"_target_: {spelled('microstep.model.mlp')}\n")
    gate = allowlist_from([tmp_path], [spelled("microstep.step.SAMStep")])
    for name in ("model.mlp", "components.model.mlp", "step.SAMStep", "components.step.SAMStep"):
        gate({"_target_": f"microstep.{name}"}, "model")
    for other in ("microstep.model.resnet18", "microstep.components.model.resnet18", "os.system"):
        with pytest.raises(ConfigError, match="the run directory names it"):
            gate({"_target_": other}, "model")


def test_a_measured_precision_is_known_under_every_name(components: str) -> None:
    """The measured precision is part of such an experiment."""
    config = compose(["precision=auto"])
    for target in ("precision.auto", "components.precision.auto", "precision.automatic.auto"):
        config.precision._target_ = f"microstep.{target}"
        assert precision_is_measured(config)
    assert not precision_is_measured(respelled(compose(["precision=fp32"])))


def test_a_signature_is_found_under_every_name() -> None:
    """A constructor's parameters are those of the component, wherever it is."""
    found = find_signature("microstep.components.model.mlp")
    assert found == find_signature("microstep.model.mlp")
    assert found is not None and "hidden" in found.parameters


@pytest.mark.parametrize("spelled", [str, moved])
def test_a_component_is_built_under_every_name(spelled) -> None:
    """One that is nested in another node too."""
    config = compose(["model=mlp"])
    inner = {
        "_target_": spelled("microstep.model.mlp"),
        "hidden": [8],
        "input_shape": [1, 8, 8],
        "num_classes": 10,
    }
    OmegaConf.update(config, "model", {"_target_": "torch.nn.Sequential", "_args_": [inner]}, merge=False)
    assert isinstance(build_component(config, "model", nn.Module)[0], type(mlp([1, 8, 8], 10, [8])))
    config.step._target_ = spelled("microstep.step.StandardStep")
    with pytest.raises(ConfigError, match=rf"step\._target_={config.step._target_}: it makes no Module"):
        build_component(config, "step", nn.Module, precision=None, task=None, metrics=None, max_grad_norm=None)


def test_runs_of_one_experiment_are_one_group(components: str, tmp_path: Path) -> None:
    """However each was spelled: two runs that differ in their seeds alone."""
    first, second = (shutil.copytree(run, tmp_path / run.name) for run in sorted((OLD / "sweep").glob("*/")))
    config = OmegaConf.load(second / "config.yaml")
    assert isinstance(config, DictConfig)
    OmegaConf.save(respelled(config), second / "config.yaml")
    asked = ReportRequest("run", f"{tmp_path}/*", "test", "best")
    (found,) = group_runs([read_compared_run(run, asked, ALLOW_ALL) for run in (first, second)], "run")
    assert found.seeds == [0, 1]
    assert found.first.settings["model"]["_target_"] == f"{components}.model.mlp"
