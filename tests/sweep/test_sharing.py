"""Data that the jobs of one process share."""

import logging
from pathlib import Path

import pytest
import torch

from microstep.components.dataset.sharing import share_datasets
from microstep.config.compose import compose
from microstep.training.builders import build_dataset
from microstep.types.protocols import Dataset

CPU = torch.device("cpu")


def built(*words: str) -> Dataset:
    return build_dataset(compose(["progress=false", *words]), CPU)


def test_data_are_read_once() -> None:
    """Jobs that differ in anything else get one object; other data, or a job outside of a sweep, another."""
    with share_datasets():
        first = built("seed=1")
        assert built("precision=amp", "seed=2") is first
        assert built("dataset.split_seed=1") is not first
    assert built("seed=1") is not first


@pytest.mark.parametrize("part", ["images", "device_targets", "device_indices", "targets", "indices"])
def test_data_that_a_job_has_changed_are_read_again(part: str, caplog: pytest.LogCaptureFixture) -> None:
    """If a job changes shared data in place, the next job gets data read from the files, and a warning says so."""
    with share_datasets(), caplog.at_level(logging.WARNING, "microstep.notice"):
        first = built()
        before = getattr(first.splits["train"], part).clone()
        getattr(first.splits["train"], part)[:2] = getattr(first.splits["train"], part)[:2].flip(0)
        getattr(first.splits["train"], part)[5:7].zero_()
        second = built()
        assert second is not first
        assert torch.equal(getattr(second.splits["train"], part), before)
    assert [record.getMessage() for record in caplog.records] == [
        "a run has changed the data that runs of this sweep share: they are read again"
    ]


@pytest.mark.parametrize("change", ["mirrored", "transposed", "reshaped"])
def test_images_that_a_job_has_mirrored_or_transposed_are_read_again(change: str) -> None:
    """The sum of the pixels of each image stays the same."""
    with share_datasets():
        images = built().splits["train"].images
        before = images.clone()
        if change == "mirrored":
            images.copy_(images.flip(3))
        elif change == "transposed":
            images.transpose_(2, 3)
        else:
            images.resize_(len(images), 1, 4, 16)
        assert torch.equal(built().splits["train"].images, before)


def test_what_streams_is_not_shared(photos: Path) -> None:
    """A dataset with loader processes is not shared, because they end with the run that started them."""
    words = ("dataset=image_folder", f"dataset.root={photos}", "dataset.resident=false", "num_workers=0")
    with share_datasets():
        assert built(*words) is not built(*words)
