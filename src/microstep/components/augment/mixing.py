"""Samples mixed by twos. A partner stands at another position of the same epoch, wherever that is cut into batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from scipy.special import betaincinv
from torch import Tensor

from microstep.components.augment.operations import ImageSize, box_mask
from microstep.utils.randomness import draw_permutation, draw_uniform

PARTNER_KEY, SHARE_KEY = 2**40, 2**40 + 1  #: parts of keys; windows are numbered from 0


class MixingRule(Protocol):
    """A way of mixing."""

    def plan(self, samples: int, size: ImageSize, device: torch.device, *key: int) -> EpochMixing:
        """Return an epoch's mixing of pictures of this size."""


@dataclass(frozen=True)
class EpochMixing:
    """An epoch's mixing, by position, on the run's device."""

    partners: Tensor
    share: Tensor
    boxes: Tensor | None  #: what is the partner's: top, left, bottom, right; None where pictures are blended

    @classmethod
    def on(cls, device: torch.device, partners: Tensor, share: Tensor, boxes: Tensor | None = None) -> EpochMixing:
        """Return it on a device; there is no float64 on mps."""
        precise = torch.float32 if device.type == "mps" else torch.float64
        return cls(partners.to(device), share.to(device, precise), None if boxes is None else boxes.to(device))

    def blend(self, inputs: Tensor, partner_inputs: Tensor, positions: Tensor) -> Tensor:
        """Return the inputs of these positions, mixed with their partners'."""
        if self.boxes is not None:
            return torch.where(box_mask(self.boxes[positions], inputs), partner_inputs, inputs)
        share = self.share[positions].to(inputs.dtype).view(-1, 1, 1, 1)
        return inputs * share + partner_inputs * (1 - share)


@dataclass(frozen=True)
class Mixup:
    """Blend two pictures and their labels, λ ~ Beta(alpha, alpha) to the one, 1 − λ to the other.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018; λ is drawn for each sample.
    """

    alpha: float

    def plan(self, samples: int, size: ImageSize, device: torch.device, *key: int) -> EpochMixing:
        """Draw partners and shares."""
        numbers = draw_uniform(torch.arange(samples), 1, *key, SHARE_KEY)
        return EpochMixing.on(
            device, draw_permutation(samples, *key, PARTNER_KEY), inverse_beta_cdf(numbers[:, 0], self.alpha)
        )


@dataclass(frozen=True)
class Cutmix:
    """Paste a rectangle of another picture; labels count by what is left and what was pasted, pixel by pixel.

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019: the
    rectangle has the picture's proportions and an area of 1 − Beta(alpha, alpha); its centre is anywhere.
    """

    alpha: float

    def plan(self, samples: int, size: ImageSize, device: torch.device, *key: int) -> EpochMixing:
        """Draw partners and rectangles; a share is what the rectangle really leaves."""
        numbers = draw_uniform(torch.arange(samples), 3, *key, SHARE_KEY)
        sides = torch.tensor(size)
        halves = ((1 - inverse_beta_cdf(numbers[:, 0], self.alpha)).sqrt()[:, None] * sides).long() // 2
        centre = (numbers[:, 1:] * sides).long()
        corners = (centre - halves).clamp(min=0), (centre + halves).minimum(sides)
        share = 1 - (corners[1] - corners[0]).prod(1).double() / sides.prod()
        return EpochMixing.on(device, draw_permutation(samples, *key, PARTNER_KEY), share, torch.cat(corners, dim=1))


def inverse_beta_cdf(uniform: Tensor, alpha: float) -> Tensor:
    """Return numbers distributed as Beta(alpha, alpha), by inverting its distribution function."""
    return torch.from_numpy(betaincinv(alpha, alpha, uniform.numpy()))
