"""Data sets of images in memory: stratified, normalized by the training split, fingerprinted."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microstep.components.dataset import ImageDataset, Images, image_dataset
from microstep.components.dataset.splitting import split_stratified
from microstep.errors import DataError

CPU = torch.device("cpu")
NAMES = ("cat", "dog", "newt")


def images(count: int = 30, channels: int = 2, seed: int = 0) -> Images:
    """Return random images of three classes in turn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, channels, 4, 5), dtype=np.uint8)
    return Images(pixels, np.arange(count) % 3, NAMES)


def refusal(*arguments, **keys) -> str:
    """Return why images were refused."""
    with pytest.raises(DataError) as caught:
        assert image_dataset(*arguments, **keys).splits
    return str(caught.value)


def normalised(source: Images, mean=None, std=None) -> ImageDataset:
    """Return a data set whose training split is these images."""
    return ImageDataset(dict.fromkeys(("train", "val", "test"), source), dict, CPU, mean=mean, std=std)


def fingerprint(pictures) -> str:
    return ImageDataset(pictures, dict, CPU).fingerprint


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 2, 0], []], ids=["too few", "too many", "none"])
def test_as_many_labels_as_pictures_or_none_at_all(labels):
    """Images without labels, labels without images and an empty split are refused with both counts."""
    with pytest.raises(DataError, match=f"{3 if labels else 0} images and {len(labels)} labels"):
        Images(np.zeros((3 if labels else 0, 1, 2, 2), np.uint8), np.array(labels, np.int64), NAMES)


@pytest.mark.parametrize("labels", [[0, 1, 3], [-1, 0, 1]])
def test_labels_must_name_a_class(labels):
    """A label outside the classes is found when the data are read, not by a device assertion in training."""
    with pytest.raises(DataError, match=rf"labels run from {min(labels)} to {max(labels)}, and there are 3 classes"):
        Images(np.zeros((3, 1, 2, 2), np.uint8), np.array(labels), NAMES)


def test_a_choice_of_a_choice_keeps_the_official_indices():
    """Selections of selections keep the published indices."""
    twice = images().select(np.array([20, 4, 9])).select(np.array([2, 0]))
    assert twice.indices is not None
    assert twice.indices.tolist() == [9, 20]
    np.testing.assert_array_equal(twice.pixels, images().pixels[[9, 20]])
    assert twice.labels.tolist() == [0, 2]


@given(
    counts=st.lists(st.integers(4, 30), min_size=2, max_size=5),
    share=st.floats(0.3, 0.7),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=50)
def test_stratified_parts_hold_every_class_in_proportion(counts, share, seed):
    """The two parts share no row, lack none, are sorted, and each class is within one of its exact share."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    held_out = max(len(counts), int(share * len(labels)))
    kept, held = split_stratified(labels, held_out, seed, "key", "abcde")
    assert len(held) == held_out
    assert sorted([*kept, *held]) == list(range(len(labels)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()
    exact = np.array(counts) * held_out / len(labels)
    assert np.abs(np.bincount(labels[held], minlength=len(counts)) - exact).max() <= 1


@pytest.mark.parametrize("held_out", [2, 29, 30, 31])
def test_a_split_that_can_not_hold_every_class_names_its_key(held_out):
    """Too few or too many samples held out is an error that names the key as the user may type it."""
    line = refusal(images(), images(seed=1), CPU, held_out, 0, None, None)
    assert line.startswith(f"dataset.val_samples={held_out}: ")


def test_normalisation_is_the_training_splits_own():
    """Mean and standard deviation are those of the training split alone."""
    dataset = image_dataset(images(), images(seed=1), CPU, 6, 0, None, None)
    train = dataset.splits["train"]
    seen = train.fetch(torch.arange(len(train)), torch.arange(len(train))).inputs.double()
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(2).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(seen.std((0, 2, 3), correction=0), torch.ones(2).double(), atol=1e-6, rtol=0)
    val = dataset.splits["val"]
    assert val.fetch(torch.arange(6), torch.arange(6)).inputs.mean().abs() > 1e-4


def test_given_numbers_are_taken_and_the_missing_one_is_computed():
    """A mean without a deviation keeps the mean and computes the deviation, and the other way round."""
    own = normalised(images()).normalization
    mean, std = (normalised(images(), **one).normalization for one in ({"mean": [0.1, 0.2]}, {"std": [0.3, 0.4]}))
    assert (mean.mean, mean.std) == ((0.1, 0.2), own.std)
    assert (std.mean, std.std) == (own.mean, (0.3, 0.4))


def test_a_constant_channel_is_centred_and_left_unscaled():
    """A channel that never changes has standard deviation 0; dividing by it would fill the inputs with NaN."""
    flat = replace(images(), pixels=images().pixels.copy())
    flat.pixels[:, 1] = 51
    found = normalised(flat).normalization
    assert (found.mean[1], found.std[1]) == (0.2, 1.0)
    train = image_dataset(flat, flat, CPU, 6, 0, None, None).splits["train"]
    assert train.fetch(torch.arange(3), torch.arange(3)).inputs[:, 1].abs().max() < 1e-6


@pytest.mark.parametrize("key", ["mean", "std"])
def test_one_number_a_channel(key):
    """A mean or standard deviation for another number of channels is refused, and the error counts the channels."""
    given_numbers = {"mean": None, "std": None, key: [0.5]}
    line = refusal(images(), images(), CPU, 6, 0, **given_numbers)
    assert line.startswith(f"dataset.{key}=[0.5]: the images have 2 channels")


@pytest.mark.parametrize("bad", [0.0, -0.5])
def test_a_deviation_must_be_positive(bad):
    """A standard deviation typed as zero or less is refused before it becomes an infinity in the inputs."""
    assert "not positive" in refusal(images(), images(), CPU, 6, 0, None, [0.5, bad])


def test_the_fingerprint_knows_every_byte():
    """One pixel, one label, one index, one class name or another cut of the splits changes it; a copy does not."""
    base = images().select(np.arange(30))
    pixels, labels, indices = base.pixels.copy(), base.labels.copy(), np.arange(30)
    pixels[7, 1, 2, 3] ^= 1
    labels[3] = (labels[3] + 1) % 3
    indices[0] = 30
    others = [
        replace(base, pixels=pixels),
        replace(base, labels=labels),
        replace(base, indices=indices),
        replace(base, class_names=("cat", "dog", "eft")),
        base.select(np.arange(29)),
    ]
    assert fingerprint({"train": base}) == fingerprint({"train": replace(base, pixels=base.pixels.copy())})
    seen = {fingerprint({"train": part}) for part in [base, *others]} | {fingerprint({"val": base})}
    assert len(seen) == len(others) + 2


def test_the_facts_that_models_and_tasks_ask_for():
    """Class names, their number, an image's shape and the training labels are offered by these names."""
    dataset = image_dataset(images(), images(seed=1), CPU, 6, 0, None, None)
    assert dataset.facts["class_names"] == NAMES
    assert dataset.facts["num_classes"] == 3
    assert dataset.facts["input_shape"] == (2, 4, 5)
    assert dataset.facts["train_targets"].tolist() == dataset.splits["train"].targets.tolist()


