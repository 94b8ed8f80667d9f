"""Augmentation of training samples, as a pure function of (seed, epoch, position)."""

from microstep.components.augment.mixing import Cutmix, Mixup
from microstep.components.augment.operations import CropFlip, Cutout
from microstep.components.augment.pipeline import Pipeline, crop_flip, cutmix, cutout, mixup, none
from microstep.components.augment.transforms import SeededTransform, randaugment, torchvision_transforms

__all__ = ["CropFlip", "Cutmix", "Cutout", "Mixup", "Pipeline", "SeededTransform"]
__all__ += ["crop_flip", "cutmix", "cutout", "mixup", "none", "randaugment", "torchvision_transforms"]
