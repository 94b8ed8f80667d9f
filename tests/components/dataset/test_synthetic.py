"""Synthetic images have the configured number and size, depend only on the seed, and can be learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from microstep.components.dataset import synthetic
from microstep.config.compose import compose
from microstep.errors import DataError
from microstep.training.builders import build_dataset

CPU = torch.device("cpu")
SMALL = {"samples": 400, "val_samples": 100, "test_samples": 200, "size": 8}


def pixels(dataset, split: str) -> np.ndarray:
    return dataset.image_sources[split].read(slice(None))


def test_sizes_are_the_configs():
    """Counts, classes, channels and side are those asked for; validation is cut out of the samples."""
    words = ["samples=300", "val_samples=50", "test_samples=40", "classes=5", "channels=1", "size=12"]
    dataset = build_dataset(compose(["dataset=synthetic", *[f"dataset.{word}" for word in words]]), CPU)
    assert [len(split) for split in dataset.splits.values()] == [250, 50, 40]
    assert dataset.facts["input_shape"] == (1, 12, 12)
    assert dataset.facts["num_classes"] == 5
    assert np.bincount(dataset.image_sources["val"].labels).tolist() == [10] * 5


def test_the_seed_makes_it_again():
    """The same split_seed makes the same images and splits, another one others."""
    first, again, other = (synthetic(CPU, **SMALL, split_seed=seed).fingerprint for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("classes", [2, 10])
def test_the_nearest_mean_tells_the_classes_apart(classes):
    """Each class's mean image is enough to get more than 90 % of the test images right."""
    dataset = synthetic(CPU, **SMALL, classes=classes)
    train, labels = pixels(dataset, "train").astype(float), dataset.image_sources["train"].labels
    means = np.stack([train[labels == label].mean(0) for label in range(classes)])
    distances = ((pixels(dataset, "test")[:, None].astype(float) - means) ** 2).sum((2, 3, 4))
    assert (distances.argmin(1) == dataset.image_sources["test"].labels).mean() > 0.9


def test_no_picture_comes_twice():
    """Test images are not training images."""
    dataset = synthetic(CPU, **SMALL)
    every = [picture.tobytes() for split in dataset.image_sources for picture in pixels(dataset, split)]
    assert len({*every}) == len(every) == 600


def test_a_validation_split_that_is_too_small_names_its_key():
    """Ten classes do not fit five images; the error names the key."""
    with pytest.raises(DataError, match=r"^dataset\.val_samples=5: "):
        _ = synthetic(CPU, **SMALL | {"val_samples": 5}).image_sources
