"""A resume builds more than an evaluation does, and trusts a run directory no more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import MISSING

from microstep.config.allowlist import ALLOW_ALL, allowlist_from
from microstep.config.compose import Composer
from microstep.config.schema import TrainConfig
from microstep.config.search_path import CONF
from microstep.errors import ConfigError
from microstep.run.resume import ResumePlan, plan_resume
from microstep.training.resume import resume_trainer
from tests.faults.planted import FOREIGN, evil
from tests.faults.runs import manifest_of, unfinished
from tests.faults.zygote import Zygote

SLOTS = [name for name, field in TrainConfig.__dataclass_fields__.items() if field.default == MISSING]


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of a finished run that looks as if it had been interrupted."""
    return unfinished(trained, tmp_path / "run")


def plant(run: Path, slot: str, node: Any) -> None:
    plain = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(plain | {slot: node}))


@pytest.fixture
def forged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the hash of the config in the checkpoint: an attacker would forge it, too."""
    monkeypatch.setattr("microstep.training.resume.check_unchanged", lambda *_: None)


def resumed(run: Path, gate: Any) -> ResumePlan:
    with Composer.open(CONF, "train") as composer:
        return plan_resume(run, composer, [], gate)


@pytest.mark.usefixtures("forged")
@pytest.mark.parametrize("slot", SLOTS)
def test_a_resume_builds_nothing_that_ones_own_conf_does_not_name(run: Path, tmp_path: Path, slot: str) -> None:
    """This holds in any slot, also in those that an evaluation does not build, and nested in a valid node."""
    marker = tmp_path / "marker"
    sound = yaml.safe_load((run / "config.yaml").read_text())[slot]
    for node in (evil(marker), sound | {"extra": [evil(marker)]}):
        plant(run, slot, node)
        with pytest.raises(ConfigError, match=rf"^{slot}\._target_={FOREIGN}: the run directory names it"):
            resume_trainer(resumed(run, allowlist_from([CONF])))
        assert not marker.exists()


@pytest.mark.usefixtures("forged")
def test_an_option_of_a_parameter_group_builds_nothing_either(run: Path, tmp_path: Path) -> None:
    """Hydra would build a node in any argument of a constructor."""
    marker = tmp_path / "marker"
    plant(run, "optimizer", {"_target_": "torch.optim.Adam", "lr": 0.1})
    plant(run, "param_groups", [{"match": "bias", "betas": evil(marker)}])
    with pytest.raises(ConfigError, match=rf"^param_groups\._target_={FOREIGN}: the run directory names it"):
        resume_trainer(resumed(run, allowlist_from([CONF])))
    assert not marker.exists()


@pytest.mark.usefixtures("forged")
def test_it_would_run_if_it_were_let_in(run: Path, tmp_path: Path) -> None:
    """The test above can fail: if the run is trusted, the plant is built, and is then refused as an optimizer."""
    marker = tmp_path / "marker"
    plant(run, "optimizer", evil(marker))
    with pytest.raises(ConfigError):
        resume_trainer(resumed(run, ALLOW_ALL))
    assert marker.exists()


@pytest.mark.parametrize("node", ["callbacks", "job_logging", "resolver", "tag", "run.json"])
def test_the_program_refuses_before_anything_is_touched(zygote: Zygote, run: Path, tmp_path: Path, node: str) -> None:
    """Exit code 2 and one line; checkpoints and logs are as they were, and so is .hydra/."""
    marker = tmp_path / "marker"
    text = (run / "config.yaml").read_text()
    planted = {
        "callbacks": yaml.safe_dump({"hydra": {"callbacks": {"mine": evil(marker)}}}),
        "job_logging": yaml.safe_dump({"hydra": {"job_logging": {"handlers": {"x": {"()": FOREIGN}}}}}),
        "resolver": "sweep: ${oc.env:HOME}\n",
        "tag": f"sweep: !!python/object/apply:os.system [\"touch '{marker}'\"]\n",
        "run.json": "",
    }
    (run / "config.yaml").write_text(text.replace("sweep: null\n", "") + planted[node])
    if node == "run.json":
        changes = {"model._target_": FOREIGN, "trust": [FOREIGN]}
        (run / "run.json").write_text(json.dumps({"status": "interrupted", "resumed": [{"overrides": changes}]}))
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    assert zygote.run("train.py", f"resume={run}", cwd=tmp_path) == 2
    assert len((tmp_path / "output.txt").read_text().splitlines()) == 1
    assert not marker.exists()
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    assert manifest_of(run)
