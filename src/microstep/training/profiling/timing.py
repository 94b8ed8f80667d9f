"""Times candidates in turn on the same batches, and measures their peak memory."""

import gc
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from time import perf_counter
from typing import Any, TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

from microstep.utils.tensors import is_out_of_memory

T = TypeVar("T")
TURN_SECONDS = 0.1  #: duration of a turn, which has at least one step
MIN_TURNS = 2  #: number of turns of a slow candidate


@dataclass
class TimedCandidate:
    """Work that is timed in turns with other candidates."""

    prepare: Callable[[], object]  #: called before each turn, not timed
    step: Callable[[int], object]  #: takes the number of the step, from 0
    device: torch.device
    turns: list[float] = field(default_factory=list)  #: seconds per step in each turn
    spent: float = 0.0
    steps: int = 0
    stride: int = 1  #: steps in a turn

    def turn(self) -> float:
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
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def has_used(self, budget: float) -> bool:
        return len(self.turns) >= MIN_TURNS and self.spent >= budget


def time_interleaved(candidates: Mapping[str, TimedCandidate], budget: float) -> dict[str, str]:
    """Let candidates take turns until each has used `budget` seconds and two turns; return the reasons of failures.

    A first turn of one step warms up each candidate and sets the number of steps in a turn of `TURN_SECONDS`.
    """
    failed: dict[str, str] = {}
    for name, candidate in candidates.items():
        if try_turn(failed, name, candidate):
            candidate.stride = max(1, int(TURN_SECONDS / candidate.turns.pop()))
    while ahead := [name for name in candidates if name not in failed and not candidates[name].has_used(budget)]:
        for name in ahead:
            try_turn(failed, name, candidates[name])
    return failed


def try_turn(failed: dict[str, str], name: str, candidate: TimedCandidate) -> bool:
    """Let a candidate take a turn and return whether it succeeded; the reason of a failure is added to `failed`."""
    try:
        candidate.turns.append(candidate.turn())
    except (RuntimeError, MemoryError) as error:
        failed[name] = failure_reason(error)
        return False
    return True


def failure_reason(error: BaseException) -> str:
    if is_out_of_memory(error):
        return "out of memory"
    return f"not possible: {next(iter(str(error).splitlines()), type(error).__name__)}"


def measure_peak(device: torch.device, work: Callable[[], T]) -> tuple[T, int]:
    """Return the result of `work` and the peak bytes of its tensors, without what libraries allocate by themselves."""
    return measure_peak_on_cuda(device, work) if device.type == "cuda" else measure_peak_on_cpu(work)


def measure_peak_on_cuda(device: torch.device, work: Callable[[], T]) -> tuple[T, int]:
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = work()
    return result, torch.cuda.max_memory_allocated(device) - before


def measure_peak_on_cpu(work: Callable[[], T]) -> tuple[T, int]:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences its messages on stderr
    gc.collect()  # garbage of earlier work must not be released during the measurement
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        result = work()
    results: Any = recorded.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return result, max(accumulate(changes), default=0)
