"""The layout of the package: its rooms, the direction of imports, and what stays free of torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import microstep
from tests.conftest import ROOT

PACKAGE = Path(microstep.__file__).parent
CONF = ROOT / "conf"
LAYERS = (  # a module imports only from the lines above its own; rooms of one line never import each other
    "errors",
    "types utils",
    "config",
    "components",
    "run",
    "training",
    "evaluation dataset_report diagnostics",
    "sweep",
    "cli",
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms.split()}
WITHOUT_TORCH = (
    *("errors", "cli.main", "cli.start", "cli.job", "cli.paths", "cli.help", "config"),
    *("sweep.definition", "sweep.progress", "sweep.reporter", "sweep.launchers.parallel", "sweep.summary"),
    *("run.directory", "run.lock", "run.config", "run.record", "run.saved_run", "run.resume"),
    *("utils.files", "utils.json_files", "utils.text", "utils.tables", "utils.plotting", "utils.terminal"),
    *("utils.progress_bar", "utils.signals", "utils.anytime"),
)
LONG = {  # over 200 lines on purpose: one subject each
    "types.protocols",
}
LONGEST = 200
NO_COMPONENTS = {"hydra", "experiment", "search"}  # folders of conf/ that build nothing of ours
Graph = dict[str, set[str]]  # module → what it imports, as dotted names


def graph_of(root: Path) -> Graph:
    """Return what every module below a package imports, without the lazy package itself."""
    files = {dotted(file, root): file for file in root.rglob("*.py")}
    return {name: set(imports(file, name, files)) for name, file in files.items() if name != root.name}


def dotted(file: Path, root: Path) -> str:
    parts = file.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path, name: str, files: dict[str, Path]) -> Iterator[str]:
    """Yield every import of a file, also inside functions: the module if there is one, else its package."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in files else source


def room(name: str) -> str:
    """Return the room of a module: its name below the package, or "" for the package itself."""
    return [*name.split("."), ""][1]


def edges(graph: Graph) -> list[tuple[str, str]]:
    """Return every import of one module of ours by another."""
    return [(name, other) for name, others in graph.items() for other in others if other.split(".")[0] == "microstep"]


def misplaced(graph: Graph) -> list[str]:
    """Return the imports that point up, sideways to another room of the layer, or at the package itself."""
    return [f"{name} → {other}" for name, other in edges(graph) if not points_down(room(name), room(other))]


def points_down(source: str, target: str) -> bool:
    if source == "__main__":
        return True
    return bool(target) and (source == target or LEVEL[target] < LEVEL[source])


def across_groups(graph: Graph) -> list[str]:
    """Return the imports from one group of components by another; a data set may augment, a step sum over ranks."""
    pairs = [(name, other) for name, other in edges(graph) if room(name) == room(other) == "components"]
    groups = [(name, other, [*name.split("."), ""][2], [*other.split("."), ""][2]) for name, other in pairs]
    allowed = {("dataset", "augment"), ("step", "strategy")}
    return [f"{n} → {o}" for n, o, one, another in groups if one not in ("", another) and (one, another) not in allowed]


def configured(graph: Graph) -> list[str]:
    """Return the imports of the config by components, which are built without it."""
    pair = ("components", "config")
    return [f"{name} → {other}" for name, other in edges(graph) if (room(name), room(other)) == pair]


