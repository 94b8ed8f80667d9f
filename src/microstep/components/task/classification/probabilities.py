"""Probabilities of a classifier, and the temperature that calibrates them."""

import torch.nn.functional as F
from torch import Tensor

from microstep.utils.tensors import finite_rows

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0


def finite_softmax(outputs: Tensor, temperature: float = 1.0) -> Tensor:
    """Return N × C float64 probabilities at a temperature; zeros for outputs that are not finite."""
    return (outputs.double() / temperature).softmax(1).where(finite_rows(outputs)[:, None], 0)


def fit_temperature(outputs: Tensor, targets: Tensor) -> float | None:
    """Return the temperature that minimizes the negative log-likelihood (Guo et al., ICML 2017).

    It is convex in 1 / temperature, so the minimum between the bounds is the only one. Outputs that are not finite are
    left out. Return None if all others are right: the likelihood then has no minimum, and 0 is no temperature.
    """
    from scipy.optimize import minimize_scalar  # slow to import

    finite = finite_rows(outputs)
    logits, labels = outputs[finite].double(), targets[finite]
    if (logits.argmax(1) == labels).all():
        return None
    bounds = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    return 1 / float(minimize_scalar(lambda x: F.cross_entropy(logits * x, labels).item(), bounds=bounds).x)
