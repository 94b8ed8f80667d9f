"""Restores process-wide state (torch settings, environment, signal handlers, generators) after each serial job."""

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
from operator import attrgetter
from typing import Any

import matplotlib
import numpy as np
import sklearn
import torch
from omegaconf.basecontainer import BaseContainer
from torch.nn.modules import module
from torch.optim import optimizer

from microstep.components.dataset.loader_processes import stop_workers
from microstep.utils.signals import STOP_SIGNALS


@dataclass(frozen=True)
class ProcessState:
    """Part of the state of this process, with functions to read and to write it."""

    read: Callable[[], Any]
    write: Callable[[Any], object]

    def restore(self, before: Any) -> None:
        """Write a value if the current one differs. Writing some settings is slow or causes a warning."""
        if self.read() != before:
            self.write(before)


def attribute_state(owner: Any, name: str) -> ProcessState:
    return ProcessState(lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def container_state(container: Any) -> ProcessState:
    """Return the items of a dictionary or list as state. They are restored in place: others hold the object."""

    def write(before: Any) -> None:
        container.clear()
        container.extend(before) if isinstance(container, list) else container.update(before)

    return ProcessState(container.copy, write)


def device_type_states(read: Callable[[str], Any], write: Callable[[str, Any], object]) -> list[ProcessState]:
    return [ProcessState(partial(read, name), partial(write, name)) for name in ("cpu", "cuda")]


def get_default_device() -> torch.device | None:
    """Return the default device; None for the CPU. Setting it to "cpu" would slow down every call of torch."""
    device = torch.get_default_device()
    return None if device == torch.device("cpu") else device


def read_legacy_setting(read: Callable[[], Any]) -> Any:
    """Return a legacy setting of torch; None if it is mixed with the newer `fp32_precision`."""
    try:
        return read()
    except RuntimeError:
        return None


def set_cudnn_tf32(before: bool | None) -> None:
    if before is not None:
        torch.backends.cudnn.allow_tf32 = before


def set_warning_filters(before: list[Any]) -> None:
    warnings.filters[:] = before  # type: ignore[index]


get_fp32_backends = attrgetter(
    "cudnn", "cudnn.conv", "cudnn.rnn", "cuda.matmul", "mkldnn", "mkldnn.conv", "mkldnn.matmul"
)
FP32_PRECISION_BACKENDS = (torch.backends, *get_fp32_backends(torch.backends))
GLOBAL_HOOKS = [
    hooks
    for name, hooks in (*vars(module).items(), *vars(optimizer).items())
    if name.startswith("_global") and isinstance(hooks, dict)
]  #: hooks of all modules and all optimizers

TORCH_STATE = (
    ProcessState(torch.get_num_threads, torch.set_num_threads),
    ProcessState(torch.get_default_dtype, torch.set_default_dtype),
    ProcessState(get_default_device, torch.set_default_device),
    ProcessState(torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    ProcessState(torch.is_grad_enabled, torch.set_grad_enabled),
    ProcessState(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    ProcessState(lambda: sys.float_info.min / 2 == 0, torch.set_flush_denormal),  # torch has no getter
    attribute_state(torch.utils.deterministic, "fill_uninitialized_memory"),
    *(attribute_state(torch.backends.cudnn, name) for name in ("enabled", "benchmark", "deterministic")),
    *(attribute_state(backend, "fp32_precision") for backend in FP32_PRECISION_BACKENDS),
    # The two legacy settings change fp32_precision, so they are restored before it.
    ProcessState(partial(read_legacy_setting, torch.get_float32_matmul_precision), torch.set_float32_matmul_precision),
    ProcessState(partial(read_legacy_setting, lambda: torch.backends.cudnn.allow_tf32), set_cudnn_tf32),
    ProcessState(torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
    *device_type_states(torch.is_autocast_enabled, torch.set_autocast_enabled),
    *device_type_states(torch.get_autocast_dtype, torch.set_autocast_dtype),
    *map(container_state, GLOBAL_HOOKS),
    attribute_state(module, "_global_is_full_backward_hook"),
)

PROCESS_STATE = (
    container_state(os.environ),
    ProcessState(os.getcwd, os.chdir),
    container_state(sys.path),
    ProcessState(lambda: warnings.filters[:], set_warning_filters),
    *(ProcessState(partial(signal.getsignal, number), partial(signal.signal, number)) for number in STOP_SIGNALS),
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
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count() if is_cuda_in_use() else 0)):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def isolate_job() -> Iterator[None]:
    """Restore the state of this process after a job, end its loader processes, and free the GPU memory it held.

    Code that a job patches and threads that it leaves running are not undone; a launcher with processes isolates those.
    """
    with ExitStack() as stack:
        for state in (*TORCH_STATE, *PROCESS_STATE):
            stack.callback(state.restore, state.read())
        stack.enter_context(matplotlib.rc_context())
        stack.enter_context(restore_generators())
        stack.callback(stop_workers)
        yield
    gc.collect()  # a trainer is a reference cycle
    if is_cuda_in_use():
        torch.cuda.empty_cache()