def cycle(graph: Graph) -> list[str]:
    """Return one circle of imports, or an empty list."""
    try:
        TopologicalSorter({name: others - {name} for name, others in graph.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def reached(graph: Graph, name: str) -> set[str]:
    """Return the top-level packages that a module imports, also through others of ours and the packages above them."""
    found, ahead = set[str](), [name, *(other for other in graph if other.startswith(f"{name}."))]
    while ahead:
        module = ahead.pop()
        if module not in found:
            found.add(module)
            parent = module.rpartition(".")[0]
            ahead += [*graph.get(module, ()), *([parent] if parent in graph else [])]
    return {module.split(".")[0] for module in found}


def test_the_root_holds_the_rooms_only() -> None:
    """A new module belongs to a room; the root gets no new name."""
    names = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert names - {"__init__", "__main__", "conf"} == set(LEVEL)  # conf is a folder of yamls
    assert len(LEVEL) <= 12


def test_imports_point_down() -> None:
    """No module imports from its own layer's other rooms, from a layer above, or from the package itself."""
    assert misplaced(graph_of(PACKAGE)) == []


def test_imports_make_no_circle() -> None:
    """Inside a room, too, imports have an order."""
    assert cycle(graph_of(PACKAGE)) == []


def test_component_groups_are_independent() -> None:
    """No group of components imports another, except that data sets augment; none knows the config."""
    assert across_groups(graph_of(PACKAGE)) == []
    assert configured(graph_of(PACKAGE)) == []


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_a_module_stays_free_of_torch(name: str) -> None:
    """Neither these modules nor those they import reach torch or torchvision, not even inside a function."""
    assert not {"torch", "torchvision"} & reached(graph_of(PACKAGE), f"microstep.{name}")


def test_no_library_brings_torch_in() -> None:
    """Importing these modules imports no torch, through third-party packages either."""
    names = (*WITHOUT_TORCH, "cli.programs", "cli.evaluation")
    script = f"import sys, importlib\nfor name in {names}: importlib.import_module('microstep.' + name)\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}print('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize("group", sorted(path.name for path in CONF.iterdir() if path.is_dir()))
def test_a_config_group_has_a_component(group: str) -> None:
    """The targets of conf/GROUP lie in components.GROUP; an optimizer may be torch's own."""
    if group in NO_COMPONENTS:
        return
    targets = re.findall(r"_target_: *(\S+)", "\n".join(file.read_text() for file in (CONF / group).glob("*.yaml")))
    home = "torch.optim." if group == "optimizer" else f"microstep.components.{group}."
    assert targets
    assert [target for target in targets if not target.startswith(home)] == []


def test_no_module_is_long() -> None:
    """A module that outgrows a screen or four is two subjects, but for the few that LONG names."""
    files = [file for file in PACKAGE.rglob("*.py") if "conf" not in file.parts]
    lengths = {dotted(file, PACKAGE): len(file.read_text().splitlines()) for file in files}
    long = {name.removeprefix("microstep.") for name, length in lengths.items() if length > LONGEST}
    assert long <= LONG


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
        "from microstep.training.trainer import Trainer",
        "from microstep.training import trainer",
        "from microstep import build_trainer",
        "import microstep.training.trainer as t",
        "import microstep",
        "from ..training.trainer import Trainer",
        "from ..training import trainer",
        "def late():\n    from microstep.training.trainer import Trainer",
        "if TYPE_CHECKING:\n    from microstep.training.trainer import Trainer",
    ],
)
def test_an_upward_import_is_seen(tmp_path: Path, source: str) -> None:
    """However it is written, an import that points up is found; the same one pointing down is not."""
    assert len(misplaced(planted(tmp_path, {"run/lock": source, "training/trainer": ""}))) == 1
    down = {"training/trainer": "from microstep.run import lock", "run/lock": ""}
    assert misplaced(planted(tmp_path / "down", down)) == []


def test_a_sideways_import_is_seen(tmp_path: Path) -> None:
    """Rooms of one layer don't import each other, and neither do groups of components."""
    beside = {"evaluation/predict": "from microstep.diagnostics.check import run_check", "diagnostics/check": ""}
    assert len(misplaced(planted(tmp_path, beside))) == 1
    groups = {
        "components/model/small": "from microstep.components.task import Classification",
        "components/dataset/splits": "from microstep.components.augment import Pipeline",
    }
    assert across_groups(planted(tmp_path / "groups", groups)) == [
        "microstep.components.model.small → microstep.components.task"
    ]
    config = {"components/model/small": "from microstep.config import schema", "config/schema": ""}
    assert configured(planted(tmp_path / "config", config)) == [
        "microstep.components.model.small → microstep.config.schema"
    ]


def test_a_circle_is_seen(tmp_path: Path) -> None:
    """Two modules of one room that need each other are found."""
    modules = {"config/names": "from microstep.config import schema", "config/schema": "import microstep.config.names"}
    assert cycle(planted(tmp_path, modules))


def test_torch_behind_another_module_is_seen(tmp_path: Path) -> None:
    """One step away, inside a function, or in the package above: torch is found."""
    away = {"cli/main": "from microstep.config.names import x", "config/names": "def f():\n    import torch.nn"}
    above = {"cli/main": "from microstep.utils.files import f", "utils/files": "", "utils/__init__": "import torch"}
    for name, modules in {"away": away, "above": above}.items():
        assert "torch" in reached(planted(tmp_path / name, modules), "microstep.cli")
