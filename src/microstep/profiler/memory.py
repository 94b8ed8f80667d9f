"""The most memory that some work holds at once."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")


def peak(device: torch.device, work: Callable[[], T]) -> tuple[T, int]:
    """Return what the work returns, and the bytes of tensors that it held at its peak, those from before not counted.

    On CUDA they are what torch's allocator gave out at the most; on a CPU each allocation and each release of a tensor
    is recorded and summed up, kernels' scratch tensors included. What libraries allocate by themselves is in neither.
    """
    return peak_on_cuda(device, work) if device.type == "cuda" else peak_on_cpu(work)


def peak_on_cuda(device: torch.device, work: Callable[[], T]) -> tuple[T, int]:
    """Return the result and the bytes on a GPU."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = work()
    return result, torch.cuda.max_memory_allocated(device) - before


def peak_on_cpu(work: Callable[[], T]) -> tuple[T, int]:
    """Return the result and the bytes in main memory."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it tells stderr that it starts, and that there is no GPU
    gc.collect()  # what is left of earlier work is not to be released meanwhile
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        result = work()
    results: Any = recorded.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return result, max(accumulate(changes), default=0)
