"""Speed of data loading, against torchvision's per-sample transforms.

    python benchmarks/data.py pipeline            resident crop_flip against transforms in a DataLoader
    python benchmarks/data.py wait [rounds]       an epoch of Fashion-MNIST against one prepared batch repeated
    python benchmarks/data.py folder ROOT         decoding and training on a folder of images
    python benchmarks/data.py streaming ROOT      streamed images alone, against decoding alone and ImageFolder
    python benchmarks/data.py cache ROOT          streamed images alone, while a cache of them is filled and from it

The contestants alternate in one process. Prints medians, and medians of the ratios of pairs.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from microstep.components.dataset.decoding import Decoder
from microstep.components.dataset.files import ImageFiles
from microstep.components.dataset.folder import find_splits
from microstep.components.dataset.images import chunk_rows
from microstep.components.dataset.workers import ReadRequest, WorkerPool
from microstep.components.model import SmallCNN
from microstep.config.compose import compose
from microstep.training.build import build_trainer

MEAN, STD = [0.5], [0.25]
PASSES = 4  #: over the folder's images in a round of decoding; one pass takes half a second
EPOCHS = 20  #: of resident data in a round; one is too short to warm up


def trainer_of(*words: str):
    trainer = build_trainer(compose([*words, "progress=false", "epochs=1000"]), tempfile.mkdtemp())
    epochs = iter(range(1, 1001))

    def epoch() -> None:
        trainer.progress.window = 0  # what the end of an epoch does
        trainer.train_epoch(next(epochs))

    return trainer, epoch


def timed(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return perf_counter() - start


def rounds_of(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return seconds by contestant; each has warmed up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            seconds = timed(run)
            if number:
                times[name].append(seconds)
    return times


def consumed(batches: Iterable[object]) -> None:
    for _ in batches:
        pass


class PerSample(Dataset):
    """Images through torchvision's transforms, one at a time."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images.permute(0, 2, 3, 1).numpy(), labels.tolist()
        size, channels = tuple(images.shape[2:]), images.shape[1]
        crop = [v2.ToImage(), v2.RandomCrop(size, padding=round(size[0] / 8)), v2.RandomHorizontalFlip()]
        self.transform = v2.Compose(
            [*crop, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN * channels, STD * channels)]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int):
        return self.transform(self.images[i]), self.labels[i]


