"""Mixing of pairs of samples. The partner of a sample is at another position of the epoch, in any batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from scipy.special import betaincinv
from torch import Tensor

from microstep.components.augment.operations import ImageSize, box_mask
from microstep.utils.randomness import draw_permutation, draw_uniform

PARTNER_KEY, SHARE_KEY = 2**40, 2**40 + 1  #: parts of random keys; greater than any window number


class MixingRule(Protocol):
    """Draws partners and shares for an epoch."""

    def plan(self, samples: int, size: ImageSize, device: torch.device, *key: int) -> EpochMixing:
        """Return the mixing of an epoch of that many images of this size; `key` is (seed, epoch)."""


@dataclass(frozen=True)
class EpochMixing:
    """Mixing of the samples of an epoch, by position, on the device of the run."""

    partners: Tensor  #: N: position of each sample's partner
    share: Tensor  #: N, in 0…1: share of the sample itself
    boxes: Tensor | None  #: N × 4: top, left, bottom, right of the partner's part; None if images are blended

    @classmethod
    def to_device(cls, device: torch.device, partners: Tensor, share: Tensor, boxes: Tensor | None) -> EpochMixing:
        dtype = torch.float32 if device.type == "mps" else torch.float64  # mps has no float64
        return cls(partners.to(device), share.to(device, dtype), None if boxes is None else boxes.to(device))

    def blend(self, inputs: Tensor, partner_inputs: Tensor, positions: Tensor) -> Tensor:
        """Return the inputs at these positions mixed with those of their partners: N × C × H × W."""
        if self.boxes is not None:
            return torch.where(box_mask(self.boxes[positions], inputs), partner_inputs, inputs)
        share = self.share[positions].to(inputs.dtype).view(-1, 1, 1, 1)
        return inputs * share + partner_inputs * (1 - share)


@dataclass(frozen=True)
class Mixup:
    """Blends two images and their labels with weights λ and 1 − λ, where λ ~ Beta(alpha, alpha).

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. Each sample has its own λ.
    """

    alpha: float

    def plan(self, samples: int, size: ImageSize, device: torch.device, *key: int) -> EpochMixing:
        uniform = draw_uniform(torch.arange(samples), 1, *key, SHARE_KEY)
        share = inverse_beta_cdf(uniform[:, 0], self.alpha)
        return EpochMixing.to_device(device, draw_permutation(samples, *key, PARTNER_KEY), share, None)


@dataclass(frozen=True)
class Cutmix:
    """Pastes a rectangle of another image; labels are weighted by the pixels of each image.

    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019. The
    rectangle has the aspect ratio of the image and a share of 1 − Beta(alpha, alpha) of its area. Its center is
    uniformly distributed, so the rectangle may be clipped at the edge.
    """

    alpha: float

    def plan(self, samples: int, size: ImageSize, device: torch.device, *key: int) -> EpochMixing:
        uniform = draw_uniform(torch.arange(samples), 3, *key, SHARE_KEY)
        sides = torch.tensor(size)
        halves = ((1 - inverse_beta_cdf(uniform[:, 0], self.alpha)).sqrt()[:, None] * sides).long() // 2
        center = (uniform[:, 1:] * sides).long()
        corners = (center - halves).clamp(min=0), (center + halves).minimum(sides)
        share = 1 - (corners[1] - corners[0]).prod(1).double() / sides.prod()
        boxes = torch.cat(corners, dim=1)
        return EpochMixing.to_device(device, draw_permutation(samples, *key, PARTNER_KEY), share, boxes)


def inverse_beta_cdf(uniform: Tensor, alpha: float) -> Tensor:
    """Turn uniform numbers into numbers distributed as Beta(alpha, alpha)."""
    return torch.from_numpy(betaincinv(alpha, alpha, uniform.numpy()))
