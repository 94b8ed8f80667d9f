"""Variance of a mean over repeats of an experiment: seeds, or folds whose training sets overlap."""

import numpy as np


def variance_of_mean(differences: np.ndarray, overlap: float = 0.0, resolution: float = 0.0) -> float:
    """Return the variance of the mean of J paired differences; divided by its root, the mean has Student's J − 1.

    Args:
        differences: one for each seed or fold.
        overlap: validation samples for each training sample if they are of folds, else 0. The training sets of folds
            overlap, so their differences vary less than those of independent data, and s² / J is too small: Nadeau and
            Bengio, Inference for the Generalization Error (Machine Learning 52, 2003).
        resolution: least standard deviation. A few equal differences would have none.
    """
    return max(float(np.var(differences, ddof=1)), resolution**2) * (1 / len(differences) + overlap)
