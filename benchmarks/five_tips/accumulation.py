"""Tip 3, accumulation: every window's gradient against that of one mean, in fp64, fp32 and mixed precision."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from microstep.components.accumulation import Fixed
from microstep.components.precision import amp, fp16, full
from microstep.components.step import StandardStep
from microstep.components.task import Classification
from microstep.types.data import Batch
from microstep.types.protocols import Precision

from .digits import CPU, SAMPLES, apart, digits, flat, gradient, micro_batches, network, sgd
from .drawing import EXACT, MENDED, OURS, USUAL, bars, picture

BATCH, ACCUM = 16, 4
DTYPES = {"fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PARTS = {"first": 1 / (ACCUM * 16), "last": 1 / (ACCUM * 13), "fair": 1 / 29}  #: a sample's weight in the last window
WEIGHTS = [1.0] * 8 + [5.0, 1.0]  #: digit 8 counts five times


@dataclass(frozen=True)
class Made:
    """Samples of an optimizer step's window, and the distance of its gradient from that of the mean in fp64."""

    samples: int
    error: float


@dataclass(frozen=True)
class Usual:
    """The tutorials' loop: each micro-batch's mean ÷ accum.

    Attributes:
        flush: whether the step is also taken at an epoch's last micro-batch.
    """

    dtype: torch.dtype
    flush: bool
    weights: list[float] | None = None

    def steps(self, net: nn.Module, epochs: int) -> Iterator[Made]:
        """Train and yield each step."""
        inputs, targets = digits()
        precise = self.dtype if self.dtype == torch.float64 else torch.float32
        net, inputs = net.to(precise), inputs.to(precise)
        weights = None if self.weights is None else torch.tensor(self.weights, dtype=precise)
        optimizer = sgd(net)
        scaler = torch.amp.GradScaler("cpu", enabled=self.dtype == torch.float16, init_scale=1024.0)
        for epoch in range(epochs):
            parts, start = micro_batches(epoch, BATCH), 0
            for i, rows in enumerate(parts):
                with torch.autocast("cpu", self.dtype, enabled=self.dtype in (torch.bfloat16, torch.float16)):
                    loss = F.cross_entropy(net(inputs[rows]), targets[rows], weights) / ACCUM
                scaler.scale(loss).backward()
                if (i + 1) % ACCUM == 0 or (self.flush and i + 1 == len(parts)):
                    scaler.unscale_(optimizer)
                    yield made(net, gradient(net), torch.cat(parts[start : i + 1]), self.weights)
                    start = i + 1
                    scaler.step(optimizer)
                    scaler.update()
                    optimizer.zero_grad()


@dataclass(frozen=True)
class Own:
    """microstep's step and windows, with the same samples in the same order."""

    precision: Precision
    weights: list[float] | None = None

    def steps(self, net: nn.Module, epochs: int) -> Iterator[Made]:
        """Train and yield each step."""
        inputs, targets = digits()
        net, task = self.precision.prepare(net), Classification("0123456789", torch.arange(10), CPU, self.weights)
        step, optimizer = StandardStep(self.precision, task, task.metrics(), None), sgd(net)
        for epoch in range(epochs):
            order = torch.cat(micro_batches(epoch, BATCH))
            for window in Fixed(ACCUM, BATCH).windows(range(SAMPLES)):
                parts = [order[list(part)] for part in window.micro_batches]
                rows = torch.cat(parts)
                before = exact(net, rows, self.weights)
                batches = [Batch(inputs[part], targets[part], part, part) for part in parts]
                step(net, optimizer, batches, task.weight(targets[rows]).sum().item())
                yield Made(len(rows), apart(gradient(net), before))


def exact(net: nn.Module, rows: Tensor, weights: list[float] | None) -> Tensor:
    """Return the gradient of the mean loss of these digits in one batch, in fp64."""
    inputs, targets = digits()
    twin = network().double()
    twin.load_state_dict(net.state_dict())
    given = None if weights is None else torch.tensor(weights, dtype=torch.float64)
    F.cross_entropy(twin(inputs[rows].double()), targets[rows], given).backward()
    return gradient(twin)


def made(net: nn.Module, found: Tensor, rows: Tensor, weights: list[float] | None) -> Made:
    return Made(len(rows), apart(found, exact(net, rows, weights)))


