"""The config of a run is read as plain data, and checked against the schema and the ranges."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from microstep.config.allowlist import ALLOW_ALL, allowlist_from
from microstep.config.compose import compose
from microstep.config.search_path import CONF
from microstep.errors import ConfigError
from microstep.run.config import MAX_DEPTH, load_run_config, read_run_yaml
from tests.conftest import irregular
from tests.faults.planted import run_with, sound, written

SHIPPED = allowlist_from([CONF])


@pytest.mark.parametrize(
    "text",
    [
        "sweep: ${oc.env:HOME}",
        "sweep: ${oc.decode:'1'}",
        "model: {hidden: '${oc.create:{a: 1}}'}",
        "model: {hidden: ['${oc.env:HOME}']}",
        "model: {a: {b: '${seed}, ${oc.env:HOME}'}}",
        "sweep: ${oc.env:${sweep}}",
        "sweep: ${${sweep}:x}",
        "sweep: '${ oc.env : HOME}'",
        "sweep: ${hydra:runtime.cwd}",
        "sweep: ${nobody.knows:this}",
        r"sweep: \${oc.env:HOME}",
    ],
)
def test_a_resolver_is_refused(tmp_path: Path, text: str) -> None:
    """A resolver that the user's own yamls do not name never runs; a reference to a key is allowed."""
    with pytest.raises(ConfigError, match="the run directory uses a resolver"):
        read_run_yaml(written(tmp_path, text), SHIPPED)
    assert read_run_yaml(tmp_path, ALLOW_ALL) == yaml.safe_load(text)
    assert read_run_yaml(written(tmp_path, "accum: 2\nmodel: {width: '${accum}'}"), SHIPPED) == {
        "accum": 2,
        "model": {"width": "${accum}"},
    }


@pytest.mark.parametrize("text", ["model: &a [*a]", "a: &a 1", "a: &a {b: 1}\nc: {<<: *a}", "model: *a"])
def test_anchors_are_refused(tmp_path: Path, text: str) -> None:
    """A run never writes anchors, and a few of them let a page of yaml expand to gigabytes."""
    with pytest.raises(ConfigError, match=r"config\.yaml is no plain yaml: it has anchors or tags; "):
        read_run_yaml(written(tmp_path, text), ALLOW_ALL)


def test_nesting_is_bounded(tmp_path: Path) -> None:
    """Fifty nested collections are accepted; one more is refused, as is any larger number."""
    read_run_yaml(written(tmp_path, f"model: {'[' * MAX_DEPTH}{']' * MAX_DEPTH}"), ALLOW_ALL)
    one_more = f"model: [{'[' * MAX_DEPTH}{']' * MAX_DEPTH}]"
    for text in (one_more, "model: " + "[" * 400_000, "model: " + "{a: " * 100_000, "- " * 100_000):
        with pytest.raises(ConfigError, match=r"config\.yaml is no plain yaml: it is nested too deep; "):
            read_run_yaml(written(tmp_path, text), ALLOW_ALL)


@pytest.mark.parametrize(
    "text",
    [
        "model: !mine 3",
        "model: !!python/name:os.system",
        "model: [",
        "\0",
        "\ufeffx: \u0007",
        "accum: !!bool perhaps",
        "accum: !!int x",
        "accum: !!timestamp x",
        "accum: !!float ''",
        "sweep: !!binary aGVsbG8=",
        "sweep: 2024-01-01",
        "sweep: 2024-99-99",
        "model: !!set {a}",
        "model: !!pairs [a: 1]",
        "model: !!omap [a: '${oc.env:HOME}']",
        f"accum: {'9' * 5000}",
        f"accum: 0x{'f' * 5000}",
        f"accum: {'1:' * 1000}1.5",
        "accum: -9223372036854775809",
    ],
)
def test_what_is_no_plain_yaml_is_refused(tmp_path: Path, text: str) -> None:
    """Tags, damage and huge numbers are refused in one line that names the run."""
    with pytest.raises(ConfigError, match=r"^run=.*config\.yaml is no plain yaml: .") as caught:
        read_run_yaml(written(tmp_path, text), ALLOW_ALL)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))


