"""Operations one after the other, then mixing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from microstep.components.augment.mixing import Cutmix, EpochMixing, MixingRule, Mixup
from microstep.components.augment.operations import CropFlip, Cutout, ImageSize, Operation, RandAugment
from microstep.errors import ConfigError
from microstep.types.data import Split
from microstep.utils.randomness import draw_uniform

OPERATIONS_KEY = 2**40 + 2  #: part of keys


@runtime_checkable
class AugmentableSplit(Protocol):
    """A split of pictures, which can be augmented."""

    size: ImageSize

    def augmented(self, pipeline: Pipeline, *key: int) -> Split:
        """Return the split as an epoch sees it."""


@dataclass(frozen=True)
class Pipeline:
    """What is done to training pictures: each operation in turn, then mixing by twos."""

    operations: tuple[Operation, ...]
    mixing_rule: MixingRule | None = None

    def view(self, split: Split, *key: int) -> Split:
        """Return the split as the epoch of (seed, epoch) sees it."""
        return check_augmentable(split).augmented(self, *key) if self.operations else split

    def mixing(self, split: Split, device: torch.device, *key: int) -> EpochMixing | None:
        """Return the epoch's mixing."""
        if self.mixing_rule is None:
            return None
        return self.mixing_rule.plan(len(split), check_augmentable(split).size, device, *key)

    def plan(self, positions: Tensor, size: ImageSize, *key: int) -> list[Tensor]:
        """Return each operation's parameters for some positions."""
        columns = [one.columns for one in self.operations]
        parts = torch.split(draw_uniform(positions, sum(columns), *key, OPERATIONS_KEY), columns, dim=1)
        return [one.plan(part, size) for one, part in zip(self.operations, parts, strict=True)]

    def batched(self, images: Tensor, plan: Sequence[Tensor], fill: Tensor) -> Tensor:
        """Return resident pictures (N × C × H × W, uint8) as they are trained on."""
        for operation, parameters in zip(self.operations, plan, strict=True):
            images = operation.batched(images, parameters, fill)  # type: ignore[attr-defined]  # see `resident`
        return images

    def single(self, images: Tensor, plan: Sequence[Tensor], fill: Sequence[int]) -> Tensor:
        """Return streamed pictures (N × C × H × W, uint8), each by itself."""
        rows = zip(*(parameters.tolist() for parameters in plan), strict=True)
        return torch.stack([self.one(image, row, fill) for image, row in zip(images, rows, strict=True)])

    def one(self, image: Tensor, rows: Sequence[Sequence[int]], fill: Sequence[int]) -> Tensor:
        """Return one picture, changed."""
        for operation, parameters in zip(self.operations, rows, strict=True):
            image = operation.single(image, parameters, fill)
        return image

    @property
    def resident(self) -> bool:
        """Whether every operation can be done to a whole batch on the device."""
        return all(hasattr(operation, "batched") for operation in self.operations)


def check_augmentable(split: Split) -> AugmentableSplit:
    """Return the split, where it is one of pictures.

    Raises:
        ConfigError: where it is not.
    """
    if isinstance(split, AugmentableSplit):
        return split
    raise ConfigError("augment", "the data are no pictures", "leave it out: augment=none")


def none() -> Pipeline:
    """Leave the pictures as they are."""
    return Pipeline(())


def crop_flip(padding: float, flip: float) -> Pipeline:
    """Shift by up to `padding` of each side over black; mirror a share of `flip`."""
    return Pipeline((CropFlip(padding, flip),))


def cutout(padding: float, flip: float, hole: float) -> Pipeline:
    """As crop_flip, then paint a square of `hole` of the side in the mean colour (DeVries and Taylor, 2017)."""
    return Pipeline((CropFlip(padding, flip), Cutout(hole)))


def mixup(padding: float, flip: float, alpha: float) -> Pipeline:
    """As crop_flip, then blend pictures by twos (Zhang et al., ICLR 2018)."""
    return Pipeline((CropFlip(padding, flip),), Mixup(alpha))


def cutmix(padding: float, flip: float, alpha: float) -> Pipeline:
    """As crop_flip, then paste a piece of another picture (Yun et al., ICCV 2019)."""
    return Pipeline((CropFlip(padding, flip),), Cutmix(alpha))


def randaugment(padding: float, flip: float, num_ops: int, magnitude: int) -> Pipeline:
    """As crop_flip, then `num_ops` random distortions (Cubuk et al., NeurIPS 2020); for streamed pictures only."""
    return Pipeline((CropFlip(padding, flip), RandAugment(num_ops, magnitude)))
