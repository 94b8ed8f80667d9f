"""The implementation of all precisions."""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from microstep.errors import DataError
from microstep.types.data import Batch, UpdateResult
from microstep.types.protocols import Transform


class TorchPrecision:
    """Implements `Precision`: a dtype of parameters, optional autocast, and a gradient scaler that may be disabled.

    Args:
        name: name in run.json.
        reason: why it was chosen, in a few words.
        dtype: dtype of parameters and inputs.
        autocast: dtype of the forward pass under autocast.
        scaler: an enabled scaler, which fp16 needs.
        channels_last: whether 4-d weights and inputs are stored channels-last.
        max_skipped: consecutive steps that may overflow before the run counts as diverged.
        tf32: whether CUDA may round the factors of fp32 products to TF32.
    """

    def __init__(
        self,
        name: str,
        reason: str,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        autocast: torch.dtype | None = None,
        scaler: GradScaler | None = None,
        channels_last: bool = False,
        max_skipped: int = 0,
        tf32: bool = False,
    ) -> None:
        self.name, self.reason, self.device, self.dtype = name, reason, device, dtype
        self.autocast, self.max_skipped, self.tf32 = autocast, max_skipped, tf32
        self.scaler = scaler or GradScaler(device.type, enabled=False)  # a disabled scaler changes nothing
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        self.nonfinite_loss = torch.zeros(())  #: 0 if the losses of the window are finite so far, else NaN

    def prepare(self, model: nn.Module) -> nn.Module:
        """Move the model to the device, dtype and memory format, and allow or forbid TF32. Return the model."""
        allow_tf32(self.tf32)
        return model.to(device=self.device, dtype=self.dtype).to(memory_format=self.memory_format)

    def cast(self, batch: Batch) -> Batch:
        """Return the batch in this dtype and memory format. Raise a DataError for integer inputs that it can't hold."""
        memory_format = self.memory_format if batch.inputs.dim() == 4 else torch.preserve_format
        inputs = batch.inputs.to(self.dtype, memory_format=memory_format)
        if batch.inputs.dtype in (torch.int32, torch.int64) and not inputs.to(batch.inputs.dtype).equal(batch.inputs):
            reason = f"its inputs are {batch.inputs.dtype}, and {self.dtype} can't hold all of their values"
            raise DataError("dataset", reason, "let it return smaller integers, or choose precision=fp64")
        targets = batch.targets.to(self.dtype) if batch.targets.is_floating_point() else batch.targets
        return replace(batch, inputs=inputs, targets=targets)

    def forward(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the scaled gradient of `loss`. Its gradient may be finite even if the loss is not."""
        self.nonfinite_loss = self.nonfinite_loss + loss.detach() * 0
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(
        self, optimizer: Optimizer, max_grad_norm: float | None, transform: Transform | None = None
    ) -> UpdateResult:
        """Unscale, transform and clip the gradient, then step. Skip the step if loss or gradient norm are not finite.

        The norm is the only value that the host waits for. The optimizer is called directly, not through the scaler:
        the norm already tells whether the gradient is finite, and fused SGD was seen to set its momentum to NaN if the
        scaler skips the first step. The returned norm is unscaled, and before the transform and clipping.
        """
        self.scaler.unscale_(optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        total = get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = (total + self.nonfinite_loss).item()
        self.nonfinite_loss = torch.zeros(())
        if updated := math.isfinite(norm):
            if transform is not None:
                transform(parameters, norm)
                total = get_total_norm([p.grad for p in parameters if p.grad is not None])
            if max_grad_norm is not None and (transform is not None or norm > max_grad_norm):
                clip_grads_with_norm_(parameters, max_grad_norm, total)
            optimizer.step()
        self.scaler.update()
        return UpdateResult(updated, norm)

    def loss_scale(self) -> float:
        return float(self.scaler.get_scale())

    def describe(self) -> Mapping[str, Any]:
        dtype = str(self.autocast or self.dtype).removeprefix("torch.")
        channels_last = self.memory_format is torch.channels_last
        return {"name": self.name, "dtype": dtype, "scaler": self.scaler.is_enabled(), "channels_last": channels_last}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.scaler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            self.scaler.load_state_dict(state)


def allow_tf32(allowed: bool) -> None:
    """Allow or forbid TF32 in CUDA's matrix products and convolutions.

    By default, torch allows it in convolutions and recurrent layers only. Both the older and the newer settings are
    set, in this order. Without the newer ones, `torch.backends.fp32_precision` would apply. Without the older ones, or
    in the other order, torch raises an error when they are read.
    """
    cudnn: Any = torch.backends.cudnn
    torch.backends.cuda.matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    for operation in (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn):
        operation.fp32_precision = "tf32" if allowed else "ieee"
