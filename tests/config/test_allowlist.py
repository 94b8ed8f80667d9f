"""Only names in the user's own yamls may be built or resolved."""

from __future__ import annotations

from pathlib import Path

import pytest

from microstep.config.allowlist import ALLOW_ALL, allowlist_from, find_targets, iter_values
from microstep.config.compose import compose
from microstep.config.experiment import get_trusted_names
from microstep.config.search_path import CONF
from microstep.errors import ConfigError

NODE = {"_target_": "a", "x": [{"_target_": "b"}, [{"y": {"_target_": "c"}}]], "z": "_target_"}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A directory of one's own yamls."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "net.yaml").write_text("_target_: mine.Net\ninner: [{_target_: mine.Layer}]\n")
    (tmp_path / "deep" / "data.yaml").write_text("root: ${oc.env:DATA,data}/x\nsize: ${mine.twice:${accum}}\n")
    return tmp_path


def test_everything_is_found_at_any_depth() -> None:
    """Lists, groups and groups inside nodes are searched, and nothing that isn't a target is one."""
    assert sorted(find_targets(NODE)) == ["a", "b", "c"]
    assert sorted(iter_values(NODE)) == ["_target_", "a", "b", "c"]
    ALLOW_ALL(NODE, "model")  # one's own config may hold anything
    ALLOW_ALL({"x": "${oc.env:HOME}"}, "model")


def test_one_s_own_yamls_and_the_trust_list_say_what_may_be_built(mine: Path) -> None:
    """A target that any of one's own yamls names may be built, one named in trust too, and no other."""
    gate = allowlist_from([mine], ["theirs.Net"])
    gate([{"_target_": "mine.Net", "x": {"_target_": "mine.Layer"}}, {"_target_": "theirs.Net"}], "model")
    with pytest.raises(ConfigError, match=r"^model\._target_=mine\.Other: the run directory names it, .*; .*trust="):
        gate({"_target_": "mine.Net", "x": [{"_target_": "mine.Other"}]}, "model")


def test_one_s_own_yamls_say_what_may_be_asked_for(mine: Path) -> None:
    """The very same text may ask a resolver, a reference to another key needs no leave, and other text is refused."""
    gate = allowlist_from([mine])
    gate.check_resolvers({"root": ["${oc.env:DATA,data}/x"], "width": "${accum}, ${model.width}"}, "run=r")
    for text in ("${oc.env:DATA,data}", "${oc.env:DATA,data}/y", "${oc.env:HOME}", "${ oc.env:DATA,data}/x"):
        with pytest.raises(ConfigError, match=r"^run=r: the run directory uses a resolver, .*trust="):
            gate.check_resolvers({"root": text}, "run=r")


def test_a_resolver_that_is_handed_a_key_must_be_trusted_by_name(mine: Path) -> None:
    """`${mine.twice:${accum}}` is one's own, but the value it gets would be the run directory's."""
    node = {"size": "${mine.twice:${accum}}"}
    with pytest.raises(ConfigError, match="uses a resolver"):
        allowlist_from([mine]).check_resolvers(node, "run=r")
    allowlist_from([mine], ["${mine.twice:${accum}}"]).check_resolvers(node, "run=r")


def test_what_is_resolved_may_ask_for_nothing_more(mine: Path) -> None:
    """Text that pieces were put together to is looked at again, where it is about to be built."""
    with pytest.raises(ConfigError, match=r"^model: the run directory uses a resolver, .* \$\{oc\.env:HOME\}; "):
        allowlist_from([mine])({"_target_": "mine.Net", "x": [{"y": "${oc.env:HOME}"}]}, "model")


def test_a_run_directory_never_speaks_for_itself(mine: Path) -> None:
    """Though it lies below a directory of one's own yamls, what it names is not one's own; a neighbour's is."""
    gate = allowlist_from([mine], run_dir=mine / "deep" / ".." / "deep" / "er")
    gate.check_resolvers({"root": "${oc.env:DATA,data}/x"}, "run=r")
    with pytest.raises(ConfigError, match="your own conf/ does not"):
        gate({"_target_": "mine.Net"}, "model")
    allowlist_from([mine], run_dir=mine / "deep" / "e")({"_target_": "mine.Net"}, "model")


def test_a_yaml_of_one_s_own_that_is_damaged_is_named(mine: Path) -> None:
    """One line says which."""
    (mine / "broken.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml: .*; correct the yaml") as caught:
        allowlist_from([mine])
    assert "\n" not in str(caught.value)


def test_an_interpolation_is_trusted_by_its_text() -> None:
    """`trust=[…]` takes it as typed: nobody asks the resolver, which need not even be known."""
    words = ["run=r", "trust=['${oc.env:NOBODY_SET_THIS}',\"${mine.twice:${accum}}\",a.Net]"]
    config = compose(words, CONF, "evaluate")
    assert get_trusted_names(config) == ["${oc.env:NOBODY_SET_THIS}", "${mine.twice:${accum}}", "a.Net"]
    assert get_trusted_names(compose(["run=r"], CONF, "evaluate")) == []
