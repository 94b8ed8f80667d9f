"""A small convolutional network for small images."""

from collections.abc import Sequence

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three 3×3 convolutions, pooling after two of them, a global average: N × C × H × W → N × num_classes.

    It has no normalisation and no dropout, so that accumulation is the same mathematics as one big batch.
    """

    def __init__(self, input_shape: Sequence[int], num_classes: int, width: int = 32) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(convolution(input_shape[0], width), nn.MaxPool2d(2), nn.ReLU()),  # as ReLU, then pooling; a quarter of it
            *(convolution(width, 2 * width), nn.MaxPool2d(2), nn.ReLU()),
            *(convolution(2 * width, 4 * width), nn.ReLU()),
        )
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.features(images))
        return logits


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3×3 convolution initialised for ReLU (He et al., ICCV 2015)."""
    layer = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
