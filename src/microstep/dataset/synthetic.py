"""Made-up pictures, sized by config: for benchmarks, and to try something where there are no data."""

from collections.abc import Sequence

import numpy as np
import torch

from microstep.dataset.images import Images
from microstep.dataset.picture_dataset import PictureDataset, picture_dataset


def synthetic(
    device: torch.device,
    samples: int = 10_000,
    val_samples: int = 1000,
    test_samples: int = 1000,
    classes: int = 10,
    channels: int = 3,
    size: int = 32,
    split_seed: int = 0,
    resident: bool = True,
    num_workers: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> PictureDataset:
    """Return noise around one random pattern a class: a model can learn it, and `split_seed` makes it again.

    Args:
        samples: training pictures, validation among them.
    """
    generator = np.random.default_rng(split_seed)
    patterns = generator.integers(64, 192, (classes, channels, size, size), dtype=np.uint8)
    names = tuple(f"class {number}" for number in range(classes))

    def made(count: int) -> Images:
        labels = np.arange(count) % classes
        noise = generator.integers(0, 128, (count, channels, size, size), dtype=np.uint8)
        return Images(patterns[labels] // 2 + noise, labels, names)

    train, test = made(samples), made(test_samples)
    return picture_dataset(train, test, device, val_samples, split_seed, mean, std, resident, num_workers)
