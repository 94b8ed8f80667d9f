"""The recipes that conf/augment/ names."""

from __future__ import annotations

from microstep.augment.mixing import Cutmix, Mixup
from microstep.augment.operations import CropFlip, Cutout, RandAugment
from microstep.augment.pipeline import Pipeline


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
