"""Averages of a model's weights over its optimizer steps."""

from collections.abc import Callable, Mapping
from fractions import Fraction
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

__all__ = ["NoAverage", "ema", "swa"]
Weights = Mapping[str, Tensor]  #: entries of a model's state dict


class NoAverage:
    """Keeps no average: the weights of the last step are validated and kept."""

    def update(self, model: nn.Module, steps: int) -> None: ...

    def weights(self, model: nn.Module) -> Weights | None:
        return None

    def load(self, model: nn.Module, weights: Weights) -> None: ...


class WeightAverage:
    """Weighted average of a model's state dict. Entries that are not floating-point are copied.

    Args:
        decay: returns the factor of the average so far, given the steps of the run and the number of models included;
            None leaves a model out.
        recompute: returns new values of some entries before a changed average is validated.
    """

    def __init__(
        self, decay: Callable[[int, int], float | None], recompute: Callable[[Weights], Weights] = dict
    ) -> None:
        self.decay, self.recompute = decay, recompute
        self.entries, self.included, self.recomputed = dict[str, Tensor](), 0, 0

    def update(self, model: nn.Module, steps: int) -> None:
        if (decay := self.decay(steps, self.included)) is not None:
            found = state_tensors(model)
            self.entries = self.entries or {name: value.clone() for name, value in found.items()}
            averaged = [name for name, value in found.items() if value.is_floating_point()]
            means, values = ([one[name] for name in averaged] for one in (self.entries, found))
            get_ema_multi_avg_fn(decay)(means, values, None)  # type: ignore[no-untyped-call]
            for name in found.keys() - set(averaged):
                self.entries[name].copy_(found[name])
            self.included += 1

    def refresh(self) -> None:
        if self.recomputed < self.included:
            self.entries |= self.recompute(self.entries)
            self.recomputed = self.included

    def weights(self, model: nn.Module) -> Weights | None:
        return self.entries or None

    def load(self, model: nn.Module, weights: Weights) -> None:
        self.entries = {name: torch.empty_like(v).copy_(weights[name]) for name, v in state_tensors(model).items()}

    def state_dict(self) -> dict[str, Any]:
        return {"included": self.included, "recomputed": self.recomputed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.included, self.recomputed = state["included"], state["recomputed"]


def state_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def ema(decay: float = 0.999) -> WeightAverage:
    """Return an exponential moving average of weights and buffers (Tarvainen and Valpola, NeurIPS 2017).

    Args:
        decay: share that each step leaves of the average; after n steps at most (1 + n) / (10 + n).
    """
    return WeightAverage(lambda steps, included: min(decay, (1 + included) / (10 + included)))


def swa(
    total_steps: int,
    steps_per_epoch: int,
    recompute_statistics: Callable[[Weights, int], Weights],
    start: float = 0.75,
    every_steps: int | None = None,
    bn_samples: int = 256,
) -> WeightAverage:
    """Return the mean of the weights after several epochs, with new BatchNorm statistics (Izmailov et al., UAI 2018).

    Args:
        start: share of all steps before the first weights are included.
        every_steps: the weights after each multiple of these steps are included; None: an epoch.
        bn_samples: samples in a batch that BatchNorm's statistics are computed from.
    """
    first, every = ceil(Fraction(str(start)) * total_steps), every_steps or steps_per_epoch
    if total_steps // every * every < first:
        raise ValueError(f"every_steps={every}: steps {first:,} to {total_steps:,} have no multiple of it to average")

    def decay(steps: int, included: int) -> float | None:
        return included / (included + 1) if steps >= first and steps % every == 0 else None

    return WeightAverage(decay, lambda weights: recompute_statistics(weights, bn_samples))
