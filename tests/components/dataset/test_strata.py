"""Strata of targets: classes, labels and numbers."""

import numpy as np
import pytest

from microstep.components.dataset.images import Images
from microstep.components.dataset.splitting import split_stratified
from microstep.components.dataset.strata import strata_of
from microstep.errors import DataError


def test_classes_are_their_own_strata() -> None:
    """Class numbers are returned unchanged, so splits and samplers of classes keep their bits."""
    labels = np.array([2, 0, 0, 5])
    assert strata_of(labels) is labels


def test_a_sample_with_labels_belongs_to_its_rarest() -> None:
    """The rarest label of a sample is its stratum; unknown labels count as absent, and samples without any are one."""
    targets = np.zeros((60, 3), np.float32)
    targets[:40, 0] = 1
    targets[20:35, 1] = 1
    targets[:5, 2] = np.nan
    strata = strata_of(targets)
    groups = [set(strata[rows].tolist()) for rows in (slice(0, 20), slice(20, 35), slice(35, 40), slice(40, 60))]
    assert groups[0] == groups[2]
    assert len(set.union(*groups)) == 3 == len(np.unique(strata))


def test_numbers_are_split_by_deciles() -> None:
    """A held-out part of numeric targets has samples of each decile in proportion."""
    targets = np.random.default_rng(0).normal(size=200).astype(np.float32)
    kept, held_out = split_stratified(targets, 20, 0, "dataset.val_samples=20", ())
    assert np.bincount(strata_of(targets)[held_out]).tolist() == [2] * 10
    assert sorted([*kept, *held_out]) == list(range(200))


def test_rare_strata_join_the_most_frequent() -> None:
    """No stratum has fewer than ten samples, so that any split can hold some of each."""
    targets = np.zeros((100, 4), np.float32)
    targets[0, 0] = targets[1:4, 1] = 1
    targets[4:20, 2] = 1
    assert np.bincount(strata_of(targets)).min() >= 10


@pytest.mark.parametrize("shape", [(4, 3), (4, 2, 2)])
def test_columns_without_a_name_are_refused(shape: tuple[int, ...]) -> None:
    """Targets of N × C need C names, and no other shape is accepted."""
    with pytest.raises(DataError):
        Images(np.zeros((4, 1, 2, 2), np.uint8), np.zeros(shape, np.float32), ("a", "b"))
