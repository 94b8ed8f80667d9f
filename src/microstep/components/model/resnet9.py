"""ResNet-9, a residual network for small images that is trained within minutes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from microstep.components.model.small import find_norm_layer, make_block


class ResNet9(nn.Module):
    """Eight 3×3 convolutions, two residual blocks, global max pooling: N × C × H × W → N × num_classes.

    Page, "How to Train Your ResNet", 2018. The last layers have 8 `width` channels; `norm` is that of `resnet18`.
    """

    def __init__(
        self, input_shape: Sequence[int], num_classes: int, width: int = 64, norm: str = "batch", norm_samples: int = 16
    ) -> None:
        super().__init__()
        norm_layer = find_norm_layer(norm, norm_samples)

        def block(inputs: int, outputs: int, *pool: nn.Module) -> list[nn.Module]:
            return [*make_block(inputs, outputs, norm_layer), *pool, nn.ReLU()]

        self.features = nn.Sequential(
            *block(input_shape[0], width),
            *block(width, 2 * width, nn.MaxPool2d(2)),
            Residual(*block(2 * width, 2 * width), *block(2 * width, 2 * width)),
            *block(2 * width, 4 * width, nn.MaxPool2d(2)),
            *block(4 * width, 8 * width, nn.MaxPool2d(2)),
            Residual(*block(8 * width, 8 * width), *block(8 * width, 8 * width)),
        )
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8 * width, num_classes, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        return torch.mul(self.head(self.features(images)), 0.125)


class Residual(nn.Sequential):
    """Layers whose output is added to their input."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.add(inputs, super().forward(inputs))  # type: ignore[no-untyped-call]
