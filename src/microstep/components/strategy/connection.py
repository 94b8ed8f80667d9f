"""Exchanges values between the processes that train one run, by torch.distributed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.utils._pytree import tree_map

from microstep.errors import MicrostepError
from microstep.utils.signals import PendingSignal


class Connection:
    """Connects this process to the others of a run; gradients are summed by NCCL on GPUs, by gloo elsewhere.

    Signals travel with the values that are gathered, so that all processes know of one at the same point.

    Args:
        store: through which the processes find each other.
        find_failure: returns the error to raise if the connection breaks.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        world_size: int,
        device: torch.device,
        find_failure: Callable[[Exception], MicrostepError],
    ) -> None:
        self.rank, self.world_size, self.device, self.find_failure = rank, world_size, device, find_failure
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        with self.connection_errors():
            dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
            gloo = dist.new_group(backend="gloo") if device.type == "cuda" else None
        self.objects = cast("dist.ProcessGroup | None", gloo)  #: None: the group of all processes, which is gloo's
        PendingSignal.is_shared = True

    @contextmanager
    def connection_errors(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise self.find_failure(error) from None

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in order, with their tensors on this process's device."""
        message = PendingSignal.signum, tree_map(lambda x: x.detach().cpu() if isinstance(x, Tensor) else x, value)
        messages: list[Any] = [None] * self.world_size
        with self.connection_errors():
            dist.all_gather_object(messages, message, group=self.objects)
        if signum := next(filter(None, (signum for signum, _ in messages)), None):
            PendingSignal.signum, PendingSignal.is_known = signum, True
        return [tree_map(lambda x: x.to(self.device) if isinstance(x, Tensor) else x, value) for _, value in messages]

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0, with its tensors on the CPU if they were there."""
        values = [value]
        with self.connection_errors():
            dist.broadcast_object_list(values, group=self.objects)
        return values[0]

    def sum(self, values: Tensor) -> None:
        """Replace the values by their sums over all processes."""
        with self.connection_errors():
            dist.all_reduce(values)

    def copy_from(self, rank: int, values: Tensor) -> None:
        """Replace the values by those of a rank."""
        with self.connection_errors():
            dist.broadcast(values, rank)

    def close(self) -> None:
        PendingSignal.is_shared = False
        dist.destroy_process_group()
