"""scikit-learn's handwritten digits: 1797 pictures of 8×8 pixels in 17 greys. They ship inside the library."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.datasets import load_digits

from microstep.dataset.images import Images
from microstep.dataset.picture_dataset import PictureDataset, picture_dataset
from microstep.dataset.splitting import stratified


def digits(
    device: torch.device,
    val_samples: int = 180,
    test_samples: int = 180,
    split_seed: int = 0,
    resident: bool = True,
    num_workers: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> PictureDataset:
    """Return the digits, by default 1437 / 180 / 180.

    Their makers name no test split, so it is carved first, by `split_seed`, stratified; `train` and `val` are the rest.
    """
    source = load_digits()
    names = tuple(str(name) for name in source.target_names)
    every = Images(source.images.astype(np.uint8)[:, None], source.target.astype(np.int64), names, scale=16.0)
    kept, held_out = stratified(every.labels, test_samples, split_seed, f"dataset.test_samples={test_samples}", names)
    train, test = every.at(kept), every.at(held_out)
    return picture_dataset(train, test, device, val_samples, split_seed, mean, std, resident, num_workers)
