"""Digits with labels (even, large, round; some unknown) or numbers as targets."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from microstep.components.dataset.decoding import Decoder
from microstep.components.dataset.image_dataset import ImageDataset, image_dataset
from microstep.components.dataset.images import Images

NAMES = ("even", "large", "round")


def labels_of(digits: np.ndarray) -> np.ndarray:
    """Return whether a digit is even, at least 5 and drawn with a loop; every seventh of the latter is unknown."""
    labels = np.stack([digits % 2 == 0, digits >= 5, np.isin(digits, (0, 6, 8, 9))], 1).astype(np.float32)
    labels[::7, 2] = np.nan
    return labels


def labeled_digits(device: torch.device, val_samples: int, samples: int = 600, resident: bool = True) -> ImageDataset:
    return of_targets(labels_of(load_digits().target[:samples]), NAMES, device, val_samples, resident)


def numbered_digits(device: torch.device, val_samples: int, samples: int = 600, resident: bool = True) -> ImageDataset:
    """Return digits with the number 1000 + 100 · digit."""
    numbers = 1000 + 100 * load_digits().target[:samples].astype(np.float32)
    return of_targets(numbers, (), device, val_samples, resident)


def of_targets(targets, names, device, val_samples, resident) -> ImageDataset:
    pixels = np.round(load_digits().images[: len(targets), None] * 255 / 16).astype(np.uint8)
    rows = np.arange(len(targets))
    train, test = (Images(pixels[r], targets[r], names, 255.0, r) for r in (rows[rows % 5 > 0], rows[rows % 5 == 0]))
    return image_dataset(train, test, device, val_samples, 0, None, None, resident, decoder=Decoder(8, 8, 1))
