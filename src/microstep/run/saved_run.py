"""Reads the files of a run directory, to evaluate, compare, summarize or resume its run. Imports no torch."""

import csv
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from microstep.config.allowlist import ALLOW_ALL, Allowlist, find_targets
from microstep.config.choices import CHECK_KEYS
from microstep.config.experiment import DATA_PATH_KEYS, LOGGER, NEUTRAL_KEYS, RESUMABLE_KEYS, drop_keys, flatten
from microstep.config.validation import check_config
from microstep.errors import ConfigError, DataError
from microstep.run.config import load_run_config, read_run_yaml
from microstep.run.record import RunRecord, number, numbers, of_type, short_texts
from microstep.utils.files import expand_home
from microstep.utils.json_files import read_limited

MAX_METRICS_BYTES = 2**24
RESUME_KEYS = frozenset({"resume", "replay", "window", "trust", "sweep", "redo"})  #: control a resume; not stored
OVERRIDABLE_KEYS = (NEUTRAL_KEYS | RESUMABLE_KEYS) - RESUME_KEYS - {*CHECK_KEYS}
#: Reason and remedy of the error for data of another fingerprint.
CHANGED_DATA = (
    "the data have changed since the run",
    "put back what dataset.root held then, or give dataset.root=DIR with a copy of that",
)


@dataclass(frozen=True)
class SavedRun:
    """Files of a run directory. Anyone may have written them, so each is checked as it is read."""

    directory: Path
    record: RunRecord
    key: str  #: key of the command line that named the directory; errors begin with it
    overrides: Mapping[str, Any] = field(default_factory=dict)  #: values of the command line, by dotted key

    @classmethod
    def read(cls, directory: Path, key: str = "run", overrides: Mapping[str, Any] | None = None) -> Self:
        return cls(directory, RunRecord.read(directory), key, overrides or {})

    @property
    def subject(self) -> str:
        return f"{self.key}={self.directory}"

    def config(self, allowlist: Allowlist, keys: Collection[str] = OVERRIDABLE_KEYS) -> DictConfig:
        """Return the checked config with all overrides, those of later resumes first, or only those of some keys.

        Raise ConfigError if the directory holds no run, or the config or an override is not valid.
        """
        config, overrides = load_run_config(self.directory, allowlist, self.key), self.record.overrides
        for key, value in overrides.items():
            allowlist.check_resolvers(value, self.subject)
            if key not in OVERRIDABLE_KEYS or ("${" in str(value) and key != LOGGER):
                change = f"{key} to a reference" if key in OVERRIDABLE_KEYS else key
                raise ConfigError(self.subject, f"run.json says that a resume changed {change}", "it may be damaged")
        overrides, typed = ({k: v for k, v in found.items() if k in keys} for found in (overrides, self.overrides))
        config = self.absolute_paths(apply_overrides(config, overrides, self.subject))
        return apply_overrides(config, typed, self.subject)

    def absolute_paths(
        self, config: DictConfig, keys: Collection[str] = DATA_PATH_KEYS, directory: Path | None = None
    ) -> DictConfig:
        """Return a config with absolute paths for those that exist in a directory, by default that of the run's start.

        All are left as written if the run was started in the working directory, or if it is not known where.
        """
        started = of_type(self.record.content.get("working_directory"), str)
        if started in ("", str(Path.cwd())):
            return config
        copy, start = config.copy(), Path(directory or started)
        for key, text in flatten(OmegaConf.to_container(config)):
            if key in keys and isinstance(text, str) and (path := start / expand_home(text)).exists():
                OmegaConf.update(copy, key, str(path))
        return copy

    @property
    def plain_config(self) -> dict[str, Any]:
        """Values of config.yaml as written, with unresolved references; empty if it cannot be read."""
        with suppress(ConfigError):
            return read_run_yaml(self.directory, ALLOW_ALL)
        return {}

    @property
    def epochs(self) -> list[dict[str, float]]:
        """Rows of metrics.csv, up to the first row that is damaged or half written."""
        with suppress(OSError, ValueError, csv.Error):
            return list(whole_rows(read_limited(self.directory / "metrics.csv", MAX_METRICS_BYTES).decode()))
        return []

    @property
    def fingerprint(self) -> str:
        if self.record.fingerprint is None:
            reason = "run.json is missing or damaged, or the run never began"
            raise ConfigError(self.subject, reason, "give a run's own directory")
        return self.record.fingerprint

    def check_data(self, fingerprint: str) -> None:
        if fingerprint != self.fingerprint:
            raise DataError(self.subject, *CHANGED_DATA)


def find_training_differences(runs: Sequence[SavedRun]) -> dict[str, str]:
    """Return all values of the source and of each version that differ between runs, in the order of the runs.

    The source is that of the packages that a config builds, so it is compared between runs of the same packages.
    """
    versions = [short_texts(run.record.content.get("versions")) for run in runs]
    found = {name: dict.fromkeys(one.get(name, "unknown") for one in versions) for one in versions for name in one}
    sources = dict[frozenset[str], dict[str, None]]()
    for run in runs if len({run.record.source_hash for run in runs}) > 1 else ():
        packages = frozenset(target.partition(".")[0] for target in find_targets(drop_keys(run.plain_config, {LOGGER})))
        sources.setdefault(packages, {})[str(run.record.source_hash)[:8]] = None
    edited = {name: None for hashes in sources.values() if len(hashes) > 1 for name in hashes}
    return {name: ", ".join(values) for name, values in ({"source": edited} | found).items() if len(values) > 1}


def whole_rows(text: str) -> Iterator[dict[str, float]]:
    """Yield rows up to the first damaged one. The last line counts only if it ends with a newline."""
    for row in csv.DictReader(text[: text.rfind("\n") + 1].splitlines()):
        if None in row.values() or number(row.get("epoch")) is None:
            return
        yield numbers({key: value for key, value in row.items() if key})


def apply_overrides(config: DictConfig, overrides: Mapping[str, Any], subject: str) -> DictConfig:
    """Return a copy of a config with some values changed. Raise ConfigError if one of them is not valid."""
    copy = config.copy()
    for key, value in overrides.items():
        try:
            OmegaConf.update(copy, key, value, merge=False)
        except OmegaConfBaseException as error:
            raise ConfigError(subject, f"{key}={value}: {str(error).splitlines()[0]}", "correct the value") from None
    check_config(copy)
    return copy
