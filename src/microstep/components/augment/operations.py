"""Augmentation operations. Each plans its parameters from uniform numbers, and applies them.

One that is implemented for a batch is applied to resident data on the device, and to streamed data by whoever reads
them. One that is implemented for a single image is applied on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol, runtime_checkable

import torch
import torch.nn.functional as nnf
from torch import Tensor

ImageSize = tuple[int, int]  #: height and width


class Operation(Protocol):
    """Augmentation of images."""

    columns: ClassVar[int]  #: number of uniform numbers per image

    def plan(self, uniform: Tensor, size: ImageSize) -> Tensor:
        """Return the parameters of N images (N × k, int64) from N × columns numbers in [0, 1)."""


@runtime_checkable
class BatchedOperation(Operation, Protocol):
    """Augmentation of a batch of images, resident or streamed."""

    def batched(self, images: Tensor, parameters: Tensor, fill: Tensor) -> Tensor:
        """Return images (N × C × H × W, uint8) changed; parameters (N × k) and mean color `fill` (C) are tensors."""


class SingleOperation(Operation, Protocol):
    """Augmentation of images one by one, on the CPU."""

    def single(self, image: Tensor, parameters: Sequence[int], fill: Sequence[int]) -> Tensor:
        """Return an image (C × H × W, uint8) changed; `fill` is the mean color (C)."""


@dataclass(frozen=True)
class CropFlip:
    """Shifts images by up to `padding` of each side over black, and mirrors a share of `flip` left to right.

    Same distribution as RandomCrop(size, padding) and RandomHorizontalFlip(flip) of torchvision.
    """

    padding: float
    flip: float
    columns: ClassVar[int] = 3

    def plan(self, uniform: Tensor, size: ImageSize) -> Tensor:
        """Return top and left of the crop in the padded image, and whether it is mirrored."""
        choices = torch.tensor([2 * margin + 1 for margin in self.compute_margins(size)])
        mirrored = uniform[:, 2:] < self.flip
        return torch.cat([(uniform[:, :2] * choices).long(), mirrored.long()], dim=1)

    def compute_margins(self, size: ImageSize) -> tuple[int, int]:
        """Return the pixels to add at top and bottom, and those to add at left and right."""
        height, width = (round(self.padding * side) for side in size)
        return height, width

    def batched(self, images: Tensor, parameters: Tensor, fill: Tensor) -> Tensor:
        height, width = images.shape[2:]
        vertical, horizontal = self.compute_margins((height, width))
        padded = nnf.pad(images, (horizontal, horizontal, vertical, vertical))
        corners, mirrored = parameters[:, 0] * padded.shape[3] + parameters[:, 1], parameters[:, 2]
        rows = crop_row_offsets(padded.shape, height, images.device) + corners.view(-1, 1, 1)
        windows = padded.view(-1).as_strided((padded.numel() - width + 1, width), (1, 1))  # one per offset
        return mirror_images(windows.index_select(0, rows.view(-1)).view_as(images), mirrored)


@lru_cache(maxsize=8)
def crop_row_offsets(padded: torch.Size, height: int, device: torch.device) -> Tensor:
    """Return the offset of each row of the top left crops in a padded batch: N × C × height."""
    count, channels, padded_height, padded_width = padded
    planes, rows = torch.arange(count * channels, device=device), torch.arange(height, device=device)
    return (planes[:, None] * (padded_height * padded_width) + rows * padded_width).view(count, channels, height)


def mirror_images(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror the images whose flag in `mirrored` is 1. XOR of bytes is six times as fast as torch.where."""
    mask = mirrored.to(torch.uint8).neg().view(-1, 1, 1, 1)  # all bits set, or none
    return images ^ ((images ^ images.flip(3)) & mask)


@dataclass(frozen=True)
class Cutout:
    """Paints a square in the mean color. Its center is uniformly distributed, so it may be clipped at the edge.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.
    """

    hole: float  #: side of the square, as a share of the shorter side of the image
    columns: ClassVar[int] = 2

    def plan(self, uniform: Tensor, size: ImageSize) -> Tensor:
        """Return top, left, bottom and right of the clipped square."""
        side, limits = round(self.hole * min(size)), torch.tensor(size)
        corner = (uniform * limits).long() - side // 2
        return torch.cat([corner.clamp(min=0), (corner + side).minimum(limits)], dim=1)

    def batched(self, images: Tensor, parameters: Tensor, fill: Tensor) -> Tensor:
        return torch.where(box_mask(parameters, images), fill.view(1, -1, 1, 1), images)


def box_mask(boxes: Tensor, images: Tensor) -> Tensor:
    """Return a mask (N × 1 × H × W) of the pixels in the box of each image (N × 4: top, left, bottom, right)."""
    rows = torch.arange(images.shape[2], device=images.device).view(1, 1, -1, 1)
    columns = torch.arange(images.shape[3], device=images.device).view(1, 1, 1, -1)
    top, left, bottom, right = (side.view(-1, 1, 1, 1) for side in boxes.unbind(1))
    return (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)
