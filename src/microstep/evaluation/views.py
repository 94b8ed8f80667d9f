"""Test-time augmentation: predictions that are averaged over views of an image."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from microstep.errors import ConfigError
from microstep.types.protocols import Task

#: Functions of N × C × H × W images, by the name for `tta`.
VIEWS: dict[str, Sequence[Callable[[Tensor], Tensor]]] = {
    "flip": (lambda images: images, lambda images: images.flip(-1))
}


class ViewAverage(nn.Module):
    """Averages a model's outputs over views of images. Raises ConfigError if input or task do not allow that."""

    def __init__(self, model: nn.Module, task: Task, tta: str) -> None:
        super().__init__()
        self.model, self.task, self.tta = model, task, tta

    def forward(self, images: Tensor) -> Tensor:
        if images.dim() != 4 or not hasattr(self.task, "average_views"):
            reason = f"{type(self.task).__name__} has no views to average, as classification of images has"
            raise ConfigError(f"tta={self.tta}", reason, "leave it out")
        views = torch.stack([self.model(view(images)) for view in VIEWS[self.tta]])
        return self.task.average_views(views)  # type: ignore[no-any-return]
