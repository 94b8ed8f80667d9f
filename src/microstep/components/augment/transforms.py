"""Transforms of torchvision.transforms.v2, or of one's own, with a seed for each image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from microstep.components.augment.operations import CropFlip, ImageSize
from microstep.components.augment.pipeline import Pipeline
from microstep.errors import ConfigError

REMEDY = "give a list for one uint8 image of one size: no ToDtype, Normalize or MixUp, and Resize at the end"


@dataclass(frozen=True)
class SeededTransform:
    """Applies a transform that draws from torch's generator. Its state is restored after each image."""

    make: Callable[[list[float]], Any]  #: returns the transform, given the mean color
    columns: ClassVar[int] = 1

    def plan(self, uniform: Tensor, size: ImageSize) -> Tensor:
        return (uniform * 2**53).long()

    def single(self, image: Tensor, parameters: Sequence[int], fill: Sequence[int]) -> Tensor:
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(parameters[0])
                changed: Tensor = self.make([float(value) for value in fill])(image)
            if (changed.dtype, changed.shape) != (image.dtype, image.shape):
                raise ValueError(f"they make {changed.dtype}, {(*changed.shape,)} of {image.dtype}, {(*image.shape,)}")
        except Exception as error:  # transforms raise any kind
            raise ConfigError("augment.transforms", str(error), REMEDY) from error
        return changed


def randaugment(padding: float, flip: float, num_ops: int, magnitude: int) -> Pipeline:
    """Return crop_flip, then `num_ops` random distortions of a magnitude out of 30 (Cubuk et al., NeurIPS 2020)."""
    return Pipeline((CropFlip(padding, flip), SeededTransform(partial(make_randaugment, num_ops, magnitude))))


def make_randaugment(num_ops: int, magnitude: int, fill: list[float]) -> Any:
    from torchvision.transforms.v2 import RandAugment

    return RandAugment(num_ops=num_ops, magnitude=magnitude, fill=fill)


def torchvision_transforms(transforms: Sequence[Callable[[Tensor], Tensor]]) -> Pipeline:
    """Return a pipeline of transforms such as those of torchvision.transforms.v2, each of one uint8 image."""
    return Pipeline((SeededTransform(partial(make_composition, transforms)),))


def make_composition(transforms: Sequence[Callable[[Tensor], Tensor]], fill: list[float]) -> Any:
    from torchvision.transforms.v2 import Compose

    return Compose(transforms)
