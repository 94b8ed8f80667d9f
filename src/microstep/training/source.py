"""Finds what a config names outside itself: the source that it builds, and files."""

import ast
import sysconfig
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig

from microstep.components.dataset.files import hash_files
from microstep.config.experiment import WEIGHTS_FILENAME, drop_keys, extract_experiment, flatten
from microstep.errors import DataError

STDLIB = Path(sysconfig.get_path("stdlib")).resolve()
INSTALLED = {"site-packages", "dist-packages"}  #: directories of installed packages, also in another environment


@cache
def find_packages(names: frozenset[str]) -> list[str]:
    """Return the sorted top-level packages of dotted names, with those of one's own that they import at any depth."""
    found, waiting = {"microstep"}, {name.partition(".")[0] for name in names} - {"microstep"}
    while waiting:
        found |= waiting
        files = [file for package in waiting for _, file in find_source_files(package)]
        imported = {name for file in files for name in find_imported_packages(file.read_bytes())} - found
        waiting = {name for name in imported if find_source_files(name)}
    return sorted(found)


def find_imported_packages(source: bytes) -> set[str]:
    """Return the top-level packages that a source imports anywhere; none if it is not valid."""
    modules: list[str] = []
    with suppress(SyntaxError, ValueError):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                modules += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:  # relative: of a package that is found already
                modules.append(node.module or "")
    return {module.partition(".")[0] for module in modules}


def find_source_files(package: str) -> list[tuple[str, Path]]:
    """Return the files of a top-level package or module with their paths in it; none if it is installed or missing."""
    spec, files = None, list[tuple[Path, Path]]()
    with suppress(ImportError, ValueError):
        spec = find_spec(package)
    places = (spec.submodule_search_locations or [str(spec.origin)]) if spec else ()
    for place in filter(Path.exists, dict.fromkeys(Path(place).resolve() for place in places)):  # sys.path has doubles
        if package == "microstep" or (INSTALLED.isdisjoint(place.parts) and not place.is_relative_to(STDLIB)):
            files += [(place, f) for f in sorted(place.rglob("*.py"))] if place.is_dir() else [(place.parent, place)]
    return [(str(name), f) for root, f in files if INSTALLED.isdisjoint((name := f.relative_to(root)).parts)]


def find_initial_weights(init: str) -> Path:
    """Return the file that `init` names; for a run directory, that of its best weights."""
    path = Path(init).expanduser()
    return path / WEIGHTS_FILENAME if path.is_dir() else path


def digest_files(config: DictConfig) -> dict[str, str]:
    """Return the SHA-256 of each file that a value with a slash or a suffix names, by dotted key; not of the data."""
    found = dict[str, str]()
    for key, value in flatten(drop_keys(extract_experiment(config), {"dataset"})):
        with suppress(DataError, OSError, RuntimeError, TypeError, ValueError):  # it names no file that can be read
            file = find_initial_weights(value) if key == "init" else Path(value).expanduser()
            if file.suffix or "/" in value:
                found[key] = hash_files(file.parent, [file.name])[0]
    return found
