"""Device, threads and determinism of a run, and its peak memory."""

import ctypes
import os
import platform
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from microstep.components.dataset.loader_processes import loader_errors
from microstep.errors import ConfigError
from microstep.training.compiler import check_compiler_error

DEFAULT_THREADS = torch.get_num_threads()  #: torch's own choice, before any run changed it


def configure_torch(threads: int | None, deterministic: bool, local_processes: int = 1) -> None:
    """Set thread count and determinism of the process, whatever an earlier run has set.

    By default, the processes of a run share the cores; OMP_NUM_THREADS is the number of each, as torchrun sets it.
    """
    shares = 1 if "OMP_NUM_THREADS" in os.environ else local_processes
    torch.set_num_threads(threads or max(1, DEFAULT_THREADS // shares))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when CUDA starts
    if "torch._inductor" in sys.modules:
        torch.use_deterministic_algorithms(deterministic)
    else:  # that function would import torch's compiler, which takes over a second
        os.environ["TORCHINDUCTOR_DETERMINISTIC"] = str(int(deterministic))  # read when the compiler is imported
        torch.set_deterministic_debug_mode("error" if deterministic else "default")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow, and never read
    torch.backends.cudnn.benchmark = not deterministic


@contextmanager
def torch_errors() -> Iterator[None]:
    """Turn torch's errors about loader processes, and about operations that are not deterministic, into one line."""
    try:
        with loader_errors():
            yield
    except RuntimeError as error:
        check_compiler_error(error)
        if not (found := re.match(r"(\S+) does not have a deterministic implementation", str(error))):
            raise
        remedy = "train with deterministic=false, or choose another device or model"
        raise ConfigError("deterministic=true", f"torch's {found[1]} has no deterministic form", remedy) from None


def choose_device(name: str) -> torch.device:
    """Return the device; `auto` takes CUDA, then MPS, then the CPU."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = next(filter(available.get, available)) if name == "auto" else name.split(":")[0]
    if not available[kind]:
        options = ", ".join(filter(available.get, available))
        reason = f"this machine has no {kind} that torch can use"
        raise ConfigError(f"device={name}", reason, f"the options are auto, {options}")
    return select_cuda_device(name) if kind == "cuda" else torch.device(kind)


def select_cuda_device(name: str) -> torch.device:
    torch.cuda.init()  # type: ignore[no-untyped-call]
    index = int(name.split(":")[1]) if ":" in name else torch.cuda.current_device()
    if index >= torch.cuda.device_count():
        raise ConfigError(f"device={name}", f"there are {torch.cuda.device_count()} GPUs", "count from 0")
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


class PeakMemory:
    """Measures peak memory since construction: allocated on a GPU, otherwise resident in the process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.known_to_be_own = forget_resident_peak()
        self.before = resident_peak()

    def bytes(self) -> int | None:
        """Return the peak in bytes; None if the process may have held more before."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        peak = resident_peak()
        return peak if self.known_to_be_own or peak > self.before else None


def forget_resident_peak() -> bool:
    """Reset the peak memory of the process; return whether that is possible (on Linux only)."""
    with suppress(AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)  # memory that an earlier run has freed would count as resident
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return True
    return False


def resident_peak() -> int:
    """Return the peak of resident bytes since `forget_resident_peak`, or since the process started."""
    with suppress(OSError):
        for kilobytes in re.findall(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text("utf-8"), re.MULTILINE):
            return 1024 * int(kilobytes)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def describe_processor() -> str:
    """Return the processor and the instruction set that torch uses: both affect rounding."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        name = models[0] if models else name
    return f"{platform.machine()}, {name}, {torch.backends.cpu.get_cpu_capability()}"


def get_device_kind(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({get_device_kind(device)})"
    return f"cpu ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)