@pytest.mark.parametrize("text", ["- a\n- b", "", "x", "3"])
def test_what_holds_no_keys_is_refused(tmp_path: Path, text: str) -> None:
    """Plain yaml that is not a mapping is not an experiment."""
    with pytest.raises(ConfigError, match=r"^run=.*config\.yaml holds no experiment"):
        read_run_yaml(written(tmp_path, text), ALLOW_ALL)


def test_a_directory_without_a_config_is_no_run(tmp_path: Path) -> None:
    """A config that is far too large, not text or not a file is refused."""
    for missing in (tmp_path, tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(ConfigError, match=r"config\.yaml is not there; give the directory"):
            read_run_yaml(missing, ALLOW_ALL)
    with pytest.raises(ConfigError, match="far too large"):
        read_run_yaml(written(tmp_path, "#" * 2**21), ALLOW_ALL)
    (tmp_path / "config.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="no plain yaml"):
        read_run_yaml(tmp_path, ALLOW_ALL)


@pytest.mark.parametrize("kind", ["directory", "pipe", "device", "loop"])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, kind: str) -> None:
    """Reading a pipe would block and a device has no end; each is refused at once."""
    file = tmp_path / "config.yaml"
    irregular(file, kind)
    with pytest.raises(ConfigError, match=r"config\.yaml can't be read: (it is no regular file|Too many levels)"):
        read_run_yaml(tmp_path, ALLOW_ALL)


@pytest.mark.parametrize("text", ["epochs: many", "epoch: 3", "accum: [1]", "hydra: {callbacks: {}}", "accum: null"])
def test_a_config_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    """Unknown keys and keys of a wrong type mean damage or another version."""
    with pytest.raises(ConfigError, match=r"^run=.*config\.yaml is not an experiment's: .*; "):
        load_run_config(run_with(tmp_path, **yaml.safe_load(text)), SHIPPED)


@pytest.mark.parametrize("part", ["model", "accumulation", "scheduler"])
@pytest.mark.parametrize("value", [None, 3, "x", ["x"], "???", "${sweep}"])
def test_every_part_is_a_group_of_keys(tmp_path: Path, part: str, value: object) -> None:
    """The line names the missing group."""
    with pytest.raises(ConfigError, match=rf"^run=.*config\.yaml has no {part} to build; "):
        load_run_config(run_with(tmp_path, **{part: value}), SHIPPED)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": -1}, r"batch_size=-1: out of range; it must be at least 1"),
        ({"accum": 0}, "accum=0: out of range"),
        ({"max_grad_norm": float("nan")}, "max_grad_norm=nan: not a finite number"),
        ({"device": "gpu"}, "device=gpu: no such option"),
        ({"model": {"_target_": "microstep.components.model.mlp", "width": 0}}, r"model\.width=0: out of range"),
        (
            {"model": {"_target_": "microstep.components.model.mlp", "width": "${nowhere}"}},
            r"model\.width: can't be resolved",
        ),
        ({"model": {"_target_": "${model._target_}"}}, r"model\._target_: can't be resolved"),
    ],
)
def test_ranges_are_checked_again(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    """A config edited by hand is checked like the command line; run and key are named."""
    with pytest.raises(ConfigError, match=rf"^run=.*config\.yaml has {said}"):
        load_run_config(run_with(tmp_path, **changes), SHIPPED)


def test_a_run_s_own_config_comes_back_as_it_was(tmp_path: Path) -> None:
    """A written config is read back equal and typed, with its references unresolved."""
    config = load_run_config(written(tmp_path, sound()), SHIPPED)
    before = compose(["model=mlp", "threads=1"])
    assert OmegaConf.to_yaml(config) == OmegaConf.to_yaml(before) == sound()
    assert OmegaConf.get_type(config) == OmegaConf.get_type(before)


def test_a_sweep_is_no_run(tmp_path) -> None:
    """The line says how to name one of its runs, or several."""
    (tmp_path / "sweep.json").write_text("{}")
    for place in (tmp_path, tmp_path / "*"):
        with pytest.raises(ConfigError, match=r"config\.yaml is not there; name one of a sweep's runs, or compare"):
            load_run_config(place, ALLOW_ALL)
