"""A run directory is not trusted: a stranger's config can run nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from microstep import compose
from microstep.again import evaluate_run, run_config
from microstep.composer import CONF
from microstep.errors import CheckpointRefused, ConfigError
from microstep.gate import LARGEST, Gate, own, read_run_config, targets_in, targets_of, trusting
from microstep.logger import Bars
from tests.conftest import call

GROUPS = ("precision", "dataset", "task", "model", "accumulation")  # what an evaluation builds
FOREIGN = "tests.test_gate.stranger"


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a stranger's code would make."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "marker"


def stranger(file: str) -> None:
    """What no yaml of ours names."""
    Path(file).touch()


def evil(file: Path) -> dict[str, Any]:
    """Return a node that makes a file when it is built."""
    return {"_target_": FOREIGN, "file": str(file)}


def run_with(directory: Path, **changes: Any) -> Path:
    """Return a run directory whose config has been tampered with."""
    plain = OmegaConf.to_container(compose(["model=mlp", "threads=1"]))
    assert isinstance(plain, dict)
    text = yaml.safe_dump({**plain, **changes})
    return written(directory, text)


def written(directory: Path, text: str) -> Path:
    """Return a run directory with this config.yaml."""
    directory.mkdir(exist_ok=True)
    (directory / "config.yaml").write_text(text, encoding="utf-8")
    return directory


def evaluate(run: Path, gate: Gate) -> None:
    evaluate_run(run, "test", "best", gate, "cpu", Bars(False))


def shipped() -> Gate:
    return trusting(targets_of([CONF]))


def test_what_a_stranger_plants_would_run_if_it_were_let_in(tmp_path: Path, marker: Path) -> None:
    """The tests below can fail: trusted by name, the planted target does run; and then it makes no model."""
    run = run_with(tmp_path / "run", model=evil(marker))
    with pytest.raises(ConfigError, match="it makes no Module"):
        evaluate(run, trusting(targets_of([CONF], [FOREIGN])))
    assert marker.exists()


def test_a_run_of_ones_own_options_is_let_in(tmp_path: Path) -> None:
    """What conf/ names is built; only then is it missed that this directory holds no finished run."""
    with pytest.raises((ConfigError, CheckpointRefused), match=r"run\.json|checkpoint"):
        evaluate(run_with(tmp_path / "run"), shipped())


@pytest.mark.parametrize("group", GROUPS)
def test_a_foreign_target_is_refused_in_every_group(tmp_path: Path, marker: Path, group: str) -> None:
    """The line names the slot and the target, and says how to trust it."""
    with pytest.raises(ConfigError, match=rf"^{group}\._target_={FOREIGN}: .*; .*trust=") as caught:
        evaluate(run_with(tmp_path / "run", **{group: evil(marker)}), shipped())
    assert caught.value.exit_code == 2
    assert not marker.exists()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda node: {"_target_": "microstep.model.mlp", "hidden": [node]},
        lambda node: {"_target_": "microstep.model.mlp", "hidden": {"a": [[{"b": node}]]}},
        lambda node: {"_target_": "microstep.model.mlp", "_args_": [node]},
        lambda node: {"hidden": node},
        lambda node: {**node, "_partial_": True},
        lambda node: {**node, "_target_": "${sweep}"},
        lambda node: {**node, "_target_": "builtins.exec"},
        lambda node: {**node, "_target_": [FOREIGN]},
        lambda node: {**node, "_target_": "tests.test_gate.Path.cwd"},
    ],
)
def test_a_foreign_target_is_refused_wherever_it_hides(tmp_path: Path, marker: Path, wrap: Any) -> None:
    """Deep inside, half applied, behind a reference or another name: it is not built."""
    run = run_with(tmp_path / "run", sweep=FOREIGN, model=wrap(evil(marker)))
    with pytest.raises(ConfigError, match="the run directory names it, your own conf/ does not"):
        evaluate(run, shipped())
    assert not marker.exists()


def test_a_known_target_in_the_wrong_place_is_refused(tmp_path: Path) -> None:
    """A model's slot takes a Module, even where the name is trusted."""
    run = run_with(tmp_path / "run", model={"_target_": "microstep.dataset.digits"})
    with pytest.raises(ConfigError, match=r"^model\._target_=microstep\.dataset\.digits: it makes no Module"):
        evaluate(run, shipped())


