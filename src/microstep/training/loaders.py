"""Loads training windows and evaluation batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import fsum
from time import perf_counter

import torch
from torch import Tensor

from microstep.components.accumulation import Auto
from microstep.components.strategy import Single
from microstep.errors import ConfigError
from microstep.training.monitoring import DataWaitTimer
from microstep.types.data import Batch, FetchRequest, LoadedWindow, Mix, Positions, Split
from microstep.types.protocols import Accumulation, Augment, Mixing, Sampler, Strategy, Task
from microstep.utils.randomness import reseed
from microstep.utils.time_ranges import time_range


@dataclass(eq=False)
class Loaders:
    """Training windows and evaluation batches of all splits.

    The sample at a position of an epoch, its augmentation and its mixing partner are pure functions of (seed, epoch,
    position). The weight of a window is computed from the labels alone.
    """

    splits: Mapping[str, Split]  #: by name; only `train` is sampled and augmented
    sampler: Sampler
    augment: Augment
    accumulation: Accumulation
    task: Task
    eval_batch_size: int  #: samples of an evaluation batch
    seed: int
    device: torch.device
    strategy: Strategy = field(default_factory=Single)

    def __post_init__(self) -> None:
        self.weights = self.task.weight(self.splits["train"].targets)
        self.wait_timer = DataWaitTimer()

    def train(self, epoch: int, first: int = 0, passes: int = 1, last: int | None = None) -> Iterator[LoadedWindow]:
        """Yield windows `first` to `last` (excluded) of an epoch, each to be iterated `passes` times, then fetched."""
        plan, size = self.plan_epoch(epoch), self.found_size
        windows = list(self.accumulation.windows(range(plan.samples)))[first:last]
        shares = [self.strategy.share(len(window.micro_batches)) for window in windows]
        pairs = zip(windows, shares, strict=True)
        requests = [[plan.request(window.micro_batches[number]) for number in share] for window, share in pairs]
        plan.split.expect([request for window in requests for request in window * passes])
        for number, window in enumerate(windows):
            weight = fsum(take_positions(plan.weights, positions).sum().item() for positions in window.micro_batches)
            samples = sum(map(len, window.micro_batches))
            seeds = MicroBatchSeeds(self.device, (self.seed, epoch, first + number), len(window.micro_batches))
            batches = LazyBatches(plan, requests[number], shares[number], seeds, self.wait_timer)
            yield LoadedWindow(first + number, samples, weight, batches)
            if size != self.found_size:  # the window is needed again
                plan.split.expect([])  # drops what it has kept
                yield from self.train(epoch, first + number, passes, last)
                return

    def plan_epoch(self, epoch: int) -> EpochPlan:
        key, train, order, samples = (self.seed, epoch), self.splits["train"], self.draw_order(epoch), self.samples
        mixing = self.augment.mixing(train, self.device, *key, samples=samples)
        positions, weights = torch.arange(len(order), device=self.device), self.weights[order]
        if mixing is not None:
            share, partners = mixing.share.cpu().double(), mixing.partners.cpu()
            weights = share * weights + (1 - share) * weights[partners]
        view = self.augment.view(train, *key, samples=samples)
        return EpochPlan(view, order.to(self.device), positions, weights, mixing)

    @property
    def found_size(self) -> int | None:
        """Size of micro-batches and of evaluation batches with `accumulation=auto`, else None."""
        return self.accumulation.batch_size if isinstance(self.accumulation, Auto) else None

    @cached_property
    def samples(self) -> int:
        """Samples of an epoch."""
        return len(self.draw_order(epoch=1))

    def draw_order(self, epoch: int) -> Tensor:
        """Return the row at each position of an epoch. Raise ConfigError if the sampler breaks its protocol."""
        order, rows = self.sampler.order(self.seed, epoch), len(self.splits["train"])
        if not len(order) or order.min() < 0 or order.max() >= rows:
            reason = f"its order of epoch {epoch} is empty, or not of the rows 0 to {rows - 1:,}"
        elif epoch > 1 and len(order) != self.samples:
            reason = f"its order has {len(order):,} rows in epoch {epoch}, and {self.samples:,} in epoch 1"
        else:
            return order
        raise ConfigError(f"sampler ({type(self.sampler).__name__})", reason, "correct it, or choose sampler=shuffle")

    def first_images(self, samples: int) -> Tensor | None:
        """Return the first images of epoch 1 as the model sees them; None if samples are no images."""
        plan = self.plan_epoch(epoch=1)
        batch = plan.fetch(plan.request(range(min(samples, plan.samples))))
        return plan.split.to_images(batch.inputs)

    def evaluation(self, name: str) -> Iterator[Batch]:
        """Yield the evaluation batches of this rank: every `world_size`-th one."""
        split = self.splits[name]
        batches = torch.split(torch.arange(len(split), device=self.device), self.found_size or self.eval_batch_size)
        requests = [(rows, rows) for rows in batches[self.strategy.rank :: self.strategy.world_size]]
        split.expect(requests)
        return (split.fetch(*request) for request in requests)


@dataclass(frozen=True)
class EpochPlan:
    """Plan of an epoch, fixed before its first sample is read."""

    split: Split  #: augmented
    order: Tensor  #: the row at each position, on the run's device
    positions: Tensor  #: 0, 1, 2, … on the run's device
    weights: Tensor  #: the weight of the sample at each position, float64, on the CPU
    mixing: Mixing | None

    @property
    def samples(self) -> int:
        return len(self.order)

    def request(self, positions: Positions) -> FetchRequest:
        """Return the request for a micro-batch: its samples, followed by their partners if they are mixed."""
        own = take_positions(self.positions, positions)
        if self.mixing is None:
            return take_positions(self.order, positions), own
        both = torch.cat([own, self.mixing.partners[own]])
        return self.order[both], both

    def fetch(self, request: FetchRequest) -> Batch:
        batch = self.split.fetch(*request)
        return batch if self.mixing is None else mix_batch(batch, self.mixing)


def mix_batch(both: Batch, mixing: Mixing) -> Batch:
    (own, other), (targets, partners) = both.inputs.chunk(2), both.targets.chunk(2)
    positions, indices = both.positions.chunk(2)[0], both.indices.chunk(2)[0]
    inputs = mixing.blend(own, other, positions)
    return Batch(inputs, targets, positions, indices, Mix(partners, mixing.share[positions]))


@dataclass(frozen=True)
class MicroBatchSeeds:
    """Seeds the random generators for each micro-batch of a window, so that it doesn't matter which process has it.

    A window of one micro-batch is seeded once. The first micro-batch has the seed of its window.
    """

    device: torch.device
    window: tuple[int, ...]  #: (seed, epoch, window)
    micro_batches: int  #: of the window

    def reseed(self, micro_batch: int, iteration: int) -> None:
        if iteration == 0:
            reseed(self.device, *self.window, *([micro_batch] if micro_batch else []))
        elif self.micro_batches > 1:
            reseed(self.device, *self.window, micro_batch, iteration)


@dataclass
class LazyBatches:
    """Batches of a window. Each iteration fetches them again, one at a time, and seeds the generators for each."""

    plan: EpochPlan
    requests: list[FetchRequest]
    numbers: Sequence[int]  #: of the micro-batches in the window
    seeds: MicroBatchSeeds
    wait_timer: DataWaitTimer
    iterations: int = 0
    is_open: bool = False  #: whether an iteration has begun and not ended

    def __iter__(self) -> Iterator[Batch]:
        iteration, self.iterations, self.is_open = self.iterations, self.iterations + 1, True
        fetch = partial(self.fetch, iteration=iteration)
        yield from map(fetch, self.requests, self.numbers)  # map keeps no reference to what it has yielded
        self.is_open = False

    def fetch(self, request: FetchRequest, number: int, iteration: int) -> Batch:
        start = perf_counter()
        with time_range("data"):
            batch = self.plan.fetch(request)
        self.wait_timer.waited += perf_counter() - start
        self.seeds.reseed(number, iteration)
        return replace(batch, number=number)


def take_positions(values: Tensor, positions: Positions) -> Tensor:
    """Return the values at positions; a view if they are a range."""
    if isinstance(positions, range) and positions.step == 1:
        return values[positions.start : positions.stop]
    return values[list(positions)]
