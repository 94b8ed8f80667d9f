"""Sums of the gradients of a window's micro-batches, over all ranks: as fast as possible, or with the same rounding."""

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from microstep.components.strategy.connection import Connection


class AllReduce:
    """Adds up micro-batches in turn, then ranks. The rounding depends on how many micro-batches a rank has."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters

    def add(self, micro_batch: int) -> None:
        """Add the gradient of the micro-batch with this number in its window, if torch has not done so."""

    def describe(self) -> Any:
        """Return what all ranks must know to finish the sum."""
        return find_used(self.parameters)

    def finish(self, ranks: Sequence[Any], loss: Tensor, connection: Connection | None) -> None:
        """Set the gradients to the sums over all ranks, and to NaN if the loss is not finite."""
        used = [self.parameters[number] for number in sorted(set().union(*ranks))]
        if connection is not None and used:
            connection.sum(flat := flatten_gradients(used))
            set_gradients(used, flat.add_(loss * 0))


class TreeSum:
    """Adds up micro-batches in pairs, as a binary tree of the window. The rounding does not depend on the ranks.

    Node i of level k is the sum of 2^k micro-batches from i · 2^k on. Nodes 2 i and 2 i + 1 of a level are added as
    soon as both are there, so that few are held. What is left at the end is added from right to left.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters, self.used = parameters, set[int]()
        self.nodes: list[tuple[int, int, Tensor]] = []  #: (level, index, sum), from left to right

    def add(self, micro_batch: int) -> None:
        self.used |= find_used(self.parameters)
        self.push(0, micro_batch, flatten_gradients(self.parameters))
        for parameter in self.parameters:
            parameter.grad = None

    def push(self, level: int, index: int, value: Tensor) -> None:
        """Add a node to the right of all others."""
        while index % 2 and self.nodes and self.nodes[-1][:2] == (level, index - 1):
            level, index, value = level + 1, index // 2, self.nodes.pop()[2].add_(value)
        self.nodes.append((level, index, value))

    def total(self) -> Tensor:
        return reduce(lambda right, left: left.add_(right), [value for *_, value in reversed(self.nodes)])

    def describe(self) -> Any:
        return self.used, [node[:2] for node in self.nodes]

    def finish(self, ranks: Sequence[Any], loss: Tensor, connection: Connection | None) -> None:
        own, own_rank, self.nodes = iter(self.nodes), connection.rank if connection else 0, []
        for rank, (_, nodes) in enumerate(ranks):
            for level, index in nodes:
                value = next(own)[2] if rank == own_rank else flatten_gradients(self.parameters)
                if connection is not None:
                    connection.copy_from(rank, value)
                self.push(level, index, value)
        set_gradients(self.parameters, self.total().add_(loss * 0))
        for number in set(range(len(self.parameters))).difference(*(used for used, _ in ranks)):
            self.parameters[number].grad = None  # no rank has used it


def find_used(parameters: Iterable[nn.Parameter]) -> set[int]:
    return {number for number, parameter in enumerate(parameters) if parameter.grad is not None}


def flatten_gradients(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return a copy of all gradients as one tensor of the widest dtype. A parameter without one has zeros."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])


def set_gradients(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    for parameter, part in zip(parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True):
        parameter.grad = torch.empty_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad.copy_(part.view_as(parameter))
