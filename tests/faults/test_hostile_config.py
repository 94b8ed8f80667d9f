"""A run directory is not trusted: evaluating an attacker's runs none of its code."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from microstep.config.allowlist import Allowlist, allowlist_from
from microstep.config.search_path import CONF
from microstep.errors import CheckpointRefused, ConfigError
from microstep.evaluation.evaluate import evaluate_run
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import error_of
from tests.faults.planted import FOREIGN, PLANTS, Node, evil, plant, run_with, sound, written
from tests.faults.zygote import Zygote

SLOTS = ("precision", "dataset", "task", "model", "accumulation", "sampler", "augment")  # built by evaluations
MLP = {"_target_": "microstep.components.model.mlp"}
SHIPPED = allowlist_from([CONF])


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that an attacker's code would make."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "marker"


def evaluate(run: Path, gate: Allowlist = SHIPPED) -> None:
    evaluate_run(run, "test", "best", gate, "cpu", ProgressBars(False))


@pytest.mark.parametrize("target", PLANTS)
def test_what_a_stranger_plants_would_run_if_it_were_let_in(tmp_path: Path, marker: Path, target: str) -> None:
    """The tests below can fail: trusted by name, each plant runs, except two that newer Hydras refuse, too."""
    run = run_with(tmp_path / "run", model=plant(target, marker))
    with pytest.raises(Exception) as caught:  # whatever it makes of it, it is no model
        evaluate(run, allowlist_from([CONF], [target]))
    blocked = target in ("builtins.exec", "os.system") and "blocklisted" in str(caught.value)
    assert marker.exists() or blocked


def test_a_run_of_ones_own_options_is_let_in(tmp_path: Path) -> None:
    """Names in conf/ are built; the error is then that this directory holds no finished run."""
    with pytest.raises((ConfigError, CheckpointRefused), match=r"run\.json|checkpoint"):
        evaluate(run_with(tmp_path / "run"))


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("target", PLANTS)
def test_a_foreign_target_is_refused_in_every_slot(tmp_path: Path, marker: Path, slot: str, target: str) -> None:
    """The line names the slot and the target, and says how to trust it."""
    run = run_with(tmp_path / "run", **{slot: plant(target, marker)})
    with pytest.raises(ConfigError, match=rf"^{slot}\._target_={target}: .*; .*trust=") as caught:
        evaluate(run)
    assert caught.value.exit_code == 2
    assert not marker.exists()


HIDINGS: dict[str, Callable[[Node], Node]] = {
    "list": lambda node: {**MLP, "hidden": [node]},
    "deep": lambda node: {**MLP, "hidden": {"a": [[{"b": node}]]}},
    "args": lambda node: {**MLP, "_args_": [node]},
    "a group's key": lambda node: {"hidden": node},
    "partial": lambda node: {**node, "_partial_": True},
    "not recursive": lambda node: {**MLP, "_recursive_": False, "hidden": node},
    "reference": lambda node: {**node, "_target_": "${optimizer.name}", "lr": 1},
    "reference to a node": lambda node: {**MLP, "hidden": "${optimizer.node}"},
    "pieces": lambda node: {**node, "_target_": "${optimizer.head}${optimizer.tail}"},
    "list of names": lambda node: {**node, "_target_": [node["_target_"]]},
}


@pytest.mark.parametrize("hiding", HIDINGS)
@pytest.mark.parametrize("target", PLANTS)
def test_a_foreign_target_is_refused_wherever_it_hides(tmp_path: Path, marker: Path, hiding: str, target: str) -> None:
    """Deeply nested, partially applied, behind a reference or assembled from parts: it is not built."""
    node = plant(target, marker)
    optimizer = {"name": target, "node": node, "head": target[:4], "tail": target[4:]}
    run = run_with(tmp_path / "run", model=HIDINGS[hiding](node), optimizer=optimizer)
    with pytest.raises(ConfigError, match="the run directory names it, your own conf/ does not"):
        evaluate(run)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["tests.faults.planted.Path.touch", "microstep.training.builders.Path", "", ".", "a b", "0"]
)
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    """A name by way of a module that imports it, or no name at all, is not on the allowlist."""
    with pytest.raises(ConfigError, match="the run directory names it, your own conf/ does not"):
        evaluate(run_with(tmp_path / "run", model={"_target_": name, "self": str(tmp_path)}))


def test_a_known_target_in_the_wrong_place_is_refused(tmp_path: Path) -> None:
    """A model's slot takes a Module, even if the name is trusted."""
    run = run_with(tmp_path / "run", model={"_target_": "microstep.components.dataset.digits"})
    refusal = r"^model\._target_=microstep\.components\.dataset\.digits: it makes no Module"
    with pytest.raises(ConfigError, match=refusal):
        evaluate(run)


