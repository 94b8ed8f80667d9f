"""What can be done to one picture. An operation is two things: parameters from uniform numbers, and their application.

Each is applied twice over, to a batch on the device (resident data) and to one picture by torchvision's functional
operations (streaming): on the same bytes, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as nnf
from torch import Tensor

ImageSize = tuple[int, int]  #: height and width


class Operation(Protocol):
    """Something done to a picture."""

    columns: ClassVar[int]  #: uniform numbers that one picture needs

    def plan(self, uniform: Tensor, size: ImageSize) -> Tensor:
        """Return N × k parameters, int64, from N × columns numbers in [0, 1)."""

    def single(self, image: Tensor, parameters: Sequence[int], fill: Sequence[int]) -> Tensor:
        """Return one picture (C × H × W, uint8) changed; `fill` is the mean colour."""


class BatchedOperation(Operation, Protocol):
    """Something that can be done to a whole batch at once, as resident data need it."""

    def batched(self, images: Tensor, parameters: Tensor, fill: Tensor) -> Tensor:
        """Return the pictures (N × C × H × W, uint8) changed; parameters and `fill` (C) are on their device."""


@dataclass(frozen=True)
class CropFlip:
    """Shift by up to `padding` of each side, black coming in, and mirror a share of `flip` left to right.

    As torchvision's RandomCrop(size, padding) and RandomHorizontalFlip(flip).
    """

    padding: float
    flip: float
    columns: ClassVar[int] = 3

    def plan(self, uniform: Tensor, size: ImageSize) -> Tensor:
        """Return top and left in the padded picture, and whether it is mirrored."""
        choices = torch.tensor([2 * margin + 1 for margin in self.margins(size)])
        mirrored = uniform[:, 2:] < self.flip
        return torch.cat([(uniform[:, :2] * choices).long(), mirrored.long()], dim=1)

    def margins(self, size: ImageSize) -> tuple[int, int]:
        """Return the pixels added at each side, vertically and horizontally."""
        height, width = (round(self.padding * side) for side in size)
        return height, width

    def batched(self, images: Tensor, parameters: Tensor, fill: Tensor) -> Tensor:
        """Copy each row of the crops out of the padded pictures, as bytes that begin anywhere; then mirror some."""
        down, across = self.margins((images.shape[2], images.shape[3]))
        padded = nnf.pad(images, (across, across, down, down))
        corners, mirrored = parameters[:, 0] * padded.shape[3] + parameters[:, 1], parameters[:, 2]
        rows = crop_row_offsets(padded.shape, images.shape[2], images.device) + corners.view(-1, 1, 1)
        width = images.shape[3]
        anywhere = padded.view(-1).as_strided((padded.numel() - width + 1, width), (1, 1))
        return flipped_images(mirrored, anywhere.index_select(0, rows.view(-1)).view_as(images))

    def single(self, image: Tensor, parameters: Sequence[int], fill: Sequence[int]) -> Tensor:
        """Crop, which pads with black where it reaches beyond the picture, and mirror."""
        from torchvision.transforms.v2 import functional as F  # takes a third of a second, for streaming alone

        height, width = image.shape[1:]
        down, across = self.margins((height, width))
        top, left, mirrored = parameters
        changed: Tensor = F.crop(image, top - down, left - across, height, width)
        if mirrored:
            changed = F.horizontal_flip(changed)
        return changed


@lru_cache(maxsize=8)
def crop_row_offsets(padded: torch.Size, height: int, device: torch.device) -> Tensor:
    """Return where the rows of crops begin in padded pictures whose corner they are cut from: N × C × height."""
    count, channels, down, across = padded
    pictures, rows = torch.arange(count * channels, device=device), torch.arange(height, device=device)
    return (pictures[:, None] * (down * across) + rows * across).view(count, channels, height)


def flipped_images(mirrored: Tensor, images: Tensor) -> Tensor:
    """Return the pictures, some of them mirrored; by bits, which is six times as fast as torch.where on bytes."""
    mask = mirrored.to(torch.uint8).neg().view(-1, 1, 1, 1)  # all bits, or none
    return images ^ ((images ^ images.flip(3)) & mask)


@dataclass(frozen=True)
class Cutout:
    """Paint a square in the mean colour; its centre is anywhere in the picture, so that it may be cut off by the edge.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.
    """

    hole: float  #: its side, as a share of the shorter one
    columns: ClassVar[int] = 2

    def plan(self, uniform: Tensor, size: ImageSize) -> Tensor:
        """Return top, left, bottom and right of the square, inside the picture."""
        side = round(self.hole * min(size))
        corner = (uniform * torch.tensor(size)).long() - side // 2
        limits = torch.tensor(size)
        return torch.cat([corner.clamp(min=0), (corner + side).minimum(limits)], dim=1)

    def batched(self, images: Tensor, parameters: Tensor, fill: Tensor) -> Tensor:
        """Paint all squares at once."""
        return torch.where(box_mask(parameters, images), fill.view(1, -1, 1, 1), images)

    def single(self, image: Tensor, parameters: Sequence[int], fill: Sequence[int]) -> Tensor:
        """Paint one square."""
        from torchvision.transforms.v2 import functional as F

        top, left, bottom, right = parameters
        color = torch.tensor(fill, dtype=image.dtype).view(-1, 1, 1)
        size = bottom - top, right - left
        painted: Tensor = F.erase(image, top, left, *size, color.expand(-1, *size))
        return painted


def box_mask(boxes: Tensor, images: Tensor) -> Tensor:
    """Return which pixels lie in each picture's box (top, left, bottom, right): N × 1 × H × W."""
    rows = torch.arange(images.shape[2], device=images.device).view(1, 1, -1, 1)
    columns = torch.arange(images.shape[3], device=images.device).view(1, 1, 1, -1)
    top, left, bottom, right = (side.view(-1, 1, 1, 1) for side in boxes.unbind(1))
    return (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)


@dataclass(frozen=True)
class RandAugment:
    """torchvision's RandAugment, seeded for each picture: it draws from torch's generator, which is put back after.

    Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a Reduced Search Space", NeurIPS 2020.
    """

    num_ops: int
    magnitude: int  #: out of 30
    columns: ClassVar[int] = 1

    def plan(self, uniform: Tensor, size: ImageSize) -> Tensor:
        """Return a seed."""
        return (uniform * 2**53).long()

    def single(self, image: Tensor, parameters: Sequence[int], fill: Sequence[int]) -> Tensor:
        """Distort one picture; what comes in at its edges has the mean colour."""
        from torchvision.transforms.v2 import RandAugment as Distortions

        transform = Distortions(num_ops=self.num_ops, magnitude=self.magnitude, fill=list(map(float, fill)))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(parameters[0])
            changed: Tensor = transform(image)
        return changed
