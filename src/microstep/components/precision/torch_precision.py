"""The one implementation behind every precision: a dtype, autocast or not, a scaler that may be off."""

from __future__ import annotations

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

from microstep.types.data import Batch, UpdateResult


class TorchPrecision:
    """Parameters in `dtype`; the forward pass under autocast to `autocast`, where given; gradients scaled by `scaler`.

    Args:
        name: what run.json calls it.
        reason: why it was chosen, in a few words.
        device: where the model lives.
        dtype: of parameters and inputs.
        autocast: the lower dtype that autocast computes in, or None for none.
        scaler: an enabled scaler for dtypes whose gradients underflow (fp16), or None.
        channels_last: whether 4-d weights and inputs are stored channels-last.
        max_skipped: windows in a row that may overflow before the run counts as diverged; 0 where none may.
        tf32: whether CUDA may round what it multiplies in fp32 to TF32.
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
        self.autocast = autocast
        self.scaler = scaler or GradScaler(device.type, enabled=False)  # off, it passes everything through
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        self.max_skipped, self.tf32 = max_skipped, tf32
        self.taint = torch.zeros(())  #: 0 times the window's loss so far

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model on the device, in this dtype and memory format; fp32 means what it says from now on."""
        allow_tf32(self.tf32)
        return model.to(device=self.device, dtype=self.dtype).to(memory_format=self.memory_format)

    def cast(self, batch: Batch) -> Batch:
        """Return the batch with floating tensors in this dtype, images in this memory format."""
        images = batch.inputs.dim() == 4
        inputs = batch.inputs.to(self.dtype, memory_format=self.memory_format if images else torch.preserve_format)
        targets = batch.targets.to(self.dtype) if batch.targets.is_floating_point() else batch.targets
        return replace(batch, inputs=inputs, targets=targets)

    def forward(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast)

    def backward(self, loss: Tensor) -> None:
        """Add the scaled gradient of `loss`; note whether that is finite: its gradient may be where it isn't."""
        self.taint = self.taint + loss.detach() * 0
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def update(self, optimizer: Optimizer, max_grad_norm: float | None) -> UpdateResult:
        """Unscale once, clip, step; leave everything alone where the loss or the gradient's norm is not finite.

        The norm is the one number the host reads. The optimizer is called directly: whether the gradient is finite is
        known by then, and a fused SGD whose very first step a scaler skips was seen to make its momentum NaN.
        """
        self.scaler.unscale_(optimizer)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        total = get_total_norm(gradients)
        norm = (total + self.taint).item()
        self.taint = torch.zeros(())
        if updated := math.isfinite(norm):
            if max_grad_norm is not None and norm > max_grad_norm:
                clip_grads_with_norm_([p for g in optimizer.param_groups for p in g["params"]], max_grad_norm, total)
            optimizer.step()
        self.scaler.update()
        return UpdateResult(updated, norm)

    def loss_scale(self) -> float:
        """Return the present gradient scale."""
        return float(self.scaler.get_scale())

    def describe(self) -> Mapping[str, Any]:
        """Return what run.json says of it."""
        return {
            "name": self.name,
            "dtype": str(self.autocast or self.dtype).removeprefix("torch."),
            "scaler": self.scaler.is_enabled(),
            "channels_last": self.memory_format is torch.channels_last,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the scaler's state; empty where nothing is scaled."""
        return dict(self.scaler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        if state:
            self.scaler.load_state_dict(state)


def allow_tf32(allowed: bool) -> None:
    """Let CUDA's matrix products and convolutions round what they multiply to TF32, or not.

    Torch's own default lets convolutions and recurrent layers, and not products. Its older switches are set first, then
    the newer ones: without the newer, `torch.backends.fp32_precision` would show through; without the older, or in the
    other order, whoever reads them gets an error.
    """
    cudnn: Any = torch.backends.cudnn
    torch.backends.cuda.matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    for operation in (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn):
        operation.fp32_precision = "tf32" if allowed else "ieee"
