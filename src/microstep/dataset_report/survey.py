"""Reads every sampled image of a split once and accumulates its facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from hashlib import blake2b
from operator import add
from unicodedata import category

import numpy as np

from microstep.components.dataset.images import ImageSource, chunk_rows
from microstep.components.dataset.statistics import ExactSums, split_pieces
from microstep.components.dataset.workers import ReadRequest, WorkerPool, loader_errors
from microstep.dataset_report.sampling import compute_moments, count_labels, sum_by_class
from microstep.errors import DataError, MicrostepError

DIGEST_BYTES = 16  #: bytes: among a thousand million pictures two are taken for the same with a chance of 1 to 10 ** 20


@dataclass(frozen=True)
class ImageChunk:
    """Some pictures of a split, with their rows."""

    rows: Sequence[int]
    pixels: np.ndarray  #: N × C × H × W, uint8

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class RunningTotals:
    """What adds up over pictures, exactly, in whatever order."""

    count: int  #: pictures
    channels: list[ExactSums]
    class_counts: np.ndarray  #: pictures of each class
    class_totals: np.ndarray  #: classes × C: sums of pixels
    sizes: Counter[tuple[int, int]]  #: how many pictures were published in each width and height

    @classmethod
    def of(cls, chunk: ImageChunk, source: ImageSource) -> RunningTotals:
        """Return what some pictures of a split add."""
        labels, classes = source.labels[chunk.rows], len(source.class_names)
        counts, totals = count_labels(labels, len(chunk), classes), sum_by_class(chunk.pixels, labels, classes)
        return cls(
            len(chunk),
            sum_chunk_channels(chunk.pixels),
            counts,
            totals,
            Counter(read_published_sizes(source, chunk.rows)),
        )

    def __add__(self, other: RunningTotals) -> RunningTotals:
        return RunningTotals(
            self.count + other.count,
            [one + more for one, more in zip(self.channels, other.channels, strict=True)],
            self.class_counts + other.class_counts,
            self.class_totals + other.class_totals,
            self.sizes + other.sizes,
        )


def sum_chunk_channels(pixels: np.ndarray) -> list[ExactSums]:
    """Return the sums of each channel."""
    channels = (
        [ExactSums.of(piece[:, channel]) for piece in split_pieces(pixels)] for channel in range(pixels.shape[1])
    )
    return [reduce(add, parts) for parts in channels]


def read_published_sizes(source: ImageSource, rows: Sequence[int]) -> list[tuple[int, int]]:
    """Return the published sizes, but of those whose files have gone since they were decoded."""
    with suppress(DataError):
        return source.sizes(rows)
    return [size for row in rows for size in read_published_sizes(source, [row])] if len(rows) > 1 else []


@dataclass(frozen=True)
class ImageFacts:
    """What is kept of every picture: some bytes each."""

    rows: np.ndarray
    digests: np.ndarray  #: N × 2, uint64: of the pixels
    constant: np.ndarray  #: whether each channel is the same everywhere
    moments: np.ndarray  #: N × 2 × C of a sample, see sampling.py; empty where all pictures are read

    @classmethod
    def of(cls, chunk: ImageChunk, scale: float, sampled: bool) -> ImageFacts:
        """Return what is kept of some pictures."""
        pixels = np.ascontiguousarray(chunk.pixels)
        digests = b"".join(blake2b(picture.data, digest_size=DIGEST_BYTES).digest() for picture in pixels)
        constant = (pixels == pixels[:, :, :1, :1]).all((1, 2, 3))
        kept = compute_moments(pixels if sampled else pixels[:0], scale)
        return cls(np.array(chunk.rows), np.frombuffer(digests, np.uint64).reshape(-1, 2), constant, kept)

    @classmethod
    def joined(cls, facts: Sequence[ImageFacts]) -> ImageFacts:
        """Return the marks of all pictures, by row."""
        rows, digests, constant, kept = (
            np.concatenate([getattr(part, name) for part in facts]) for name in cls.__dataclass_fields__
        )
        order = np.argsort(rows)
        return cls(rows[order], digests[order], constant[order], kept)


ChunkProgressBar = Callable[
    [Iterable[ImageChunk], str, int], Iterator[ImageChunk]
]  #: a stream of chunks, its label, pictures in all


@dataclass(frozen=True)
class SplitSurvey:
    """What one pass over a split has found."""

    split: str
    pictures: ImageSource
    tally: RunningTotals
    marks: ImageFacts  #: of the pictures that could be read
    unreadable: dict[int, str]  #: row → why
    sampled: bool

    @classmethod
    def of(
        cls, split: str, rows: Sequence[int], workers: WorkerPool, bar: ChunkProgressBar, sampled: bool
    ) -> SplitSurvey:
        """Read some rows of a split of the workers'.

        Raises:
            DataError: where none of them can be read.
            MicrostepError: for a worker that died or took too long.
        """
        pictures, unreadable = workers.reader.pictures[split], dict[int, str]()
        tally, marks = None, []
        with loader_errors():
            for chunk in bar(read_chunks(workers, split, rows, unreadable), split, len(rows)):
                found = RunningTotals.of(chunk, pictures)
                tally = found if tally is None else tally + found
                marks.append(ImageFacts.of(chunk, pictures.scale, sampled))
        if tally is None:
            row, reason = next(iter(unreadable.items()))
            first = f"{get_image_name(pictures, row)}: {reason}"
            raise DataError(f"split={split}", f"none of {len(rows):,} pictures can be read ({first})", "mend the files")
        return cls(split, pictures, tally, ImageFacts.joined(marks), dict(sorted(unreadable.items())), sampled)

    def name(self, row: int) -> str:
        """Return what a person finds a picture by."""
        return get_image_name(self.pictures, row)


def read_chunks(
    workers: WorkerPool, split: str, rows: Sequence[int], unreadable: dict[int, str]
) -> Iterator[ImageChunk]:
    """Yield pictures, as many as fit a chunk; those of a chunk with a bad file come at the end, one by one.

    Args:
        unreadable: takes the row of each bad file, and what is wrong with it.
    """
    wanted = [ReadRequest(split, chunk) for chunk in chunk_rows(rows, workers.reader.pictures[split])]
    spoilt = list[int]()
    for one, found in zip(wanted, workers.stream(wanted), strict=True):
        if isinstance(found, MicrostepError):
            spoilt += one.rows
        else:
            yield ImageChunk(one.rows, found.numpy())
    singly = [ReadRequest(split, [row]) for row in spoilt]
    for one, found in zip(singly, workers.stream(singly), strict=True):
        if isinstance(found, MicrostepError):
            unreadable[one.rows[0]] = str(found.args[1])
        else:
            yield ImageChunk(one.rows, found.numpy())


def get_image_name(source: ImageSource, row: int) -> str:
    return make_printable(source.name(row))


def make_printable(name: str) -> str:
    """Return a name without what breaks a line, or can't be written as UTF-8."""
    return "".join("�" if category(letter) in ("Cc", "Cs") else letter for letter in name)
