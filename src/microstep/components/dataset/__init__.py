"""Image data sets, resident on the device or streamed from files, behind one interface."""

from microstep.components.dataset.builtin import digits, synthetic
from microstep.components.dataset.cifar import cifar
from microstep.components.dataset.folder import image_folder
from microstep.components.dataset.image_dataset import ImageDataset, image_dataset
from microstep.components.dataset.images import Images, ImageSource
from microstep.components.dataset.mnist import mnist
from microstep.components.dataset.splits import ResidentSplit, StreamingSplit
from microstep.components.dataset.table import table

__all__ = ["ImageDataset", "ImageSource", "Images", "ResidentSplit", "StreamingSplit"]
__all__ += ["cifar", "digits", "image_dataset", "image_folder", "mnist", "synthetic", "table"]