def pipeline() -> None:
    """Print samples per second of the data alone, including crop_flip and normalization."""
    for channels, size in ((1, 28), (3, 32)):
        for batch in (64, 256):
            shape = (f"dataset.channels={channels}", f"dataset.size={size}", "dataset.samples=21000")
            trainer, _ = trainer_of("dataset=synthetic", *shape, "augment=crop_flip", f"batch_size={batch}")
            split, loaders = trainer.loaders.splits["train"], trainer.loaders
            data = PerSample(split.images, split.targets)
            contestants: dict[str, Callable[[], object]] = {
                "resident": lambda loaders=loaders: [
                    consumed(b for w in loaders.train(epoch) for b in w.batches) for epoch in range(EPOCHS)
                ]
            }
            for workers in (0, 1, 2):
                plain = DataLoader(data, batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
                contestants[f"DataLoader, {workers} workers"] = lambda plain=plain: consumed(plain)
            times = rounds_of(contestants, 3)
            times["resident"] = [seconds / EPOCHS for seconds in times["resident"]]
            rates = {name: len(split) / statistics.median(values) for name, values in times.items()}
            best = max(rate for name, rate in rates.items() if name != "resident")
            for name, rate in rates.items():
                print(f"{channels}×{size}×{size} batch {batch:3}  {name:22} {rate:12,.0f} samples/s")
            print(f"{channels}×{size}×{size} batch {batch:3}  resident is {rates['resident'] / best:.1f} × the best\n")


class Prepared:
    """Repeats one prepared batch: an epoch without any data loading."""

    def __init__(self, split) -> None:
        self.targets, self.indices, self.size = split.targets, split.indices, split.size
        rows = torch.arange(256)
        self.batch = split.fetch(rows, rows)

    def __len__(self) -> int:
        return len(self.targets)

    def expect(self, requests) -> None:
        pass

    def fetch(self, rows, positions):
        n = len(rows)
        batch = self.batch
        return replace(batch, inputs=batch.inputs[:n], targets=batch.targets[:n], positions=positions, indices=rows)


def wait(rounds: int) -> None:
    """Print an epoch of training with crop_flip, and on one prepared batch."""
    real, epoch = trainer_of("dataset=fashion_mnist", "augment=crop_flip")
    still, repeated = trainer_of("dataset=fashion_mnist")
    still.loaders.splits = {**still.loaders.splits, "train": Prepared(still.loaders.splits["train"])}
    times = rounds_of({"crop_flip": epoch, "one prepared batch": repeated}, rounds)
    ratio = statistics.median(a / b for a, b in zip(*times.values(), strict=True))
    for name, values in times.items():
        print(f"{name:20} {statistics.median(values):8.2f} s an epoch")
    waited = real.loaders.wait_timer.waited / (rounds + 1) / statistics.median(times["crop_flip"])
    print(f"ratio {ratio:.3f}, waited for data {waited:.1%} of the time")


def decoding(root: Path) -> None:
    """Print images per second, read as for statistics and a resident dataset."""
    pictures = find_splits(root, Decoder(64, 64, 3))["train"]
    wanted = [ReadRequest("train", rows) for rows in chunk_rows(list(range(len(pictures))) * PASSES, pictures)]
    pools = {count: WorkerPool({"train": pictures}, count) for count in (0, 1, 2)}
    times = rounds_of({str(n): lambda pool=pool: consumed(pool.stream(wanted)) for n, pool in pools.items()}, 7)
    for count, values in times.items():
        print(f"decoding, {count} workers   {PASSES * len(pictures) / statistics.median(values):8,.0f} pictures/s")
    print(f"2 workers are {statistics.median(a / b for a, b in zip(times['1'], times['2'], strict=True)):.2f} × one")


class DecodingAlone(Dataset):
    """Decodes the rows of a batch and returns their number: no other work, and nothing to send."""

    def __init__(self, images: ImageFiles) -> None:
        self.images = images

    def __getitem__(self, rows: list[int]) -> int:
        return len(self.images.read(rows))


def decoding_alone(images: ImageFiles, batch: int, workers: int) -> DataLoader:
    batches = [rows.tolist() for rows in torch.randperm(len(images)).split(batch)]
    keys = {"num_workers": workers, "persistent_workers": workers > 0}
    return DataLoader(DecodingAlone(images), batch_size=None, sampler=batches, **keys)


def torchvision_loader(root: Path, size: int, workers: int, augment: str = "crop_flip") -> DataLoader:
    resize, finish = [v2.Resize(size), v2.CenterCrop(size)], [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    crop_flip = [v2.RandomCrop(size, padding=size // 8), v2.RandomHorizontalFlip()] if augment == "crop_flip" else []
    data = ImageFolder(str(root / "train"), v2.Compose([*resize, *crop_flip, *finish, v2.Normalize(MEAN * 3, STD * 3)]))
    return DataLoader(data, 64, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def streaming(root: Path) -> None:
    """Print samples per second of streamed images alone, including augmentation and normalization."""
    images = find_splits(root, Decoder(64, 64, 3))["train"]
    common = ("dataset=image_folder", f"dataset.root={root}", "dataset.resident=false", "model.width=8")
    for workers in (0, 1, 2):
        limit = decoding_alone(images, 64, workers)
        contestants: dict[str, Callable[[], object]] = {"decoding alone": lambda limit=limit: consumed(limit)}
        samples = {"decoding alone": len(images)}
        for augment in ("none", "crop_flip"):
            trainer, _ = trainer_of(*common, f"augment={augment}", f"num_workers={workers}")
            epochs, loaders = iter(range(1, 1001)), trainer.loaders
            contestants[f"microstep, {augment}"] = lambda epochs=epochs, loaders=loaders: consumed(
                batch for window in loaders.train(next(epochs)) for batch in window.batches
            )
            plain = torchvision_loader(root, 64, workers, augment)
            contestants[f"ImageFolder, {augment}"] = lambda plain=plain: consumed(plain)
            samples |= {f"microstep, {augment}": loaders.samples, f"ImageFolder, {augment}": len(plain.dataset)}
        times = rounds_of(contestants, 3)
        for name, values in times.items():
            rates = [samples[name] / seconds for seconds in values]
            shares = [rate / len(images) * limit for rate, limit in zip(rates, times["decoding alone"], strict=True)]
            print(
                f"{workers} workers  {name:22} {statistics.median(rates):8,.0f} samples/s "
                f"({min(rates):,.0f}…{max(rates):,.0f}), {statistics.median(shares):.2f} of decoding alone"
            )


def cache(root: Path) -> None:
    """Print samples per second of an epoch without a cache, of one that fills it, and of one that reads it."""
    common = ("dataset=image_folder", f"dataset.root={root}", "dataset.resident=false", "augment=crop_flip")
    for workers in (0, 1, 2):
        times: dict[str, list[float]] = {"without a cache": [], "filling the cache": [], "from the cache": []}
        for number in range(4):
            with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
                for option, names in (("null", ["without a cache"]), (place, ["filling the cache", "from the cache"])):
                    trainer, _ = trainer_of(*common, f"dataset.cache={option}", f"num_workers={workers}")
                    consumed(trainer.loaders.evaluation("val"))  # starts the workers
                    for epoch, name in enumerate(names, 1):
                        windows = trainer.loaders.train(epoch)
                        seconds = timed(lambda w=windows: consumed(batch for window in w for batch in window.batches))
                        times[name] += [seconds] if number else []
        for name, values in times.items():
            rates = [trainer.loaders.samples / seconds for seconds in values]
            print(
                f"{workers} workers  {name:18} {statistics.median(rates):8,.0f} samples/s "
                f"({min(rates):,.0f}…{max(rates):,.0f})"
            )
        pairs = zip(times["filling the cache"], times["from the cache"], strict=True)
        print(f"{workers} workers  the second epoch is {statistics.median(a / b for a, b in pairs):.1f} × as fast")


def torchvisions(root: Path, size: int, width: int) -> Callable[[], None]:
    """Return an epoch with ImageFolder and a DataLoader."""
    loader = torchvision_loader(root, size, workers=2)
    model = SmallCNN((3, size, size), len(loader.dataset.classes), width).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, fused=True)

    def epoch() -> None:
        for inputs, targets in loader:
            optimizer.zero_grad()
            inputs = inputs.to(memory_format=torch.channels_last)
            F.cross_entropy(model(inputs), targets, label_smoothing=0.1).backward()
            optimizer.step()

    return epoch


def folder(root: Path) -> None:
    """Print decoding, then epochs of training."""
    decoding(root)
    common = ("dataset=image_folder", f"dataset.root={root}", "augment=crop_flip", "model.width=8")
    streaming, stream = trainer_of(*common, "dataset.resident=false", "num_workers=2")
    _, resident = trainer_of(*common)
    plain = torchvisions(root, 64, 8)
    times = rounds_of({"streaming": stream, "resident": resident, "ImageFolder": plain}, 5)
    for name, values in times.items():
        pairs = statistics.median(a / b for a, b in zip(times["ImageFolder"], values, strict=True))
        print(f"{name:12} {statistics.median(values):6.2f} s an epoch; ImageFolder takes {pairs:.2f} × that")
    print(f"streaming waited {streaming.loaders.wait_timer.waited / 6:.2f} s an epoch for data")


if __name__ == "__main__":
    what, *more = sys.argv[1:] or ["pipeline"]
    {
        "pipeline": lambda: pipeline(),
        "wait": lambda: wait(int(more[0]) if more else 3),
        "folder": lambda: folder(Path(more[0])),
        "streaming": lambda: streaming(Path(more[0])),
        "cache": lambda: cache(Path(more[0])),
    }[what]()
