"""Torch's compiler for the model. Optimizers run without it, as importing it takes 1.5 seconds and 150 MB."""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from microstep.errors import ConfigError, Stopped
from microstep.types.data import LoadedWindow
from microstep.utils.signals import PendingSignal


def compile_model(model: nn.Module) -> nn.Module:
    """Return the model with a compiled forward pass. It shares the weights of `model`, which stays as it is.

    Each size of a micro-batch has a graph that does not depend on earlier sizes, which differ after a resume. After
    torch's default of 8 graphs, further sizes would not be compiled.
    """
    import torch._dynamo

    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # warns that a CPU has no CUDA
    torch._dynamo.reset()  # an earlier run of this process has graphs, too
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = 2**20
    return torch.compile(model, dynamic=False)  # type: ignore[return-value]


def check_compiler_error(error: RuntimeError) -> None:
    """Raise ConfigError for an error of torch's compiler, or Stopped if a signal has also ended g++."""
    if isinstance(error, getattr(sys.modules.get("torch._dynamo.exc"), "TorchDynamoException", ())):
        if PendingSignal.signum is not None:
            raise Stopped(PendingSignal.signum) from None
        reason = f"torch can't compile the model ({str(error).splitlines()[0]})"
        raise ConfigError("compile=true", reason, "install g++ and the headers of Python, or leave it out") from error


class CompileTimer:
    """Times windows. The first one with a number of samples compiles the graphs of its micro-batches."""

    def __init__(self) -> None:
        self.first, self.later = dict[int, float](), deque[float](maxlen=1000)

    def __call__(self, windows: Iterable[LoadedWindow]) -> Iterator[LoadedWindow]:
        for window in windows:
            start = perf_counter()
            yield window
            seconds = perf_counter() - start
            self.later += [seconds] if window.samples in self.first else []
            self.first.setdefault(window.samples, seconds)

    def cost(self) -> dict[str, float]:
        """Return number and seconds of the first windows, and the median seconds of the others, or else of all."""
        seconds, later = list(self.first.values()), self.later or self.first.values()
        return {"first_windows": len(seconds), "first_seconds": sum(seconds), "later_seconds": median(later or [0.0])}


def skip_compiler_in_optimizers() -> None:
    """Remove the calls of `torch._dynamo` from torch's optimizers. Outside a compiled function they do nothing.

    Wrappers that another version of torch has under other names keep their calls.
    """
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        method: Any = getattr(Optimizer, name)
        if hasattr(method, "__wrapped__"):  # its wrapper imports the compiler if this attribute is missing
            method.__wrapped__.__dynamo_disable = method.__wrapped__
    for optimizer in vars(torch.optim).values():
        step: Any = vars(optimizer).get("step") if isinstance(optimizer, type) else None
        if getattr(step, "__code__", None) and step.__code__.co_name == "_use_grad":
            optimizer.step = set_grad_mode(step.__wrapped__)


def set_grad_mode(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return the step of an optimizer in the gradient mode that torch's wrapper sets."""

    @wraps(step)
    def wrapper(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *args, **kwargs)

    return wrapper
