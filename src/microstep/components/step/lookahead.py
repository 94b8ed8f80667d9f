"""Lookahead (Zhang et al., NeurIPS 2019)."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from microstep.components.step.standard import StandardStep
from microstep.types.data import Batch, StepResult
from microstep.types.protocols import Metrics, Precision, Task, Transform


class LookaheadStep:
    """Moves the slow weights s to s + alpha · (w − s) after every `k` standard steps, and continues from there.

    Skipped steps don't count. Weights w are validated as they are, between two moves of s too.

    Args:
        precision, task, metrics, max_grad_norm, transform: as for `StandardStep`.
        k: standard steps between two moves of s.
        alpha: share of the way from s to w.
    """

    def __init__(
        self,
        precision: Precision,
        task: Task,
        metrics: Metrics,
        max_grad_norm: float | None,
        k: int = 5,
        alpha: float = 0.5,
        transform: Transform | None = None,
    ) -> None:
        self.step = StandardStep(precision, task, metrics, max_grad_norm, transform)
        self.metrics, self.k, self.alpha = metrics, k, alpha
        self.slow_weights, self.updates = list[Tensor](), 0

    def __call__(self, model: nn.Module, optimizer: Optimizer, window: Iterable[Batch], weight: float) -> StepResult:
        weights = [p.detach() for p in model.parameters() if p.requires_grad]
        slow = self.slow_weights or [p.clone() for p in weights]
        self.slow_weights = [s.to(p.device) for s, p in zip(slow, weights, strict=True)]
        result = self.step(model, optimizer, window, weight)
        self.updates += result.updated
        if result.updated and self.updates % self.k == 0:
            for s, p in zip(self.slow_weights, weights, strict=True):
                p.copy_(s.lerp_(p, self.alpha))
        return result

    def state_dict(self) -> dict[str, Any]:
        return {"slow_weights": self.slow_weights, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.slow_weights, self.updates = [s.clone() for s in state["slow_weights"]], state["updates"]
