"""Losses and metrics over known targets. NaN means unknown: such a target has no loss and no weight."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from microstep.components.task.losses import sum_losses
from microstep.errors import ConfigError, DataError
from microstep.types.data import Mix

Loss = Callable[[Tensor, Tensor], Tensor]  #: of N × C outputs and targets: N losses, or N × C
Directions = Mapping[str, Literal["max", "min"]]  #: of each metric


def check_train_targets(targets: Tensor, task: str, kind: str, is_kind: bool) -> None:
    if not is_kind:
        reason = f"the data set's targets are {targets.dtype} of shape {tuple(targets.shape)}, not {kind}"
        raise DataError(f"task={task}", reason, "choose another task, or dataset=table")
    if unknown := int((count_known(targets) == 0).sum()):
        raise DataError(f"task={task}", f"{unknown:,} training samples have no known target", "leave them out")


def as_columns(targets: Tensor) -> Tensor:
    """Return N × C targets; N numbers are a column."""
    return targets[:, None] if targets.ndim == 1 else targets


def are_labels(targets: Tensor) -> bool:
    """Return whether all known targets are 0 or 1."""
    return not (targets * (1 - targets)).nan_to_num(0).any()


def count_known(targets: Tensor) -> Tensor:
    return as_columns(~targets.isnan()).sum(1)


def weigh_samples(targets: Tensor) -> Tensor:
    """Return the number of known targets of each sample (N, float64 on the CPU: mps has no float64)."""
    return count_known(targets).cpu().double()


def sum_known_losses(loss: Loss, outputs: Tensor, targets: Tensor, mix: Mix | None) -> Tensor:
    """Return the sum of the losses of known targets (0-d)."""
    outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
    return sum_losses(partial(compute_losses, loss), outputs, targets, mix)


def compute_losses(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the sum of the losses of each sample's known targets (N). The loss gets 0 for unknown ones."""
    targets = as_columns(targets)
    losses = loss(outputs.reshape(targets.shape), targets.nan_to_num(0).to(outputs.dtype))
    if losses.shape == targets.shape:
        return losses.where(~targets.isnan(), 0).sum(1)
    if losses.shape == targets.shape[:1]:
        return losses * count_known(targets)
    reason = f"its result is of shape {tuple(losses.shape)} for {len(targets)} samples"
    raise ConfigError("task.loss", reason, "return one number a sample or a target (reduction=none)")


class KnownTargetMetrics:
    """Loss and scores over all samples since the last reset. Their sums stay on the device.

    Args:
        monitor: metric that chooses the best checkpoint.
        shape: of the sums.
        add: returns the sums of a batch of outputs and targets (N × C each).
        score: returns the scores for the sums and, if `keep`, all outputs and targets.
        keep: keep all outputs and targets on the CPU. They are not part of the state.
    """

    def __init__(  # no dataclass, which Hydra would convert
        self,
        monitor: str,
        directions: Directions,
        shape: tuple[int, int],
        add: Callable[[Tensor, Tensor], Tensor],
        score: Callable[..., dict[str, float]],
        device: torch.device,
        keep: bool = False,
    ) -> None:
        self.monitor, self.direction, self.directions = monitor, directions[monitor], directions
        self.shape, self.add, self.score, self.keep = shape, add, score, keep
        self.kept: list[tuple[Tensor, Tensor]] = []
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(2 + shape[0] * shape[1], dtype=dtype, device=device)  #: loss, weight, then the others

    def reset(self) -> None:
        self.sums.zero_()
        self.kept.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums.copy_(state["sums"])

    def update(self, outputs: Tensor, targets: Tensor, loss_sum: Tensor, mix: Mix | None = None) -> None:
        """Add a batch. Scores of mixed samples refer to `targets`."""
        dtype, weight = self.sums.dtype, count_known(targets).to(self.sums.dtype)
        if mix is not None:
            weight = torch.lerp(count_known(mix.targets).to(dtype), weight, mix.share.to(dtype))
        targets = as_columns(targets).to(dtype)
        outputs = outputs.reshape(targets.shape).to(dtype)
        loss = torch.stack([loss_sum.detach().to(dtype), weight.sum()])
        self.sums += torch.cat([loss, self.add(outputs, targets).flatten()])
        if self.keep:
            self.kept.append((outputs.cpu(), targets.cpu()))

    def compute(self) -> dict[str, float]:
        kept = [torch.cat(tensors) for tensors in zip(*self.kept, strict=True)]
        return self.running_values() | self.score(self.sums[2:].reshape(self.shape).cpu().double(), *kept)

    def running_values(self) -> dict[str, float]:
        loss, weight = self.sums[:2].tolist()
        return {"loss": loss / weight if weight else 0.0}
