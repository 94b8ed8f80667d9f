"""Search path of the yamls: --config-dir, hydra.searchpath, ./conf, the program's conf/ and the package's."""

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
CONF = Path(str(resources.files(PACKAGE))).resolve()  #: the package's yamls
HERE = "./conf"


class OptionsSource(FileConfigSource):
    """A directory of options. Its primary configs are ignored: they may be those of another project."""

    @staticmethod
    def scheme() -> str:
        return "options"

    def is_config(self, config_path: str) -> bool:
        return "/" in config_path and super().is_config(config_path)


class SearchPath(ConfigSearchPathImpl):
    """Hydra's search path, in which the directories of hydra.searchpath come before ./conf."""

    def append(self, provider: str, path: str, anchor: Any = None) -> None:
        if not provider.startswith("hydra.searchpath"):
            return super().append(provider, path, anchor)
        first = next(i for i, e in enumerate(self.config_search_path) if e.provider in (HERE, "program", "main"))
        return self.config_search_path.insert(first, SearchPathElement(provider, path))


def search_path(program: Path, extra: Path | None) -> SearchPath:
    """Return the search path for the conf/ beside the program, which need not exist, and the --config-dir if any."""
    SourcesRegistry.instance().register(OptionsSource)
    path, here = SearchPath(), Path("conf").resolve()
    path.config_search_path += create_config_search_path(f"pkg://{PACKAGE}").get_path()
    whole = {"command-line": extra.resolve() if extra else CONF, "program": program.resolve()}
    options = CONF if here in whole.values() else here
    for provider, directory in {"command-line": whole["command-line"], HERE: options, **whole}.items():
        if directory != CONF and directory.is_dir():
            scheme = OptionsSource.scheme() if provider == HERE else "file"
            path.prepend(provider, f"{scheme}://{directory}", "main")
    return path


def sources(hydra: Any) -> Iterator[tuple[str, Path]]:
    """Yield the provider and path of each directory of a job's yamls, from its `hydra` node, by precedence."""
    for source in hydra.runtime.config_sources:
        if source.schema in ("file", OptionsSource.scheme()):
            yield source.provider, Path(hydra.runtime.cwd, source.path)  # the job may have changed the directory
        elif source.path == PACKAGE:
            yield source.provider, CONF


def users_options(hydra: Any) -> str:
    """Return the files of a job's chosen options that come from ./conf or replace one of the package's."""
    files = []
    for group, option in hydra.runtime.choices.items():
        yaml = Path(group.partition("@")[0], f"{option}.yaml")
        holders = [(provider, path / yaml) for provider, path in sources(hydra) if (path / yaml).is_file()]
        if holders:
            (provider, file), ours = holders[0], CONF / yaml
            hides = provider != "program" and ours.is_file() and file.read_bytes() != ours.read_bytes()
            if provider == HERE or hides:
                files.append(display_path(file) + " (instead of microstep's)" * hides)
    return ", ".join(files)
