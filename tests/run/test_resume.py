"""A resume is planned before torch is imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import Composer, compose
from microstep.config.search_path import CONF
from microstep.errors import ConfigError
from microstep.run.resume import ResumePlan, plan_auto_resume, plan_resume, should_resume

RUN = ("epochs=3", "scheduler=constant", "seed=5")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with the files that a plan needs."""
    (tmp_path / "run").mkdir()
    return described(tmp_path / "run", *RUN)


def described(run: Path, *words: str, **facts: object) -> Path:
    (run / "config.yaml").write_text(OmegaConf.to_yaml(compose(words)))
    (run / "run.json").write_text(json.dumps({"status": "interrupted"} | facts))
    return run


def resumed(run: Path, *words: str) -> ResumePlan:
    if "resume=auto" in words:
        return plan_auto_resume(run, compose(words), ALLOW_ALL)
    with Composer.open(CONF, "train") as composer:
        return plan_resume(run, composer, words, ALLOW_ALL)


def test_a_run_goes_on_with_its_own_config(run: Path) -> None:
    """Nothing of the program's defaults gets into it; references are still references."""
    found = resumed(run)
    assert (found.config.seed, found.config.epochs, found.overrides, found.finished) == (5, 3, {}, False)
    assert OmegaConf.to_container(found.config) == OmegaConf.to_container(compose(RUN))
    assert found.directory == run.resolve()


def test_an_earlier_resumes_changes_persist(run: Path) -> None:
    """Who resumed to five epochs on two threads goes on so; what is typed now comes on top."""
    described(run, *RUN, resumed=[{"overrides": {"epochs": 5, "threads": 2}}])
    found = resumed(run, "num_workers=1", "epochs=5")
    assert (found.config.epochs, found.config.threads, found.config.num_workers) == (5, 2, 1)
    assert found.overrides == {"num_workers": 1}
    with pytest.raises(ConfigError, match="epochs=4: the run has 5"):
        resumed(run, "epochs=4")


def test_words_are_held_against_the_runs_own_config(run: Path) -> None:
    """Not against the defaults: a run of a folder may be told where that lies now, and a misspelling is still one."""
    described(run, "dataset=image_folder", "dataset.root=/old", "model=mlp", "model.dropout=0.1")
    assert resumed(run, "dataset.root=/new").overrides == {"dataset.root": "/new"}
    assert resumed(run, "model=mlp", "model.dropout=0.1").overrides == {}
    with pytest.raises(ConfigError, match=r"dataset\.roto=/new: no such key; did you mean dataset\.root"):
        resumed(run, "dataset.roto=/new")
    with pytest.raises(ConfigError, match="threads=many: it is text; give null or a whole number"):
        resumed(run, "threads=many")
    with pytest.raises(ConfigError, match=r"model\.dropout=0\.3 \(it has 0\.1\)"):
        resumed(run, "model.dropout=0.3")


def test_auto_takes_back_no_epoch(run: Path) -> None:
    """A command that describes fewer epochs than the run has by now is another one, though it typed none."""
    with pytest.raises(ConfigError, match="epochs=2: the run has 3"):
        resumed(run, "resume=auto", "epochs=2", *RUN[1:])


def test_a_damaged_run_json_is_no_obstacle(run: Path) -> None:
    """The run goes on with what config.yaml says."""
    (run / "run.json").write_text('{"status": "fini')
    assert resumed(run).config.epochs == 3
    (run / "run.json").unlink()
    assert not resumed(run).finished


def test_a_finished_run_has_nothing_left_to_do(run: Path) -> None:
    """Unless it is given more epochs."""
    described(run, *RUN, status="finished")
    assert resumed(run).finished
    assert resumed(run, "num_workers=2", "epochs=3").finished
    assert not resumed(run, "epochs=4").finished


def test_auto_wants_the_whole_experiment_to_be_the_runs(run: Path) -> None:
    """Also what was not typed this time: the keys that differ are named with both values."""
    assert resumed(run, "resume=auto", *RUN, "num_workers=2").overrides == {"num_workers": 2}
    with pytest.raises(ConfigError) as caught:
        resumed(run, "resume=auto", "epochs=3", "optimizer.lr=0.5")
    line = str(caught.value)
    assert line.startswith(f"resume={run}: this is another experiment: ")
    for told in (
        "seed=0 (it has 5)",
        "optimizer.lr=0.5 (it has 0.03)",
        "microstep.components.scheduler.cosine (it has microstep",
    ):
        assert told in line


def test_auto_takes_a_recipe_that_is_the_runs(run: Path) -> None:
    """The command with `experiment=` that started a run resumes it; another one is refused."""
    words = ("experiment=fashion_amp", "dataset.root=/data")
    described(run, *words)
    assert resumed(run, "resume=auto", *words).overrides == {}
    with pytest.raises(ConfigError, match=r"batch_size=64 \(it has 128\)"):
        resumed(run, "resume=auto", "dataset=fashion_mnist", "precision=amp", "dataset.root=/data")
    with pytest.raises(ConfigError, match="experiment= describes a whole run"):
        resumed(run, f"resume={run}", *words)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "config.yaml is not there; "),
        ("", "config.yaml holds no experiment; "),
        ("[1, 2]", "config.yaml holds no experiment; "),
        ("{", "config.yaml is no plain yaml: "),
        ("+epochs: many", "config.yaml is not an experiment's: "),
        ("+nonsense: 1", "config.yaml is not an experiment's: "),
        ("+model: 3", "config.yaml has no model to build"),
        ("+batch_size: 0", "config.yaml has batch_size=0: out of range; "),
    ],
)
def test_what_is_no_run_directory_is_refused(run: Path, content: str | None, says: str) -> None:
    """In one line that begins with what was typed."""
    if content is None:
        (run / "config.yaml").unlink()
    elif content.startswith("+"):  # beside what was there
        key = content[1:].partition(":")[0]
        plain = yaml.safe_load((run / "config.yaml").read_text())
        (run / "config.yaml").write_text(yaml.safe_dump(plain | {key: yaml.safe_load(content[1:])[key]}))
    else:
        (run / "config.yaml").write_text(content)
    with pytest.raises(ConfigError) as caught:
        resumed(run)
    assert str(caught.value).startswith(f"resume={run}: {says}")


def test_auto_goes_on_where_there_is_a_run(run: Path, tmp_path: Path) -> None:
    """And starts where there is none; a directory that was named always goes on; without resume nothing does."""
    assert should_resume("auto", run)
    assert not should_resume("auto", tmp_path)
    assert should_resume(str(tmp_path), tmp_path)
    assert not should_resume(None, run)
