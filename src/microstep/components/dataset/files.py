"""Image files as a source of images, and the digests that identify them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from microstep.components.dataset.decoding import Decoder, check_regular_file, read_image_size
from microstep.components.dataset.images import Int64Array, UInt8Array
from microstep.errors import DataError
from microstep.utils.json_files import load_cached, store_cached


@dataclass(frozen=True)
class ImageFiles:
    """Picture files below a directory, with their classes."""

    root: Path
    files: np.ndarray  #: N: paths relative to `root`
    labels: Int64Array  #: N
    class_names: tuple[str, ...]
    decoder: Decoder
    places: Int64Array  #: N: each file's place in the sorted list of its split's files
    scale: ClassVar[float] = 255.0
    in_memory: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.decoder.shape

    def at(self, rows: Int64Array) -> ImageFiles:
        """Return some of the pictures; they keep their places."""
        return replace(self, files=self.files[rows], labels=self.labels[rows], places=self.places[rows])

    def read(self, rows: Sequence[int] | slice) -> UInt8Array:
        """Return pixels: N × C × H × W.

        Raises:
            DataError: naming the first file that can't be read.
        """
        pixels = [self.decoder(self.root / file) for file in self.files[rows]]
        return np.stack(pixels) if pixels else np.empty((0, *self.shape), dtype=np.uint8)

    def sizes(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Return width and height as the files declare them."""
        return [read_image_size(self.root / file, self.decoder.max_pixels) for file in self.files[rows]]

    def name(self, row: int) -> str:
        """Return the file's path below the data set's root."""
        return str(self.files[row])

    def content(self) -> Iterator[Any]:
        """Yield how files are decoded, their names and classes, and a SHA-256 of each."""
        yield f"{self.decoder.shape} {self.class_names}".encode()
        yield "\0".join(self.files).encode(errors="surrogateescape")
        yield from (np.ascontiguousarray(array).data for array in (self.labels, self.places))
        yield "".join(hash_files(self.root, self.files.tolist())).encode()


FILES_PER_BATCH = 4096  #: files that are queued at once


def hash_files(root: Path, files: Sequence[str]) -> list[str]:
    """Return each file's SHA-256.

    A file whose size and times (of its content, of its inode) are those of the last time is not read again.

    Raises:
        DataError: naming a file that can't be read at all.
    """
    name = f"files/{sha256(str(root.resolve()).encode()).hexdigest()}.json"
    known = load_cached(name)
    found = {file: read_file_stamp(root / file) for file in files}
    changed = [file for file in files if not is_current(known.get(file), found[file])]
    with ThreadPoolExecutor() as threads:  # reading and hashing both let other threads run
        for part in (changed[start : start + FILES_PER_BATCH] for start in range(0, len(changed), FILES_PER_BATCH)):
            for file, digest in zip(part, threads.map(lambda file: hash_file(root / file), part), strict=True):
                known[file] = [*found[file], digest]
    if changed:
        store_cached(name, known)
    return [known[file][-1] for file in files]


def is_current(entry: Any, stamp: list[int]) -> bool:
    """Whether an entry of the cache is whole, and of the file as it is now."""
    return isinstance(entry, list) and entry[:-1] == stamp and isinstance(entry[-1], str)


def read_file_stamp(file: Path) -> list[int]:
    """Return size and times of change: a copy that keeps the one time, as cp -p makes, has another of the other."""
    try:
        check_regular_file(file)
        status = file.stat()
    except OSError as error:
        raise DataError(str(file), error.strerror or "it can't be read", "mend it or take it away") from None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def hash_file(file: Path) -> str:
    """Return a file's SHA-256."""
    try:
        with file.open("rb") as stream:
            return file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(str(file), error.strerror or "it can't be read", "mend it or take it away") from None
