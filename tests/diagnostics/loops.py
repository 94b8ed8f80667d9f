"""The loops that check=accumulation knows by name, written by hand as their authors write them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.utils import clip_grad_norm_

Pairs = Sequence[tuple[Tensor, Tensor]]


def mean_over_accum(model: nn.Module, pairs: Pairs, accum: int, weights: Tensor | None, clip: float) -> None:
    for inputs, targets in pairs:
        loss = F.cross_entropy(model(inputs), targets, weights)
        (loss / accum).backward()


def mean_of_means(model: nn.Module, pairs: Pairs, accum: int, weights: Tensor | None, clip: float) -> None:
    losses = [F.cross_entropy(model(inputs), targets, weights) for inputs, targets in pairs]
    torch.stack(losses).mean().backward()


def sum_of_means(model: nn.Module, pairs: Pairs, accum: int, weights: Tensor | None, clip: float) -> None:
    for inputs, targets in pairs:
        F.cross_entropy(model(inputs), targets, weights).backward()


def dropped_tail(model: nn.Module, pairs: Pairs, accum: int, weights: Tensor | None, clip: float) -> None:
    full = [pair for pair in pairs if len(pair[0]) == len(pairs[0][0])]
    whole(model, full, accum, weights, clip)


def zero_grad_each(model: nn.Module, pairs: Pairs, accum: int, weights: Tensor | None, clip: float) -> None:
    for inputs, targets in pairs:
        model.zero_grad()
        (F.cross_entropy(model(inputs), targets, weights) / accum).backward()


def clip_each(model: nn.Module, pairs: Pairs, accum: int, weights: Tensor | None, clip: float) -> None:
    total = divisor(pairs, weights)
    for inputs, targets in pairs:
        (F.cross_entropy(model(inputs), targets, weights, reduction="sum") / total).backward()
        clip_grad_norm_(model.parameters(), clip)


def scale_doubles(model: nn.Module, pairs: Pairs, accum: int, weights: Tensor | None, clip: float) -> None:
    scaler, optimizer, total = GradScaler("cpu"), torch.optim.SGD(model.parameters()), divisor(pairs, weights)
    for number, (inputs, targets) in enumerate(pairs, 1):
        if number == len(pairs):
            scaler.update(scaler.get_scale() * 2)
        scaler.scale(F.cross_entropy(model(inputs), targets, weights, reduction="sum") / total).backward()
    scaler.unscale_(optimizer)


def weighted_mean(model: nn.Module, pairs: Pairs, accum: int, weights: Tensor | None, clip: float) -> None:
    total = divisor(pairs, weights)
    for inputs, targets in pairs:
        (F.cross_entropy(model(inputs), targets, weights, reduction="sum") / total).backward()


def whole(model: nn.Module, pairs: Pairs, accum: int, weights: Tensor | None, clip: float) -> None:
    inputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    F.cross_entropy(model(inputs), targets, weights).backward()


def divisor(pairs: Pairs, weights: Tensor | None) -> float:
    """Return the weight of all samples together."""
    targets = torch.cat([targets for _, targets in pairs])
    return float(len(targets) if weights is None else weights[targets].sum())


BY_HAND = {
    loop.__name__: loop
    for loop in (
        *(weighted_mean, mean_over_accum, mean_of_means, sum_of_means),
        *(dropped_tail, zero_grad_each, clip_each, scale_doubles),
    )
}
