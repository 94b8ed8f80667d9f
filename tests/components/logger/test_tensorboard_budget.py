"""Tests of the limits on the size of TensorBoard events."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from microstep.components.dataset import ResidentSplit
from microstep.components.dataset.normalization import Normalizer
from microstep.components.logger.tensorboard import TensorBoard
from microstep.components.task import Classification
from microstep.types.data import Predictions, Report
from microstep.types.events import EpochReport, Results, SavingCost, SplitResult, WindowReport

BUDGET = 4 * 2**20  #: bytes, as docs/tensorboard.md has it, besides what grows with the run
CPU = torch.device("cpu")
VALUES = {"loss": 1.0, "accuracy": 0.5, "f1_macro": 0.5, "f1_weighted": 0.5}


def report_of(classes: int, samples: int, directory: Path) -> Report:
    """Write a report of predictions for images of noise, half of them wrong."""
    directory.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (samples,), generator=generator)
    pixels = torch.randint(0, 256, (samples, 3, 64, 64), dtype=torch.uint8, generator=generator)
    normaliser = Normalizer(255.0, [0.0] * 3, [1.0] * 3, CPU)
    split = ResidentSplit(pixels, labels, torch.arange(samples), normaliser, CPU)
    outputs = 3 * torch.randn(samples, classes, generator=generator)
    outputs[torch.arange(0, samples, 2), labels[::2]] += 12
    task = Classification([f"{n}, a class with quite a long name" for n in range(classes)], labels, CPU)
    return task.report(Predictions(outputs, labels, split.indices, split, CPU), directory)


def test_a_thousand_classes_stay_within_the_budget(tmp_path: Path, caplog):
    """Reports of 1000 classes, noise images and a config of megabytes are all written and stay small."""
    caplog.set_level(logging.ERROR)
    noise = torch.rand(32, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    splits = {name: SplitResult(VALUES, report_of(1000, 3000, tmp_path / "reports" / name)) for name in ("val", "test")}
    board = TensorBoard(tmp_path, "weights: 0.5, 0.5\n" * 200_000, {"task.class_weights": "x" * 200}, noise)
    board.finish(Results(tmp_path, 1, 1, 0, 1, 1.0, 2**30, SavingCost(0, 0, 0.0, 0.0), splits))
    board.close(None)
    assert board.events.file.stat().st_size < BUDGET
    events = EventAccumulator(str(tmp_path), {"images": 0}).Reload()
    assert len(events.Tags()["images"]) == 7
    assert len([tag for tag in events.Tags()["tensors"] if tag.startswith("test/pr/")]) == 20
    for tag in events.Tags()["images"]:
        (event,) = events.Images(tag)
        with Image.open(io.BytesIO(event.encoded_image_string)) as image:
            assert image.size == (event.width, event.height)
            assert min(image.size) > 200  # small enough, and large enough to be looked at


def test_what_grows_with_a_run_is_small(tmp_path: Path):
    """A reported window takes less than 500 bytes, an epoch less than 1000."""
    board = TensorBoard(tmp_path, "a: 1", {})
    board.epoch(EpochReport(1, 9, 1, 1, 0, VALUES, VALUES, 0.1, 1.0, 1.0, True))  # the layout comes with the first
    for size, report in (
        (500, WindowReport(10**9, 2.5, 0.1, 1.0, 1.0, 0, 1.0, 0.0)),
        (1000, EpochReport(2, 9, 1, 1, 0, VALUES, VALUES, 0.1, 1.0, 1.0, True)),
    ):
        before = board.events.file.stat().st_size
        (board.window if isinstance(report, WindowReport) else board.epoch)(report)
        assert board.events.file.stat().st_size - before < size


@pytest.mark.parametrize(("side", "shown"), [(100, 100), (2000, 500)])
def test_a_picture_is_halved_until_it_fits(tmp_path: Path, side: int, shown: int):
    """A small image is stored byte by byte. A large one is scaled down as a whole."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    pixels[: side // 2] //= 8
    file = tmp_path / "noise.png"
    Image.fromarray(pixels).save(file)
    report = Report("", {"noise": file})
    splits = {"val": SplitResult(VALUES, report), "test": SplitResult(VALUES, Report(""))}
    board = TensorBoard(tmp_path, "a: 1", {})
    board.finish(Results(tmp_path, 1, 1, 0, 1, 1.0, 2**30, SavingCost(0, 0, 0.0, 0.0), splits))
    (event,) = EventAccumulator(str(tmp_path)).Reload().Images("val/noise")
    assert (event.width, event.height) == (shown, shown)
    assert (event.encoded_image_string == file.read_bytes()) == (side == shown)
    with Image.open(io.BytesIO(event.encoded_image_string)) as image:
        brightness = np.asarray(image.convert("L")).astype(float)
    assert brightness[: shown // 2].mean() * 6 < brightness[shown // 2 :].mean()
