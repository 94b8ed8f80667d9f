"""A constructor's parameters are read from its source, without importing it."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_object

from microstep.config.allowlist import find_targets
from microstep.config.search_path import CONF
from microstep.config.signatures import annotated_scalars, find_signature, find_source

YAMLS = [file for file in CONF.rglob("*.yaml") if "hydra" not in file.parts]  # a plugin is Hydra's to build
TARGETS = sorted({t for file in YAMLS for t in find_targets(yaml.safe_load(file.read_text("utf-8")))})


@pytest.mark.parametrize("target", TARGETS)
def test_every_shipped_target_is_read_as_python_sees_it(target: str) -> None:
    """Names, defaults and **kwargs are those that `inspect` finds in the imported object."""
    found, parameters = find_signature(target), inspect.signature(get_object(target)).parameters
    assert found is not None
    named = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    assert list(found.parameters) == list(named)
    assert found.optional == {name for name, p in named.items() if p.default is not p.empty}
    assert found.accepts_any_keyword == (len(named) < len(parameters))


@pytest.mark.parametrize(
    ("annotation", "admitted"),
    [
        ("int", {"int"}),
        ("int | None", {"int", "None"}),
        ("Optional[float]", {"float", "None"}),
        ("Union[float, str]", {"float", "str"}),
        ("'int | None'", {"int", "None"}),
        ("float | Tensor", {"float"}),
        ("bool", {"bool"}),
        ("Sequence[int]", set()),
        ("int | list[int]", set()),
        ("tuple[float, float]", set()),
        ("dict[str, int]", set()),
        ("Any", set()),
        ("torch.device", set()),
        ("Literal['a', 'b']", set()),
    ],
)
def test_an_annotation_admits_its_scalars(annotation: str, admitted: set[str]) -> None:
    """Plain types are held to; where a container or anything unknown may go, nothing is."""
    assert annotated_scalars(ast.parse(annotation, mode="eval").body) == admitted


@pytest.mark.parametrize(
    "annotation", ["List[int]", "Tuple[int, int]", "Dict[str, int]", "set[int]", "Collection[int]"]
)
def test_a_container_under_another_name_is_a_container(annotation: str) -> None:
    """`hidden: List[int]` does not refuse `model.hidden=[1,2]`."""
    assert annotated_scalars(ast.parse(annotation, mode="eval").body) == set()


def test_optional_with_its_module_is_optional() -> None:
    """`typing.Optional[int]` admits null."""
    assert annotated_scalars(ast.parse("typing.Optional[int]", mode="eval").body) == {"int", "None"}


def test_no_annotation_says_nothing() -> None:
    """A parameter without an annotation takes anything."""
    assert annotated_scalars(None) == set()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of somebody else's, which must not be imported."""
    root = tmp_path / "foreign_models"
    (root / "deep").mkdir(parents=True)
    (root / "__init__.py").write_text("raise SystemExit('imported')\nfrom foreign_models.deep import Net as Renamed\n")
    (root / "deep" / "__init__.py").write_text("from .net import Net\nfrom ..other import make\n")
    (root / "deep" / "net.py").write_text("class Net:\n    def __init__(self, a, /, b: int, *c, d: str = '', e): ...\n")
    (root / "other.py").write_text("def make(x: float = 1.0, **options): ...\nclass Bare: ...\nvalue = 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    find_signature.cache_clear()
    return root


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("target", ["foreign_models.Renamed", "foreign_models.deep.Net", "foreign_models.deep.net.Net"])
def test_a_class_is_found_through_its_reexports(target: str) -> None:
    """`from … import … as …` is followed, absolute and relative, and nothing is run on the way."""
    found = find_signature(target)
    assert found is not None
    assert found.parameters == {"a": set(), "b": {"int"}, "d": {"str"}, "e": set()}
    assert (found.optional, found.accepts_any_keyword) == ({"d"}, False)
    assert "foreign_models" not in sys.modules


@pytest.mark.usefixtures("package")
def test_a_function_that_takes_anything_is_open() -> None:
    """**kwargs are seen, through a relative import of the package above."""
    found = find_signature("foreign_models.deep.make")
    assert found is not None
    assert (found.parameters, found.optional, found.accepts_any_keyword) == ({"x": {"float"}}, {"x"}, True)


@pytest.mark.usefixtures("package")
def test_a_class_without_a_constructor_has_no_parameters() -> None:
    found = find_signature("foreign_models.other.Bare")
    assert found is not None and not found.parameters


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    "target",
    [
        "foreign_models.other.value",
        "foreign_models.nope.Net",
        "nope.Net",
        "Net",
        "sys.exit",
    ],
)
def test_what_the_source_does_not_tell_is_none(target: str) -> None:
    """A value, something missing, something built in: no signature, and no error."""
    assert find_signature(target) is None


@pytest.mark.usefixtures("package")
def test_a_circle_of_reexports_ends(package: Path) -> None:
    """Two modules that import a name from each other have no signature of it."""
    (package / "ring.py").write_text("from foreign_models.ring import Net\n")
    assert find_signature("foreign_models.ring.Net") is None


def test_a_module_is_found_without_its_parents_being_run(package: Path) -> None:
    """The file of a dotted name is found on the path; a name that isn't there has none."""
    assert find_source("foreign_models.deep.net") == package / "deep" / "net.py"
    assert find_source("foreign_models.deep.nope") is None


def test_a_package_without_init_is_searched_at_any_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module is found, and nothing is imported for it."""
    module = tmp_path / "one" / "plain_a" / "b" / "net.py"
    module.parent.mkdir(parents=True)
    module.write_text("def net(width: int = 3): ...")
    (tmp_path / "other" / "plain_a").mkdir(parents=True)
    for folder in ("one", "other"):
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    assert find_source("plain_a.b.net") == module
    assert find_source("plain_a.b.none") is find_source("plain_a.b") is None
    assert find_signature("plain_a.b.net.net").parameters == {"width": frozenset({"int"})}
    assert "plain_a" not in sys.modules
