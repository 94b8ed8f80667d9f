"""Steady epochs, evaluation included: microstep with everything on, a bare hand-written loop, the tutorials' loop.

    python benchmarks/epochs.py digits|fashion_mnist [rounds]

They alternate in one process, one epoch each. Prints medians and ratios. microstep has bars, TensorBoard, metrics.csv,
run.json and a checkpoint per epoch. The bare loop has none of these, a resident, normalized dataset and a fused
optimizer. The tutorials' loop is a DataLoader over per-sample transforms with tqdm and `.item()` in each step. The
times do not include start-up and the final report.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
from collections.abc import Callable
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from tqdm import tqdm

from microstep.components.model import SmallCNN
from microstep.components.scheduler import cosine
from microstep.config.compose import compose
from microstep.training.build import build_trainer

BATCH, SMOOTHING, MANY = 64, 0.1, 10_000


def ours(words: list[str]):
    """Return a function that runs one epoch of the framework, everything on, bars drawn into a buffer."""
    trainer = build_trainer(compose([*words, f"epochs={MANY}"]), tempfile.mkdtemp())
    trainer.loggers.bars.is_shown = True
    epochs = iter(trainer.loggers.epochs(1, MANY))
    return trainer, lambda: trainer.run_epoch(next(epochs))


def model_of(trainer) -> tuple[torch.nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    split = trainer.loaders.splits["train"]
    model = SmallCNN(tuple(split.images.shape[1:]), 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=True)
    return model, optimizer, cosine(optimizer, MANY * len(split) // BATCH)


def normalised(split) -> tuple[Tensor, Tensor]:
    return split.normalizer(split.images), split.device_targets


def bare(trainer, memory_format: torch.memory_format = torch.contiguous_format) -> Callable[[], None]:
    """Return an epoch of the shortest loop that does the same mathematics."""
    model, optimizer, scheduler = model_of(trainer)
    model = model.to(memory_format=memory_format)
    (inputs, targets), (val_inputs, val_targets) = (normalised(trainer.loaders.splits[n]) for n in ("train", "val"))
    inputs, val_inputs = inputs.to(memory_format=memory_format), val_inputs.to(memory_format=memory_format)

    def epoch() -> None:
        model.train()
        for rows in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[rows]), targets[rows], label_smoothing=SMOOTHING).backward()
            optimizer.step()
            scheduler.step()
        model.eval()
        loss = right = 0.0
        with torch.inference_mode():
            for x, y in zip(val_inputs.split(4 * BATCH), val_targets.split(4 * BATCH), strict=True):
                outputs = model(x)
                loss += F.cross_entropy(outputs, y, label_smoothing=SMOOTHING, reduction="sum").item()
                right += (outputs.argmax(1) == y).sum().item()

    return epoch


class PerSample(Dataset):
    """Images through torchvision's transforms, one at a time."""

    def __init__(self, split) -> None:
        self.images, self.labels = split.images.squeeze(1).numpy(), split.device_targets.tolist()
        own = split.normalizer
        mean, std = (-own.offset / own.factor).item() / 255, (1 / own.factor).item() / 255
        parts = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([mean], [std])]
        self.transform = v2.Compose(parts)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(self.images[i][..., None]), self.labels[i]


def tutorial(trainer) -> Callable[[], None]:
    """Return an epoch of the loop that most tutorials show."""
    model, optimizer, scheduler = model_of(trainer)
    train = DataLoader(PerSample(trainer.loaders.splits["train"]), BATCH, shuffle=True)
    val = DataLoader(PerSample(trainer.loaders.splits["val"]), BATCH)

    def epoch() -> None:
        model.train()
        bar = tqdm(train, file=io.StringIO())
        for inputs, targets in bar:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets, label_smoothing=SMOOTHING)
            loss.backward()
            optimizer.step()
            scheduler.step()
            bar.set_postfix(loss=loss.item())
        model.eval()
        right = 0
        with torch.no_grad():
            for inputs, targets in tqdm(val, file=io.StringIO()):
                right += (model(inputs).argmax(1) == targets).sum().item()

    return epoch


def timed(epoch: Callable[[], None]) -> float:
    start = perf_counter()
    epoch()
    return perf_counter() - start


def main() -> None:
    dataset = sys.argv[1] if len(sys.argv) > 1 else "digits"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else {"digits": 60}.get(dataset, 3)
    shown, sys.stderr = sys.stderr, io.StringIO()
    trainer, own = ours([f"dataset={dataset}", "task.label_smoothing=0.1"])
    contestants = {
        "microstep": own,
        "bare loop": bare(trainer),
        "bare loop, channels-last": bare(trainer, torch.channels_last),
        "tutorial loop": tutorial(trainer),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(2 if dataset == "digits" else 1):
        for epoch in contestants.values():
            epoch()  # warm up
    for _ in range(rounds):
        for name, epoch in contestants.items():
            times[name].append(timed(epoch))
    sys.stderr = shown
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        pairs = statistics.median(a / b for a, b in zip(times["microstep"], times[name], strict=True))
        print(f"{dataset:14} {name:25} {median * 1e3:9.1f} ms an epoch   microstep takes {pairs:.3f} of it")


if __name__ == "__main__":
    main()