def test_a_run_s_own_trust_opens_nothing(tmp_path: Path, marker: Path) -> None:
    """Trust comes from the command line only."""
    for changes in ({"trust": [FOREIGN]}, {"sweep": FOREIGN}, {"resume": FOREIGN}):
        with pytest.raises(ConfigError):
            evaluate(run_with(tmp_path / "run", model=evil(marker), **changes))
    assert not marker.exists()


@pytest.fixture
def asked(marker: Path) -> Any:
    """A resolver that makes the marker."""
    OmegaConf.register_new_resolver("asked", lambda *given: marker.touch())
    yield
    OmegaConf.clear_resolver("asked")


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    "changes",
    [
        {"model": {**MLP, "hidden": "${asked:1}"}},
        {"model": {**MLP, "hidden": ["x ${asked:${seed}}"]}},
        {"model": {**MLP, "hidden": {"a": r"\${asked:1}"}}},
        {"model": {**MLP, "a": r"\${asked", "b": ":1}", "hidden": "${model.a}${model.b}"}},
        {"model": {**MLP, "a": "$", "b": "{asked:1}", "hidden": "${model.a}${model.b}"}},
        {"model": {**MLP, "a": "asked:1", "hidden": "${${model.a}}"}},
        {"optimizer": {"lr": "${asked:1}"}},
        {"sweep": "${asked:1}"},
        {"device": "${asked:1}"},
        {"batch_size": "${asked:1}"},
    ],
)
def test_a_resolver_is_not_asked(tmp_path: Path, marker: Path, changes: dict[str, Any]) -> None:
    """Registered in this process or not, escaped with a backslash, or assembled from parts: none of it runs."""
    with pytest.raises(ConfigError):
        evaluate(run_with(tmp_path / "run", **changes))
    assert not marker.exists()


@pytest.mark.usefixtures("asked")
def test_a_resolver_would_be_asked_if_it_were_let_in(tmp_path: Path, marker: Path) -> None:
    """The test above can fail: a value that is trusted by its text is resolved."""
    with pytest.raises((ConfigError, CheckpointRefused)):
        evaluate(run_with(tmp_path / "run", sweep="${asked:1}"), allowlist_from([CONF], ["${asked:1}"]))
    assert marker.exists()


@pytest.mark.parametrize(
    "text", ["{{hidden: !!python/object/apply:os.system ['{}']}}", "!!python/object/new:os.system ['{}']"]
)
def test_a_tag_makes_no_object(tmp_path: Path, marker: Path, text: str) -> None:
    """Yaml tags for Python objects are refused like all others, and none of their code runs."""
    run = written(tmp_path / "run", sound() + "sweep: " + text.format(f"touch {marker}"))
    with pytest.raises(ConfigError, match="anchors or tags"):
        evaluate(run)
    assert not marker.exists()


WRONG = (None, -1, 2**63 - 1, 1e308, "", "x\0", "???", [], {}, [[]], {"_target_": None}, {"": ""}, True)


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.long), 6])
def test_damage_is_one_line_whatever_its_shape(tmp_path: Path, every: int) -> None:
    """A value of a wrong type in any key is an error of ours: never a traceback, never a hang."""
    cases = [(key, value) for key in yaml.safe_load(sound()) for value in WRONG]
    for key, value in cases[::every]:  # each key has two values, and each value many keys, as 13 and 6 are coprime
        try:
            evaluate(run_with(tmp_path / "run", **{key: value}))
        except (ConfigError, CheckpointRefused) as error:
            assert "\n" not in str(error)


CALLBACK = "{{evil: {{_target_: tests.faults.planted.stranger, file: '{}'}}}}"
HANDLER = (
    "{{version: 1, handlers: {{evil: {{(): tests.faults.planted.stranger, file: '{}'}}}}, root: {{handlers: [evil]}}}}"
)


def hydra_node(marker: Path) -> Node:
    """Return a node that Hydra would run if it were in Hydra's config."""
    text = f"callbacks: {CALLBACK}\njob_logging: {HANDLER}\nhydra_logging: {HANDLER}".format(*[marker] * 3)
    return {**yaml.safe_load(text), "searchpath": [f"file://{marker.parent}"], "run": {"dir": str(marker)}}


def test_a_hydra_node_is_no_part_of_an_experiment(tmp_path: Path, marker: Path) -> None:
    """Callbacks, logging handlers made by a factory, a search path, a run directory: refused unread."""
    whole = hydra_node(marker)
    for node in ({}, *({key: value} for key, value in whole.items()), whole):
        with pytest.raises(ConfigError, match=r"^run=.*config\.yaml is not an experiment's: Key 'hydra'"):
            evaluate(run_with(tmp_path / "run", hydra=node))
    assert not marker.exists()


