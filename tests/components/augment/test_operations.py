"""Operations give the same result for a batch as torchvision for single images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as F

from microstep.components.augment import CropFlip, Cutout, Pipeline, randaugment

SIZES = st.tuples(st.integers(2, 20), st.integers(2, 20))
CROPS = [CropFlip(padding, flip) for padding, flip in ((0.125, 0.5), (0.4, 0.5), (0.0, 1.0), (1.0, 0.0))]
OPERATIONS = [*CROPS, Cutout(0.5), Cutout(1.0)]


def images(count: int, channels: int, size: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, *size), dtype=torch.uint8, generator=generator)


def by_torchvision(operation: CropFlip | Cutout, image: torch.Tensor, parameters: list[int], fill: torch.Tensor):
    """Return an image changed by the functions of torchvision."""
    height, width = image.shape[1:]
    if isinstance(operation, Cutout):
        top, left, bottom, right = parameters
        size = bottom - top, right - left
        return F.erase(image, top, left, *size, fill.view(-1, 1, 1).expand(-1, *size))
    (vertical, horizontal), (top, left, mirrored) = operation.compute_margins((height, width)), parameters
    cropped = F.crop(image, top - vertical, left - horizontal, height, width)
    return F.horizontal_flip(cropped) if mirrored else cropped


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
@settings(deadline=None, max_examples=25)
@given(size=SIZES, channels=st.sampled_from([1, 3, 4]), epoch=st.integers(1, 10**6))
def test_a_batch_is_changed_as_each_picture_by_torchvision(operation, size, channels, epoch):
    """A batch is, byte for byte, what torchvision makes of each image, for any size, channels and epoch."""
    pictures, fill = images(9, channels, size), torch.tensor([7, 100, 250, 3][:channels], dtype=torch.uint8)
    (plan,) = Pipeline((operation,)).plan(torch.arange(9), size, 0, epoch)
    together = Pipeline((operation,)).apply(pictures, [plan], fill)
    alone = [by_torchvision(operation, *pair, fill) for pair in zip(pictures, plan.tolist(), strict=True)]
    assert torch.equal(together, torch.stack(alone))
    assert together.dtype == torch.uint8


@settings(deadline=None, max_examples=25)
@given(positions=st.lists(st.integers(0, 10**6), min_size=1, max_size=9, unique=True), key=st.integers(0, 10**9))
def test_what_happens_to_a_sample_depends_on_its_position_alone(positions, key):
    """Parameters drawn for a batch are those drawn for each of its positions alone."""
    pipeline = Pipeline((CropFlip(0.25, 0.5), Cutout(0.5), *randaugment(0, 0, 2, 9).operations))
    together = pipeline.plan(torch.tensor(positions), (12, 10), key, 1)
    alone = [pipeline.plan(torch.tensor([position]), (12, 10), key, 1) for position in positions]
    for number, parameters in enumerate(together):
        assert torch.equal(parameters, torch.cat([one[number] for one in alone]))


def test_every_shift_is_as_likely_and_half_are_mirrored():
    """Of 40,500 images of 16 × 16 each of the 25 shifts by up to 2 pixels comes up about 1620 times."""
    plan = CropFlip(0.125, 0.5).plan(torch.rand(40_500, 3, generator=torch.Generator().manual_seed(0)), (16, 16))
    counts = torch.bincount(plan[:, 0] * 5 + plan[:, 1], minlength=25)
    assert ((counts - 1620.0) ** 2 / 1620).sum() < 60  # chi-square with 24 degrees of freedom: p = 6e-5
    assert plan[:, 2].double().mean() == pytest.approx(0.5, abs=0.01)


def test_a_crop_shifts_over_black():
    """The image moves by whole pixels over black; mirroring swaps left and right."""
    picture = images(1, 1, (4, 4))
    crop = CropFlip(0.25, 0.5)  # one pixel each side
    fill = torch.zeros(1, dtype=torch.uint8)
    moved = crop.batched(picture, torch.tensor([[0, 2, 0]]), fill)[0, 0]  # down by one, left by one
    assert torch.equal(moved[1:, :3], picture[0, 0, :3, 1:])
    assert moved[0].max() == moved[:, 3].max() == 0
    assert torch.equal(crop.batched(picture, torch.tensor([[1, 1, 1]]), fill), picture.flip(3))


def test_without_padding_and_mirroring_nothing_changes():
    """`padding=0 flip=0` is the identity."""
    pictures, crop = images(5, 3, (6, 7)), CropFlip(0, 0)
    assert torch.equal(crop.batched(pictures, crop.plan(torch.rand(5, 3), (6, 7)), torch.zeros(3)), pictures)


def test_a_hole_has_the_mean_colour_and_may_reach_over_the_edge():
    """Exactly the pixels of the clipped square are painted, in every channel its own mean."""
    cutout, black = Cutout(0.5), torch.zeros(400, 3, 8, 8, dtype=torch.uint8)
    plan = cutout.plan(torch.rand(400, 2, generator=torch.Generator().manual_seed(0)), (8, 8))
    painted = cutout.batched(black, plan, torch.tensor([9, 8, 7], dtype=torch.uint8))
    areas = ((plan[:, 2] - plan[:, 0]) * (plan[:, 3] - plan[:, 1])).tolist()
    assert [int((picture[0] == 9).sum()) for picture in painted] == areas
    assert (max(areas), min(areas)) == (16, 4)  # four by four inside, two by two in a corner
    assert set(painted.amax((0, 2, 3)).tolist()) == {9, 8, 7}


def test_random_distortions_are_those_of_torchvision_and_leave_its_generator_alone():
    """A position's distortion is fixed, positions differ, and torch's generator is as it was."""
    picture = images(1, 3, (16, 16))[0]
    _, distort = randaugment(0, 0, 2, 9).operations
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found = [distort.single(picture, [seed], [0, 0, 0]) for seed in (1, 1, 2, 3, 4)]
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(found[0], found[1])
    assert len({one.numpy().tobytes() for one in found}) >= 3
    assert found[0].shape == picture.shape
    assert F.get_dimensions(found[0]) == [3, 16, 16]
