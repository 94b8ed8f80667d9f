"""Loads weights: torchvision's from its hub, or a file of the user's own."""

from __future__ import annotations

import logging
import re
import socket
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import file_digest
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from safetensors.torch import load
from torch import Tensor

from microstep.errors import DataError
from microstep.utils.files import storage_errors

log = logging.getLogger("microstep.notice")
DEFAULT_WEIGHTS = "DEFAULT"
CONNECTION_TIMEOUT = 30.0  #: seconds that a server may keep silent; torch.hub would wait for ever
CONNECTION_ERRORS = (URLError, HTTPException, TimeoutError, ConnectionError)


def find_default_file(url: str) -> Path:
    """Return the file of torchvision's weights in torch.hub's directory, fetched if it isn't there.

    Raises:
        DataError: where it can't be fetched, or its SHA-256 doesn't begin as its name promises.
        StorageError: where the directory can't be written.
    """
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    if not file.exists():
        download_weights(url, file)
    with file.open("rb") as stream:
        digest = file_digest(stream, "sha256").hexdigest()
    if not digest.startswith(expected_digest(file)):
        reason = f"{file} is damaged: its SHA-256 is not the one in its name"
        raise DataError(f"model.weights={DEFAULT_WEIGHTS}", reason, "remove it, and it is fetched again")
    return file


def expected_digest(file: Path) -> str:
    """Return the digits with which a file's SHA-256 begins: torch.hub's names end in them."""
    found = re.search(r"-([0-9a-f]{8,})\.\w+$", file.name)
    return found[1] if found else ""


def download_weights(url: str, file: Path) -> None:
    """Fetch a file; it gets its name once it is whole and checked. A progress bar is for a terminal."""
    log.info("model.weights=%s: fetching %s into %s", DEFAULT_WEIGHTS, url, file.parent)
    with storage_errors(file), limit_connection_time():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), expected_digest(file), progress=sys.stderr.isatty())
        except CONNECTION_ERRORS as error:
            raise download_error(
                url, file, f"{urlparse(url).netloc} can't be reached ({connection_error_reason(error)})"
            ) from None
        except RuntimeError:
            raise download_error(
                url, file, f"{urlparse(url).netloc} sent something else than its name promises"
            ) from None


def connection_error_reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__


def download_error(url: str, file: Path, reason: str) -> DataError:
    """Return the error that says how to bring the file by hand."""
    return DataError(f"model.weights={DEFAULT_WEIGHTS}", reason, f"put {file.name} from {url} into {file.parent}")


@contextmanager
def limit_connection_time() -> Iterator[None]:
    """Let no connection keep silent for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECTION_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


STATE_DICT_KEYS = ("model", "state_dict")  #: the keys under which checkpoints, ours too, keep a model's state
DENSE_CPU = (torch.strided, "cpu")
WRAPPER_PREFIXES = ("model.", "module.")  #: what wrappers, ours too, put before every name


def read_state_dict(file: Path, subject: str) -> OrderedDict[str, Tensor]:
    """Return the state dict that a file holds, by itself or as `model` or `state_dict`, without a wrapper's prefix.

    Raises:
        DataError: where the file is not there, is damaged, or holds code or anything else than a state dict.
    """
    content = load_tensors(file, subject)
    for holder in STATE_DICT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(holder), Mapping):
            content = content[holder]
    if not (isinstance(content, Mapping) and content and all(map(is_state_entry, content.items()))):
        raise weights_file_error(subject, file, "it holds no state dict")
    return strip_wrapper_prefixes(content)


def is_state_entry(pair: tuple[Any, Any]) -> bool:
    name, value = pair
    return isinstance(name, str) and isinstance(value, Tensor) and (value.layout, value.device.type) == DENSE_CPU


def load_tensors(file: Path, subject: str) -> Any:
    """Return what torch.load makes of a file, where it is tensors and plain values alone: no code in it is run.

    One that ends in `.safetensors` is read with safetensors: it holds a state dict by itself.
    """
    if not file.is_file():
        remedy = "give a file of weights, or DEFAULT for torchvision's own"
        raise DataError(subject, f"there is no file {file.absolute()}", remedy)
    try:
        if file.suffix == ".safetensors":  # torch.load takes them only since its later versions
            return load(file.read_bytes())
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise weights_file_error(subject, file, f"it can't be read: {error.strerror or error}") from None
    except Exception:  # whatever torch makes of bytes that it wasn't given by us; its text may advise to run the code
        raise weights_file_error(
            subject, file, "it is damaged, or holds more than tensors, and code is not run"
        ) from None


def weights_file_error(subject: str, file: Path, reason: str) -> DataError:
    """Return the error about a file, which it names where the subject doesn't."""
    named = reason if subject.endswith(str(file)) else f"{file}: {reason}"
    return DataError(subject, named, "give a file made by torch.save(model.state_dict(), …) or safetensors")


def strip_wrapper_prefixes(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Return a state without the prefix that all its names share, and with the versions that torch keeps beside it."""
    versions = getattr(state, "_metadata", {})
    while prefix := next((p for p in WRAPPER_PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        versions = {f"{name}.".removeprefix(prefix).rstrip("."): version for name, version in versions.items() if name}
    result = OrderedDict(state)
    result._metadata = versions  # type: ignore[attr-defined]
    return result
