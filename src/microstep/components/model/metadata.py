"""Reads the metadata of exported weights. Anyone may have written the file."""

import json
from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from typing import Any, TypeVar

T = TypeVar("T", dict[str, Any], list[Any])
MeanAndStd = tuple[tuple[float, ...], tuple[float, ...]]
HEADER_LENGTH_BYTES = 8  #: bytes that hold the length of the header, which is a multiple of this number


def split_header(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the header of a safetensors file, and the bytes after it."""
    start = HEADER_LENGTH_BYTES + int.from_bytes(content[:HEADER_LENGTH_BYTES], "little")
    return json.loads(content[HEADER_LENGTH_BYTES:start]), memoryview(content)[start:]


def parse_json(metadata: Mapping[str, Any], key: str, kind: type[T]) -> T:
    """Return a value of the metadata, which is JSON; an empty one if it is missing, malformed or of another type."""
    with suppress(KeyError, TypeError, ValueError, RecursionError):
        if isinstance(value := json.loads(metadata[key]), kind):
            return value
    return kind()


def parse_normalization(metadata: Mapping[str, Any]) -> MeanAndStd | None:
    """Return the mean and standard deviation of each channel; None if the metadata have none that are valid."""
    with suppress(TypeError, ValueError, OverflowError):
        mean, std = (tuple(map(float, parse_json(metadata, key, list))) for key in ("mean", "std"))
        if len(mean) == len(std) > 0 and all(map(isfinite, mean + std)) and min(std) > 0:
            return mean, std
    return None
