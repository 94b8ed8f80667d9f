"""Data sets that need no files: the digits of scikit-learn, and synthetic images."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.datasets import load_digits

from microstep.components.dataset.decoding import Decoder
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
    folds: int | None = None,
    fold: int | None = None,
    repeat: int = 0,
) -> ImageDataset:
    """Build the digits data set of scikit-learn: 1,797 images of 1 × 8 × 8. The arguments are those of `image_dataset`.

    No official test split exists. A stratified test split is held out first, then validation, both by `split_seed`.
    """
    data, subject = load_digits(), f"dataset.test_samples={test_samples}"
    names = tuple(str(name) for name in data.target_names)
    images = Images(data.images.astype(np.uint8)[:, None], data.target.astype(np.int64), names, scale=16.0)
    kept, held_out = split_stratified(images.labels, test_samples, split_seed, subject, names)
    train, test = images.select(kept), images.select(held_out)
    decoder = Decoder(8, 8, 1)
    options = resident, num_workers, decoder, folds, fold, repeat
    return image_dataset(train, test, device, val_samples, split_seed, mean, std, *options)


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
    folds: int | None = None,
    fold: int | None = None,
    repeat: int = 0,
) -> ImageDataset:
    """Build a data set that a model can learn: noise around one random pattern per class.

    Args:
        samples: Number of training images, including those for validation.
        classes: Number of classes.
        channels: Channels of an image.
        size: Height and width of an image, in pixels.
        split_seed: Seed of the images and of the choice of validation images.

    The other arguments are those of `image_dataset`.
    """
    generator = np.random.default_rng(split_seed)
    patterns = generator.integers(64, 192, (classes, channels, size, size), dtype=np.uint8)
    names = tuple(f"class {number}" for number in range(classes))

    def make_images(count: int) -> Images:
        labels = np.arange(count) % classes
        noise = generator.integers(0, 128, (count, channels, size, size), dtype=np.uint8)
        return Images(patterns[labels] // 2 + noise, labels, names)

    train, test = make_images(samples), make_images(test_samples)
    decoder = Decoder(size, size, channels)
    options = resident, num_workers, decoder, folds, fold, repeat
    return image_dataset(train, test, device, val_samples, split_seed, mean, std, *options)
