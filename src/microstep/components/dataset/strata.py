"""Classes of targets, for stratified splits and balanced sampling."""

import numpy as np

MIN_SAMPLES = 10  #: rarer strata join the most frequent one
NUM_QUANTILES = 10  #: strata of targets that are numbers


def strata_of(targets: np.ndarray) -> np.ndarray:
    """Return the stratum of each sample (N, int64). It is the only function that makes classes of targets.

    Args:
        targets: N class numbers (int64), which are the strata; or float32, N numbers or N × C. NaN means unknown.
            A sample with labels (0 or 1) belongs to its rarest label, numbers belong to their decile. Of several
            numbers the first counts.
    """
    if np.issubdtype(targets.dtype, np.integer):
        return targets
    labels = targets.ndim == 2 and bool(np.isin(targets[~np.isnan(targets)], (0, 1)).all())
    strata = rarest_labels(targets) if labels else find_deciles(targets.reshape(len(targets), -1)[:, 0])
    counts = np.bincount(strata)
    strata[counts[strata] < min(MIN_SAMPLES, counts.max())] = counts.argmax()
    return np.unique(strata, return_inverse=True)[1].astype(np.int64)


def rarest_labels(targets: np.ndarray) -> np.ndarray:
    """Return the rarest label that each sample has, of N × C; C if it has none."""
    counts = (targets == 1).sum(0)
    by_rarity = np.argsort(counts, kind="stable")
    has_label = np.column_stack([targets[:, by_rarity] == 1, np.ones(len(targets), bool)])
    rarest: np.ndarray = np.append(by_rarity, targets.shape[1])[has_label.argmax(1)]
    return rarest


def find_deciles(values: np.ndarray) -> np.ndarray:
    borders = np.nanquantile(values, np.arange(1, NUM_QUANTILES) / NUM_QUANTILES)
    deciles: np.ndarray = np.searchsorted(borders, values, side="right")
    return deciles
