"""TensorBoard events, in the run directory itself: a run is one line in the browser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor
from torch.utils.tensorboard.summary import hparams, image, pr_curve, text
from torchvision.utils import make_grid

from microstep.logger.events import PREFIX, EventsFile
from microstep.logger.records import EpochReport, Results, WindowReport

SIDE = 96  #: pixels that a picture of the grid has at least, or nearly


class TensorBoard:
    """Writes scalars by window and by epoch, the config as text, and at the end pictures, curves and hparams.

    Scalars that belong together are one event: seven `add_scalar` calls were seen to cost six times as much.

    Args:
        directory: the run's.
        config_yaml: shown as it is.
        settings: of the hparams tab.
        pictures: N × C × H × W in 0…1: some of those to be trained on, as the model sees them.
    """

    def __init__(
        self, directory: Path, config_yaml: str, settings: Mapping[str, Any], pictures: Tensor | None = None
    ) -> None:
        begun = any(directory.glob(f"{PREFIX}.*"))
        self.events = EventsFile(directory)
        self.settings = flat(settings)
        if begun:  # a run that is taken up again has said that already
            return
        self.events.add(text("config", "    " + config_yaml.replace("\n", "\n    ")))  # indented: a code block
        if pictures is not None:
            self.events.add(image("train/pictures", grid(pictures), dataformats="CHW"))

    def window(self, report: WindowReport) -> None:
        """Write `train/…`."""
        values = {
            "loss": report.loss,
            "lr": report.lr,
            "grad_norm": report.grad_norm,
            "loss_scale": report.loss_scale,
            "skipped_steps": report.skipped_steps,
            "samples_per_second": report.samples_per_second,
            "data_wait_fraction": report.data_wait_fraction,
        }
        self.scalars("train", values, report.window)

    def epoch(self, report: EpochReport) -> None:
        """Write `val/…`."""
        self.scalars("val", report.val, report.epoch)

    def scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write one event of several scalars."""
        summary = Summary(value=[Summary.Value(tag=f"{group}/{name}", simple_value=v) for name, v in values.items()])
        self.events.add(summary, step)

    def finish(self, results: Results) -> None:
        """Write `test/…`, pictures, precision-recall curves and the hparams table's row."""
        self.scalars("test", results.test, results.best_epoch)
        for name, split in results.splits.items():
            for title, file in split.report.pictures.items():
                pixels = np.asarray(Image.open(file).convert("RGB"))
                self.events.add(image(f"{name}/{title}", pixels, dataformats="HWC"), results.best_epoch)
        for label, (positive, score) in results.splits["test"].report.curves.items():
            self.events.add(pr_curve(f"test/pr/{label}", positive.numpy(), score.numpy()), results.best_epoch)
        self.write_hparams(results)

    def write_hparams(self, results: Results) -> None:
        """Write settings and metrics as one run of the hparams tab; `add_hparams` would make a stray sub-run."""
        metrics = {f"test/{name}": value for name, value in results.test.items()}
        for part in hparams(self.settings, metrics):
            self.events.add(part)

    def close(self, error: BaseException | None) -> None:
        """Nothing is held open."""


def grid(pictures: Tensor) -> Tensor:
    """Return pictures side by side, eight in a row; small ones are magnified, pixel by pixel."""
    times = max(1, SIDE // pictures.shape[-1])
    magnified = pictures.repeat_interleave(times, 2).repeat_interleave(times, 3)
    tiled: Tensor = make_grid(magnified, padding=4, pad_value=1.0)
    return tiled


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Return nested settings as dotted keys with values of the types that the hparams tab knows.

    A part is shown under its group's name by what it builds: `model: SmallCNN`.
    """
    rows: dict[str, bool | int | float | str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            rows |= flat(value, f"{prefix}{key}.")
        elif key == "_target_":
            rows[prefix.removesuffix(".")] = str(value).rpartition(".")[2]
        else:
            rows[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return rows
