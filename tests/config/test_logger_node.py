"""The node of loggers changes no result, whatever it holds, and takes any number of options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from microstep.config.allowlist import ALLOW_ALL, allowlist_from
from microstep.config.compose import Composer, compose
from microstep.config.experiment import extract_experiment
from microstep.config.hparams import extract_hparams
from microstep.config.names import job_name
from microstep.config.search_path import CONF
from microstep.errors import ConfigError
from microstep.run.resume import plan_auto_resume, plan_resume
from microstep.run.saved_run import SavedRun
from microstep.training.provenance import config_hash, experiment_hash, source_hash
from microstep.training.resume import resume
from microstep.training.source import digest_files

OLD = Path(__file__).parents[1] / "old_runs"
RUN = ("model=mlp", "model.hidden=[8]", "scheduler=constant", "threads=1", "progress=false", "epochs=2")
MINE = "# @package logger.mine\n_target_: tests.components.logger.sinks.Slow\npath: ${oc.env:PLACE}\n"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return an interrupted run of 0.1.0, whose config has no loggers."""
    return shutil.copytree(OLD / "interrupted", tmp_path / "run")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a conf/ with a logger of one's own, which refers to the environment."""
    monkeypatch.setenv("PLACE", str(tmp_path / "secret.jsonl"))
    (tmp_path / "conf" / "logger").mkdir(parents=True)
    (tmp_path / "conf" / "logger" / "mine.yaml").write_text(MINE)
    shutil.copy(CONF / "train.yaml", tmp_path / "conf")
    return tmp_path / "conf"


@pytest.mark.parametrize("words", [["logger=jsonl"], ["logger=[jsonl,mlflow]", "logger.jsonl.path=/etc/hosts"]])
def test_loggers_are_in_no_hash_and_in_no_name(words: list[str]) -> None:
    """Neither they nor their values, nor the files that these name, change what a run is."""
    plain, logged = compose(), compose(words)
    assert extract_experiment(logged) == extract_experiment(plain)
    assert config_hash(logged) == config_hash(plain)
    assert source_hash(logged) == source_hash(plain)
    assert experiment_hash(logged, "data") == experiment_hash(plain, "data")
    assert digest_files(logged) == {}
    assert extract_hparams(logged, {}) == extract_hparams(plain, {})
    assert job_name(["accum=2", *words, "+logger.jsonl.x=3"]) == "accum-2"


def test_several_loggers_have_nodes_of_their_own() -> None:
    """None is the default; a list adds each, with its keys below its name."""
    assert compose().logger == compose(["logger=[]"]).logger == {}
    config = compose(["logger=[mlflow,jsonl]", "logger.mlflow.experiment=mine", "logger.jsonl.path=a, b=(c).jsonl"])
    assert list(config.logger) == ["mlflow", "jsonl"]
    assert config.logger.mlflow.experiment == "mine"


def test_one_s_own_logger_is_an_option(own: Path) -> None:
    """A yaml in conf/logger is chosen like ours, and beside them."""
    assert list(compose(["logger=[mine,jsonl]"], own).logger) == ["mine", "jsonl"]
    (own / "logger" / "mine.yaml").write_text(MINE.partition("\n")[2])
    with pytest.raises(ConfigError, match=r"begin its yaml with: # @package logger\.NAME"):
        compose(["logger=mine"], own)


def test_a_resume_may_choose_other_loggers(run: Path, own: Path) -> None:
    """Those of the last resume stay; a key of one changes it; an empty list ends all. An old run begins without."""
    steps = (
        ([], []),
        (["logger=jsonl"], ["jsonl"]),
        ([], ["jsonl"]),
        (["logger.jsonl.path=there.jsonl"], ["jsonl"]),
        (["logger=mine"], ["mine"]),
        (["logger=[]"], []),
    )
    with Composer.open(own, "train") as composer:
        for words, names in steps:
            plan = plan_resume(run, composer, words, allowlist_from([own]))
            assert list(plan.config.logger) == names
            assert plan.overrides.keys() == ({"logger"} if words else set())
            record = json.loads((run / "run.json").read_text())
            resumed = [*record.get("resumed", []), {"overrides": plan.overrides}]
            (run / "run.json").write_text(json.dumps(record | {"resumed": resumed}))
    assert "secret" not in (run / "run.json").read_text()


def test_the_same_command_resumes_with_other_loggers(run: Path) -> None:
    """resume=auto takes those of the command."""
    for words, names in ((["logger=jsonl"], ["jsonl"]), ([], [])):
        plan = plan_auto_resume(run, compose([*RUN, *words]), ALLOW_ALL)
        assert list(plan.config.logger) == names


def test_an_old_run_is_resumed_with_a_logger(run: Path) -> None:
    """Its config.yaml has no such node."""
    resume(run, ["logger=jsonl", "log_every_steps=1"]).fit()
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val/loss" in line] == [2]
    assert json.loads((run / "run.json").read_text())["resumed"][-1]["overrides"]["logger"].keys() == {"jsonl"}


@pytest.mark.parametrize("name", ["../run", "a/b", "a b", ""])
def test_the_name_of_a_logger_is_no_path(run: Path, name: str) -> None:
    """A run directory is not trusted, and the name is in that of a file."""
    config = OmegaConf.load(run / "config.yaml")
    config.logger = {name: {"_target_": "microstep.components.logger.JsonLines"}}
    OmegaConf.save(config, run / "config.yaml")
    with pytest.raises(ConfigError, match="it builds no logger"):
        SavedRun.read(run).config(ALLOW_ALL)


@pytest.mark.parametrize("value", [{"mine": {"_target_": "x.Y", "path": "${oc.env:HOME}"}}, {"mine": 3}, 5, "jsonl"])
def test_loggers_of_a_hostile_record_are_refused(run: Path, value: object) -> None:
    """run.json is not trusted: a resolver must be in one's own conf/, and a logger must be one."""
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"resumed": [{"overrides": {"logger": value}}]}))
    with pytest.raises(ConfigError):
        SavedRun.read(run).config(allowlist_from([CONF]))
