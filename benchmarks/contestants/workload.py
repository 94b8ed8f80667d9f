"""What all contestants train: data, model, optimizer, learning rate schedule and augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import cos, pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset, default_collate

BATCH_SIZE, VAL_BATCH_SIZE, LABEL_SMOOTHING = 64, 256, 0.1
OPTIMIZER = {"lr": 0.03, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True, "fused": True}


@dataclass(frozen=True)
class Workload:
    """Experiment: images (N × C × H × W, uint8) with labels in two splits, a model and a number of epochs.

    Mean and standard deviation of each channel refer to pixels in 0…1.
    """

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    mean: list[float]
    std: list[float]
    padding: int  #: most pixels that an image is shifted by; 0: no augmentation
    model: str
    epochs: int
    seed: int

    def inputs(self, split: str) -> tuple[Tensor, Tensor]:
        """Return normalized images (float32) and labels of a split."""
        images, labels = getattr(self, split)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return (images / 255 - mean) / std, labels

    def augment(self, inputs: Tensor) -> Tensor:
        """Shift and mirror a batch of normalized gray images."""
        return crop_flip(inputs, self.padding, -self.mean[0] / self.std[0]) if self.padding else inputs

    def build_model(self) -> nn.Module:
        return MODELS[self.model](self.train[0].shape[1])

    def steps(self) -> int:
        return self.epochs * -(-len(self.train[1]) // BATCH_SIZE)

    def build_optimizer(self, model: nn.Module) -> tuple[SGD, LambdaLR]:
        """Return SGD and its schedule, which is updated after each step."""
        optimizer = SGD(model.parameters(), **OPTIMIZER)
        return optimizer, LambdaLR(optimizer, partial(cosine, steps=self.steps()))

    def resident_loaders(self) -> tuple[DataLoader, DataLoader]:
        """Return loaders of both splits. The images are normalized tensors in memory, augmented by batch."""
        train, val = (TensorDataset(*self.inputs(split)) for split in ("train", "val"))
        return (
            DataLoader(train, BATCH_SIZE, shuffle=True, collate_fn=self.collate_augmented),
            DataLoader(val, VAL_BATCH_SIZE),
        )

    def collate_augmented(self, samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        inputs, targets = default_collate(samples)
        return self.augment(inputs), targets


def cosine(step: int, steps: int, warmup: float = 0.1) -> float:
    """Return the factor of the learning rate: a linear warm-up, then cosine annealing to 0."""
    warmup_steps = int(warmup * steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 0.5 * (1 + cos(pi * min(1, (step - warmup_steps) / (steps - warmup_steps))))


def crop_flip(images: Tensor, padding: int, black: float) -> Tensor:
    """Shift each image by up to `padding` pixels over black, and mirror half of the images."""
    count, _, height, width = images.shape
    padded = F.pad(images, [padding] * 4, value=black)
    top, left = torch.randint(2 * padding + 1, (2, count, 1))
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    image = torch.arange(count).view(-1, 1, 1)
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def loss_function(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, label_smoothing=LABEL_SMOOTHING)


def small_cnn(channels: int, width: int = 32) -> nn.Sequential:
    """Return three 3×3 convolutions with pooling after the first two, global average pooling and a linear layer."""
    widths = [channels, width, 2 * width, 4 * width]
    first, second, third = (nn.Conv2d(*pair, kernel_size=3, padding=1) for pair in pairwise(widths))
    for layer in (first, second, third):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    pooled = [first, nn.MaxPool2d(2), nn.ReLU(), second, nn.MaxPool2d(2), nn.ReLU()]
    return nn.Sequential(*pooled, third, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 10))


def cnn(input_shape: Sequence[int], num_classes: int = 10, width: int = 32) -> nn.Sequential:
    """Return three 3×3 convolutions as people write them, with ReLU before pooling. Its blocks of memory are large."""
    channels, height, columns = input_shape
    layers = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
    layers += [nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * width * (height // 4) * (columns // 4), num_classes))


def resnet18(channels: int) -> nn.Module:
    """Return torchvision's ResNet-18 with a stem for small images."""
    import torchvision  # takes seconds, and the small CNN does not need it

    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "small_cnn": small_cnn,
    "cnn": lambda channels: cnn((channels, 28, 28)),
    "resnet18": resnet18,
}
