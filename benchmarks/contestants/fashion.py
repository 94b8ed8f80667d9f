"""Smaller copy of Fashion-MNIST: the first images of its IDX files."""

from __future__ import annotations

import gzip
import struct
from math import prod
from pathlib import Path

COUNTS = {"train": 11_000, "t10k": 1_000}
NAMES = ("images-idx3-ubyte", "labels-idx1-ubyte")


def shorten(source: Path, target: Path) -> Path:
    """Write the first images and labels of both official splits. The files in `source` may be gzipped."""
    target.mkdir()
    for prefix, count in COUNTS.items():
        for name in NAMES:
            content = read(source / f"{prefix}-{name}")
            sizes = struct.unpack_from(f">{content[3]}I", content, 4)
            end = 4 + 4 * len(sizes) + count * prod(sizes[1:])
            (target / f"{prefix}-{name}").write_bytes(content[:4] + struct.pack(">I", count) + content[8:end])
    return target


def read(file: Path) -> bytes:
    zipped = file.with_name(f"{file.name}.gz")
    return gzip.decompress(zipped.read_bytes()) if zipped.exists() else file.read_bytes()
