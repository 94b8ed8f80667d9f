"""The machine a run is on: device, threads, determinism."""

from __future__ import annotations

import os
import platform
import re
from contextlib import suppress
from pathlib import Path

import torch

from microstep.errors import ConfigError

OWN_THREADS = torch.get_num_threads()  #: torch's own choice, before any run changed it


def settle(threads: int | None, deterministic: bool) -> None:
    """Set the process's thread count and determinism; everything is set, so that no earlier run shows through."""
    torch.set_num_threads(threads or OWN_THREADS)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when CUDA starts
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow, and never read
    torch.backends.cudnn.benchmark = not deterministic


def choose_device(name: str) -> torch.device:
    """Return the device; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: where the machine has no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = next(kind for kind in available if available[kind]) if name == "auto" else name.split(":")[0]
    if not available[kind]:
        options = ", ".join(kind for kind in available if available[kind])
        raise ConfigError(
            f"device={name}", f"this machine has no {kind} that torch can use", f"the options are auto, {options}"
        )
    if kind == "cuda":
        return cuda(name)
    return torch.device(kind)


def cuda(name: str) -> torch.device:
    """Return a CUDA device with its index, made the current one; CUDA has started then, its generators are there."""
    torch.cuda.init()  # type: ignore[no-untyped-call]
    index = int(name.split(":")[1]) if ":" in name else torch.cuda.current_device()
    if index >= torch.cuda.device_count():
        raise ConfigError(f"device={name}", f"there are {torch.cuda.device_count()} GPUs", "count from 0")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def processor() -> str:
    """Return the processor and the instructions that torch uses of it: other ones round otherwise."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        name = models[0] if models else name
    return f"{platform.machine()}, {name}, {torch.backends.cpu.get_cpu_capability()}"


def name_of(device: torch.device) -> str:
    """Return the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def describe(device: torch.device) -> str:
    """Return the device in words."""
    if device.type == "cuda":
        return f"{device} ({name_of(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)
