"""scikit-learn's handwritten digits: 1797 pictures of 8×8 pixels in 17 greys. They ship inside the library."""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.datasets import load_digits

from microstep.dataset.images import Images, resident_dataset, stratified
from microstep.dataset.resident import ResidentDataset


def digits(
    device: torch.device,
    val_samples: int = 180,
    test_samples: int = 180,
    split_seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ResidentDataset:
    """Return the digits, by default 1437 / 180 / 180.

    Their makers name no test split, so it is carved first, by `split_seed`, stratified; `train` and `val` are the rest.
    """
    source = load_digits()
    names = tuple(str(name) for name in source.target_names)
    every = Images(source.images.astype(np.uint8)[:, None], source.target.astype(np.int64), names, scale=16.0)
    kept, held_out = stratified(every.labels, test_samples, split_seed, "dataset.test_samples")
    return resident_dataset(every.at(kept), every.at(held_out), device, val_samples, split_seed, mean, std)
