"""Augmentation: what is done to training samples, as a pure function of (seed, epoch, position)."""

from microstep.augment.mixing import Cutmix, Mixup
from microstep.augment.operations import CropFlip, Cutout, RandAugment
from microstep.augment.pipeline import Pipeline
from microstep.augment.recipes import crop_flip, cutmix, cutout, mixup, none, randaugment

__all__ = [
    "CropFlip",
    "Cutmix",
    "Cutout",
    "Mixup",
    "Pipeline",
    "RandAugment",
    "crop_flip",
    "cutmix",
    "cutout",
    "mixup",
    "none",
    "randaugment",
]
