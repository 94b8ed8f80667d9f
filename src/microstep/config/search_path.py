"""Where yamls are found: --config-dir, hydra.searchpath, ./conf, the program's conf/, and ours, in this order."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathElement

from microstep.utils.text import display_path

PACKAGE = "microstep.conf"
CONF = Path(str(resources.files(PACKAGE))).resolve()  #: our own yamls
HERE = "./conf"


class OptionsSource(FileConfigSource):
    """A directory whose options are found, but not its primary configs: another project's train.yaml isn't ours."""

    @staticmethod
    def scheme() -> str:
        return "options"

    def is_config(self, config_path: str) -> bool:
        return "/" in config_path and super().is_config(config_path)


class SearchPath(ConfigSearchPathImpl):
    """Hydra's search path, in which the directories of hydra.searchpath come before ./conf."""

    def append(self, provider: str, path: str, anchor: Any = None) -> None:
        """Append a directory; Hydra does so with those of hydra.searchpath."""
        if not provider.startswith("hydra.searchpath"):
            return super().append(provider, path, anchor)
        first = next(i for i, e in enumerate(self.config_search_path) if e.provider in (HERE, "program", "main"))
        return self.config_search_path.insert(first, SearchPathElement(provider, path))


def search_path(program: Path, also: Path | None) -> SearchPath:
    """Return where yamls are found.

    Args:
        program: the conf/ beside the program, if there is one.
        also: what --config-dir names.
    """
    SourcesRegistry.instance().register(OptionsSource)
    found, here = SearchPath(), Path("conf").resolve()
    found.config_search_path += create_config_search_path(f"pkg://{PACKAGE}").get_path()
    whole = {"command-line": also.resolve() if also else CONF, "program": program.resolve()}
    options = CONF if here in whole.values() else here
    for provider, directory in {"command-line": whole["command-line"], HERE: options, **whole}.items():
        if directory != CONF and directory.is_dir():
            scheme = OptionsSource.scheme() if provider == HERE else "file"
            found.prepend(provider, f"{scheme}://{directory}", "main")
    return found


def sources(hydra: Any) -> Iterator[tuple[str, Path]]:
    """Yield the directories that a job's yamls come from, each after who names it, the first ones first.

    Args:
        hydra: the job's node of that name.
    """
    for source in hydra.runtime.config_sources:
        if source.schema in ("file", OptionsSource.scheme()):
            yield source.provider, Path(source.path)
        elif source.path == PACKAGE:
            yield source.provider, CONF


def users_options(hydra: Any) -> str:
    """Return the chosen options that come from ./conf, and those that hide one of ours.

    Args:
        hydra: the job's node of that name.
    """
    found = []
    for group, option in hydra.runtime.choices.items():
        yaml = Path(group.partition("@")[0], f"{option}.yaml")
        holders = [(provider, path / yaml) for provider, path in sources(hydra) if (path / yaml).is_file()]
        if holders:
            (provider, own), ours = holders[0], CONF / yaml
            hides = provider != "program" and ours.is_file() and own.read_bytes() != ours.read_bytes()
            if provider == HERE or hides:
                found.append(display_path(own) + " (instead of microstep's)" * hides)
    return ", ".join(found)
