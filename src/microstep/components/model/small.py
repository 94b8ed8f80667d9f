"""Small models: an MLP, a CNN with three convolutions, and a ResNet-18 for small images."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from math import prod

from torch import Tensor, nn


def mlp(
    input_shape: Sequence[int], num_classes: int, hidden: Sequence[int] = (128, 64), dropout: float = 0.0
) -> nn.Sequential:
    """Return a multilayer perceptron with ReLU and dropout: N × input_shape → N × num_classes.

    Args:
        hidden: widths of the hidden layers.
        dropout: probability that a hidden unit is zeroed.
    """
    widths = [prod(input_shape), *hidden, num_classes]
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU(), nn.Dropout(dropout))]
    return nn.Sequential(nn.Flatten(), *layers[:-2])


class SmallCNN(nn.Module):
    """Three 3×3 convolutions, max pooling after the first two, global average pooling: N × C × H × W → N × num_classes.

    The model has no normalization layers and no dropout, so gradient accumulation matches one large batch.

    Args:
        width: channels of the first convolution. The second has twice, the third four times as many.
    """

    def __init__(self, input_shape: Sequence[int], num_classes: int, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            make_convolution(input_shape[0], width),
            *(nn.MaxPool2d(2), nn.ReLU()),  # equals ReLU before pooling, for a quarter of its work
            make_convolution(width, 2 * width),
            *(nn.MaxPool2d(2), nn.ReLU()),
            make_convolution(2 * width, 4 * width),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


def make_convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3×3 convolution initialized for ReLU (He et al., ICCV 2015)."""
    layer = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


NORM_LAYERS: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "group": partial(nn.GroupNorm, 32)}


def resnet18(input_shape: Sequence[int], num_classes: int, norm: str = "batch") -> nn.Module:
    """Return torchvision's ResNet-18 with a stem for small images (3×3, stride 1, no pooling; He et al., CVPR 2016).

    Args:
        norm: `batch`, or `group` (32 groups; Wu and He, ECCV 2018), which does not depend on the micro-batch.

    Raises:
        ValueError: if `norm` is neither.
    """
    import torchvision  # takes two seconds

    if norm not in NORM_LAYERS:
        raise ValueError(f"norm={norm} is unknown: the options are {', '.join(NORM_LAYERS)}")
    model: nn.Module = torchvision.models.resnet18(num_classes=num_classes, norm_layer=NORM_LAYERS[norm])
    model.conv1 = nn.Conv2d(input_shape[0], 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
