"""torchvision's own weights, fetched once into torch.hub's directory and checked whenever they are used."""

from __future__ import annotations

import logging
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import torch

from microstep.errors import DataError
from microstep.utils.files import storing

log = logging.getLogger("microstep.notice")
DEFAULT = "DEFAULT"
PATIENCE = 30.0  #: seconds that a server may keep silent; torch.hub would wait for ever
UNREACHABLE = (URLError, HTTPException, TimeoutError, ConnectionError)


def default_file(url: str) -> Path:
    """Return the file of torchvision's weights in torch.hub's directory, fetched if it isn't there.

    Raises:
        DataError: where it can't be fetched, or its SHA-256 doesn't begin as its name promises.
        StorageError: where the directory can't be written.
    """
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    if not file.exists():
        fetch(url, file)
    with file.open("rb") as stream:
        digest = file_digest(stream, "sha256").hexdigest()
    if not digest.startswith(promised(file)):
        reason = f"{file} is damaged: its SHA-256 is not the one in its name"
        raise DataError(f"model.weights={DEFAULT}", reason, "remove it, and it is fetched again")
    return file


def promised(file: Path) -> str:
    """Return the digits with which a file's SHA-256 begins: torch.hub's names end in them."""
    found = re.search(r"-([0-9a-f]{8,})\.\w+$", file.name)
    return found[1] if found else ""


def fetch(url: str, file: Path) -> None:
    """Fetch a file; it gets its name once it is whole and checked. A progress bar is for a terminal."""
    log.info("model.weights=%s: fetching %s into %s", DEFAULT, url, file.parent)
    with storing(file), patience():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), promised(file), progress=sys.stderr.isatty())
        except UNREACHABLE as error:
            raise unfetched(url, file, f"{urlparse(url).netloc} can't be reached ({why(error)})") from None
        except RuntimeError:
            raise unfetched(url, file, f"{urlparse(url).netloc} sent something else than its name promises") from None


def why(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__


def unfetched(url: str, file: Path, reason: str) -> DataError:
    """Return the error that says how to bring the file by hand."""
    return DataError(f"model.weights={DEFAULT}", reason, f"put {file.name} from {url} into {file.parent}")


@contextmanager
def patience() -> Iterator[None]:
    """Let no connection keep silent for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
