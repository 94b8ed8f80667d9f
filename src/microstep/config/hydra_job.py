"""Reads Hydra's state inside a running job: its directory, its config directories, its choices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from microstep.config.search_path import sources


def get_run_directory() -> Path:
    """Return the directory of the job that runs."""
    return Path(HydraConfig.get().runtime.output_dir)


def get_config_directories(hydra: Any = None) -> list[Path]:
    """Return the directories that a job's yamls come from, the first ones first.

    Args:
        hydra: the job's node of that name; by default that of the job that runs.
    """
    return [directory for _, directory in sources(hydra or HydraConfig.get())]


def get_choice(group: str) -> str:
    """Return the option chosen for a group."""
    return str(HydraConfig.get().runtime.choices[group])


def get_choices() -> Mapping[str, str]:
    """Return the options chosen on the command line, for names; empty in a notebook."""
    return HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
