"""Models. Each is asked for by name; what it needs to know of the data it names in its constructor."""

from microstep.model.mlp import mlp
from microstep.model.resnet import resnet18
from microstep.model.small_cnn import SmallCNN
from microstep.model.zoo import torchvision_model

__all__ = ["SmallCNN", "mlp", "resnet18", "torchvision_model"]
