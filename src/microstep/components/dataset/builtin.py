"""Data sets that need no files: scikit-learn's digits, and synthetic images."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.datasets import load_digits

from microstep.components.dataset.image_dataset import ImageDataset, image_dataset
from microstep.components.dataset.images import Images
from microstep.components.dataset.splitting import split_stratified


def digits(
    device: torch.device,
    val_samples: int = 180,
    test_samples: int = 180,
    split_seed: int = 0,
    resident: bool = True,
    num_workers: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ImageDataset:
    """Return the digits, by default 1437 / 180 / 180.

    Their makers name no test split, so it is carved first, by `split_seed`, stratified; `train` and `val` are the rest.
    """
    source = load_digits()
    names = tuple(str(name) for name in source.target_names)
    every = Images(source.images.astype(np.uint8)[:, None], source.target.astype(np.int64), names, scale=16.0)
    kept, held_out = split_stratified(
        every.labels, test_samples, split_seed, f"dataset.test_samples={test_samples}", names
    )
    train, test = every.at(kept), every.at(held_out)
    return image_dataset(train, test, device, val_samples, split_seed, mean, std, resident, num_workers)


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
) -> ImageDataset:
    """Return noise around one random pattern a class: a model can learn it, and `split_seed` makes it again.

    Args:
        samples: training pictures, validation among them.
    """
    generator = np.random.default_rng(split_seed)
    patterns = generator.integers(64, 192, (classes, channels, size, size), dtype=np.uint8)
    names = tuple(f"class {number}" for number in range(classes))

    def make_images(count: int) -> Images:
        labels = np.arange(count) % classes
        noise = generator.integers(0, 128, (count, channels, size, size), dtype=np.uint8)
        return Images(patterns[labels] // 2 + noise, labels, names)

    train, test = make_images(samples), make_images(test_samples)
    return image_dataset(train, test, device, val_samples, split_seed, mean, std, resident, num_workers)
