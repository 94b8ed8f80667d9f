"""Tip 1, mixed precision: speed of the usual snippet on this machine, and errors around the scaler."""

from __future__ import annotations

import copy
import statistics
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from microstep.components.precision import amp
from microstep.components.step import StandardStep
from microstep.components.task import Classification
from microstep.types.data import Batch

from .digits import CPU, apart, digits, flat, gradient, in_turn, micro_batches, network, ratio, sgd
from .drawing import EXACT, MENDED, OURS, USUAL, bars, picture

BATCH, EPOCHS, ROUNDS = 64, 3, 7
SPEEDS = ("fp32", "torch.cuda.amp, as pasted", "fp16 + GradScaler", "bf16", "precision=amp")


def plain_step(net, optimizer, inputs: Tensor, targets: Tensor, context, scaler) -> None:
    optimizer.zero_grad()
    with context():
        loss = F.cross_entropy(net(inputs), targets)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()


def pasted() -> tuple[Callable, object]:
    """Return the usual snippet's context and scaler."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.cuda.amp.autocast, torch.cuda.amp.GradScaler()


def autocast(dtype: torch.dtype) -> Callable:
    return lambda: torch.autocast("cpu", dtype, enabled=dtype != torch.float32)


def scaler_of(dtype: torch.dtype) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)


def kit(dtype: torch.dtype) -> tuple[Callable, object]:
    return autocast(dtype), scaler_of(dtype)


def plain(count: int, inputs: Tensor, targets: Tensor, context: Callable, scaler) -> Callable[[], None]:
    """Return a function that takes some steps of a plain loop."""
    net = network(tuple(inputs.shape[1:]))
    optimizer = sgd(net)

    def steps() -> None:
        for _ in range(count):
            plain_step(net, optimizer, inputs, targets, context, scaler)

    return steps


def own(count: int, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    """Return a function that takes some steps of microstep with precision=amp."""
    precision = amp(CPU)
    net = precision.prepare(network(tuple(inputs.shape[1:])))
    task = Classification([str(n) for n in range(10)], torch.arange(10), CPU)
    step, optimizer = StandardStep(precision, task, task.metrics(), None), sgd(net)
    rows = torch.arange(len(targets))
    window = [Batch(inputs, targets, rows, rows)]
    return lambda: [step(net, optimizer, window, float(len(rows))) for _ in range(count)] and None


def speeds() -> dict[str, float]:
    """Return samples per second as a multiple of fp32, on 28 × 28 images."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(BATCH, 1, 28, 28, generator=generator), torch.randint(0, 10, (BATCH,), generator=generator)
    counts = (10, 10, 1, 10, 10)
    made = (
        plain(counts[0], *data, *kit(torch.float32)),
        plain(counts[1], *data, *pasted()),
        plain(counts[2], *data, *kit(torch.float16)),
        plain(counts[3], *data, *kit(torch.bfloat16)),
        own(counts[4], *data),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the pasted snippet's, at every step
        times = in_turn(dict(zip(SPEEDS, made, strict=True)), ROUNDS)
    rates = {name: BATCH * n / statistics.median(times[name]) for name, n in zip(SPEEDS, counts, strict=True)}
    for name, rate in rates.items():
        print(f"  {name:28} {rate:9,.0f} samples/s")
    scaled = zip(SPEEDS, counts, strict=True)
    return {name: n / counts[0] * ratio(times[SPEEDS[0]], times[name]) for name, n in scaled}


def trained(context: Callable, scaler, clip: str = "no") -> tuple[nn.Module, list[float], int]:
    """Return the network, the losses by step and the steps skipped of some epochs of digits.

    `clip`: to a norm of 1, `before` unscale_, `after` it, or `no`.
    """
    net, (inputs, targets) = network(), digits()
    optimizer, losses, skipped = sgd(net), [], 0
    for epoch in range(EPOCHS):
        for rows in micro_batches(epoch, BATCH):
            optimizer.zero_grad()
            with context():
                loss = F.cross_entropy(net(inputs[rows]), targets[rows])
            scaler.scale(loss).backward()
            if clip == "after":
                scaler.unscale_(optimizer)
            if clip != "no":
                nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scale = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            skipped += scaler.get_scale() < scale
            losses.append(loss.item())
    return net, losses, skipped


def same_bits() -> bool:
    """Return whether the pasted snippet ends with the weights of fp32, bit for bit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = (trained(*made)[0] for made in (pasted(), kit(torch.float32)))
    return torch.equal(flat(one.parameters()), flat(other.parameters()))


def window_gradient(net: nn.Module, dtype: torch.dtype, scale: float) -> Tensor:
    """Return the gradient of 64 digits in a precision, unscaled."""
    inputs, targets = (part[:BATCH] for part in digits())
    net = copy.deepcopy(net)
    if dtype == torch.float64:
        net, inputs = net.double(), inputs.double()
    with torch.autocast("cpu", torch.float16, enabled=dtype == torch.float16):
        loss = F.cross_entropy(net(inputs), targets)
    (loss * scale).backward()
    return gradient(net) / scale


def underflow(epochs: int = 20) -> dict[float, tuple[float, float]]:
    """Return the fraction of gradients that fp16 rounds to 0, and the gradient's error, by scale, after training."""
    net, (inputs, targets) = network(), digits()
    optimizer = sgd(net)
    for epoch in range(epochs):
        for rows in micro_batches(epoch, BATCH):
            plain_step(net, optimizer, inputs[rows], targets[rows], *kit(torch.float32))
    exact = window_gradient(net, torch.float64, 1)
    found = {scale: window_gradient(net, torch.float16, scale) for scale in (1.0, 65536.0)}
    lost = {scale: ((g == 0) & (exact != 0)).sum().item() / (exact != 0).sum().item() for scale, g in found.items()}
    return {scale: (lost[scale], apart(g, exact)) for scale, g in found.items()}


def draw(speed: dict[str, float], losses: dict[str, list[float]]) -> None:
    with picture("precision", widths=(1, 1.05)) as (left, right):
        bars(left, speed, "{:.2f} ×", [EXACT, USUAL, USUAL, MENDED, OURS])
        left.set(title="Speed on a CPU, fp32 = 1 (log scale)", xscale="log", xlim=(0.01, 12))
        left.set_xticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
        for (name, values), colour in zip(losses.items(), (USUAL, OURS), strict=True):
            right.plot(range(1, len(values) + 1), values, color=colour, label=name)
        right.set(title="Loss of digits in fp16, clipped to 1", xlabel="step", ylim=(0, None))
        right.legend(loc="center right")


def main() -> None:
    print("1 mixed precision")
    speed = speeds()
    for name, factor in speed.items():
        print(f"  {name:28} {factor:.3f} × fp32")
    print(f"  the pasted snippet and fp32 end with the same bits: {same_bits()}")
    clipped = {f"clipped {when} unscale_": trained(*kit(torch.float16), when)[1] for when in ("before", "after")}
    for name, losses in clipped.items():
        print(f"  {name}: mean loss of epoch {EPOCHS} {statistics.mean(losses[-23:]):.3f}")
    _, losses, skipped = trained(*kit(torch.float16))
    print(f"  {skipped} of {len(losses)} steps skipped by the scaler: a scheduler of its own would be as many ahead")
    for scale, (lost, error) in underflow().items():
        print(f"  scale {scale:7.0f}: {lost:.2%} of the entries lost, the gradient {error:.2%} off")
    draw(speed, clipped)
