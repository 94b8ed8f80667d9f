"""Averages of a model's weights over its optimizer steps."""

from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ["NoAverage"]


class NoAverage:
    """Keeps no average: the weights of the last step are validated and kept."""

    def update(self, model: nn.Module, steps: int) -> None: ...

    def weights(self, model: nn.Module) -> Mapping[str, Tensor] | None:
        return None

    def load(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None: ...
