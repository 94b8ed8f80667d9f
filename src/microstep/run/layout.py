"""Names of the files of a run directory. Only these are replaced or removed; files of others in it are kept."""

import re
import shutil
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from microstep.config.experiment import WEIGHTS_FILENAME
from microstep.errors import ConfigError
from microstep.utils.files import is_abandoned, storage_errors

LOG_PATTERNS = ("metrics.csv", "events.out.tfevents.*")  #: without train.log, which describes every attempt
KEPT_FILES = (".lock*", "train.log")  #: files that stay when a run starts from the beginning
RESULT_FILES = ("config.yaml", *LOG_PATTERNS, WEIGHTS_FILENAME, "run.json")
TEMPORARIES = ("..lock.*.tmp", ".config.yaml.*.tmp", ".run.json.*.tmp", f".{WEIGHTS_FILENAME}.*.tmp")
RUN_FILES = (*KEPT_FILES, *RESULT_FILES, *TEMPORARIES, ".hydra", "checkpoints", "reports")
CHECKPOINT_NAME = re.compile(r"epoch-\d{4,}(\+\d{6,})?\.pt")


def matches(name: str, patterns: tuple[str, ...] = RUN_FILES) -> bool:
    """Return whether a name is one of those that a run makes at the top of its directory."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def list_names(directory: Path) -> list[str]:
    """Return the sorted names in a directory; none if it is missing."""
    with storage_errors(directory):
        return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def find_checkpoint_files(directory: Path) -> list[Path]:
    return [file for file in directory.glob("epoch-*.pt") if CHECKPOINT_NAME.fullmatch(file.name)]


def refuse_linked_files(run_dir: Path) -> None:
    """Refuse a link among the files that a run writes."""
    written = [run_dir / name for name in list_names(run_dir) if matches(name)]
    for inner in (".hydra", "checkpoints", "reports", "reports/val", "reports/test"):
        written += [run_dir / inner / name for name in list_names(run_dir / inner)]
    refuse_links(*written)


def refuse_links(*written: Path) -> None:
    """Refuse a link: writing would change what it leads to."""
    for path in written:
        if path.is_symlink():
            raise ConfigError(str(path), "it is a link out of the run", "replace it by a copy, or remove it")


def remove_temporaries(directory: Path) -> None:
    """Remove what interrupted writers have left in a run directory that this process has locked.

    evaluate.py writes reports without the lock, so a draft there is removed only if its writer is known to be dead.
    """
    patterns = (*TEMPORARIES, "checkpoints/.manifest.json.*.tmp", "checkpoints/.epoch-*.pt.*.tmp")
    locked = (path for pattern in patterns for path in directory.glob(pattern))
    drafts = (path for pattern in ("reports/.*.tmp", "reports/*/.*.tmp") for path in directory.glob(pattern))
    for path in [*locked, *filter(is_abandoned, drafts)]:
        remove_path(path)


def remove_run_files(directory: Path) -> None:
    """Remove the files of a run that this process has locked, except its log."""
    remove_temporaries(directory)
    checkpoints = directory / "checkpoints"
    reports = [path for path in directory.glob("reports/*/") if not path.name.endswith(".tmp")]
    results = [path for pattern in RESULT_FILES for path in directory.glob(pattern)]
    saved = (checkpoints / "manifest.json", *find_checkpoint_files(checkpoints))
    for path in (*saved, *reports, directory / ".hydra", *results):
        remove_path(path)
    for path in (checkpoints, directory / "reports"):
        with suppress(OSError):  # it holds files of others, or a draft of evaluate.py
            path.rmdir()


def remove_path(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
