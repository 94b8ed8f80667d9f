"""Lists the files below a folder, and tells which of them are images."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from microstep.components.dataset.decoding import IMAGE_SUFFIXES, read_image_size
from microstep.errors import DataError
from microstep.utils.text import format_names

#: Files and folders of operating systems, archives and network drives, in lower case.
IGNORED_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})


def find_files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, except hidden and ignored ones; none if the folder does not exist.

    Links are followed. Each folder is visited once, because a link may lead to a parent.
    """
    seen: set[tuple[int, int]] = set()
    on_error = raise_unreadable_folder if folder.is_dir() else None
    for directory, subfolders, names in os.walk(folder, onerror=on_error, followlinks=True):
        status = Path(directory).stat()
        inode = (status.st_dev, status.st_ino)
        if inode in seen:
            subfolders.clear()
            continue
        seen.add(inode)
        subfolders[:] = sorted(name for name in subfolders if not is_ignored(name))
        yield from (Path(directory) / name for name in names if not is_ignored(name))


def is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED_NAMES


def raise_unreadable_folder(error: OSError) -> None:
    """Raise an error for a folder that can't be listed, because `os.walk` would skip it."""
    raise DataError(str(error.filename), error.strerror or "it can't be read", "change its permissions") from None


def is_image(file: Path) -> bool:
    """Return True if a file has the suffix of an image, or no suffix and the content of an image."""
    if not file.suffix:
        with suppress(DataError):
            return bool(read_image_size(file))
    return file.suffix.lower() in IMAGE_SUFFIXES


def count_suffixes(files: Iterable[Path]) -> str:
    """Return the number of files of each suffix, such as `3 .heic, 1 without a suffix`; the most frequent first."""
    counts = Counter(file.suffix.lower() for file in files).most_common()
    return format_names([f"{count:,} {suffix or 'without a suffix'}" for suffix, count in counts])
