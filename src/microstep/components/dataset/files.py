"""Image files as a source of images, and the SHA-256 digests that identify them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from microstep.components.dataset.cache import ImageCache, create_cache_files, find_cache
from microstep.components.dataset.decoding import Decoder, OwnDecoder, check_regular_file, read_image_size
from microstep.components.dataset.images import Int64Array, Targets, UInt8Array
from microstep.errors import DataError
from microstep.utils.files import read_stamp
from microstep.utils.json_files import load_cached, store_cached

FILES_PER_BATCH = 4096  #: files that are queued for hashing at once


@dataclass(frozen=True)
class ImageFiles:
    """Image files below a directory, with their targets."""

    root: Path
    files: np.ndarray  #: N: paths relative to `root`
    labels: Targets
    class_names: tuple[str, ...]  #: as for `Images`
    decoder: Decoder | OwnDecoder = field(default=Decoder(64, 64, 3))
    indices: Int64Array | None = None  #: N: index of each file in its official split; None means 0, 1, 2, …
    cache: ImageCache | None = None  #: of the official split
    groups: np.ndarray | None = None  #: N: files of one group stay in one split; None: each is its own
    scale: ClassVar[float] = 255.0
    in_memory: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.decoder.shape

    @property
    def published_indices(self) -> Int64Array:
        return np.arange(len(self)) if self.indices is None else self.indices

    def select(self, rows: Int64Array) -> ImageFiles:
        indices, groups = self.published_indices[rows], None if self.groups is None else self.groups[rows]
        return replace(self, files=self.files[rows], labels=self.labels[rows], indices=indices, groups=groups)

    def read(self, rows: Sequence[int] | slice) -> UInt8Array:
        """Decode these files and return their pixels: N × C × H × W. Raise a DataError if a file can't be read."""
        files, indices = self.files[rows], self.published_indices[rows]
        pixels = np.empty((len(files), *self.shape), dtype=np.uint8)  # np.stack would keep a decoder's layout
        missing = range(len(files)) if self.cache is None else self.cache.load(indices, pixels)
        for row in missing:
            pixels[row] = self.decoder(self.root / files[row])
        if self.cache is not None:
            current = [row for row in missing if self.cache.is_current(indices[row], self.root / files[row])]
            if current:
                self.cache.store(indices[current], pixels[current])
        return pixels

    def read_size(self, row: int) -> tuple[int, int]:
        return read_image_size(self.root / self.files[row], self.decoder.max_pixels)

    def get_name(self, row: int) -> str:
        return str(self.files[row])

    def iter_content(self) -> Iterator[Any]:
        """Yield shape, class names and fit, file names, labels, published indices, and a SHA-256 of each file."""
        fit = "" if self.decoder.fit == "crop" else f" {self.decoder.fit}"  # the only one up to 0.1.0
        yield f"{self.decoder.shape} {self.class_names}{fit}".encode()
        yield "\0".join(self.files).encode(errors="surrogateescape")
        yield from (np.ascontiguousarray(array).data for array in (self.labels, self.published_indices))
        yield "".join(hash_files(self.root, self.files.tolist())).encode()


def cache_decoded(splits: Mapping[str, ImageFiles], directory: Path) -> dict[str, ImageFiles]:
    """Return the splits with a cache of their decoded images in a directory: one file for each split's content.

    Raise a StorageError if the files can't be created, or a DataError if an image file can't be read.
    """
    caches = {
        name: find_cache(directory, one.decoder, identify_files(one.root, one.files.tolist()))
        for name, one in splits.items()
    }
    create_cache_files(directory, caches.values())
    return {name: replace(source, cache=caches[name]) for name, source in splits.items()}


def hash_files(root: Path, files: Sequence[str]) -> list[str]:
    """Return the SHA-256 of each file. Raise a DataError if a file can't be read."""
    return [entry[-1] for entry in identify_files(root, files)]


def identify_files(root: Path, files: Sequence[str]) -> list[list[Any]]:
    """Return the stamp (size, mtime, ctime) and SHA-256 of each file. Raise a DataError if a file can't be read.

    Digests are cached. A file is read again only if its size or its times (mtime, ctime) have changed.
    """
    cache_name = f"files/{sha256(str(root.resolve()).encode()).hexdigest()}.json"
    cache = load_cached(cache_name)
    stamps = {file: read_file_stamp(root / file) for file in files}
    changed = [file for file in files if not is_current(cache.get(file), stamps[file])]
    with ThreadPoolExecutor() as threads:  # reading and hashing both release the GIL
        for batch in (changed[start : start + FILES_PER_BATCH] for start in range(0, len(changed), FILES_PER_BATCH)):
            for file, digest in zip(batch, threads.map(lambda file: hash_file(root / file), batch), strict=True):
                cache[file] = [*stamps[file], digest]
    if changed:
        store_cached(cache_name, cache)
    return [cache[file] for file in files]


def is_current(entry: Any, stamp: list[int]) -> bool:
    """Return whether a cache entry is well-formed and belongs to the file with this stamp."""
    return isinstance(entry, list) and entry[:-1] == stamp and isinstance(entry[-1], str)


def read_file_stamp(file: Path) -> list[int]:
    """Return the stamp of a file. Raise a DataError if it is no regular file or can't be read."""
    with unreadable_file_errors(file):
        check_regular_file(file)
        return read_stamp(file)


def hash_file(file: Path) -> str:
    with unreadable_file_errors(file), file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


@contextmanager
def unreadable_file_errors(file: Path) -> Iterator[None]:
    """Raise a DataError that names the file if the operating system can't read it."""
    try:
        yield
    except OSError as error:
        raise DataError(str(file), error.strerror or "it can't be read", "repair or remove it") from None
