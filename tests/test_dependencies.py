"""Every package that microstep imports is installed with it."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_layers import graph_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = {"microstep", "hydra_plugins", "__future__"}


def normalized(name: str) -> str:
    """Return a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    """Return what is installed with microstep or one of its extras for users."""
    extras = (names for extra, names in PROJECT["optional-dependencies"].items() if extra != "test")
    requirements = [*PROJECT["dependencies"], *(name for names in extras for name in names)]
    return {normalized(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def undeclared(root: Path) -> set[str]:
    """Return the third-party packages that modules below `root` import and no declared distribution provides."""
    imported = {name.split(".")[0] for names in graph_of(root).values() for name in names}
    providers = packages_distributions()
    foreign = imported - set(sys.stdlib_module_names) - OURS
    return {name for name in foreign if not declared() & set(map(normalized, providers.get(name, ())))}


def test_every_import_is_declared() -> None:
    """Nothing is imported that is installed only because another package needs it."""
    roots = [folder for folder in (ROOT / "src").iterdir() if folder.is_dir() and folder.suffix != ".egg-info"]
    assert "microstep" in {root.name for root in roots}
    assert {root.name: undeclared(root) for root in roots} == {root.name: set() for root in roots}


@pytest.mark.parametrize("source", ["import sympy", "from jinja9.sandbox import x", "def late():\n    import joblib"])
def test_an_undeclared_import_is_found(tmp_path: Path, source: str) -> None:
    """A package of another's, one that isn't installed, and one imported in a function are found; torch isn't."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text(f"import torch.nn\n{source}\n")
    assert len(undeclared(package)) == 1
