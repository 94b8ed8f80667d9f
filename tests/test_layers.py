"""Imports point down the layers only, and the front door never reaches torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import microstep

ROOT = Path(microstep.__file__).parent
FRONT_DOOR = (
    *("cli", "config", "composer", "overrides", "names", "directories", "page", "signatures", "errors"),
    *("owner", "resumption", "amendments", "run_config", "gate", "places", "jobs", "starting", "roster"),
    *("summary", "checks", "run_record", "saved_run", "search_path", "utils.plotting", "utils.tables", "utils.text"),
)
LAYERS = (
    "errors types checks config signatures names page overrides composer cli files gate directories randomness signals "
    "statistics cache terminal utils owner run_config run_record saved_run amendments resumption places jobs starting "
    "roster summary isolation targets search_path",
    "precision accumulation task dataset augment sampler model scheduler",
    "step evaluation checkpoint manifest recovery snapshot cadence divergence loaders logger measure pace progress "
    "machine stats export archive comparison profiler",
    "parts trainer facts identity",
    "build resuming again predict compare sweep examination",
    "programs __main__",
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
Graph = dict[str, set[str]]  # module → what it imports, as dotted names


def graph_of(root: Path) -> Graph:
    """Return what every module below a package imports, the lazy package itself left out."""
    files = {dotted(file, root): file for file in root.rglob("*.py")}
    return {name: set(imports(file, name, files)) for name, file in files.items() if name != root.name}


def dotted(file: Path, root: Path) -> str:
    parts = file.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, name: str, files: dict[str, Path]) -> Iterator[str]:
    """Yield every import of a file, those inside functions too: a module where there is one, else its package."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in files else source


def unplaced(graph: Graph) -> set[str]:
    return {name for name in graph if name.split(".")[1] not in LEVEL}


def upward(graph: Graph) -> list[str]:
    """Return the imports that point up a layer, or at the package's lazy face, which stands above them all."""
    edges = [(name, other) for name, others in graph.items() for other in others if other.split(".")[0] == "microstep"]
    return [f"{name} → {other}" for name, other in edges if level(other) > level(name)]


def level(name: str) -> int:
    part = name.split(".")[1:2]
    return LEVEL.get(part[0], len(LAYERS)) if part else len(LAYERS)


def cycle(graph: Graph) -> list[str]:
    """Return one circle of imports, if there is any."""
    try:
        TopologicalSorter({name: others - {name} for name, others in graph.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def reached(graph: Graph, name: str) -> set[str]:
    """Return everything that a module imports, through others of ours too, and the packages above them."""
    found, ahead = set[str](), [name]
    while ahead:
        module = ahead.pop()
        if module not in found:
            found.add(module)
            parent = module.rpartition(".")[0]
            ahead += [*graph.get(module, ()), *([parent] if parent in graph else [])]
    return {module.split(".")[0] for module in found}


def test_every_module_has_a_layer() -> None:
    """A new module takes its place in the design, or this fails."""
    assert not unplaced(graph_of(ROOT))


def test_imports_point_down() -> None:
    """No module knows of a layer above its own."""
    assert upward(graph_of(ROOT)) == []


def test_imports_make_no_circle() -> None:
    """Inside a layer, too, somebody comes first."""
    assert cycle(graph_of(ROOT)) == []


@pytest.mark.parametrize("name", FRONT_DOOR)
def test_the_front_door_reaches_no_torch(name: str) -> None:
    """Neither these modules nor any of ours behind them import torch or torchvision, not even in a function."""
    assert not {"torch", "torchvision"} & reached(graph_of(ROOT), f"microstep.{name}")


def test_the_front_door_is_light_when_imported() -> None:
    """No third-party package brings torch in by the back door."""
    script = (
        f"import sys; {'; '.join(f'import microstep.{name}' for name in FRONT_DOOR)}; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def planted(tmp_path: Path, modules: dict[str, str]) -> Graph:
    """Return the graph of a made-up package: path → source."""
    root = tmp_path / "microstep"
    for path, source in {"__init__": "", **modules}.items():
        file = root / f"{path}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    return graph_of(root)


@pytest.mark.parametrize(
    "source",
    [
        "from microstep.trainer import Trainer",
        "from microstep import trainer",
        "from microstep import build_trainer",
        "import microstep.trainer as t",
        "import microstep",
        "from .trainer import Trainer",
        "from . import trainer",
        "def late():\n    from microstep.trainer import Trainer",
        "if TYPE_CHECKING:\n    from microstep.trainer import Trainer",
    ],
)
def test_an_upward_import_is_seen(tmp_path: Path, source: str) -> None:
    """However it is written, an import that points up is found; the same one pointing down is not."""
    assert len(upward(planted(tmp_path, {"checkpoint": source, "trainer": ""}))) == 1
    assert upward(planted(tmp_path / "down", {"trainer": "from microstep import checkpoint", "checkpoint": ""})) == []


def test_an_upward_import_from_a_package_is_seen(tmp_path: Path) -> None:
    """A dotted module inside a package is held to its package's layer."""
    graph = planted(tmp_path, {"logger/bars": "from ..trainer import Trainer", "trainer": ""})
    assert upward(graph) == ["microstep.logger.bars → microstep.trainer"]


def test_a_circle_is_seen(tmp_path: Path) -> None:
    """Two modules of one layer that need each other are found."""
    assert cycle(planted(tmp_path, {"names": "from microstep import config", "config": "import microstep.names"}))


def test_a_module_without_a_layer_is_seen(tmp_path: Path) -> None:
    """A module that the design doesn't name is found."""
    assert unplaced(planted(tmp_path, {"config": "", "helpers": ""})) == {"microstep.helpers"}


def test_torch_behind_another_module_is_seen(tmp_path: Path) -> None:
    """One step away, inside a function, or in the package above: torch is found."""
    away = {"cli": "from microstep.names import x", "names": "def f():\n    import torch.nn"}
    above = {"cli": "from microstep.model.mlp import f", "model/mlp": "", "model/__init__": "import torch"}
    for name, modules in {"away": away, "above": above}.items():
        assert "torch" in reached(planted(tmp_path / name, modules), "microstep.cli")
