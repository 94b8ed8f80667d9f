"""Folds of a data set that is shipped: each training image is for validation once a repeat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from microstep.components.dataset import digits, synthetic
from microstep.components.dataset.images import Images
from microstep.components.dataset.splitting import hold_out_fold, make_folds
from microstep.config.compose import compose
from microstep.config.experiment import extract_experiment
from microstep.errors import ConfigError, DataError

CPU = torch.device("cpu")
SHIPPED = ["digits", "mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "synthetic"]


def indices(dataset, split: str) -> list[int]:
    return dataset.image_sources[split].published_indices.tolist()


@dataclass(frozen=True)
class GroupedImages(Images):
    groups: np.ndarray | None = None


@pytest.mark.parametrize("repeat", [0, 2])
@pytest.mark.parametrize("build", [digits, lambda *a, **k: synthetic(*a, samples=100, test_samples=20, size=2, **k)])
def test_each_sample_is_for_validation_once_a_repeat(build, repeat):
    """The folds share out all but the test images, which are those of a run without folds."""
    plain = build(CPU, val_samples=20)
    folds = [build(CPU, folds=5, fold=fold, repeat=repeat) for fold in range(5)]
    held_out = sorted(n for fold in folds for n in indices(fold, "val"))
    assert held_out == sorted(indices(plain, "train") + indices(plain, "val"))
    for fold in folds:
        assert indices(fold, "test") == indices(plain, "test")
        assert not {*indices(fold, "val")} & {*indices(fold, "train")}


def test_groups_are_not_divided_in_any_repeat():
    """Each sample is held out once a repeat, with all of its group."""
    labels, groups = np.arange(60) % 3, np.arange(60) // 4
    images = GroupedImages(np.zeros((60, 1, 2, 2), np.uint8), labels, tuple("abc"), groups=groups)
    for repeat in range(3):
        parts = [hold_out_fold(images, 5, fold, 0, repeat)["val"].published_indices for fold in range(5)]
        assert sorted(np.concatenate(parts)) == list(range(60))
        assert sum(len(set(groups[part])) for part in parts) == 15


def test_each_repeat_is_another_division_and_the_same_one_again():
    """Repeat 0 is the division that folds had without repeats; nothing but split_seed and repeat decides."""
    parts = [indices(digits(CPU, folds=5, fold=0, repeat=repeat), "val") for repeat in (0, 1, 2, 1)]
    assert parts[1] == parts[3]
    assert len({tuple(part) for part in parts}) == 3
    assert parts[1] != indices(digits(CPU, folds=5, fold=0, repeat=1, split_seed=1), "val")
    images = Images(np.zeros((40, 1, 2, 2), np.uint8), np.arange(40) % 4, tuple("abcd"))
    held_out = hold_out_fold(images, 5, 1, 7, repeat=0)["val"].published_indices
    assert held_out.tolist() == make_folds(images, 5, 7, "dataset.folds=5")[1].tolist()


@pytest.mark.parametrize("name", SHIPPED)
def test_each_shipped_data_set_has_folds(name):
    """At their defaults the keys are in no hash; a repeat is in it."""
    plain = extract_experiment(compose([f"dataset={name}"]))["dataset"]
    assert not plain.keys() & {"folds", "fold", "repeat"}
    words = [f"dataset={name}", "dataset.folds=5", "dataset.fold=0"]
    first, second = (extract_experiment(compose([*words, *more])) for more in ([], ["dataset.repeat=1"]))
    assert "repeat" not in first["dataset"]
    assert first["dataset"] | {"repeat": 1} == second["dataset"]


def test_a_repeat_needs_folds():
    """Without them there is nothing to divide again."""
    with pytest.raises(ConfigError, match=r"^dataset\.repeat=1: there are no folds .* add dataset\.folds=5"):
        compose(["dataset.repeat=1"])


def test_the_most_folds_are_named():
    """Folds are refused beyond the size of the largest class, which is the most that works."""
    images = Images(np.zeros((15, 1, 2, 2), np.uint8), np.array([0] * 10 + [1] * 5), ("a", "b"))
    assert len(make_folds(images, 10, 0, "dataset.folds=10")) == 10
    with pytest.raises(DataError, match=r"^dataset\.folds=11: there are too few .* for 11 parts; 10 are the most"):
        make_folds(images, 11, 0, "dataset.folds=11")
