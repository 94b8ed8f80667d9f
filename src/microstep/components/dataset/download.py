"""Fetching through torchvision: all of a data set, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from microstep.errors import DataError
from microstep.utils.files import storage_errors


def download_dataset(dataset_class: Callable[..., Any], root: Path, folder: str, content_text: str) -> None:
    """Let torchvision fetch a data set, check it by MD5 and unpack it; put it into `root`/`folder` when it is whole.

    Raises:
        DataError: where it can't be reached, saying what to put where.
        StorageError: where `root` can't be written.
    """
    with storage_errors(root), create_directory(root), TemporaryDirectory(dir=root, prefix=".download-") as temporary:
        try:
            dataset_class(temporary, download=True)
        except Exception as error:  # URLError, RuntimeError, ConnectionError, …: torchvision raises many kinds
            reason = f"it could not be fetched ({' '.join(str(error).split())[:120]})"
            raise DataError(
                "dataset.download=true", reason, f"put {content_text} into {root / folder} by hand"
            ) from None
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        (Path(temporary) / folder).rename(root / folder)


@contextmanager
def create_directory(root: Path) -> Iterator[None]:
    """Make a directory where there is none, and take it away again where nothing came of it."""
    fresh = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if fresh and not any(root.iterdir()):
            root.rmdir()
