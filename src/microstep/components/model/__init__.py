"""Models. Each is asked for by name; what it needs to know of the data it names in its constructor."""

from microstep.components.model.small import SmallCNN, mlp, resnet18
from microstep.components.model.torchvision_models import torchvision_model

__all__ = ["SmallCNN", "mlp", "resnet18", "torchvision_model"]
