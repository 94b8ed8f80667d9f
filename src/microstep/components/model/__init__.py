"""Models. A constructor receives the facts of the dataset that its parameters name, such as `num_classes`."""

from microstep.components.model.resnet9 import ResNet9
from microstep.components.model.small import SmallCNN, mlp, resnet18
from microstep.components.model.timm_models import timm_model
from microstep.components.model.torchvision_models import torchvision_model

__all__ = ["ResNet9", "SmallCNN", "mlp", "resnet18", "timm_model", "torchvision_model"]
