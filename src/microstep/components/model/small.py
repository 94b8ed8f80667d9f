"""Small models: an MLP, a CNN with three convolutions, and a ResNet-18 for small images."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from microstep.components.model.ghost_norm import GhostBatchNorm


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

    The model has no dropout, so gradient accumulation matches one large batch, unless `norm` is `batch`.

    Args:
        width: channels of the first convolution. The second has twice, the third four times as many.
        norm: null, or the layer after each convolution, as for `resnet18`.
        norm_samples: samples in a group of `ghost`.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        width: int = 32,
        norm: str | None = None,
        norm_samples: int = 16,
    ) -> None:
        super().__init__()
        norm_layer = None if norm is None else find_norm_layer(norm, norm_samples)
        self.features = nn.Sequential(
            *make_block(input_shape[0], width, norm_layer),
            *(nn.MaxPool2d(2), nn.ReLU()),  # equals ReLU before pooling, for a quarter of its work
            *make_block(width, 2 * width, norm_layer),
            *(nn.MaxPool2d(2), nn.ReLU()),
            *make_block(2 * width, 4 * width, norm_layer),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


def make_block(inputs: int, outputs: int, norm_layer: Callable[[int], nn.Module] | None) -> list[nn.Module]:
    """Return a 3×3 convolution initialized for ReLU (He et al., ICCV 2015), and the layer that normalizes it."""
    layer = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=norm_layer is None)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if norm_layer is not None:
        return [layer, norm_layer(outputs)]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return [layer]


def find_norm_layer(norm: str, samples: int) -> Callable[[int], nn.Module]:
    """Return a function that makes a layer for a number of channels. Raise ValueError for an unknown name."""
    group, ghost = partial(nn.GroupNorm, 32), partial(GhostBatchNorm, samples=samples)
    layers: dict[str, Callable[[int], nn.Module]] = {"batch": nn.BatchNorm2d, "group": group, "ghost": ghost}
    if norm not in layers:
        raise ValueError(f"norm={norm} is unknown: the options are {', '.join(layers)}")
    return layers[norm]


def resnet18(input_shape: Sequence[int], num_classes: int, norm: str = "batch", norm_samples: int = 16) -> nn.Module:
    """Return torchvision's ResNet-18 with a stem for small images (3×3, stride 1, no pooling; He et al., CVPR 2016).

    Args:
        norm: `batch`; or `group` (32 groups; Wu and He, ECCV 2018) or `ghost` (BatchNorm over groups of samples), which
            do not depend on the micro-batch.
        norm_samples: samples in a group of `ghost`. It has to divide the micro-batch.

    Raises:
        ValueError: if `norm` is none of them.
    """
    import torchvision  # takes two seconds

    norm_layer = find_norm_layer(norm, norm_samples)
    model: nn.Module = torchvision.models.resnet18(num_classes=num_classes, norm_layer=norm_layer)
    model.conv1 = nn.Conv2d(input_shape[0], 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
