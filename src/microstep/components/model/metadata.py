"""Reads the metadata of exported weights. Anyone may have written the file."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import Any

from torch import arange

MeanAndStd = tuple[tuple[float, ...], tuple[float, ...]]
MAX_SIDE = 2**14  #: most channels and pixels of a side; a larger image would exhaust the memory
HEADER_LENGTH_BYTES = 8  #: bytes that hold the length of the header, which is a multiple of this number


def split_header(content: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the header of a safetensors file, and the bytes after it."""
    start = HEADER_LENGTH_BYTES + int.from_bytes(content[:HEADER_LENGTH_BYTES], "little")
    return json.loads(content[HEADER_LENGTH_BYTES:start]), memoryview(content)[start:]


def parse_json(metadata: Mapping[str, Any], key: str) -> Any:
    """Return a value of the metadata, which is JSON; None if it is missing or malformed."""
    with suppress(KeyError, TypeError, ValueError, RecursionError):
        return json.loads(metadata[key])
    return None


@dataclass(frozen=True)
class ImageFacts:
    """What the metadata of a classifier say about its images."""

    class_names: tuple[str, ...]
    shape: tuple[int, int, int]  #: channels, height, width
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def arguments(self) -> dict[str, Any]:
        """Return what a data set offers to constructors, with one training sample of each class."""
        names, count = self.class_names, len(self.class_names)
        return {"class_names": names, "num_classes": count, "input_shape": self.shape, "train_targets": arange(count)}


def parse_image_facts(metadata: Mapping[str, Any]) -> ImageFacts | None:
    """Return the facts of a classifier of images; None if they are missing or malformed."""
    names, shape = parse_json(metadata, "class_names"), parse_json(metadata, "input_shape")
    lists = isinstance(names, list) and isinstance(shape, list) and len(shape) == 3
    if not lists or not names or not all(isinstance(name, str) for name in names):
        return None
    normalization, sized = parse_normalization(metadata), all(type(n) is int and 0 < n <= MAX_SIDE for n in shape)
    if not sized or normalization is None or len(normalization[0]) != shape[0]:
        return None
    return ImageFacts(tuple(names), (shape[0], shape[1], shape[2]), *normalization)


def parse_normalization(metadata: Mapping[str, Any]) -> MeanAndStd | None:
    """Return the mean and standard deviation of each channel; None if the metadata have none that are valid."""
    with suppress(TypeError, ValueError, OverflowError):
        mean, std = (tuple(map(float, parse_json(metadata, key))) for key in ("mean", "std"))
        if len(mean) == len(std) > 0 and all(map(isfinite, mean + std)) and min(std) > 0:
            return mean, std
    return None
