"""Image files as a source of images, and the digests that identify them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from microstep.components.dataset.decoding import Decoder, insist_on_file, size_of
from microstep.components.dataset.images import Bytes, Labels
from microstep.errors import DataError
from microstep.utils.json_files import load_cached, store_cached


@dataclass(frozen=True)
class PictureFiles:
    """Picture files below a directory, with their classes."""

    root: Path
    files: np.ndarray  #: N: paths relative to `root`
    labels: Labels  #: N
    class_names: tuple[str, ...]
    decoder: Decoder
    places: Labels  #: N: each file's place in the sorted list of its split's files
    scale: ClassVar[float] = 255.0
    in_memory: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.decoder.shape

    def at(self, rows: Labels) -> PictureFiles:
        """Return some of the pictures; they keep their places."""
        return replace(self, files=self.files[rows], labels=self.labels[rows], places=self.places[rows])

    def read(self, rows: Sequence[int] | slice) -> Bytes:
        """Return pixels: N × C × H × W.

        Raises:
            DataError: naming the first file that can't be read.
        """
        pixels = [self.decoder(self.root / file) for file in self.files[rows]]
        return np.stack(pixels) if pixels else np.empty((0, *self.shape), dtype=np.uint8)

    def sizes(self, rows: Sequence[int]) -> list[tuple[int, int]]:
        """Return width and height as the files declare them."""
        return [size_of(self.root / file, self.decoder.max_pixels) for file in self.files[rows]]

    def name(self, row: int) -> str:
        """Return the file's path below the data set's root."""
        return str(self.files[row])

    def content(self) -> Iterator[Any]:
        """Yield how files are decoded, their names and classes, and a SHA-256 of each."""
        yield f"{self.decoder.shape} {self.class_names}".encode()
        yield "\0".join(self.files).encode(errors="surrogateescape")
        yield from (np.ascontiguousarray(array).data for array in (self.labels, self.places))
        yield "".join(digests(self.root, self.files.tolist())).encode()


PART = 4096  #: files that are queued at once


def digests(root: Path, files: Sequence[str]) -> list[str]:
    """Return each file's SHA-256.

    A file whose size and times (of its content, of its inode) are those of the last time is not read again.

    Raises:
        DataError: naming a file that can't be read at all.
    """
    name = f"files/{sha256(str(root.resolve()).encode()).hexdigest()}.json"
    known = load_cached(name)
    found = {file: stamped(root / file) for file in files}
    changed = [file for file in files if not holds(known.get(file), found[file])]
    with ThreadPoolExecutor() as threads:  # reading and hashing both let other threads run
        for part in (changed[start : start + PART] for start in range(0, len(changed), PART)):
            for file, digest in zip(part, threads.map(lambda file: digest_of(root / file), part), strict=True):
                known[file] = [*found[file], digest]
    if changed:
        store_cached(name, known)
    return [known[file][-1] for file in files]


def holds(entry: Any, stamp: list[int]) -> bool:
    """Whether an entry of the cache is whole, and of the file as it is now."""
    return isinstance(entry, list) and entry[:-1] == stamp and isinstance(entry[-1], str)


def stamped(file: Path) -> list[int]:
    """Return size and times of change: a copy that keeps the one time, as cp -p makes, has another of the other."""
    try:
        insist_on_file(file)
        status = file.stat()
    except OSError as error:
        raise DataError(str(file), error.strerror or "it can't be read", "mend it or take it away") from None
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def digest_of(file: Path) -> str:
    """Return a file's SHA-256."""
    try:
        with file.open("rb") as stream:
            return file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(str(file), error.strerror or "it can't be read", "mend it or take it away") from None
