"""Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017): 70,000 pictures of clothing, 28×28, grey."""

from collections.abc import Sequence
from pathlib import Path

import torch

from microstep.dataset.idx import read_idx_split
from microstep.dataset.images import Images, resident_dataset
from microstep.dataset.resident import ResidentDataset

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
HELP = "put the four idx files there, gzipped or not, or: apt install dataset-fashion-mnist (Debian, Ubuntu)"


def fashion_mnist(
    device: torch.device,
    root: str,
    val_samples: int = 5000,
    split_seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ResidentDataset:
    """Return Fashion-MNIST from the idx files in `root`, by default 55,000 / 5,000 / 10,000.

    Raises:
        DataError: naming the file that is missing or damaged, and how to get it.
    """
    train, test = (Images(*read_idx_split(Path(root), prefix, HELP), CLASSES) for prefix in ("train", "t10k"))
    return resident_dataset(train, test, device, val_samples, split_seed, mean, std)
