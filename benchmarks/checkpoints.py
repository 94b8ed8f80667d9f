"""Cost of checkpoints: `python benchmarks/checkpoints.py [pairs]`.

Trains resnet18 on synthetic 32×32 images with a durable checkpoint after every epoch (logs flushed, the previous
checkpoint verified), and with saves that do nothing. Two epochs with and two without alternate. The ratio is the median
over the pairs. The second thread writes during the next epoch; its last write is included. The pause is the time that
training is blocked.
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from microstep.config.compose import compose
from microstep.training.build import build_trainer
from microstep.training.trainer import Trainer

WORDS = (
    *("dataset=synthetic", "dataset.size=32", "dataset.channels=3", "dataset.samples=2000", "dataset.classes=10"),
    *("model=resnet18", "batch_size=64", "progress=false", "epochs=1000"),
)


def timed(trainer: Trainer, first: int, saving: bool) -> float:
    """Return the seconds of two epochs, each with its checkpoint, until the last of them is on the disk."""
    trainer.__dict__.pop("save", None)
    if not saving:
        trainer.__dict__["save"] = lambda best=False: None
    began = perf_counter()
    for epoch in (first, first + 1):
        trainer.run_epoch(epoch)
    trainer.checkpoints.wait()
    return perf_counter() - began


def main(pairs: int) -> None:
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as place:
        trainer = build_trainer(compose(WORDS), Path(place) / "run")
        trainer.run_epoch(1)
        seconds = [timed(trainer, 2 * n + 2, saving=n % 2 == 0) for n in range(2 * pairs)]
        saving = trainer.checkpoints.saving
    on, off = seconds[::2], seconds[1::2]
    print(f"epoch with checkpoints    {statistics.median(on) / 2:8.3f} s")
    print(f"epoch without             {statistics.median(off) / 2:8.3f} s")
    print(f"ratio, median of pairs    {statistics.median(a / b for a, b in zip(on, off, strict=True)):8.4f}")
    print(f"checkpoint                {saving.bytes / 1e6:8.1f} MB")
    print(f"pause per save            {1000 * saving.pause_seconds / saving.saves:8.1f} ms")
    print(f"written in                {1000 * saving.write_seconds / saving.saves:8.1f} ms, by a second thread")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
