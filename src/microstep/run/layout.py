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
LOGGER_FILES = ("logger.*.json", "log.jsonl")  #: what sinks have of the run; a resume keeps them as they are
PROFILE_TRACE, PROFILE_TABLE = PROFILE_FILES = ("profile/trace.json.gz", "profile/table.txt")
RESULT_FILES = ("config.yaml", *LOG_PATTERNS, *LOGGER_FILES, WEIGHTS_FILENAME, "run.json", *PROFILE_FILES)
TEMPORARIES = (".logger.*.tmp", "..lock.*.tmp", ".config.yaml.*.tmp", ".run.json.*.tmp", f".{WEIGHTS_FILENAME}.*.tmp")
FIRST_FILES = (".lock*", "..lock.*.tmp", ".hydra", "train.log")  #: files that a start makes before run.json
RUN_FILES = (*FIRST_FILES, "checkpoints", "reports", "export", "profile", *RESULT_FILES, *TEMPORARIES)
CHECKPOINT_NAME = re.compile(r"epoch-\d{4,}(\+\d{6,})?\.pt")


def matches(name: str, patterns: tuple[str, ...] = RUN_FILES) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def list_names(directory: Path) -> list[str]:
    """Return the sorted names in a directory; none if it is missing."""
    with storage_errors(directory), suppress(FileNotFoundError, NotADirectoryError):
        return sorted(path.name for path in directory.iterdir())
    return []


def find_checkpoint_files(directory: Path) -> list[Path]:
    return [file for file in directory.glob("epoch-*.pt") if CHECKPOINT_NAME.fullmatch(file.name)]


def get_report_path(name: str, checkpoint: str, tta: str | None = None) -> Path:
    """Return the path of a report within a run directory."""
    weights, views = "" if checkpoint == "best" else f"-{Path(checkpoint).stem}", f"-tta-{tta}" if tta else ""
    return Path("reports", f"{name}{weights}{views}")


def refuse_links(directory: Path) -> None:
    """Refuse links among the files that a run writes: what they lead to would change."""
    checkpoints = directory / "checkpoints"
    places = [directory / name for name in (".hydra", "reports/val", "reports/val-last", "reports/test", "profile")]
    own = [directory / name for name in list_names(directory) if matches(name)]
    own += [checkpoints / "manifest.json", *find_checkpoint_files(checkpoints), *places]
    for path in [*own, *(place / name for place in places for name in list_names(place))]:
        if path.is_symlink():
            raise ConfigError(str(path), "it is a link, and a run writes only its own files", "replace it by a copy")


def remove_temporaries(directory: Path) -> None:
    """Remove what interrupted writers have left in a run directory that this process has locked.

    evaluate.py writes reports and exports without the lock, so a draft there is removed only if its writer is known to
    be dead.
    """
    patterns = (*TEMPORARIES, "checkpoints/.manifest.json.*.tmp", "checkpoints/.epoch-*.pt.*.tmp", "profile/.*.tmp")
    parents = [directory / "reports", directory / "export"]
    places = [*parents, *(parent / name for parent in parents for name in list_names(parent))]
    drafts = [path for place in places for name in list_names(place) if is_abandoned(path := place / name)]
    for path in [*(path for pattern in patterns for path in directory.glob(pattern)), *drafts]:
        remove_path(path)


def remove_run_files(directory: Path) -> None:
    """Remove the files of a run that this process has locked, except its log."""
    remove_temporaries(directory)
    checkpoints = directory / "checkpoints"
    own = [checkpoints / "manifest.json", *find_checkpoint_files(checkpoints), directory / ".hydra"]
    written = [*directory.glob("reports/*/"), *directory.glob("export/*/")]
    own += [path for path in written if not path.name.endswith(".tmp")]
    own += [path for pattern in RESULT_FILES for path in directory.glob(pattern)]
    for path in own:
        remove_path(path)
    for path in (checkpoints, directory / "reports", directory / "export", directory / "profile"):
        with suppress(OSError):  # it holds files of others, or a draft of evaluate.py
            path.rmdir()


def remove_path(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)  # evaluate.py may write into a report meanwhile
    else:
        path.unlink(missing_ok=True)
