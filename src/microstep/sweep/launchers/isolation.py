"""Jobs that share a process and nothing else: what one changes of it is put back before the next begins."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import matplotlib
import numpy as np
import sklearn
import torch
from omegaconf.basecontainer import BaseContainer
from torch.nn.modules import module
from torch.optim import optimizer

from microstep.utils.signals import STOP_SIGNALS


@dataclass(frozen=True)
class ProcessState:
    """Something of a process that any code may change, with how it is read and written."""

    read: Callable[[], Any]
    write: Callable[[Any], object]

    def restore(self, before: Any) -> None:
        """Write a value where it is another by now: some settings cost, or warn, when they are written at all."""
        if self.read() != before:
            self.write(before)


def attribute_state(owner: Any, name: str) -> ProcessState:
    return ProcessState(lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def container_state(container: Any) -> ProcessState:
    """Return a dictionary's or list's contents as a setting: others hold the object itself."""

    def write(before: Any) -> None:
        container.clear()
        container.extend(before) if isinstance(container, list) else container.update(before)

    return ProcessState(container.copy, write)


def device_type_state(
    read: Callable[[str], Any], write: Callable[[str, Any], object], device_type: str
) -> ProcessState:
    return ProcessState(partial(read, device_type), partial(write, device_type))


def get_flush_denormal() -> bool:
    """Say whether tiny numbers count as zero; torch can set that, and not tell."""
    return sys.float_info.min / 2 == 0


def get_default_device() -> torch.device | None:
    """Return the default device; None for the CPU: naming it would put a mode over every call."""
    device = torch.get_default_device()
    return None if device == torch.device("cpu") else device


def get_matmul_precision() -> str | None:
    """Return torch's legacy setting; None where somebody has mixed it with the newer ones."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def get_cudnn_tf32() -> bool | None:
    """Return torch's older setting of cuDNN; None where somebody has mixed it with the newer ones."""
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:
        return None


def set_cudnn_tf32(before: bool | None) -> None:
    """Write it, unless it could not be read."""
    if before is not None:
        torch.backends.cudnn.allow_tf32 = before


def set_warning_filters(before: list[Any]) -> None:
    warnings.filters[:] = before  # type: ignore[index]


def get_signal_handlers() -> list[Any]:
    return [signal.getsignal(number) for number in STOP_SIGNALS]


def set_signal_handlers(before: list[Any]) -> None:
    for number, handler in zip(STOP_SIGNALS, before, strict=True):
        signal.signal(number, handler)


FP32_PRECISION_BACKENDS = (
    "",
    ".cudnn",
    ".cudnn.conv",
    ".cudnn.rnn",
    ".cuda.matmul",
    ".mkldnn",
    ".mkldnn.conv",
    ".mkldnn.matmul",
)


def get_backend(dotted: str) -> Any:
    """Return a part of torch.backends."""
    found: Any = torch.backends
    for name in filter(None, dotted.split(".")):
        found = getattr(found, name)
    return found


GLOBAL_HOOKS: list[dict[Any, Any]] = [
    hooks
    for owner in (module, optimizer)
    for name, hooks in vars(owner).items()
    if name.startswith("_global") and isinstance(hooks, dict)
]  #: of all modules and all optimizers

TORCH_STATE = (
    ProcessState(torch.get_num_threads, torch.set_num_threads),
    ProcessState(torch.get_default_dtype, torch.set_default_dtype),
    ProcessState(get_default_device, torch.set_default_device),
    ProcessState(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    ProcessState(torch.is_grad_enabled, torch.set_grad_enabled),
    ProcessState(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    ProcessState(get_flush_denormal, torch.set_flush_denormal),
    attribute_state(torch.utils.deterministic, "fill_uninitialized_memory"),
    *(attribute_state(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")),
    *(attribute_state(get_backend(dotted), "fp32_precision") for dotted in FP32_PRECISION_BACKENDS),
    ProcessState(get_matmul_precision, torch.set_float32_matmul_precision),  # put back before those: it sets them
    ProcessState(get_cudnn_tf32, set_cudnn_tf32),  # so does this
    ProcessState(torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
    *(device_type_state(torch.is_autocast_enabled, torch.set_autocast_enabled, kind) for kind in ("cpu", "cuda")),
    *(device_type_state(torch.get_autocast_dtype, torch.set_autocast_dtype, kind) for kind in ("cpu", "cuda")),
    *map(container_state, GLOBAL_HOOKS),
    attribute_state(module, "_global_is_full_backward_hook"),
)

PROCESS_STATE = (
    container_state(os.environ),
    ProcessState(os.getcwd, os.chdir),
    container_state(sys.path),
    ProcessState(lambda: warnings.filters[:], set_warning_filters),
    ProcessState(get_signal_handlers, set_signal_handlers),
    container_state(BaseContainer._resolvers),
    ProcessState(np.geterr, lambda before: np.seterr(**before)),
    ProcessState(sklearn.get_config, lambda before: sklearn.set_config(**before)),
    ProcessState(gc.isenabled, lambda before: gc.enable() if before else gc.disable()),
    attribute_state(logging.root.manager, "disable"),
    attribute_state(sys, "stdout"),
    attribute_state(sys, "stderr"),
)


def is_cuda_in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


@contextmanager
def restore_generators() -> Iterator[None]:
    """Put every generator's state back."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count() if is_cuda_in_use() else 0)):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextmanager
def isolate_job() -> Iterator[None]:
    """Put back, afterwards, all that a job may have changed of its process; and free what it left on a GPU.

    What can't be undone is a job's that patches code or sets threads running: a launcher with processes keeps those
    apart, too.
    """
    with ExitStack() as stack:
        for setting in (*TORCH_STATE, *PROCESS_STATE):
            stack.callback(setting.restore, setting.read())
        stack.enter_context(matplotlib.rc_context())
        stack.enter_context(restore_generators())
        yield
    gc.collect()  # a trainer is a circle of references
    if is_cuda_in_use():
        torch.cuda.empty_cache()
