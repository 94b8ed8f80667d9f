"""Mean and deviation that can't be wrong: given and checked, the weights' own, or the training pictures', exactly."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from microstep.components.dataset.images import ImageSource, ProgressBar, chunk_rows
from microstep.components.dataset.statistics import ChannelStatistics
from microstep.components.dataset.workers import ReadRequest, WorkerPool
from microstep.errors import DataError, MicrostepError
from microstep.utils.json_files import load_cached, store_cached

log = logging.getLogger("microstep.notice")
CHECK_SAMPLES = 512  #: pictures that a given value is held against
MAX_MEAN_SHIFT = 0.25  #: deviations that a given mean may be off
MAX_STD_RATIO = 1.33  #: times that a given deviation may be off


@dataclass(frozen=True)
class Normalization:
    """What pixels are normalised by, per channel, and where the numbers are from."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str

    def __str__(self) -> str:
        return f"mean {format_channel_values(self.mean)}, std {format_channel_values(self.std)} ({self.origin})"


def format_channel_values(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def compute_normalization(
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    train: ImageSource,
    workers: WorkerPool,
    key: str,
    bar: ProgressBar,
) -> Normalization:
    """Return mean and deviation as given, or the training pictures' own; a constant channel is left unscaled.

    Args:
        key: the data's fingerprint: what was read from files is remembered by it.
        bar: shown while files are read.

    Raises:
        DataError: where they are not one number a channel, or a deviation is not positive.
    """
    check_mean_and_std(mean, std, train.shape[0])
    if mean is not None and std is not None:
        warn_if_far(mean, std, compute_sample_statistics(train, workers))
        return Normalization(tuple(mean), tuple(std), "given")
    own, before = compute_exact_statistics(train, workers, key, bar)
    origin = f"exact, of {len(train):,} training pictures{', computed before' if before else ''}"
    return Normalization(tuple(mean or own.mean), tuple(std or [s or 1.0 for s in own.std]), origin)


def check_mean_and_std(mean: Sequence[float] | None, std: Sequence[float] | None, channels: int) -> None:
    """Check what was given."""
    for key, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != channels:
            raise DataError(f"dataset.{key}={list(values)}", f"the pictures have {channels} channels", "give one each")
    if std is not None and min(std) <= 0:
        raise DataError(f"dataset.std={list(std)}", "a deviation is not positive", "leave it null: it is computed")


def compute_exact_statistics(
    train: ImageSource, workers: WorkerPool, key: str, bar: ProgressBar
) -> tuple[ChannelStatistics, bool]:
    """Return the exact statistics, and whether they were remembered: only where pictures have to be decoded."""
    name = f"statistics/{key}.json"
    if not train.in_memory and (known := load_cached_statistics(name, key)) is not None:
        return known, True
    parts = read_pixels(workers, "train", range(len(train)), train)
    found = ChannelStatistics.streamed(bar(parts, "statistics", len(train)), train.scale)
    if not train.in_memory:
        store_cached(name, {"fingerprint": key, "statistics": vars(found)})
    return found, False


def load_cached_statistics(name: str, key: str) -> ChannelStatistics | None:
    """Return what was found the last time, of the same data."""
    known = load_cached(name)
    with suppress(TypeError):  # not what we wrote
        return ChannelStatistics(**known["statistics"]) if known.get("fingerprint") == key else None
    return None


def compute_sample_statistics(train: ImageSource, workers: WorkerPool) -> ChannelStatistics:
    """Return the statistics of a few pictures, evenly spread."""
    rows = np.unique(np.linspace(0, len(train) - 1, CHECK_SAMPLES).astype(int)).tolist()
    return ChannelStatistics.streamed(read_pixels(workers, "train", rows, train), train.scale)


def read_pixels(workers: WorkerPool, split: str, rows: Sequence[int], source: ImageSource) -> Iterator[np.ndarray]:
    """Yield the pixels of some pictures, a chunk at a time."""
    for found in workers.stream([ReadRequest(split, chunk) for chunk in chunk_rows(rows, source)]):
        if isinstance(found, MicrostepError):
            raise found
        yield found.numpy()


def warn_if_far(mean: Sequence[float], std: Sequence[float], computed: ChannelStatistics) -> None:
    """Warn where what was given is another data set's."""
    shifts = [
        abs(given - found) > MAX_MEAN_SHIFT * max(s, 1e-3)
        for given, found, s in zip(mean, computed.mean, computed.std, strict=True)
    ]
    scales = [max(given / s, s / given) > MAX_STD_RATIO for given, s in zip(std, computed.std, strict=True) if s]
    if any([*shifts, *scales]):
        log.warning(
            "dataset.mean and std are given as %s and %s, the pictures' own are about %s and %s; null computes them",
            *map(format_channel_values, (mean, std, computed.mean, computed.std)),
        )


class Normalizer:
    """(x / scale − mean) / std by channel, as one multiplication and one addition; the same for both backends.

    Args:
        scale: the pixel value that means 1.0.
        mean, std: per channel, of pixels over `scale`.
        device: where pictures come to be normalised.
    """

    def __init__(self, scale: float, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        self.scale = scale
        self.factor = to_channel_tensor([1 / (scale * s) for s in std], device)
        self.offset = to_channel_tensor([-m / s for m, s in zip(mean, std, strict=True)], device)
        self.fill = [round(min(1.0, max(0.0, m)) * scale) for m in mean]  #: the mean colour, in bytes

    def __call__(self, images: Tensor) -> Tensor:
        """Return uint8 pictures (N × C × H × W) as float32 inputs."""
        return images.float().mul_(self.factor).add_(self.offset)  # in place: three times as fast as addcmul

    def undone(self, inputs: Tensor) -> Tensor:
        """Return inputs as images in 0…1, float32, on the CPU, grey or RGB; of other channels, the first as grey."""
        images = ((inputs.float() - self.offset) / (self.factor * self.scale)).clamp(0, 1).cpu()
        return images if images.shape[1] in (1, 3) else images[:, :1]


def to_channel_tensor(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(1, -1, 1, 1)
