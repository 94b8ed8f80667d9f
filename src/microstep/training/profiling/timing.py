"""Times candidates in turn on the same batches, and measures their peak memory."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from time import perf_counter
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

T = TypeVar("T")
TURN_SECONDS = 0.1  #: seconds that a turn is to take, at least one step
MIN_TURNS = 2  #: turns that anything gets, however slow it is


@dataclass
class TimedCandidate:
    """What takes turns with others."""

    prepare: Callable[[], object]  #: before each turn, untimed
    step: Callable[[int], object]  #: takes its number, from 0
    device: torch.device
    turns: list[float] = field(default_factory=list)  #: seconds a step, by turn
    spent: float = 0.0
    steps: int = 0
    stride: int = 1  #: steps in a turn

    def turn(self) -> float:
        """Take a turn; return the seconds that a step took."""
        self.prepare()
        self.wait()
        began = perf_counter()
        for number in range(self.steps, self.steps + self.stride):
            self.step(number)
        self.wait()
        took = perf_counter() - began
        self.steps, self.spent = self.steps + self.stride, self.spent + took
        return took / self.stride

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def time_interleaved(candidates: Mapping[str, TimedCandidate], budget: float) -> dict[str, str]:
    """Let lanes take turns until each has had so many seconds, but two turns at least; say why any fell out.

    A first turn of one step warms each up, and says how many steps make a turn of a tenth of a second.
    """
    fallen: dict[str, str] = {}
    for name, lane in candidates.items():
        if try_turn(fallen, name, lane):
            lane.stride = max(1, int(TURN_SECONDS / lane.turns.pop()))
    while ahead := [
        name for name, lane in candidates.items() if name not in fallen and not has_used_budget(lane, budget)
    ]:
        for name in ahead:
            try_turn(fallen, name, candidates[name])
    return fallen


def try_turn(failed: dict[str, str], name: str, candidate: TimedCandidate) -> bool:
    """Let a lane take a turn; where it can't, note why."""
    try:
        candidate.turns.append(candidate.turn())
    except (RuntimeError, MemoryError) as error:
        failed[name] = failure_reason(error)
        return False
    return True


def has_used_budget(candidate: TimedCandidate, budget: float) -> bool:
    return len(candidate.turns) >= MIN_TURNS and candidate.spent >= budget


def failure_reason(error: BaseException) -> str:
    """Return why something can't be done, in a few words."""
    if is_out_of_memory(error):
        return "out of memory"
    return f"not possible: {next(iter(str(error).splitlines()), type(error).__name__)}"


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether there was too little memory, of whichever kind."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)


def measure_peak(device: torch.device, work: Callable[[], T]) -> tuple[T, int]:
    """Return what the work returns, and the bytes of tensors that it held at its peak, those from before not counted.

    On CUDA they are what torch's allocator gave out at the most; on a CPU each allocation and each release of a tensor
    is recorded and summed up, kernels' scratch tensors included. What libraries allocate by themselves is in neither.
    """
    return measure_peak_on_cuda(device, work) if device.type == "cuda" else measure_peak_on_cpu(work)


def measure_peak_on_cuda(device: torch.device, work: Callable[[], T]) -> tuple[T, int]:
    """Return the result and the bytes on a GPU."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = work()
    return result, torch.cuda.max_memory_allocated(device) - before


def measure_peak_on_cpu(work: Callable[[], T]) -> tuple[T, int]:
    """Return the result and the bytes in main memory."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it tells stderr that it starts, and that there is no GPU
    gc.collect()  # what is left of earlier work is not to be released meanwhile
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        result = work()
    results: Any = recorded.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return result, max(accumulate(changes), default=0)
