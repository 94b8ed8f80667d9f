"""Parts of an experiment with one fault planted in each, that keeps it from learning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from microstep.components.augment import none
from microstep.components.dataset import digits


def network(num_classes: int, *layers: nn.Module) -> nn.Sequential:
    """Return a network for digits with some layers in its middle."""
    first = [nn.Flatten(), nn.Linear(64, 32), nn.ReLU()]
    return nn.Sequential(*first, *layers, nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, num_classes))


def softmax(num_classes: int) -> nn.Module:
    return nn.Sequential(network(num_classes), nn.Softmax(1))


def frozen(num_classes: int) -> nn.Module:
    model = network(num_classes)
    model[1].requires_grad_(False)
    return model


class Detach(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


def detached(num_classes: int) -> nn.Module:
    return network(num_classes, Detach())


def dead(num_classes: int) -> nn.Module:
    model = network(num_classes)
    nn.init.constant_(model[3].bias, -20.0)
    return model


def deep_sigmoid(num_classes: int) -> nn.Module:
    return network(num_classes, *(layer for _ in range(10) for layer in (nn.Linear(32, 32), nn.Sigmoid())))


def exploding(num_classes: int) -> nn.Module:
    model = network(num_classes)
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=3.0)
    return model


class Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu().log()


def logarithm(num_classes: int) -> nn.Module:
    return network(num_classes, Log())


class OverSamples(nn.Module):
    """A softmax over the samples of the batch instead of the classes."""

    def forward(self, x: Tensor) -> Tensor:
        return 9 * x.softmax(0)


def over_samples(num_classes: int) -> nn.Module:
    return network(num_classes, OverSamples())


class AlwaysDropping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.5)


def always_dropping(num_classes: int) -> nn.Module:
    return network(num_classes, AlwaysDropping())


def sigmoid(num_classes: int) -> nn.Module:
    return nn.Sequential(network(num_classes), nn.Sigmoid())


class Blind(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0


def blind(num_classes: int) -> nn.Module:
    return network(num_classes, Blind())


def more_outputs(num_classes: int) -> nn.Module:
    return network(1000)


def fewer_outputs(num_classes: int) -> nn.Module:
    return network(num_classes - 3)


def stale_statistics(num_classes: int) -> nn.Module:
    """BatchNorm whose running statistics stay those of the beginning, after a layer with large outputs."""
    model = network(num_classes, nn.BatchNorm1d(32, momentum=0.0))
    nn.init.normal_(model[1].weight, std=1.0)
    return model


def slow_statistics(num_classes: int) -> nn.Module:
    """BatchNorm whose running statistics take long to settle; it learns."""
    model = network(num_classes, nn.BatchNorm1d(32, momentum=0.0003))
    nn.init.normal_(model[1].weight, std=1.0)
    return model


def pretrained(num_classes: int) -> nn.Module:
    """A network whose weights, it says, were trained with this mean and standard deviation."""
    model = network(num_classes)
    model.normalization = ((0.3,), (0.4,))
    return model


def unused(num_classes: int) -> nn.Module:
    """A network that learns, with a layer that it never calls."""
    model = network(num_classes)
    model[1].register_module("unused", nn.Linear(2, 2))
    return model


def forgetful_sgd(params, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(list(params)[2:], lr)


def negative(outputs: Tensor, targets: Tensor) -> Tensor:
    return -nn.functional.cross_entropy(outputs, targets, reduction="none")


def unbounded(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.nll_loss(outputs, targets, reduction="none")


def shifted(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, (targets + 1) % 10, reduction="none")


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    """A sound loss, of outputs that are 1 for the right class, else 0."""
    return (outputs - nn.functional.one_hot(targets, outputs.shape[1])).square().sum(1)


def of_probabilities(outputs: Tensor, targets: Tensor) -> Tensor:
    """A sound loss, of outputs that are probabilities."""
    return -outputs.gather(1, targets[:, None])[:, 0].clamp(min=1e-6).log()


class Blank:
    """Augmentation that leaves nothing of an image."""

    def __init__(self) -> None:
        self.none = none()

    def view(self, split, *key: int, samples: int):
        return BlankSplit(split)

    def mixing(self, *arguments, **options) -> None:
        return None


class BlankSplit:
    def __init__(self, split) -> None:
        self.split = split

    def __getattr__(self, name: str):
        return getattr(self.split, name)

    def __len__(self) -> int:
        return len(self.split)

    def fetch(self, rows: Tensor, positions: Tensor):
        batch = self.split.fetch(rows, positions)
        return replace(batch, inputs=0 * batch.inputs)


def relabeled_digits(device: torch.device, fault: str, **options):
    """Digits whose labels are `shuffled`, all `equal`, or, those of val only, in another `order` or `val shuffled`."""
    dataset, generator = digits(device, **options), np.random.default_rng(0)

    def relabel(name: str, labels: np.ndarray) -> np.ndarray:
        if fault == "equal":
            return np.full_like(labels, 3)
        if fault == "shuffled" or (fault == "val shuffled" and name == "val"):
            return generator.permutation(labels)
        return (labels + 1) % 10 if fault == "order" and name == "val" else labels

    def make_splits(official):
        splits = dataset.make_splits(official)
        return {name: replace(split, labels=relabel(name, split.labels)) for name, split in splits.items()}

    return replace(dataset, make_splits=make_splits)
