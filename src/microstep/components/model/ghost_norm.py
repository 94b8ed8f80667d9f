"""BatchNorm over groups of a fixed number of samples, which does not depend on how a window is cut."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


class GhostBatchNorm(_BatchNorm):
    """BatchNorm over consecutive groups of samples (ghost batch normalization; Hoffer et al., NeurIPS 2017).

    In training mode, each group is normalized by its own mean and variance, and updates the running statistics in its
    turn. A last, shorter group is normalized by itself; one with a single value per channel by the running statistics,
    which it does not update. In evaluation mode, it is BatchNorm. The result does not depend on the micro-batches if
    each of a window but the last is a multiple of the group.

    Args:
        samples: samples in a group.
    """

    def __init__(self, num_features: int, samples: int) -> None:
        super().__init__(num_features)
        self.samples = samples

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training:
            return super().forward(inputs)
        return torch.cat([self.normalize_group(group) for group in torch.split(inputs, self.samples)])

    def normalize_group(self, group: Tensor) -> Tensor:
        if group.numel() > self.num_features:
            return super().forward(group)
        return F.batch_norm(group, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions."""
