"""Splits by fractions: scikit-learn's if it can stratify, else rare classes go where they can, with a warning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from microstep.components.dataset.splitting import split_rare
from microstep.errors import ConfigError
from tests.components.dataset.folders import filled, opened, sizes

COUNTS = {"ant": 20, "bee": 30, "cat": 40}


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "data"


def class_counts(dataset) -> dict[str, list[int]]:
    """Return the images of each class in each split."""
    sources = dataset.image_sources
    return {name: np.bincount(one.labels, minlength=len(one.class_names)).tolist() for name, one in sources.items()}


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "microstep.notice"]


@pytest.mark.parametrize(("test", "val", "seed"), [(0.1, 0.1, 0), (0.2, 0.1, 3), (0.05, 0.3, 1), (0.4, 0.4, 2)])
def test_a_split_that_can_be_stratified_is_scikit_learns(root, caplog, test, val, seed):
    """Test images are drawn first, then validation images from the rest, by scikit-learn with the same seed."""
    filled(root, COUNTS)
    dataset = opened(root, test_fraction=test, val_fraction=val, split_seed=seed)
    labels = dataset.official_splits["train"].labels
    rest, held = train_test_split(np.arange(90), test_size=round(test * 90), stratify=labels, random_state=seed)
    rest = np.sort(rest)
    train, val_rows = train_test_split(rest, test_size=round(val * 90), stratify=labels[rest], random_state=seed)
    for name, rows in {"train": train, "val": val_rows, "test": held}.items():
        assert dataset.image_sources[name].published_indices.tolist() == sorted(rows)
    assert warnings(caplog) == []


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.15])
def test_a_class_of_three_is_in_every_split(root, caplog, fraction):
    """A class that is too rare for its share has one image in each split if it has three."""
    filled(root, {"ant": 150, "bee": 180, "dog": 3})
    dataset = opened(root, test_fraction=fraction)
    counts = class_counts(dataset)
    assert [counts[name][2] for name in ("train", "val", "test")] == [1, 1, 1]
    assert np.abs(np.array(counts["test"][:2]) - fraction * np.array([150, 180])).max() < 1
    every = np.concatenate([source.published_indices for source in dataset.image_sources.values()])
    assert sorted(every) == list(range(333))
    fractions = f"dataset.test_fraction={fraction}, dataset.val_fraction=0.1"
    rule = "some classes are too small for these fractions, so each split gets at least one image of each class"
    assert warnings(caplog) == [f"{fractions}: {rule}"]


def test_a_class_that_is_too_small_for_a_split_is_named(root, caplog):
    """A class of one image is only trained on, one of two is validated on too, and the warning names both."""
    filled(root, COUNTS | {"dog": 2, "eel\n": 1})
    assert {name: counts[3:] for name, counts in class_counts(opened(root)).items()} == {
        "train": [1, 1],
        "val": [1, 0],
        "test": [0, 0],
    }
    (warning,) = warnings(caplog)
    assert warning.endswith(r" of each class; test has none of dog, eel\n; val has none of eel\n")


@pytest.mark.parametrize(
    ("counts", "fractions", "expected"),
    [
        (dict.fromkeys("abcdefghijklmnopqrst", 5), (0.1, 0.1), (60, 20, 20)),
        (COUNTS, (0.02, 0.1), (78, 9, 3)),
        (COUNTS, (0.001, 0.99), (3, 84, 3)),
        ({"ant": 3, "bee": 100}, (0.6, 0.3), (11, 31, 61)),
    ],
)
def test_each_split_has_each_class_if_there_are_enough(root, counts, fractions, expected):
    """Fractions that are too small or too large for the classes are rounded so that no split lacks a class."""
    filled(root, counts)
    dataset = opened(root, test_fraction=fractions[0], val_fraction=fractions[1])
    assert tuple(sizes(dataset).values()) == expected
    assert all(all(counts) for counts in class_counts(dataset).values())


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    shares=st.lists(st.floats(0.01, 0.45), min_size=1, max_size=2),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=50)
def test_rare_classes_go_where_they_can(counts, shares, seed):
    """The parts share no row and lack none; a class has a row in each, or, if it is too small, in the last ones."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    parts = split_rare(labels, [round(share * len(labels)) for share in shares], seed)
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    assert all((np.diff(rows) > 0).all() for rows in parts)
    for label, count in enumerate(counts):
        held = [label in labels[rows] for rows in parts]
        assert held == [False] * (len(parts) - count) + [True] * min(count, len(parts))


def test_the_warning_is_given_once(root, caplog):
    """A data set that gets the normalization of pretrained weights does not warn of its classes again."""
    filled(root, COUNTS | {"dog": 2})
    dataset = opened(root)
    one, other = dataset.image_sources, dataset.with_normalization([0.5], [0.5], "given").image_sources
    assert one["val"].published_indices.tolist() == other["val"].published_indices.tolist()
    assert len(warnings(caplog)) == 1


def test_rare_classes_are_drawn_by_the_seed(root):
    """The same seed draws the same images of rare classes, another one others; no order is in them."""
    filled(root, {"ant": 40, "dog": 3})
    drawn = [tuple(opened(root, split_seed=seed).image_sources["val"].published_indices) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert max(drawn[0]) - min(drawn[0]) > 5


def test_without_a_test_fraction_there_is_no_test_split(root):
    """With test_fraction=0 and no test folder, all images are for training and validation; a test folder stays one."""
    filled(root / "train", COUNTS)
    assert sizes(opened(root, test_fraction=0)) == {"train": 81, "val": 9}
    filled(root / "test", COUNTS)
    assert sizes(opened(root, test_fraction=0)) == {"train": 81, "val": 9, "test": 90}


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (
            {"val_fraction": 0},
            "dataset.val_fraction=0: the best checkpoint is chosen by validation; give a share, such as 0.1",
        ),
        (
            {"val_fraction": 0.5, "test_fraction": 0.5},
            "dataset.test_fraction=0.5, dataset.val_fraction=0.5: they leave no images to train on; "
            "give fractions from 0 with a sum below 1",
        ),
        (
            {"val_fraction": -0.1, "test_fraction": 0.1},
            "dataset.test_fraction=0.1, dataset.val_fraction=-0.1: they leave no images to train on; "
            "give fractions from 0 with a sum below 1",
        ),
    ],
)
def test_fractions_that_leave_too_little_are_refused(root, keys, line):
    """A run needs images to train on and to validate on; the error names the keys as they were typed."""
    filled(root, COUNTS)
    with pytest.raises(ConfigError) as caught:
        _ = opened(root, **keys).image_sources
    assert str(caught.value).startswith(line)


def test_a_fraction_that_is_not_used_is_not_checked(root):
    """The fraction of a split that has a folder has no effect."""
    for name in ("train", "val", "test"):
        filled(root / name, COUNTS)
    assert sizes(opened(root, val_fraction=0, test_fraction=0.99)) == {"train": 90, "val": 90, "test": 90}
