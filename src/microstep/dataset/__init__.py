"""Data sets, resident on the device: a batch is an index-select."""

from microstep.dataset.digits import digits
from microstep.dataset.fashion_mnist import fashion_mnist
from microstep.dataset.images import Images, resident_dataset
from microstep.dataset.resident import ResidentDataset, ResidentSplit

__all__ = ["Images", "ResidentDataset", "ResidentSplit", "digits", "fashion_mnist", "resident_dataset"]
