"""Pipelines of augmentation operations, followed by mixing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from microstep.components.augment.mixing import Cutmix, EpochMixing, MixingRule, Mixup
from microstep.components.augment.operations import BatchedOperation, CropFlip, Cutout, ImageSize, SingleOperation
from microstep.errors import ConfigError
from microstep.types.data import Split
from microstep.utils.randomness import draw_uniform

OPERATIONS_KEY = 2**40 + 2  #: part of random keys


@runtime_checkable
class AugmentableSplit(Protocol):
    """Split of images that can be augmented."""

    size: ImageSize

    def augmented(self, pipeline: Pipeline, *key: int, samples: int) -> Split:
        """Return a view of the split, augmented for an epoch of that many positions; `key` is (seed, epoch)."""


@dataclass(frozen=True)
class Pipeline:
    """Augmentation of training images: operations one after the other, then mixing of pairs.

    All random parameters are a pure function of seed, epoch and position. In every method, `key` is (seed, epoch), and
    `samples` the number of positions in an epoch.
    """

    operations: tuple[BatchedOperation | SingleOperation, ...]
    mixing_rule: MixingRule | None = None

    def view(self, split: Split, *key: int, samples: int) -> Split:
        """Return a view of the split, augmented for one epoch. Raise a ConfigError if it can't be augmented."""
        return check_augmentable(split).augmented(self, *key, samples=samples) if self.operations else split

    def mixing(self, split: Split, device: torch.device, *key: int, samples: int) -> EpochMixing | None:
        """Return the mixing of an epoch, or None. Raise a ConfigError if the samples to mix are not images."""
        if self.mixing_rule is None:
            return None
        return self.mixing_rule.plan(samples, check_augmentable(split).size, device, *key)

    def plan(self, positions: Tensor, size: ImageSize, *key: int) -> list[Tensor]:
        """Return the parameters of each operation for N positions of the epoch: N × k each, int64."""
        columns = [operation.columns for operation in self.operations]
        parts = torch.split(draw_uniform(positions, sum(columns), *key, OPERATIONS_KEY), columns, dim=1)
        return [operation.plan(part, size) for operation, part in zip(self.operations, parts, strict=True)]

    def apply(self, images: Tensor, plan: Sequence[Tensor], fill: Tensor) -> Tensor:
        """Augment images (N × C × H × W, uint8); `plan` and `fill` (C, uint8) are on their device."""
        for operation, parameters in zip(self.operations, plan, strict=True):
            if isinstance(operation, BatchedOperation):
                images = operation.batched(images, parameters, fill)
            else:
                pairs, color = zip(images.cpu(), parameters.tolist(), strict=True), fill.tolist()
                changed = torch.stack([operation.single(image, values, color) for image, values in pairs])
                images = changed.contiguous().to(images.device)  # an image of PIL has another layout
        return images


def check_augmentable(split: Split) -> AugmentableSplit:
    if isinstance(split, AugmentableSplit):
        return split
    reason, remedy = "it is for the uint8 images of microstep.image_dataset", "return one from the data set"
    raise ConfigError("augment", reason, f"{remedy}, or leave it out: augment=none")


def none() -> Pipeline:
    return Pipeline(())


def crop_flip(padding: float, flip: float) -> Pipeline:
    """Return a pipeline that shifts and mirrors images.

    Args:
        padding: Largest shift, as a share of each side. Pixels from beyond the edge are black.
        flip: Probability that an image is mirrored left to right.
    """
    return Pipeline((CropFlip(padding, flip),))


def cutout(padding: float, flip: float, hole: float) -> Pipeline:
    """Return crop_flip, then Cutout: a square of `hole` of the shorter side (DeVries and Taylor, 2017)."""
    return Pipeline((CropFlip(padding, flip), Cutout(hole)))


def mixup(padding: float, flip: float, alpha: float) -> Pipeline:
    """Return crop_flip, then mixup with weights from Beta(alpha, alpha) (Zhang et al., ICLR 2018)."""
    return Pipeline((CropFlip(padding, flip),), Mixup(alpha))


def cutmix(padding: float, flip: float, alpha: float) -> Pipeline:
    """Return crop_flip, then CutMix with areas from Beta(alpha, alpha) (Yun et al., ICCV 2019)."""
    return Pipeline((CropFlip(padding, flip),), Cutmix(alpha))
