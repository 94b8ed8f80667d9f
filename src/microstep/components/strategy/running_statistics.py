"""Running statistics of BatchNorm if a window's micro-batches are computed in several processes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Change = tuple[Tensor, Tensor]  #: a micro-batch's contribution to all statistics (flat), and its updates of each layer


class RunningStatistics:
    """Records what each micro-batch adds to the running statistics, which are then updated in the order of the window.

    While it records, they start from zero with every micro-batch. `apply` restores them and makes the updates.
    """

    def __init__(self, model: nn.Module) -> None:
        norms = (m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats)
        self.norms = [m for m in norms if m.running_mean is not None]
        self.before = [buffer.clone() for norm in self.norms for buffer in norm.buffers()]
        self.changes: list[Change] = []
        self.clear()

    def clear(self) -> None:
        for norm in self.norms:
            for buffer in norm.buffers():
                buffer.zero_()

    def record(self) -> None:
        """Record the micro-batch that has just passed through the model."""
        if self.norms:
            counts = torch.tensor([int(norm.num_batches_tracked or 0) for norm in self.norms])
            self.changes.append((torch.cat([torch.cat(statistics_of(norm)) for norm in self.norms]), counts))
            self.clear()

    def apply(self, changes: Sequence[Change]) -> None:
        for buffer, value in zip((b for norm in self.norms for b in norm.buffers()), self.before, strict=True):
            buffer.copy_(value)
        for added, counts in changes:
            parts = torch.split(added, [2 * norm.num_features for norm in self.norms])
            for norm, part, count in zip(self.norms, parts, counts.tolist(), strict=True):
                update_statistics(norm, part, count)


def statistics_of(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var


def update_statistics(norm: _BatchNorm, added: Tensor, count: int) -> None:
    """Make `count` updates, whose result from zero is `added`. Without a momentum, the mean of all updates is kept."""
    assert norm.num_batches_tracked is not None
    before = int(norm.num_batches_tracked)
    kept = before / max(before + count, 1) if norm.momentum is None else (1 - norm.momentum) ** count
    share = 1 - kept if norm.momentum is None else 1.0
    for statistic, part in zip(statistics_of(norm), added.chunk(2), strict=True):
        statistic.mul_(kept).add_(part, alpha=share)
    norm.num_batches_tracked += count
