"""The resident backend: a batch is exactly the rows asked for, normalized, and says where each came from."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from microstep.components.dataset import ResidentSplit
from microstep.components.dataset.normalization import Normalizer
from microstep.types.data import Split

CPU = torch.device("cpu")
MEAN, STD, SCALE = [0.1, 0.5, 0.9], [0.2, 0.4, 1.5], 200.0
IMAGES = torch.randint(0, 201, (40, 3, 5, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
TARGETS, INDICES = torch.arange(40) % 7, 1000 + 3 * torch.arange(40)


@pytest.fixture(scope="module")
def split() -> ResidentSplit:
    """Forty images of three channels whose official indices are far from their rows."""
    return ResidentSplit(IMAGES, TARGETS, INDICES, Normalizer(SCALE, MEAN, STD, CPU), CPU)


def test_it_is_a_split(split):
    """It keeps the protocol that loaders and reports rely on."""
    assert isinstance(split, Split)
    assert len(split) == 40


@given(rows=st.lists(st.integers(0, 39), min_size=1, max_size=50))
@settings(deadline=None, max_examples=50)
def test_a_batch_is_the_rows_asked_for(split, rows):
    """In that order, repeated where they are: inputs (x / scale − mean) / std, with their own targets and indices."""
    batch = split.fetch(torch.tensor(rows), torch.arange(len(rows)))
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (MEAN, STD))
    exact = (IMAGES[rows].double() / SCALE - mean) / std
    assert batch.inputs.dtype == torch.float32
    torch.testing.assert_close(batch.inputs.double(), exact, atol=2e-6, rtol=0)
    assert batch.targets.tolist() == TARGETS[rows].tolist()
    assert batch.indices.tolist() == INDICES[rows].tolist()


def test_a_sample_is_the_same_whatever_its_neighbours(split):
    """Bit for bit: how a window is cut into batches is no part of what a sample looks like."""
    rows = torch.arange(40)
    whole = split.fetch(rows, rows).inputs
    single = torch.cat([split.fetch(row, row).inputs for row in rows.split(1)])
    assert torch.equal(whole, single)


def test_positions_are_passed_on(split):
    """A sample's place in the epoch's order is the loader's to say; the split hands it through."""
    positions = torch.tensor([17, 3])
    assert split.fetch(torch.tensor([5, 6]), positions).positions.tolist() == [17, 3]


def test_pictures_are_the_raw_pixels_over_their_scale(split):
    """For looking at: 0…1, not normalized, in float32, within rounding of the bytes they were made from."""
    rows = torch.tensor([4, 2])
    shown = split.to_images(split.fetch(rows, rows).inputs)
    torch.testing.assert_close(shown, IMAGES[rows] / SCALE, atol=1e-6, rtol=0)
    assert shown.min() >= 0
    assert shown.max() <= 1


def test_no_rows_are_no_pictures(split):
    """A report without mistakes asks for none, and gets none."""
    none = torch.empty(0, dtype=torch.int64)
    assert split.to_images(split.fetch(none, none).inputs).shape == (0, 3, 5, 6)


def test_fetching_changes_nothing_that_is_kept(split):
    """The stored bytes are the same after a batch was changed in place: an augmentation can't spoil the data."""
    rows = torch.arange(10)
    before = split.fetch(rows, rows).inputs
    split.fetch(rows, rows).inputs.zero_()
    assert torch.equal(split.images[:10], IMAGES[:10])
    assert torch.equal(split.fetch(rows, rows).inputs, before)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_inputs_are_scaled_as_torch_does_it(layout):
    """A product and a sum in float32, each rounded once; layout and alignment are those of torch's own tensors."""
    images = torch.arange(256, dtype=torch.uint8).repeat(27).view(4, 3, 24, 24).to(memory_format=layout)
    normalizer = Normalizer(255.0, [0.1, 0.5, 0.7], [0.3, 0.2, 0.9], CPU)
    for inputs in (normalizer(images), normalizer.in_one_thread(images)):
        assert torch.equal(inputs, images.float() * normalizer.factor + normalizer.offset)
        assert inputs.stride() == images.stride()
        assert inputs.data_ptr() % 64 == 0