def test_the_summary_is_one_line_of_counts_shape_and_normalisation():
    """The start-up summary describes the data in one line of counts, shape and normalization."""
    summary = image_dataset(images(), images(9), CPU, 6, 0, [0.5, 0.25], [0.1, 0.2]).summary
    assert summary == "24 train / 6 val / 9 test; 2 × 4 × 5, resident; mean 0.5000, 0.2500, std 0.1000, 0.2000 (given)"
    assert image_dataset(images(), images(9), CPU, 6, 0, None, None).summary.endswith("(exact, of 24 training images)")


@pytest.fixture
def notices(caplog):
    """Return the warnings to the user."""
    caplog.set_level(logging.WARNING, "microstep.notice")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("far", [{"mean": [0.3, 0.5]}, {"std": [0.29, 0.6]}, {"std": [0.29, 0.1]}])
def test_given_numbers_far_from_the_datas_are_warned_of(notices, far):
    """Another data set's mean or standard deviation is used as asked, and both it and the images' own are shown."""
    given_numbers = {"mean": [0.5, 0.5], "std": [0.29, 0.29]} | far
    assert normalised(images(400), **given_numbers).normalization.origin == "given"
    (line,) = notices()
    for value in (*given_numbers["mean"], *given_numbers["std"]):
        assert f"{value:.4f}" in line
    own = normalised(images(400)).normalization
    assert f"{own.mean[0]:.4f}, {own.mean[1]:.4f} and {own.std[0]:.4f}, {own.std[1]:.4f}" in line


def test_given_numbers_near_the_datas_are_no_matter(notices):
    """Statistics of a part, or rounded ones, cause no warning."""
    assert normalised(images(400), [0.48, 0.52], [0.28, 0.3]).normalization.origin == "given"
    assert notices() == []


def test_the_weights_own_numbers_are_no_matter_either(notices):
    """A pretrained model expects its own mean and deviation, whatever the images are; gray gets their average."""
    dataset = normalised(images(400), [0.0, 0.0], [1.0, 1.0]).with_normalization(
        [0.1, 0.2], [0.3, 0.4], "the weights' own"
    )
    assert (dataset.normalization.mean, dataset.normalization.origin) == ((0.1, 0.2), "the weights' own")
    train = dataset.splits["train"]
    inputs = train.fetch(torch.tensor([0]), torch.tensor([0])).inputs
    exact = (torch.from_numpy(images(400).pixels[:1]) / 255 - torch.tensor([0.1, 0.2]).view(2, 1, 1)) / 0.3
    torch.testing.assert_close(inputs[:, 0], exact[:, 0])
    grey = normalised(images(40, channels=1)).with_normalization([0.1, 0.2, 0.3], [0.2, 0.2, 0.5], "").normalization
    assert (grey.mean, grey.std) == (pytest.approx((0.2,)), pytest.approx((0.3,)))
    assert notices() == []


@pytest.mark.parametrize(
    ("counts", "held_out", "words"),
    [([9, 1], 4, "class dog has one sample only"), ([40, 2], 2, "class dog has 2 samples: one part would have none")],
)
def test_a_class_too_small_for_both_parts_is_named(counts, held_out, words):
    """The error gives the name of the class and its number of samples."""
    with pytest.raises(DataError) as caught:
        split_stratified(np.repeat([0, 1], counts), held_out, 0, f"dataset.val_samples={held_out}", NAMES)
    assert str(caught.value).startswith(f"dataset.val_samples={held_out}: {words}")
