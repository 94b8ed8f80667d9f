"""TensorBoard events, in the run directory itself: a run is one line in the browser."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.metadata import (
    NULL_TENSOR,
    SESSION_END_INFO_TAG,
    SESSION_START_INFO_TAG,
    create_summary_metadata,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from torch import Tensor
from torch.utils.tensorboard.summary import custom_scalars, pr_curve, text
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid

from microstep.components.logger.event_file import EVENT_FILE_PREFIX, EventFile
from microstep.config.hparams import HparamValue
from microstep.errors import StorageError
from microstep.types.events import EpochReport, Results, WindowReport


class TensorBoard:
    """Writes scalars by window and by epoch, the config as text, a row of hparams, and at the end pictures and curves.

    Args:
        directory: the run's.
        config_yaml: shown as it is.
        hparams: of the hparams tab, by dotted key.
        sample_images: N × C × H × W in 0…1: some of the pictures to be trained on, as the model sees them.
    """

    def __init__(
        self, directory: Path, config_yaml: str, hparams: Mapping[str, HparamValue], sample_images: Tensor | None = None
    ) -> None:
        begun = any(directory.glob(f"{EVENT_FILE_PREFIX}.*"))
        self.events = EventFile(directory)
        if begun:  # a run that is taken up again has said that already
            return
        self.events.add(code_summary("config", config_yaml))
        self.events.add(session_start_summary(hparams))
        if sample_images is not None:
            self.events.add(image_grid_summary("train/pictures", sample_images))

    def window(self, report: WindowReport) -> None:
        """Write `train/…`."""
        values = asdict(report)
        window = values.pop("window")
        self.events.add(scalar_summary(prefix_tags("train", values)), window)

    def epoch(self, report: EpochReport) -> None:
        """Write `train_epoch/…` and `val/…`, and `best_val/…` where it is the best so far; first of all the layout."""
        if report.epoch == 1:  # a run that is taken up again before its end writes that epoch again
            self.events.add(layout_summary([name for name in report.val if name in report.train]))
        values = prefix_tags("train_epoch", report.train) | prefix_tags("val", report.val)
        best = prefix_tags("best_val", report.val) if report.best else {}
        self.events.add(scalar_summary(values | best), report.epoch)

    def finish(self, results: Results) -> None:
        """Write `test/…`, the reports' pictures, and precision-recall curves."""
        best = results.best_epoch
        self.events.add(scalar_summary(prefix_tags("test", results.test)), best)
        for name, split in results.splits.items():
            for title, file in split.report.pictures.items():
                self.events.add(image_summary(f"{name}/{title}", file), best)
        for label, (positive, score) in results.splits["test"].report.curves.items():
            self.events.add(pr_curve(f"test/pr/{label}", positive.numpy(), score.numpy()), best)

    def close(self, error: BaseException | None) -> None:
        """Write how the run ended; where there is no room for it, what ended the run is what is told."""
        with suppress(*([StorageError] if error else [])):
            self.events.add(session_end_summary(failed=error is not None))


MIN_TILE_SIDE = 96  #: pixels that a picture of the grid has at least, or nearly
MAX_IMAGE_BYTES = 2**19  #: of a picture as PNG, at most: a larger one is halved until it fits
MAX_TEXT_BYTES = 2**16  #: of the config; the rest is in config.yaml


def scalar_summary(values: Mapping[str, float]) -> Summary:
    """Return scalars by tag: what belongs together is one event, for seven of them were seen to cost six times more."""
    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def prefix_tags(group: str, values: Mapping[str, float]) -> dict[str, float]:
    """Return values by tag."""
    return {f"{group}/{name}": value for name, value in values.items()}


def code_summary(tag: str, source: str) -> Summary:
    """Return a text as a block of code."""
    if len(source.encode()) > MAX_TEXT_BYTES:
        source = source.encode()[:MAX_TEXT_BYTES].decode(errors="ignore") + "\n…"
    return text(tag, "    " + source.replace("\n", "\n    "))  # indented, it is code to Markdown


def image_summary(tag: str, file: Path) -> Summary:
    """Return a picture, the file itself if it is a PNG that is small enough."""
    with Image.open(file) as image:
        return limited_image_summary(tag, image, file.read_bytes() if image.format == "PNG" else encode_png(image))


def image_grid_summary(tag: str, images: Tensor) -> Summary:
    """Return N × C × H × W pictures side by side, eight in a row; small ones are magnified, pixel by pixel."""
    times = max(1, MIN_TILE_SIDE // images.shape[-1])
    magnified = images.repeat_interleave(times, 2).repeat_interleave(times, 3)
    image = to_pil_image(make_grid(magnified, padding=4, pad_value=1.0))
    return limited_image_summary(tag, image, encode_png(image))


def limited_image_summary(tag: str, image: Image.Image, png: bytes) -> Summary:
    """Return an image that takes no more bytes than a picture may."""
    while len(png) > MAX_IMAGE_BYTES:
        image = image.convert("RGB").reduce(2)
        png = encode_png(image)
    shape = {"height": image.height, "width": image.width, "colorspace": len(image.getbands())}
    return Summary(value=[Summary.Value(tag=tag, image=Summary.Image(**shape, encoded_image_string=png))])


def encode_png(image: Image.Image) -> bytes:
    """Return an image as PNG."""
    image.save(png := BytesIO(), "PNG")
    return png.getvalue()


def layout_summary(metrics: Iterable[str]) -> Summary:
    """Return the charts of the custom scalars tab: each metric's training and validation by epoch on one."""
    charts = {
        name: ["Multiline", [exact_tag_pattern(f"{group}/{name}") for group in ("train_epoch", "val")]]
        for name in metrics
    }
    return custom_scalars({"training and validation, by epoch": charts})


def exact_tag_pattern(tag: str) -> str:
    """Return the pattern of this tag alone: the tab takes tags for patterns of beginnings."""
    return f"^{re.escape(tag)}$"


def session_start_summary(values: Mapping[str, HparamValue]) -> Summary:
    """Return a run's row in the hparams tab; `add_hparams` would make a stray sub-run.

    Nothing is said of the columns (an `experiment` in its words): the tab then finds them itself, over all runs, those
    first in which the runs differ. It would take the first run's word for every other.
    """
    start = SessionStartInfo()
    for key, value in values.items():
        kind = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
        setattr(start.hparams[key], kind, value)
    return hparams_summary(SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=start))


def session_end_summary(failed: bool) -> Summary:
    """Return how a run ended, for its row."""
    end = SessionEndInfo(status=STATUS_FAILURE if failed else STATUS_SUCCESS)
    return hparams_summary(SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))


def hparams_summary(tag: str, content: HParamsPluginData) -> Summary:
    """Return a summary for the hparams tab."""
    return Summary(value=[Summary.Value(tag=tag, metadata=create_summary_metadata(content), tensor=NULL_TENSOR)])
