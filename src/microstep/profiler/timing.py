"""How long steps take that are timed in turns: what slows the machine down for a while slows down all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter

import torch

TURN = 0.1  #: seconds that a turn is to take, at least one step
LEAST = 2  #: turns that anything gets, however slow it is


@dataclass
class Lane:
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


def race(lanes: Mapping[str, Lane], budget: float) -> dict[str, str]:
    """Let lanes take turns until each has had so many seconds, but two turns at least; say why any fell out.

    A first turn of one step warms each up, and says how many steps make a turn of a tenth of a second.
    """
    fallen: dict[str, str] = {}
    for name, lane in lanes.items():
        if attempt(fallen, name, lane):
            lane.stride = max(1, int(TURN / lane.turns.pop()))
    while ahead := [name for name, lane in lanes.items() if name not in fallen and not finished(lane, budget)]:
        for name in ahead:
            attempt(fallen, name, lanes[name])
    return fallen


def attempt(fallen: dict[str, str], name: str, lane: Lane) -> bool:
    """Let a lane take a turn; where it can't, note why."""
    try:
        lane.turns.append(lane.turn())
    except (RuntimeError, MemoryError) as error:
        fallen[name] = why(error)
        return False
    return True


def finished(lane: Lane, budget: float) -> bool:
    return len(lane.turns) >= LEAST and lane.spent >= budget


def why(error: BaseException) -> str:
    """Return why something can't be done, in a few words."""
    if is_of_memory(error):
        return "out of memory"
    return f"not possible: {next(iter(str(error).splitlines()), type(error).__name__)}"


def is_of_memory(error: BaseException) -> bool:
    """Say whether there was too little memory, of whichever kind."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)
