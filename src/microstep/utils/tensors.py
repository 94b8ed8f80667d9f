"""Functions of tensors."""

from torch import Tensor


def finite_rows(outputs: Tensor) -> Tensor:
    """Return N booleans: whether the largest output of each of N samples is finite.

    A sample with NaN or +inf is not finite. −inf is allowed beside a finite output: its probability is 0.
    """
    return outputs.reshape(len(outputs), -1).amax(1).isfinite()
