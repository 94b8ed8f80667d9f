"""Caches decoded images on disk: the first epoch fills the file of a split, later epochs and runs read it.

A record of the file is the pixels of an image and their CRC-32. A record that doesn't fit its CRC-32 is decoded again,
so a killed process, a power cut, a damaged file or two processes that write at once change no image.
"""

import logging
import os
import shutil
import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from PIL import features
from torch.utils.data import get_worker_info

from microstep.components.dataset.decoding import DECODING_VERSION, Decoder, OwnDecoder
from microstep.components.dataset.images import Int64Array, UInt8Array
from microstep.errors import StorageError
from microstep.utils.files import read_stamp, storage_errors

CODECS = ("pil", "libjpeg_turbo", "jpg_2000", "libtiff", "webp")  #: parts of Pillow that make pixels of a file
CRC_BYTES = 4
log = logging.getLogger("microstep.notice")


@dataclass(frozen=True, eq=False)
class ImageCache:
    """Keeps the pixels of the images of an official split in a file, which is opened for each batch."""

    file: Path
    image_bytes: int  #: of the pixels of one image
    stamps: Int64Array  #: N × 3: stamp of each image file when its content was hashed

    @property
    def record_bytes(self) -> int:
        return self.image_bytes + CRC_BYTES

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.stamps) * self.record_bytes

    def is_current(self, index: int, image_file: Path) -> bool:
        """Return whether an image file, by published index, is the one whose content was hashed."""
        with suppress(OSError):  # it has been removed meanwhile
            return bool(read_stamp(image_file) == self.stamps[index].tolist())
        return False

    def load(self, indices: Int64Array, pixels: UInt8Array) -> list[int]:
        """Read cached images into `pixels`; return the rows of those that are not cached."""
        missing, stored = list[int](), bytearray(CRC_BYTES)
        with suppress(OSError), self.file.open("rb", buffering=0) as stream:
            for row, index in enumerate(indices.tolist()):
                count = os.preadv(stream.fileno(), [pixels[row], stored], index * self.record_bytes)
                if count < self.record_bytes or stored != compute_checksum(pixels[row]):
                    missing.append(row)
            return missing
        return list(range(len(indices)))

    def store(self, indices: Int64Array, pixels: UInt8Array) -> None:
        try:
            with self.file.open("r+b", buffering=0) as stream:
                for index, image in zip(indices.tolist(), pixels, strict=True):
                    os.pwritev(stream.fileno(), [image, compute_checksum(image)], index * self.record_bytes)
        except OSError as error:
            if (worker := get_worker_info()) is None or worker.id == 0:  # all workers meet the same error
                warn_once(self.file.parent, error.strerror)


def find_cache(directory: Path, decoder: Decoder | OwnDecoder, identities: list[Any]) -> ImageCache:
    """Return the cache of files that are decoded this way. Their identities are stamp and SHA-256."""
    *stamps, digests = zip(*identities, strict=True)
    versions = DECODING_VERSION, *map(features.version, CODECS)
    key = sha256(f"{decoder} {versions} {digests}".encode()).hexdigest()
    return ImageCache(directory / f"{key}.pixels", prod(decoder.shape), np.array(stamps).T)


def compute_checksum(image: UInt8Array) -> bytes:
    return crc32(image.data).to_bytes(CRC_BYTES, sys.byteorder)  # never 0 for black pixels, as in a hole of the file


@cache
def warn_once(directory: Path, reason: str) -> None:
    log.warning("dataset.cache=%s: %s; images that it lacks are decoded in each epoch", directory, reason)


def create_cache_files(directory: Path, caches: Collection[ImageCache]) -> None:
    """Create the cache files that don't exist with their full size, but without their blocks.

    Raise a StorageError if the disk has no room for them, or they can't be created.
    """
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        new = [one for one in caches if not one.file.exists() or one.file.stat().st_size != one.size]
        needed, free = sum(one.size for one in new), shutil.disk_usage(directory).free
        if needed > free:
            reason = f"the decoded images need {needed:,} bytes, and {free:,} are free"
            remedy = "free some space, or choose another directory"
            raise StorageError(f"dataset.cache={directory}", reason, remedy)
        for one in new:
            one.file.touch()
            os.truncate(one.file, one.size)
