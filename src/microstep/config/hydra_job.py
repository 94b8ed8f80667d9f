"""Reads Hydra's state inside a running job: its directory, its config directories, its choices."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from microstep.config.search_path import sources


def get_run_directory() -> Path:
    return Path(HydraConfig.get().runtime.output_dir)


def get_config_directories(hydra: Any = None) -> list[Path]:
    """Return the directories of a job's yamls (by default, the running job's) in order of precedence."""
    return [directory for _, directory in sources(hydra or HydraConfig.get())]


def get_typed(*without: str) -> list[str]:
    """Return the overrides of the job as they were typed, without those of some keys; none in a notebook."""
    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return [str(word) for word in typed if str(word).lstrip("+").partition("=")[0] not in without]


def get_choices() -> Mapping[str, str]:
    """Return the option chosen for each group; empty in a notebook."""
    return HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
