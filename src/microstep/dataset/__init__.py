"""Data sets of pictures: resident on the device, or streaming from files, behind one interface."""

from microstep.dataset.cifar import cifar
from microstep.dataset.digits import digits
from microstep.dataset.folder import image_folder
from microstep.dataset.images import Images
from microstep.dataset.mnist import mnist
from microstep.dataset.picture_dataset import PictureDataset, picture_dataset
from microstep.dataset.pictures import Pictures
from microstep.dataset.resident import ResidentSplit
from microstep.dataset.streaming import StreamingSplit
from microstep.dataset.synthetic import synthetic

__all__ = [
    "Images",
    "PictureDataset",
    "Pictures",
    "ResidentSplit",
    "StreamingSplit",
    "cifar",
    "digits",
    "image_folder",
    "mnist",
    "picture_dataset",
    "synthetic",
]
