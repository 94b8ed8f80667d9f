"""Functions of tensors, and errors of their memory."""

import torch
from torch import Tensor


def finite_rows(outputs: Tensor) -> Tensor:
    """Return N booleans: whether the largest output of each of N samples is finite.

    A sample with NaN or +inf is not finite. −inf is allowed beside a finite output: its probability is 0.
    """
    return outputs.reshape(len(outputs), -1).amax(1).isfinite()


def is_out_of_memory(error: BaseException) -> bool:
    texts = ("allocate memory", "out of memory", "ALLOC_FAILED")  # of allocators, cuBLAS and cuDNN
    is_typed = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return is_typed or (isinstance(error, RuntimeError) and any(text in str(error) for text in texts))
