"""Writes what microstep trains to a file for the others: `python -m benchmarks.contestants.prepare FILE OVERRIDES…`."""

import sys
import tempfile

import torch

from microstep.config.compose import compose
from microstep.training.build import build_trainer


def prepare(file: str, overrides: list[str]) -> None:
    """Save the images and labels of both splits as tensors, and the settings of the experiment."""
    config = compose(overrides)
    with tempfile.TemporaryDirectory() as run_dir:
        splits = build_trainer(config, run_dir).loaders.splits
        train, val = ((splits[name].images, splits[name].device_targets) for name in ("train", "val"))
        normalizer = splits["train"].normalizer
    factor, offset = normalizer.factor.flatten() * 255, normalizer.offset.flatten()  # of pixels in 0…1
    padding = round(config.augment.get("padding", 0) * train[0].shape[2])
    model = config.model._target_.rpartition(".")[2]
    settings = {"padding": padding, "model": {"SmallCNN": "small_cnn"}.get(model, model), "epochs": config.epochs}
    torch.save(
        {"train": train, "val": val, "mean": (-offset / factor).tolist(), "std": (1 / factor).tolist()} | settings, file
    )


if __name__ == "__main__":
    prepare(sys.argv[1], sys.argv[2:])
