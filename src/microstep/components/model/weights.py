"""Downloads torchvision's weights, and reads state dicts from files."""

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
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

import torch
from safetensors.torch import load
from torch import Tensor
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from microstep.components.model.metadata import split_header
from microstep.errors import DataError
from microstep.utils.files import storage_errors

log = logging.getLogger("microstep.notice")
DEFAULT_WEIGHTS = "DEFAULT"
CONNECTION_TIMEOUT = 30.0  #: seconds without an answer; torch.hub sets no limit
CONNECTION_ERRORS = (URLError, HTTPException, TimeoutError, ConnectionError)


def find_default_file(url: str) -> Path:
    """Return a file of torchvision's weights in torch.hub's directory. Download it if it does not exist.

    Raise a DataError if that fails, or if its SHA-256 does not start with the digits in its name.
    """
    file = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    if not file.exists():
        download_weights(url, file)
    with file.open("rb") as stream:
        digest = file_digest(stream, "sha256").hexdigest()
    if not digest.startswith(expected_digest(file)):
        reason = f"{file} is damaged: its SHA-256 is not the one in its name"
        raise DataError(f"model.weights={DEFAULT_WEIGHTS}", reason, "remove it to download it again")
    return file


def expected_digest(file: Path) -> str:
    """Return the first digits of a file's SHA-256: torch.hub's file names end with them."""
    found = re.search(r"-([0-9a-f]{8,})\.\w+$", file.name)
    return found[1] if found else ""


def download_weights(url: str, file: Path) -> None:
    """Download a file. It appears under its name once it is complete and its SHA-256 has been checked."""
    host = urlparse(url).netloc
    log.info("model.weights=%s: fetching %s into %s", DEFAULT_WEIGHTS, url, file.parent)
    with storage_errors(file), limit_connection_time():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), expected_digest(file), progress=sys.stderr.isatty())
        except CONNECTION_ERRORS as error:
            if isinstance(error, HTTPError):
                error.close()  # its connection would stay open
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            raise download_error(url, file, f"{host} can't be reached ({reason})") from None
        except RuntimeError:
            raise download_error(url, file, f"{host} sent a file whose SHA-256 is not the one in its name") from None


def download_error(url: str, file: Path, reason: str) -> DataError:
    remedy = f"put {file.name} from {url} into {file.parent}, or type model.weights=FILE"
    return DataError(f"model.weights={DEFAULT_WEIGHTS}", reason, remedy)


@contextmanager
def limit_connection_time() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECTION_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


STATE_DICT_KEYS = ("model", "state_dict")  #: keys of a model's state dict in checkpoints
DENSE_CPU = (torch.strided, "cpu")
WRAPPER_PREFIXES = ("model.", "module.")  #: prefixes that wrapper modules add to all names


def read_weights_file(file: Path, subject: str) -> tuple[OrderedDict[str, Tensor], Mapping[str, Any]]:
    """Return the state dict in a file, without the prefixes of wrapper modules, and the metadata if a run wrote it.

    The file holds a state dict (`.safetensors` or torch), or a checkpoint with one under `model` or `state_dict`. If it
    does not, or is damaged, or holds code, raise a DataError about `subject`.
    """
    content = load_tensors(file, subject)
    metadata = content.get("metadata") if isinstance(content, Mapping) else None
    for key in STATE_DICT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not (isinstance(content, Mapping) and content and all(is_entry(*item) for item in content.items())):
        raise weights_file_error(subject, file, "it holds no state dict")
    return strip_wrapper_prefixes(content), metadata if isinstance(metadata, Mapping) else {}


def is_entry(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor) and (value.layout, value.device.type) == DENSE_CPU


def load_tensors(file: Path, subject: str) -> Any:
    """Return the tensors and plain values in a file, in the form of a checkpoint. Code in the file is never run."""
    if not file.is_file():
        remedy = "give a file of weights, or DEFAULT for torchvision's own"
        raise DataError(subject, f"there is no file {file.absolute()}", remedy)
    try:
        if file.suffix == ".safetensors":  # not every supported torch.load can read it
            content = file.read_bytes()
            return {"model": load(content), "metadata": split_header(content)[0].get("__metadata__")}
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise weights_file_error(subject, file, f"it can't be read: {error.strerror or error}") from None
    except Exception:  # unknown bytes can raise anything; torch's message may advise to run the code
        reason = "it is damaged, or holds more than tensors, and code is not run"
        raise weights_file_error(subject, file, reason) from None


def weights_file_error(subject: str, file: Path, reason: str) -> DataError:
    """Return an error that names the file if the subject does not."""
    named = reason if subject.endswith(str(file)) else f"{file}: {reason}"
    return DataError(subject, named, "give a file made by torch.save(model.state_dict(), …) or safetensors")


def strip_wrapper_prefixes(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Return a state dict without the prefixes that all names share. Module versions (`_metadata`) are kept."""
    result = OrderedDict(state)
    result._metadata = dict(getattr(state, "_metadata", {}))  # type: ignore[attr-defined]
    while prefix := next((p for p in WRAPPER_PREFIXES if all(name.startswith(p) for name in result)), None):
        consume_prefix_in_state_dict_if_present(result, prefix)
    return result


def format_shape(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape)) or "one number"
