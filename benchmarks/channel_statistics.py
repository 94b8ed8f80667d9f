"""Time of the exact channel statistics of 50,000 images, against one pass of NumPy and the usual way.

    python benchmarks/channel_statistics.py [rounds] [Fashion-MNIST's directory]

The contestants alternate in one process. Prints medians, and medians of the ratios of pairs. Peak memory above that of
the images is the kernel's high-water mark (Linux), of each contestant in a new process, including the first call.

The name is not statistics.py, since the other benchmarks would import it instead of Python's module.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from microstep.components.dataset.mnist import read_idx_split
from microstep.components.dataset.statistics import ChannelStatistics, iter_chunks
from microstep.dataset_report.sampling import ClassStatistics, count_labels, sum_by_class

COUNT, SHAPE, CLASSES = 50_000, (3, 32, 32), 10
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class Usual(Dataset):
    """Compute statistics as in most tutorials: one image at a time through ToTensor."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pictures = pixels.transpose(0, 2, 3, 1)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int):
        return ToTensor()(self.pictures[index]), 0


def usual(pixels: np.ndarray):
    inputs, _ = next(iter(DataLoader(Usual(pixels), batch_size=len(pixels))))
    values = inputs.numpy()
    return np.mean(values, (0, 2, 3)), np.std(values, (0, 2, 3))


def ours(pixels: np.ndarray) -> ChannelStatistics:
    return ChannelStatistics.from_stream(iter_chunks(pixels), 255.0)


def by_class(pixels: np.ndarray) -> ClassStatistics:
    labels = np.arange(len(pixels)) % CLASSES
    totals = sum(sum_by_class(*part, CLASSES) for part in zip(iter_chunks(pixels), iter_chunks(labels), strict=True))
    counts = count_labels(labels, len(pixels), CLASSES)
    return ClassStatistics.of(counts, counts * pixels[0, 0].size, totals, 255.0)


CONTESTANTS: dict[str, Callable] = {
    "x.sum()": np.sum,
    "ChannelStatistics": ours,
    "ClassStatistics": by_class,
    "DataLoader, np.mean, np.std": usual,
}


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8)


def clothing(root: Path) -> np.ndarray:
    """Return Fashion-MNIST in three channels at 32×32: real images, with runs of equal bytes."""
    pixels = np.zeros((COUNT, *SHAPE), np.uint8)
    pixels[:, :, 2:30, 2:30] = read_idx_split(root, "train", "give its directory")[0][:COUNT]
    return pixels


def seconds(work: Callable, pixels: np.ndarray) -> float:
    start = perf_counter()
    work(pixels)
    return perf_counter() - start


def table(name: str, pixels: np.ndarray, rounds: int) -> None:
    times: dict[str, list[float]] = {contestant: [] for contestant in CONTESTANTS}
    for turn in range(rounds + 1):
        for contestant, work in CONTESTANTS.items():
            if contestant != "DataLoader, np.mean, np.std" or turn < 3:
                took = seconds(work, pixels)
                times[contestant] += [took] if turn else []
    base = np.array(times["x.sum()"])
    for contestant, values in times.items():
        ratio = np.median(np.array(values) / base[: len(values)])
        print(f"{name:9} {contestant:28} {1000 * np.median(values):8.1f} ms   {ratio:6.2f} × x.sum()")


def kilobytes(key: str) -> int:
    return int(STATUS.read_text().split(f"{key}:")[1].split()[0])


def print_peak(contestant: str) -> None:
    """Print how far this process's memory rises above what it holds before, in MB."""
    pixels = noise()
    CLEAR.write_text("5")  # sets the high-water mark back to what is held now
    before = kilobytes("VmRSS")
    CONTESTANTS[contestant](pixels)
    print(f"{contestant:28} {(kilobytes('VmHWM') - before) / 1000:8.1f} MB at its peak above the pictures' own")


def main() -> None:
    if sys.argv[1:2] == ["peak"]:
        return print_peak(sys.argv[2])
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    table("noise", noise(), rounds)
    if len(sys.argv) > 2:
        table("clothing", clothing(Path(sys.argv[2])), rounds)
    for contestant in CONTESTANTS:
        subprocess.run([sys.executable, __file__, "peak", contestant], check=True)
    return None


if __name__ == "__main__":
    main()
