"""Models with one thing planted in each that makes a window depend on how it is cut."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torchvision.ops import StochasticDepth

from microstep.components.model.torchvision_models import FrozenBackbone


def network(*layers: nn.Module, last: nn.Module | None = None) -> nn.Module:
    """Return a small network in fp64 with some layers in its middle."""
    torch.manual_seed(0)
    head = last or nn.Linear(48, 4)
    return nn.Sequential(nn.Conv2d(1, 3, 3), *layers, nn.Tanh(), nn.Flatten(), head).double()


class Centred(nn.Module):
    """Takes away the batch's mean, as no known layer does."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


class Dropping(nn.Module):
    """Drops by the function: no layer of it is a Dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(F.dropout(x, 0.5, self.training))


class DrawingElsewhere(nn.Module):
    """Drops by NumPy's generator, of which torch knows nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.from_numpy(np.random.default_rng().random(x.shape) > 0.5)


class Counting(nn.Module):
    """Counts its calls where nobody sees it, and computes with that."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class SmallBatchesOnly(nn.Module):
    """Blocks the gradient of all layers before it in batches of more than five samples."""

    def forward(self, x: Tensor) -> Tensor:
        return x if len(x) <= 5 else 0 * x


def unused_and_frozen() -> nn.Module:
    """Return a network with a layer that is not called and one that is not trained."""
    model = network(nn.Conv2d(3, 3, 1).requires_grad_(False))
    model[1].register_module("unused", nn.Linear(2, 2).double())
    return model


def no_gradient_in_large_batches() -> nn.Module:
    model = network(nn.Conv2d(3, 3, 1))
    return nn.Sequential(*model, SmallBatchesOnly())


def drawn_elsewhere() -> nn.Module:
    return network(DrawingElsewhere())


def counting() -> nn.Module:
    return network(Counting())


def clean() -> nn.Module:
    return network(nn.GroupNorm(1, 3))


def batch_norm() -> nn.Module:
    return network(nn.BatchNorm2d(3))


def frozen_batch_norm() -> nn.Module:
    return FrozenBackbone(network(nn.BatchNorm2d(3)), head=["4.weight", "4.bias"])


def batch_norm_without_statistics() -> nn.Module:
    return network(nn.BatchNorm2d(3, track_running_stats=False))


def instance_norm_with_statistics() -> nn.Module:
    return network(nn.InstanceNorm2d(3, track_running_stats=True))


def dropout() -> nn.Module:
    return network(nn.Dropout(0.5), nn.Dropout(0.3))


def one_dropout() -> nn.Module:
    return network(nn.Dropout(0.5))


def drawn_by_a_function() -> nn.Module:
    return network(Dropping(), nn.Dropout(0.2))


def stochastic_depth() -> nn.Module:
    return network(nn.Dropout(0.2), StochasticDepth(0.5, "row"))


def centred() -> nn.Module:
    return network(Centred())


def spectral() -> nn.Module:
    return network(last=spectral_norm(nn.Linear(48, 4)))
