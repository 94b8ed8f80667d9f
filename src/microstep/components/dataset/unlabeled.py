"""Reads images without labels one by one, so that a file that can't be read affects no other."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from microstep.components.dataset.decoding import Decoder
from microstep.components.dataset.files import ImageFiles
from microstep.components.dataset.listing import find_files
from microstep.components.dataset.normalization import Normalizer
from microstep.components.dataset.workers import ReadRequest, WorkerPool
from microstep.errors import DataError, MicrostepError
from microstep.types.data import Batch

INPUT_SPLIT = "input"  #: key of the images in the worker pool
IMAGES_PER_WORKER = 16  #: fewest images per worker process
INPUT_REMEDY = "give a folder of images, or one image"
ReadResults = Iterable[Tensor | MicrostepError]


def find_unlabeled_images(input_path: str, decoder: Decoder) -> ImageFiles:
    """Find the files below a folder, except hidden ones, sorted by path; or the one file that `input_path` names.

    Every file counts as an image, so that one that can't be read is reported. Every label is 0, and there are no class
    names. Raise a DataError if no files are found.
    """
    path = Path(input_path)
    if not input_path or not path.exists():
        raise DataError(f"input={input_path}", "no such folder or file", INPUT_REMEDY)
    root, images = path.parent, [path]
    if path.is_dir():  # skip pipes and devices, but not dangling links, so that they are reported
        root, images = path, [file for file in find_files(path) if file.is_file() or not file.exists()]
    files = sorted(str(file.relative_to(root)) for file in images)
    if not files:
        raise DataError(f"input={input_path}", "it holds no files", INPUT_REMEDY)
    labels = np.zeros(len(files), dtype=np.int64)
    return ImageFiles(root, np.array(files), labels, (), decoder, np.arange(len(files)))


def make_input_workers(files: ImageFiles, max_workers: int) -> WorkerPool:
    """Return worker processes for these files: at most `max_workers`, none for a few files."""
    return WorkerPool({INPUT_SPLIT: files}, min(max_workers, len(files) // IMAGES_PER_WORKER))


def read_input(workers: WorkerPool, count: int) -> Iterator[Tensor | MicrostepError]:
    """Yield each of `count` images (1 × C × H × W, uint8), or the error of its file, in order."""
    return workers.stream([ReadRequest(INPUT_SPLIT, [row]) for row in range(count)])


class ReadableBatches:
    """Batches of the images that can be read, normalized; all targets are 0. Can be iterated once.

    Afterwards, `unreadable_reasons` holds the reason of each image that could not be read, by row.

    Args:
        results: Each image (1 × C × H × W, uint8) or the error of its file.
        size: Batch size.
        shape: Channels, height and width of an image.
    """

    def __init__(
        self, results: ReadResults, size: int, shape: tuple[int, ...], normalizer: Normalizer, device: torch.device
    ) -> None:
        self.results, self.size, self.normalizer, self.device = results, size, normalizer, device
        self.images = torch.empty((size, *shape), dtype=torch.uint8)
        self.unreadable_reasons: dict[int, str] = {}

    def __iter__(self) -> Iterator[Batch]:
        rows: list[int] = []
        for row, result in enumerate(self.results):
            if isinstance(result, MicrostepError):
                self.unreadable_reasons[row] = str(result.args[1])
                continue
            self.images[len(rows)] = result[0]  # a copy: a tensor of another process holds a file descriptor
            rows.append(row)
            if len(rows) == self.size:
                yield self.make_batch(rows)
                rows = []
        if rows:
            yield self.make_batch(rows)

    def make_batch(self, rows: list[int]) -> Batch:
        indices = torch.tensor(rows, device=self.device)
        inputs = self.normalizer(self.images[: len(rows)].to(self.device))
        return Batch(inputs, torch.zeros_like(indices), indices, indices)