def summary(steps: list[Made]) -> dict[str, float]:
    """Return the errors of full windows (median and worst), of the short one, and of the next epoch's first."""
    short = [step.error for step in steps if step.samples < ACCUM * BATCH]
    full = [step.error for step in steps if step.samples == ACCUM * BATCH]
    second = steps[len(steps) // 2]  # the first window of the second of two epochs
    return {
        "full": statistics.median(full),
        "short": short[0] if short else float("nan"),
        "next": second.error,
        "worst": max(full),
    }


def contestants() -> dict[str, Usual | Own]:
    own = {"fp64": full(CPU, "float64"), "fp32": full(CPU), "bf16": amp(CPU), "fp16": fp16(CPU, init_scale=1024.0)}
    names = {f"snippet, {name}": Usual(dtype, False) for name, dtype in DTYPES.items()}
    mended = {f"snippet with a last step, {name}": Usual(dtype, True) for name, dtype in DTYPES.items()}
    return {**names, **mended, **{f"microstep, {name}": Own(precision) for name, precision in own.items()}}


def ends(epochs: int = 20) -> None:
    """Print the distances of final weights in fp32 from those of microstep with the same micro-batches."""
    inputs, targets = digits()
    others = slice(SAMPLES, None)
    rules = {"microstep": Own(full(CPU)), "snippet": Usual(torch.float32, False)}
    rules |= {"snippet with a last step": Usual(torch.float32, True)}
    nets = {name: network() for name in rules}
    answers = {}
    for name, rule in rules.items():
        steps = sum(1 for _ in rule.steps(nets[name], epochs))
        answers[name] = nets[name](inputs[others]).argmax(1)
        right = (answers[name] == targets[others]).sum().item()
        off = apart(flat(nets[name].parameters()), flat(nets["microstep"].parameters()))
        flips = (answers[name] != answers["microstep"]).sum().item()
        print(
            f"  {epochs} epochs, {name:26} {steps} steps, weights {off:.1%} off, {flips} of 360 answers, {right} right"
        )


def draw(curves: dict[str, list[Made]]) -> None:
    styles = {"snippet, fp64": (USUAL, "o"), "snippet with a last step, fp64": (MENDED, "^")}
    styles |= {"microstep, bf16": ("#7fb2d9", "x"), "microstep, fp64": (OURS, ".")}
    with picture("accumulation", 3.5, (1.5, 1)) as (left, right):
        for name, (colour, marker) in styles.items():
            errors = [step.error for step in curves[name]]
            left.plot(range(1, len(errors) + 1), errors, marker, color=colour, label=name, ms=5)
        left.set(title="Relative error of a window's gradient, by step", xlabel="optimizer step", yscale="log")
        left.set_ylim(1e-17, 1e5)
        left.set_yticks([1e-15, 1e-10, 1e-5, 1])
        left.text(24.5, 0.5, "0.4 and 0.5", va="center")
        left.legend(ncols=2, loc="upper left", handletextpad=0.1, columnspacing=0.8)
        shares = {"in the 16": PARTS["first"], "in the 13": PARTS["last"], "microstep": PARTS["fair"]}
        bars(right, {name: 29 * value for name, value in shares.items()}, "{:.2f}", [USUAL, USUAL, OURS])
        right.axvline(1, color=EXACT, lw=1)
        right.set(title="Weight of a sample of the\nlast window (16 + 13), 1 = fair", xlim=(0, 1.25))


def main() -> None:
    print("3 accumulation")
    found = {name: list(rule.steps(network(), 2)) for name, rule in contestants().items()}
    for name, steps in found.items():
        errors = "  ".join(f"{what} {error:.1e}" for what, error in summary(steps).items())
        print(f"  {name:32} {len(steps)} steps  {errors}")
    for name, rule in {
        "snippet": Usual(torch.float64, True, WEIGHTS),
        "ours": Own(full(CPU, "float64"), WEIGHTS),
    }.items():
        errors = [step.error for step in rule.steps(network(), 1) if step.samples == ACCUM * BATCH]
        print(
            f"  class weights, full windows, {name}: median {statistics.median(errors):.1e}, at most {max(errors):.1e}"
        )
    print("  a sample of the last window weighs", {name: f"{29 * part:.3f}" for name, part in PARTS.items()})
    ends()
    draw(found)