def test_hydra_s_own_files_are_left_unread(zygote: Zygote, tmp_path: Path, marker: Path, trained: Path) -> None:
    """.hydra/ of a run is never read: the run is evaluated, and nothing planted there runs."""
    run = shutil.copytree(trained, tmp_path / "run")
    hydra = yaml.safe_dump({"hydra": hydra_node(marker)})
    (run / ".hydra" / "hydra.yaml").write_text(hydra)
    (run / ".hydra" / "config.yaml").write_text(hydra + sound())
    (run / ".hydra" / "overrides.yaml").write_text(f"- hydra.callbacks={CALLBACK.format(marker)}\n- model={FOREIGN}\n")
    done = zygote.call("evaluate.py", f"run={run}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not marker.exists()


def test_a_callback_of_one_s_own_does_run(zygote: Zygote, tmp_path: Path, marker: Path) -> None:
    """The two tests above can fail: typed by the user, the planted callback runs."""
    words = (f"+hydra.callbacks.evil._target_={FOREIGN}", f"+hydra.callbacks.evil.file={marker}")
    assert zygote.call("evaluate.py", "run=nowhere", *words, cwd=tmp_path).returncode == 2
    assert marker.exists()


def bomb() -> str:
    """Return a page of yaml that expands to 10^40 values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40)]
    return "\n".join(lines)


@pytest.mark.parametrize("text", [bomb(), sound() + bomb(), "a: " + "[" * 500_000, "x" * 2**21, "a: '" + "${" * 2**18])
def test_a_bomb_is_refused(tmp_path: Path, text: str) -> None:
    """Aliases of aliases, deep nesting and two megabytes are refused without much time or memory."""
    with pytest.raises(ConfigError, match=r"^run=.*config\.yaml (is no plain yaml|has no)"):
        evaluate(written(tmp_path / "run", text))


def pipe(run: Path) -> None:
    (run / "config.yaml").unlink()
    os.mkfifo(run / "config.yaml")


PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "target": lambda run, marker: run_with(run, model={**MLP, "hidden": [evil(marker)]}),
    "resolver": lambda run, marker: run_with(run, sweep="${oc.env:HOME}"),
    "bomb": lambda run, marker: written(run, bomb()),
    "pipe": lambda run, marker: pipe(run),
}


@pytest.mark.parametrize("name", PLANTED)
def test_the_program_refuses_with_exit_code_2(zygote: Zygote, tmp_path: Path, marker: Path, name: str) -> None:
    """`evaluate.py run=…` of an attacker's directory is refused in one line, runs none of it and leaves no file."""
    run = written(tmp_path / "run", sound())
    PLANTED[name](run, marker)
    done = zygote.call("evaluate.py", f"run={run}", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert error_of(done).startswith(
        f"error: model._target_={FOREIGN}: " if name == "target" else f"error: run={run}: "
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in run.iterdir()] == ["config.yaml"]


def test_the_program_builds_what_is_trusted_by_name(zygote: Zygote, tmp_path: Path, marker: Path) -> None:
    """The test above can fail: `trust=[…]` lets the same targets and interpolations in, and they run."""
    run = run_with(tmp_path / "run", model={**MLP, "hidden": [evil(marker)]}, sweep="${oc.env:HOME}")
    words = (f"run={run}", f"""trust=[{FOREIGN},"${{oc.env:HOME}}"]""")
    assert zygote.call("evaluate.py", *words, cwd=tmp_path).returncode == 2  # a marker is no hidden layer
    assert marker.exists()


def test_an_interpolation_of_one_s_own_conf_is_let_in(zygote: Zygote, tmp_path: Path, trained: Path) -> None:
    """Users whose own yaml reads the environment can evaluate their own runs."""
    run = shutil.copytree(trained, tmp_path / "run")
    text = (run / "config.yaml").read_text().replace("sweep: null", "sweep: ${oc.env:MINE}")
    (run / "config.yaml").write_text(text)
    assert zygote.call("evaluate.py", f"run={run}", cwd=tmp_path, MINE="s").returncode == 2
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "mine.yaml").write_text("# @package _global_\nsweep: ${oc.env:MINE}\n")
    done = zygote.call("evaluate.py", "--config-dir", "mine", f"run={run}", cwd=tmp_path, MINE="s")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_moves_no_cursor(tmp_path: Path) -> None:
    """An attacker's text is shown with escapes: nothing in it controls a terminal."""
    with pytest.raises(ConfigError) as caught:
        evaluate(run_with(tmp_path / "run", model={"_target_": "\x1b[2J\x1b]0;x\x07\u202egnp\n\udce9 é 数据"}))
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(r"model._target_=\x1b[2J\x1b]0;x\x07\u202egnp")
