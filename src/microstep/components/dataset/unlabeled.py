"""Pictures that nobody has labelled: found below a folder, and read one by one, so that a bad file spoils no other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from microstep.components.dataset.decoding import IMAGE_SUFFIXES, Decoder
from microstep.components.dataset.files import ImageFiles
from microstep.components.dataset.folder import find_images
from microstep.components.dataset.normalization import Normalizer
from microstep.components.dataset.workers import ReadRequest, WorkerPool
from microstep.errors import DataError, MicrostepError
from microstep.types.data import Batch

INPUT_SPLIT = "input"  #: by which the workers know the pictures
IMAGES_PER_WORKER = 16  #: pictures for which one more process is worth its start
INPUT_REMEDY = "give a folder of pictures, or one picture"
ReadResult = Tensor | MicrostepError


def find_unlabeled_images(input_path: str, decoder: Decoder) -> ImageFiles:
    """Return the pictures below a folder, hidden ones left out, sorted by path; or the one file that `input_path`
    names.

    Every label is 0, and there are no class names.

    Raises:
        DataError: where there is no such place, or no picture in it.
    """
    path = Path(input_path)
    if not input_path or not path.exists():
        raise DataError(f"input={input_path}", "no such folder or file", INPUT_REMEDY)
    root = path if path.is_dir() else path.parent
    files = sorted(str(file.relative_to(root)) for file in (find_regular_images(path) if path.is_dir() else [path]))
    if not files:
        raise DataError(
            f"input={input_path}", f"it holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))})", INPUT_REMEDY
        )
    labels = np.zeros(len(files), dtype=np.int64)
    return ImageFiles(root, np.array(files), labels, (), decoder, np.arange(len(files)))


def find_regular_images(folder: Path) -> Iterator[Path]:
    """Yield a folder's pictures; a pipe or a device would be waited for without end, a dangling link is told of."""
    return (file for file in find_images(folder) if file.is_file() or not file.exists())


def make_input_workers(files: ImageFiles, max_workers: int) -> WorkerPool:
    """Return the processes that read the pictures: at most as many as that, none for a handful."""
    return WorkerPool({INPUT_SPLIT: files}, min(max_workers, len(files) // IMAGES_PER_WORKER))


def read_input(workers: WorkerPool, count: int) -> Iterator[ReadResult]:
    """Yield each of `count` pictures (1 × C × H × W, uint8), or why it can't be read, in order."""
    return workers.stream([ReadRequest(INPUT_SPLIT, [row]) for row in range(count)])


class ReadableBatches:
    """Batches of those pictures that can be read, normalised, on the normaliser's device; their targets are 0.

    Iterate it once; `unreadable` then says why, by row, of every picture that is in no batch.

    Args:
        read: every picture, or why it can't be read.
        size: of a batch.
        shape: of a picture: channels, height, width.
        normalizer: makes inputs of bytes.
        device: where batches come to.
    """

    def __init__(
        self,
        read: Iterable[ReadResult],
        size: int,
        shape: tuple[int, int, int],
        normalizer: Normalizer,
        device: torch.device,
    ) -> None:
        self.read, self.size, self.normaliser, self.device = read, size, normalizer, device
        self.images = torch.empty((size, *shape), dtype=torch.uint8)
        self.unreadable: dict[int, str] = {}

    def __iter__(self) -> Iterator[Batch]:
        rows: list[int] = []
        for row, one in enumerate(self.read):
            if isinstance(one, MicrostepError):
                self.unreadable[row] = str(one.args[1])
                continue
            self.images[len(rows)] = one[0]  # a copy: each picture of another process holds a file descriptor
            rows.append(row)
            if len(rows) == self.size:
                yield self.batch(rows)
                rows = []
        if rows:
            yield self.batch(rows)

    def batch(self, rows: list[int]) -> Batch:
        """Return the pictures that have come together."""
        indices = torch.tensor(rows, device=self.device)
        inputs = self.normaliser(self.images[: len(rows)].to(self.device))
        return Batch(inputs, torch.zeros_like(indices), indices, indices)
