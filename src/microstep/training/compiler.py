"""Lets torch's optimizers run without torch's compiler. Importing it takes 1.5 seconds and 150 MB."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch.optim import Optimizer


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
