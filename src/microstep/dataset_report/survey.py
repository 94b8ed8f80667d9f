"""Reads each image of a split once and collects totals and facts."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from hashlib import blake2b
from operator import add

import numpy as np

from microstep.components.dataset.cropping import read_published_size
from microstep.components.dataset.images import ImageSource, chunk_rows
from microstep.components.dataset.loader_processes import loader_errors
from microstep.components.dataset.statistics import ExactSums, split_pieces
from microstep.components.dataset.workers import ReadRequest, WorkerPool
from microstep.dataset_report.sampling import compute_moments, count_labels, sum_by_class
from microstep.errors import DataError, MicrostepError, escape_unprintable

DIGEST_BYTES = 16  #: among 10⁹ images, two different ones have the same digest with a probability of 10⁻²¹


@dataclass(frozen=True)
class ImageChunk:
    """Some images of a split, with their rows."""

    rows: Sequence[int]
    pixels: np.ndarray  #: N × C × H × W, uint8

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class RunningTotals:
    """Sums over images. They are exact, so the order does not matter."""

    count: int  #: images
    channels: list[ExactSums]
    class_counts: np.ndarray  #: images of each class
    class_totals: np.ndarray  #: classes × C: sums of pixels

    @classmethod
    def from_chunk(cls, chunk: ImageChunk, source: ImageSource) -> "RunningTotals":
        labels, classes = source.labels[chunk.rows], len(source.class_names)
        counts, totals = count_labels(labels, len(chunk), classes), sum_by_class(chunk.pixels, labels, classes)
        return cls(len(chunk), sum_chunk_channels(chunk.pixels), counts, totals)

    def __add__(self, other: "RunningTotals") -> "RunningTotals":
        return RunningTotals(
            self.count + other.count,
            [one + more for one, more in zip(self.channels, other.channels, strict=True)],
            self.class_counts + other.class_counts,
            self.class_totals + other.class_totals,
        )


def sum_chunk_channels(pixels: np.ndarray) -> list[ExactSums]:
    channels = range(pixels.shape[1])
    return [reduce(add, (ExactSums.from_pixels(piece[:, c]) for piece in split_pieces(pixels))) for c in channels]


@dataclass(frozen=True)
class ImageFacts:
    """A few bytes about each readable image."""

    rows: np.ndarray
    digests: np.ndarray  #: N × 2, uint64: hashes of the pixels
    constant: np.ndarray  #: N, bool: whether all pixels of the image are equal
    sizes: np.ndarray  #: N × 2: published width and height; 0 × 0 of files removed since they were decoded
    moments: np.ndarray  #: N × 2 × C, see `Stratum`; empty if all images of a split are read

    @classmethod
    def from_chunk(cls, chunk: ImageChunk, source: ImageSource, is_sample: bool) -> "ImageFacts":
        pixels = np.ascontiguousarray(chunk.pixels)
        digests = b"".join(blake2b(image.data, digest_size=DIGEST_BYTES).digest() for image in pixels)
        constant = (pixels == pixels[:, :, :1, :1]).all((1, 2, 3))
        sizes = np.array([read_published_size(source, row) for row in chunk.rows])
        moments = compute_moments(pixels if is_sample else pixels[:0], source.scale)
        return cls(np.array(chunk.rows), np.frombuffer(digests, np.uint64).reshape(-1, 2), constant, sizes, moments)

    @classmethod
    def concatenate(cls, facts: Sequence["ImageFacts"]) -> "ImageFacts":
        columns = ([getattr(part, name) for part in facts] for name in cls.__dataclass_fields__)
        rows, digests, constant, sizes, moments = map(np.concatenate, columns)
        order = np.argsort(rows)
        return cls(rows[order], digests[order], constant[order], sizes[order], moments)


#: Wraps a stream of chunks, with a label and the total number of images.
ChunkProgressBar = Callable[[Iterable[ImageChunk], str, int], Iterator[ImageChunk]]


@dataclass(frozen=True)
class SplitSurvey:
    """The result of one pass over a split."""

    split: str
    source: ImageSource
    totals: RunningTotals
    facts: ImageFacts  #: of readable images
    unreadable: dict[int, str]  #: row → reason
    is_sample: bool

    @classmethod
    def from_split(
        cls, split: str, rows: Sequence[int], workers: WorkerPool, bar: ChunkProgressBar, is_sample: bool
    ) -> "SplitSurvey":
        """Read some rows of a split. Raise DataError if none can be read."""
        source, unreadable = workers.reader.sources[split], dict[int, str]()
        totals, facts = None, list[ImageFacts]()
        with loader_errors():
            for chunk in bar(read_chunks(workers, split, rows, unreadable), split, len(rows)):
                added = RunningTotals.from_chunk(chunk, source)
                totals = totals + added if totals else added
                facts.append(ImageFacts.from_chunk(chunk, source, is_sample))
        if totals is None:
            row, reason = next(iter(unreadable.items()))
            first = f"{escape_unprintable(source.get_name(row))}: {reason}"
            raise DataError(f"split={split}", f"none of {len(rows):,} images can be read ({first})", "repair the files")
        ordered = dict(sorted(unreadable.items()))
        return cls(split, source, totals, ImageFacts.concatenate(facts), ordered, is_sample)


def read_chunks(
    workers: WorkerPool, split: str, rows: Sequence[int], unreadable: dict[int, str]
) -> Iterator[ImageChunk]:
    """Yield images in chunks, those with an unreadable file last and one by one. `unreadable` receives the reasons."""
    first = [ReadRequest(split, chunk) for chunk in chunk_rows(rows, workers.reader.sources[split])]
    retried = list[ReadRequest]()
    for requests in (first, retried):
        for request, result in zip(requests, workers.stream(requests), strict=True):
            if not isinstance(result, MicrostepError):
                yield ImageChunk(request.rows, result.numpy())
            elif requests is first:
                retried += [ReadRequest(split, [row]) for row in request.rows]
            else:
                unreadable[request.rows[0]] = str(result.args[1])
