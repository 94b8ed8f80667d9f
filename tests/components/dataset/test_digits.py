"""The digits: three stratified splits that do not depend on the training seed."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from microstep.components.dataset import digits
from microstep.config.compose import compose
from microstep.errors import DataError
from microstep.training.builders import build_components

CPU = torch.device("cpu")
NAMES = ("train", "val", "test")


def places(dataset) -> dict[str, list[int]]:
    """Return each split's samples by their place in scikit-learn's order."""
    return {name: dataset.splits[name].indices.tolist() for name in NAMES}


def pictures_of(split):
    """Return all images of a split as a person would see them."""
    rows = torch.arange(len(split))
    return split.to_images(split.fetch(rows, rows).inputs)


def test_the_sizes_are_1437_180_180():
    """The default splits are the ones the documentation names."""
    assert [len(digits(CPU).splits[name]) for name in NAMES] == [1437, 180, 180]


def test_the_splits_share_nothing_and_lack_nothing():
    """Every one of the 1797 digits is in exactly one split, with its own image and label."""
    dataset, source = digits(CPU), load_digits()
    assert sorted(chain.from_iterable(places(dataset).values())) == list(range(1797))
    for split in dataset.splits.values():
        assert split.targets.tolist() == source.target[split.indices].tolist()
        np.testing.assert_array_equal(np.rint(16 * pictures_of(split)[:, 0].numpy()), source.images[split.indices])


@pytest.mark.parametrize("split_seed", [0, 1, 7])
def test_every_split_holds_each_class_in_proportion(split_seed):
    """In each split each class's count is within two of its share of all the digits: it was carved twice."""
    share = np.bincount(load_digits().target) / 1797
    for split in digits(CPU, split_seed=split_seed).splits.values():
        counts = np.bincount(split.targets, minlength=10)
        assert np.abs(counts - share * len(split)).max() <= 2


def test_the_splits_depend_on_split_seed():
    """Another split_seed moves samples between all three splits; the same one gives the same splits again."""
    first, again, other = (places(digits(CPU, split_seed=seed)) for seed in (0, 0, 1))
    assert first == again
    assert all(first[name] != other[name] for name in NAMES)


def test_the_splits_do_not_depend_on_the_runs_seed():
    """Runs of different seeds are trained, chosen and tested on the same samples; only the weights differ."""
    first, other = (build_components(compose([f"seed={seed}", "threads=1"])) for seed in (0, 1))
    assert first.dataset.fingerprint == other.dataset.fingerprint
    assert places(first.dataset) == places(other.dataset)
    assert not torch.equal(next(first.model.parameters()), next(other.model.parameters()))


def test_the_test_split_does_not_depend_on_how_much_is_validated_on():
    """The test split is carved first: another val_samples leaves it as it was."""
    assert places(digits(CPU))["test"] == places(digits(CPU, val_samples=400))["test"]


@pytest.mark.parametrize("key", ["val_samples", "test_samples"])
@pytest.mark.parametrize("count", [5, 1795])
def test_a_split_too_small_for_ten_classes_names_its_key(key, count):
    """Sizes that can't hold every class are refused, naming the key and the number as they were typed."""
    with pytest.raises(DataError, match=f"^dataset.{key}={count}: "):
        _ = digits(CPU, **{key: count}).image_sources


def test_a_pixel_of_16_means_one():
    """The digits have 17 grays, not 256: images run over the whole of 0…1."""
    pictures = pictures_of(digits(CPU).splits["train"])
    assert pictures.shape == (1437, 1, 8, 8)
    assert (pictures.min(), pictures.max()) == (0, 1)