@pytest.mark.parametrize(
    "text",
    [
        "sweep: ${oc.env:HOME}",
        "model: {hidden: ['${oc.env:HOME}']}",
        "model: {a: {b: '${seed}, ${oc.env:HOME}'}}",
        "sweep: ${oc.env:${sweep}}",
        "sweep: ${${sweep}:x}",
        "a: &a ${oc.env:HOME}\nsweep: *a",
        "sweep: '${ oc.env : HOME}'",
        "sweep: ${hydra:runtime.cwd}",
    ],
)
def test_a_resolver_is_refused(tmp_path: Path, text: str) -> None:
    """Nothing asks for the environment, or runs a resolver's code; a reference to another key may stand."""
    with pytest.raises(ConfigError, match=r"config\.yaml asks a resolver"):
        read_run_config(written(tmp_path, text))
    assert read_run_config(written(tmp_path, "accum: 2\nmodel: {width: '${accum}'}")) == {
        "accum": 2,
        "model": {"width": "${accum}"},
    }


@pytest.mark.parametrize("tag", ["!!pairs", "!!omap"])
def test_a_resolver_in_a_pair_is_refused(tmp_path: Path, tag: str) -> None:
    """No kind of yaml's own collections hides a resolver."""
    with pytest.raises(ConfigError, match="resolver"):
        run_config(written(tmp_path, f"model: {{hidden: {tag} [a: '${{oc.env:HOME}}']}}"))


def test_a_config_that_holds_itself_is_refused(tmp_path: Path) -> None:
    """An alias of itself is damage like any other."""
    with pytest.raises(ConfigError):
        read_run_config(written(tmp_path, "model: &a [*a]"))


@pytest.mark.parametrize(
    "text",
    [
        "model: !!python/object/apply:os.system ['touch marker']",
        "!!python/object/new:os.system ['touch marker']",
        "model: !!python/name:os.system",
        "model: !mine 3",
        "model: [",
        "- a\n- b",
        "",
        "\0",
        "\ufeffx: \u0007",
    ],
)
def test_what_is_no_plain_yaml_is_refused(tmp_path: Path, marker: Path, text: str) -> None:
    """Tags that make objects, damage and other things than an experiment: one line that names the run."""
    with pytest.raises(ConfigError, match=r"^run=.*config\.yaml (is no plain yaml|holds no experiment)"):
        read_run_config(written(tmp_path, text))
    assert not marker.exists()


def test_a_directory_without_a_config_is_no_run(tmp_path: Path) -> None:
    """Neither is one whose config is far too large to be one, or is no text."""
    with pytest.raises(ConfigError, match=r"config\.yaml is not there"):
        read_run_config(tmp_path)
    with pytest.raises(ConfigError, match="far too large"):
        read_run_config(written(tmp_path, "#" * (LARGEST + 1)))
    (tmp_path / "config.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="no plain yaml"):
        read_run_config(tmp_path)


@pytest.mark.parametrize("text", ["epochs: many", "epoch: 3", "model: !!set {a}", "accum: [1]"])
def test_a_config_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    """What the schema doesn't have, or not so, is damage or another version's."""
    with pytest.raises(ConfigError, match=r"^run=.*config\.yaml is not an experiment's: .*; "):
        run_config(written(tmp_path, text))


def test_targets_are_found_at_any_depth() -> None:
    """Lists, groups and groups inside nodes are searched, and nothing that isn't a target is one."""
    node = {"_target_": "a", "x": [{"_target_": "b"}, [{"y": {"_target_": "c"}}]], "z": "_target_"}
    assert sorted(targets_in(node)) == ["a", "b", "c"]
    own(node, "model")  # one's own config may hold anything


def test_conf_and_the_trust_list_say_what_is_trusted(tmp_path: Path) -> None:
    """A target that any of one's own yamls names may be built, one named in trust too, and no other."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "mine.yaml").write_text("_target_: mine.Net\ninner: {_target_: mine.Layer}\n")
    assert targets_of([tmp_path], ["theirs.Net"]) == {"mine.Net", "mine.Layer", "theirs.Net"}
    trusting(targets_of([tmp_path]))({"_target_": "mine.Net"}, "model")
    with pytest.raises(ConfigError):
        trusting(targets_of([tmp_path]))({"_target_": "mine.Other"}, "model")


@pytest.mark.parametrize("planted", ["target", "resolver", "tag"])
def test_the_program_refuses_with_exit_code_2(tmp_path: Path, marker: Path, planted: str) -> None:
    """`evaluate.py run=…` on a stranger's directory: it says what it found, and runs none of it."""
    run = run_with(tmp_path / "run", model={"_target_": "microstep.model.mlp", "hidden": [evil(marker)]})
    if planted == "resolver":
        run = run_with(tmp_path / "run", sweep="${oc.env:HOME}")
    if planted == "tag":
        written(run, f"model: !!python/object/apply:os.system [\"touch '{marker}'\"]")
    done = call("evaluate.py", f"run={run}", cwd=tmp_path)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2
    assert last.startswith(f"error: model._target_={FOREIGN}: " if planted == "target" else f"error: run={run}: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert [path.name for path in run.iterdir()] == ["config.yaml"]
