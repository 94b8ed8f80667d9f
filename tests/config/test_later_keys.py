"""A key that is added to the config later changes no run that was made without it.

For every key in `LATER`: at its default it is left out of hashes and comparisons, so older runs are resumed, found and
compared as if it had been there; at any other value it is another experiment.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import MISSING, DictConfig, OmegaConf

from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import compose
from microstep.config.experiment import LATER, extract_experiment, public_experiment
from microstep.config.schema import TrainConfig
from microstep.errors import ConfigError
from microstep.evaluation.comparison.groups import group_runs
from microstep.evaluation.comparison.names import find_setting_differences
from microstep.evaluation.comparison.runs import ReportRequest, read_compared_run
from microstep.run import config as run_config
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.resume import plan_auto_resume, resume_overrides
from microstep.training import provenance as identity
from microstep.training.instantiation import build_component
from microstep.training.resume import resume, resume_trainer
from microstep.types.protocols import Precision

OLD = Path(__file__).parents[1] / "old_runs"
RUN = ("model=mlp", "model.hidden=[8]", "scheduler=constant", "threads=1", "progress=false", "epochs=2")
KEY = "precision.channels_last"  # a parameter of the constructor, null by default, that no yaml has
DEFAULT, OTHER = f"+{KEY}=null", f"+{KEY}=false"


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant a key that was added after the old runs were made."""
    monkeypatch.setitem(LATER, KEY, None)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return shutil.copytree(OLD / "interrupted", tmp_path / "run")


def test_at_its_default_the_hashes_are_the_old_ones(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hashes in run.json and in the checkpoint are unchanged; at another value they differ."""
    record = json.loads((run / "run.json").read_text())
    stored = Checkpoints(run / "checkpoints").load("last")["run"]["config"]
    monkeypatch.setattr(identity, "source_hash", lambda config: record["source_hash"])
    for word, fits in ((DEFAULT, True), (OTHER, False)):
        config = compose([*RUN, word])
        assert (identity.config_hash(config) == stored) is fits
        found = identity.experiment_hash(config, record["data"]["fingerprint"])
        assert (found == record["experiment_hash"]) is fits


def test_at_its_default_an_old_run_is_resumed(run: Path) -> None:
    """By the command that describes it today, and by name; another value is refused with both values."""
    with pytest.raises(ConfigError, match=rf"another experiment: {KEY}=False \(it has None\)"):
        plan_auto_resume(run, compose([*RUN, OTHER]), ALLOW_ALL)
    with pytest.raises(ConfigError, match=rf"another experiment: {KEY}=False \(it has None\)"):
        resume(run, [OTHER])
    named = shutil.copytree(run, run.with_name("named"))
    assert resume_trainer(plan_auto_resume(run, compose([*RUN, DEFAULT]), ALLOW_ALL)).fit().samples_seen == 2 * 1437
    assert resume(named, [DEFAULT]).fit().samples_seen == 2 * 1437


def test_a_run_with_the_key_typed_is_one_without(run: Path) -> None:
    """A default that is not null, too: the older run has no such key."""
    LATER[KEY] = True
    old, new = compose(RUN), compose([*RUN, f"+{KEY}=true"])
    assert (
        resume_overrides(old, new, [KEY], "resume=run") == resume_overrides(new, old, ["precision"], "resume=run") == {}
    )
    with pytest.raises(ConfigError, match="another experiment"):
        resume_overrides(old, compose([*RUN, OTHER]), [KEY], "resume=run")


def test_at_its_default_old_and_new_runs_are_one_group(tmp_path: Path) -> None:
    """At another value they are two, which differ in that key."""
    first, second = (shutil.copytree(run, tmp_path / run.name) for run in sorted((OLD / "sweep").glob("*/")))
    asked = ReportRequest("run", f"{tmp_path}/*", "test", "best")
    for value, groups in ((None, 1), (False, 2)):
        config = OmegaConf.load(second / "config.yaml")
        OmegaConf.update(config, KEY, value, force_add=True)
        OmegaConf.save(config, second / "config.yaml")
        found = group_runs([read_compared_run(run, asked, ALLOW_ALL) for run in (first, second)], "run")
        assert len(found) == groups
    assert find_setting_differences(*found) == {KEY: ("null", "false")}


def test_a_part_that_came_later_is_its_default_in_an_old_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group that 0.1.0 didn't have is in the config as if it had been chosen, and in no hash."""

    @dataclass
    class Later(TrainConfig):
        later: Any = MISSING

    default = {"_target_": "microstep.precision.full", "dtype": "float64"}
    before = run_config.load_run_config(run, ALLOW_ALL)
    monkeypatch.setitem(LATER, "later", default)
    monkeypatch.setattr(run_config, "TrainConfig", Later)
    config = run_config.load_run_config(run, ALLOW_ALL)
    assert config.later == default
    assert build_component(config, "later", Precision, device=torch.device("cpu")).name == "fp64"
    assert identity.config_hash(config) == identity.config_hash(before)
    config.later.dtype = "float32"
    assert identity.config_hash(config) != identity.config_hash(before)


def test_a_key_of_a_node_of_one_s_own_is_no_later_key() -> None:
    """A component of the user's may have had a key of that name all along: it stays in the hash."""
    config = compose([*RUN, DEFAULT])
    config.precision._target_ = "mine.Precision"
    assert KEY.partition(".")[2] in extract_experiment(config)["precision"]


def test_what_is_shown_has_every_key() -> None:
    """A table of settings has the same columns for every run, whatever is left out of the hash."""
    config: DictConfig = compose([*RUN, DEFAULT])
    assert "channels_last" in public_experiment(config)["precision"]
    assert "channels_last" not in extract_experiment(config)["precision"]


def test_a_name_that_is_trusted_is_not_resolved() -> None:
    """Neither for a hash nor for a comparison: the resolver need not even be known."""
    config = compose([*RUN, "trust=['${mine.twice:${accum}}']"])
    assert extract_experiment(config) == extract_experiment(compose(RUN))
