"""TensorBoard events of a run, written into the run directory."""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.tensorboard.summary import custom_scalars, pr_curve, text

from microstep.components.logger.event_file import EVENT_FILE_PREFIX, EventFile
from microstep.errors import StorageError
from microstep.types.events import EpochReport, Results, WindowReport

MIN_TILE_SIDE = 96  #: smaller images of a grid are magnified to about this width, in pixels
GRID_COLUMNS, GRID_GAP = 8, 4  #: images in a row; pixels between two
MAX_IMAGE_BYTES = 2**19  #: of an image as PNG; a larger one is halved until it fits
MAX_TEXT_BYTES = 2**16  #: of the config; the rest is in config.yaml


class TensorBoard:
    """Writes scalars per window and per epoch, the config, hparams, and the images and curves of the reports.

    Args:
        config_yaml: the resolved config, shown as text.
        hparams: values of the hparams tab by dotted key.
        sample_images: N × C × H × W in 0…1, augmented training images; None if the samples are not images.

    Raises:
        StorageError: from each method, if the disk is full.
    """

    def __init__(
        self,
        directory: Path,
        config_yaml: str,
        hparams: Mapping[str, bool | float | str],
        sample_images: Tensor | None = None,
    ) -> None:
        resumed = any(directory.glob(f"{EVENT_FILE_PREFIX}.*"))
        self.events = EventFile(directory)
        if resumed:  # an earlier file holds the following
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
        """Write `train_epoch/…` and `val/…`, and `best_val/…` if the epoch is the best so far.

        TensorBoard's table shows five metrics by name, so that more of `best_val` would hide those of `test`.
        """
        if report.epoch == 1:  # after a resume from before its end, too
            self.events.add(layout_summary([name for name in report.val if name in report.train]))
        values = prefix_tags("train_epoch", report.train) | prefix_tags("val", report.val)
        best = prefix_tags("best_val", report.shown_val) if report.best else {}
        self.events.add(scalar_summary(values | best), report.epoch)

    def finish(self, results: Results) -> None:
        """Write `test/…` if there is a test split, and the images and precision-recall curves of the reports."""
        best = results.best_epoch
        if results.test:
            self.events.add(scalar_summary(prefix_tags("test", results.test)), best)
            for label, (positive, score) in results.splits["test"].report.curves.items():
                self.events.add(pr_curve(f"test/pr/{label}", positive.numpy(), score.numpy()), best)
        for name, split in results.splits.items():
            for title, file in split.report.images.items():
                self.events.add(image_summary(f"{name}/{title}", file), best)

    def close(self, error: BaseException | None) -> None:
        """Write the status of the run. After an error, a full disk does not hide that error."""
        with suppress(*([StorageError] if error else [])):
            end = SessionEndInfo(status=STATUS_FAILURE if error else STATUS_SUCCESS)
            self.events.add(hparams_summary(metadata.SESSION_END_INFO_TAG, session_end_info=end))


def scalar_summary(values: Mapping[str, float]) -> Summary:
    """Return scalars by tag in a single event: one event for each of seven was measured to take six times as long."""
    return Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])


def prefix_tags(group: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in values.items()}


def code_summary(tag: str, source: str) -> Summary:
    """Return a text that is shown as a block of code, truncated to `MAX_TEXT_BYTES`."""
    if len(source.encode()) > MAX_TEXT_BYTES:
        source = source.encode()[:MAX_TEXT_BYTES].decode(errors="ignore") + "\n…"
    return text(tag, "    " + source.replace("\n", "\n    "))  # Markdown shows indented lines as code


def image_summary(tag: str, file: Path) -> Summary:
    """Return an image file. A PNG within `MAX_IMAGE_BYTES` is stored unchanged."""
    with Image.open(file) as image:
        return limited_image_summary(tag, image, file.read_bytes() if image.format == "PNG" else encode_png(image))


def image_grid_summary(tag: str, images: Tensor) -> Summary:
    """Return N × C × H × W images in 0…1 as a grid, eight in a row. Small images are magnified by a whole number."""
    times = max(1, MIN_TILE_SIDE // images.shape[-1])
    tiles, columns = images.expand(-1, 3 if images.shape[1] == 1 else -1, -1, -1), min(GRID_COLUMNS, len(images))
    tiles = tiles.repeat_interleave(times, 2).repeat_interleave(times, 3)
    tiles = pad(tiles, (GRID_GAP, 0, GRID_GAP, 0, 0, 0, 0, -len(tiles) % columns), value=1.0)
    rows = tiles.reshape(-1, columns, *tiles.shape[1:]).permute(0, 3, 1, 4, 2)  # row, height, column, width, channel
    grid = pad(rows.flatten(2, 3).flatten(0, 1), (0, 0, 0, GRID_GAP, 0, GRID_GAP), value=1.0)
    image = Image.fromarray((grid * 255).byte().numpy(force=True))
    return limited_image_summary(tag, image, encode_png(image))


def limited_image_summary(tag: str, image: Image.Image, png: bytes) -> Summary:
    while len(png) > MAX_IMAGE_BYTES:
        image = image.convert("RGB").reduce(2)
        png = encode_png(image)
    shape = {"height": image.height, "width": image.width, "colorspace": len(image.getbands())}
    return Summary(value=[Summary.Value(tag=tag, image=Summary.Image(**shape, encoded_image_string=png))])


def encode_png(image: Image.Image) -> bytes:
    image.save(png := BytesIO(), "PNG")
    return png.getvalue()


def layout_summary(metrics: Iterable[str]) -> Summary:
    """Return the layout of the custom scalars tab: a chart per metric with its training and validation curves.

    The tab matches tags by patterns. These match a single tag each.
    """
    groups = ("train_epoch", "val")
    charts = {name: ["Multiline", [f"^{group}/{re.escape(name)}$" for group in groups]] for name in metrics}
    return custom_scalars({"training and validation, by epoch": charts})


def session_start_summary(values: Mapping[str, bool | float | str]) -> Summary:
    """Return a run's row in the hparams tab. torch's `add_hparams` would create an additional sub-run.

    The columns are not declared in an `experiment`: TensorBoard would use the declaration of the first run for all
    runs. Without one it collects the columns from all runs and shows first those in which the runs differ.
    """
    start = SessionStartInfo()
    for key, value in values.items():
        field = {bool: "bool_value", str: "string_value"}.get(type(value), "number_value")
        setattr(start.hparams[key], field, value)
    return hparams_summary(metadata.SESSION_START_INFO_TAG, session_start_info=start)


def hparams_summary(tag: str, **content: SessionStartInfo | SessionEndInfo) -> Summary:
    plugin_data = metadata.create_summary_metadata(HParamsPluginData(**content))
    return Summary(value=[Summary.Value(tag=tag, metadata=plugin_data, tensor=metadata.NULL_TENSOR)])
