"""Changes to process-wide state that a job may leave behind."""

import os
import signal
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from microstep.components.precision.torch_precision import allow_tf32


def doubled(module: nn.Module, inputs: Any, output: Any) -> Any:
    return 2 * output


#: By name; and whether the weights of the next job would show it.
LEAKS: dict[str, tuple[Callable[[], Any], bool]] = {
    "dtype": (lambda: torch.set_default_dtype(torch.float64), True),
    "device": (lambda: torch.set_default_device("meta"), True),
    "gradients": (lambda: torch.set_grad_enabled(False), True),
    "hook": (lambda: nn.modules.module.register_module_forward_hook(doubled), True),
    "optimizer hook": (
        lambda: register_optimizer_step_post_hook(
            lambda optimizer, *_: optimizer.param_groups[0]["params"][0].data.zero_()
        ),
        True,
    ),
    "autocast": (lambda: torch.set_autocast_enabled("cpu", True), True),
    "autocast dtype": (lambda: torch.set_autocast_dtype("cpu", torch.float16), False),
    "threads": (lambda: torch.set_num_threads(3), False),
    "matmul precision": (lambda: torch.set_float32_matmul_precision("medium"), False),
    "tf32": (lambda: allow_tf32(True), False),
    "precision of a backend": (lambda: setattr(torch.backends, "fp32_precision", "tf32"), False),
    "mkldnn": (lambda: torch.backends.mkldnn.set_flags(False), False),
    "determinism": (lambda: torch.use_deterministic_algorithms(True, warn_only=True), False),
    "cudnn": (lambda: setattr(torch.backends.cudnn, "benchmark", True), False),
    "anomalies": (lambda: torch.autograd.set_detect_anomaly(True), False),
    "denormals": (lambda: torch.set_flush_denormal(True), False),
    "environment": (lambda: os.environ.update(PLANTED="1"), False),
    "directory": (lambda: os.chdir("/"), False),
    "warnings": (lambda: warnings.simplefilter("always"), False),
    "signals": (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), False),
    "resolvers": (lambda: OmegaConf.register_new_resolver("planted", lambda: 1), False),
    "numpy": (lambda: np.seterr(all="ignore"), False),
    "scikit-learn": (lambda: sklearn.set_config(display="text"), False),
}


def leak_all() -> None:
    """Apply all leaks; those that break further work come last."""
    for leak, _ in sorted(LEAKS.values(), key=lambda pair: pair[1]):
        leak()
