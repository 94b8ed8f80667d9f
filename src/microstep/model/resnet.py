"""ResNet-18 with the stem for small images."""

from collections.abc import Callable, Sequence
from functools import partial

import torchvision
from torch import nn

NORMS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "group": partial(nn.GroupNorm, 32)}


def resnet18(input_shape: Sequence[int], num_classes: int, norm: str = "batch") -> nn.Module:
    """Return torchvision's ResNet-18 with the stem its authors used on CIFAR: 3×3, stride 1, no pooling.

    Args:
        norm: `batch`, or `group` (32 groups; Wu and He, ECCV 2018), whose result does not depend on the micro-batch.

    Raises:
        ValueError: for another norm.
    """
    if norm not in NORMS:
        raise ValueError(f"norm={norm} is unknown: the options are {', '.join(NORMS)}")
    model: nn.Module = torchvision.models.resnet18(num_classes=num_classes, norm_layer=NORMS[norm])
    model.conv1 = nn.Conv2d(input_shape[0], 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
