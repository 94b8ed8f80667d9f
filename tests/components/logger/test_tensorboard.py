"""Tests of the tags and values in a run's TensorBoard events."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.pr_curve.plugin_data_pb2 import PrCurvePluginData
from torchvision.utils import make_grid

from microstep.components.logger.tensorboard import TensorBoard, image_grid_summary
from microstep.config.compose import compose
from microstep.config.hparams import extract_hparams
from microstep.errors import Stopped, StorageError
from microstep.training.build import build_trainer
from microstep.types.events import EpochReport, WindowReport
from tests.conftest import files_limited

TRAIN = ["loss", "lr", "grad_norm", "loss_scale", "skipped_steps", "samples_per_second", "data_wait_fraction"]
METRICS = ["loss", "accuracy", "f1_macro", "f1_weighted"]
REPORTED = ("confusion_matrix", "reliability", "worst_mistakes")
PICTURES = [f"{split}/{name}" for split in ("val", "test") for name in REPORTED]
CURVES = [f"test/pr/{digit}" for digit in range(10)]
EVERYTHING = {"scalars": 0, "images": 0, "tensors": 0}


@pytest.fixture(scope="module")
def events(trained) -> EventAccumulator:
    """Return all events of the run."""
    return EventAccumulator(str(trained), EVERYTHING).Reload()


def raw(directory: Path) -> list:
    """Return the events of the directory's only event file, in order."""
    (file,) = directory.glob("events.out.tfevents.*")
    return list(EventFileLoader(str(file)).Load())


def hparams(events: EventAccumulator, part: str) -> HParamsPluginData:
    return HParamsPluginData.FromString(events.PluginTagToContent("hparams")[f"_hparams_/{part}"])


def test_the_tags_are_those_that_are_promised(events):
    """The tags of scalars, images, curves and the config are exactly the documented ones."""
    tags = events.Tags()
    evaluated = {group: [*METRICS, "nll"] for group in ("val", "test")}
    by_group = {"train": TRAIN, "train_epoch": METRICS, "best_val": ["loss", "accuracy"], **evaluated}
    assert set(tags["scalars"]) == {f"{group}/{name}" for group, names in by_group.items() for name in names}
    assert set(tags["images"]) == {"train/pictures", *PICTURES}
    row = {"_hparams_/session_start_info", "_hparams_/session_end_info"}
    assert set(tags["tensors"]) == {"config/text_summary", "custom_scalars__config__", *row, *CURVES}
    assert {name for name, content in tags.items() if content} == {"scalars", "images", "tensors"}


def test_windows_are_one_event_each_every_log_every_steps(trained):
    """Every fifth of 69 windows has one event with seven values."""
    windows = [e for e in raw(trained) if any(v.tag == "train/loss" for v in e.summary.value)]
    assert [event.step for event in windows] == list(range(5, 70, 5))
    for event in windows:
        assert [value.tag for value in event.summary.value] == [f"train/{name}" for name in TRAIN]


def test_what_a_window_says_is_plausible(events):
    """The loss falls, the norm is positive, fp32 neither scales nor skips, and the wait is a fraction."""
    values = {name: np.array([event.value for event in events.Scalars(f"train/{name}")]) for name in TRAIN}
    assert values["loss"][-1] < values["loss"][0]
    assert (values["grad_norm"] > 0).all()
    assert (values["loss_scale"] == 1).all()
    assert (values["skipped_steps"] == 0).all()
    assert (values["samples_per_second"] > 0).all()
    assert ((values["data_wait_fraction"] >= 0) & (values["data_wait_fraction"] < 1)).all()


def test_the_rate_is_that_of_the_step(events):
    """The learning rate follows warm-up over six of 69 steps, then the cosine schedule."""
    for event in events.Scalars("train/lr"):
        step = event.step - 1
        factor = (step + 1) / 7 if step < 6 else 0.5 * (1 + np.cos(np.pi * (step - 6) / 63))
        assert event.value == pytest.approx(0.03 * factor, rel=1e-5)


def test_validation_is_by_epoch_and_the_test_once(events, trained):
    """Validation is logged at epochs 1, 2 and 3, and the test metrics of run.json at the best epoch."""
    record = json.loads((trained / "run.json").read_text())["metrics"]
    for name in METRICS:
        assert [event.step for event in events.Scalars(f"val/{name}")] == [1, 2, 3]
        (test,) = events.Scalars(f"test/{name}")
        assert (test.step, test.value) == (record["best"]["epoch"], np.float32(record["test"][name]))


def test_the_config_is_there_as_text(events, trained):
    """The config is a code block with the lines of config.yaml."""
    (event,) = events.Tensors("config/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    lines = [line.removeprefix("    ") for line in text.splitlines()]
    assert yaml.safe_load("\n".join(lines)) == yaml.safe_load((trained / "config.yaml").read_text())
    assert all(line.startswith("    ") for line in text.splitlines())


@pytest.mark.parametrize("tag", PICTURES)
def test_the_pictures_are_the_reports(events, trained, tag):
    """Each image equals the PNG in reports/ pixel by pixel."""
    (event,) = events.Images(tag)
    with Image.open(io.BytesIO(event.encoded_image_string)) as shown, Image.open(trained / f"reports/{tag}.png") as own:
        np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), np.asarray(own.convert("RGB")))


def test_training_pictures_are_shown_as_the_model_sees_them(events, tmp_path):
    """The grid shows the first 32 images of epoch 1, eight in a row, magnified by a whole number."""
    (event,) = events.Images("train/pictures")
    trainer = build_trainer(compose(["progress=false"]), tmp_path)
    first = next(iter(next(trainer.loaders.train(1)).batches))
    with Image.open(io.BytesIO(event.encoded_image_string)) as shown:
        pixels = np.asarray(shown.convert("L"))
    assert pixels.shape == (4 * 100 + 4, 8 * 100 + 4)  # eight pixels of twelve, and a margin of four
    one = pixels[104:200:12, 204:300:12]  # the third of the second row
    np.testing.assert_allclose(one / 255, trainer.loaders.splits["train"].to_images(first.inputs)[10, 0], atol=0.01)


@pytest.mark.parametrize("shape", [(32, 1, 8, 8), (9, 3, 100, 70), (5, 3, 96, 96)])
def test_the_grid_is_that_of_torchvision(shape):
    """Images lie as in torchvision's grid, pixel by pixel: eight in a row, fewer if there are fewer."""
    images = torch.rand(shape)
    (value,) = image_grid_summary("grid", images).value
    magnified = images.repeat_interleave(max(1, 96 // shape[3]), 2).repeat_interleave(max(1, 96 // shape[3]), 3)
    expected = (make_grid(magnified, padding=4, pad_value=1.0) * 255).byte().permute(1, 2, 0)
    with Image.open(io.BytesIO(value.image.encoded_image_string)) as shown:
        np.testing.assert_array_equal(np.asarray(shown), expected.numpy())


@pytest.mark.parametrize("digit", [0, 8])
def test_the_curves_are_of_the_test_split(events, trained, digit):
    """Curves are one class against the rest over all 180 samples. At threshold 0, all are positive."""
    (event,) = events.Tensors(f"test/pr/{digit}")
    metadata = events.SummaryMetadata(f"test/pr/{digit}").plugin_data
    assert metadata.plugin_name == "pr_curves"
    shape = [dim.size for dim in event.tensor_proto.tensor_shape.dim]
    assert shape == [6, PrCurvePluginData.FromString(metadata.content).num_thresholds]
    positives, negatives = np.array(event.tensor_proto.float_val).reshape(shape)[:2, 0]
    with (trained / "reports" / "test" / "predictions.csv").open() as stream:
        labels = [int(row["label"]) for row in csv.DictReader(stream)]
    assert (positives, negatives) == (labels.count(digit), 180 - labels.count(digit))


def test_training_is_by_epoch_too(events, trained):
    """The training loss of metrics.csv is logged per epoch, like validation."""
    with (trained / "metrics.csv").open() as stream:
        losses = [np.float32(row["train_loss"]) for row in csv.DictReader(stream)]
    assert [event.value for event in events.Scalars("train_epoch/loss")] == losses
    for name in METRICS:
        assert [event.step for event in events.Scalars(f"train_epoch/{name}")] == [1, 2, 3]


def test_the_best_validation_is_the_last_of_its_tag(events, trained):
    """The last value of `val/…` is that of the last epoch, and of `best_val/…` that of the best epoch."""
    best = json.loads((trained / "run.json").read_text())["metrics"]["best"]
    for name in ("loss", "accuracy"):
        last = events.Scalars(f"best_val/{name}")[-1]
        assert (last.step, last.value) == (best["epoch"], np.float32(best[name]))


def test_hparams_are_in_the_runs_own_file(events, trained):
    """The run's own event file has its hparams and its status."""
    settings = hparams(events, "session_start_info").session_start_info.hparams
    assert settings["optimizer.lr"].number_value == 0.03
    assert settings["batch_size"].number_value == 64
    assert settings["model"].string_value == "small_cnn"
    assert hparams(events, "session_end_info").session_end_info.status == STATUS_SUCCESS
    assert [path for path in trained.iterdir() if path.is_dir() and path.name[0].isdigit()] == []


def test_the_columns_are_left_to_tensorboard(events):
    """No run declares columns, since TensorBoard would use those of the first run for all runs."""
    assert "_hparams_/experiment" not in events.PluginTagToContent("hparams")


def test_hparams_leave_out_what_can_not_change_a_result(events):
    """Columns are the experiment's dotted keys, without execution settings and duplicates."""
    settings = set(hparams(events, "session_start_info").session_start_info.hparams)
    assert {"seed", "accum", "optimizer.momentum", "task.label_smoothing"} <= settings
    assert not settings & {"progress", "log_every_steps", "resume", "sweep", "num_workers"}
    assert "accumulation.micro_batches" not in settings  # it is ${accum}


def test_settings_of_any_kind_become_a_row():
    """Numbers, booleans and texts keep their type, lists are texts, and a group has the chosen option."""
    config = compose(["dataset=fashion_mnist", "model=mlp", "model.hidden=[16,8]", "optimizer.lr=1"])
    settings = extract_hparams(config, {"model": "mlp"})
    assert settings["model.hidden"] == "[16, 8]"
    assert (settings["deterministic"], settings["accum"], settings["optimizer.lr"]) == (True, 1, 1.0)
    assert (settings["model"], settings["optimizer"]) == ("mlp", "SGD")


NULLABLE = {"max_grad_norm": "1.0", "effective_batch_size": "64", "task.class_weights": "balanced"}


@pytest.mark.parametrize(("key", "value"), NULLABLE.items())
def test_a_key_that_may_be_null_is_a_text_in_every_run(key, value):
    """A nullable key is text in every run, since TensorBoard cannot sort a column of mixed types."""
    typed, default = (extract_hparams(compose(words), {})[key] for words in ([f"{key}={value}"], []))
    assert (typed, default) == (value, "null")


def test_a_long_list_is_cut_short():
    """A list of a thousand class weights is truncated."""
    config = compose([f"task.class_weights={[1.0] * 1000}"])
    assert len(extract_hparams(config, {})["task.class_weights"]) == 200


def of_epoch(number: int, best: bool = False) -> EpochReport:
    values = {"loss": 1.0 / number, "error (%)": 5.0}
    return EpochReport(number, 3, 1, 1, 0, {**values, "only_train": 0.0}, values, 0.1, 1.0, 1.0, best)


def test_the_layout_is_made_of_the_tasks_own_metrics(tmp_path):
    """The layout has a chart per metric with training and validation. It is written with the first epoch."""
    board = TensorBoard(tmp_path, "a: 1", {})
    for epoch in (1, 2, 3):
        board.epoch(of_epoch(epoch))
    (event,) = EventAccumulator(str(tmp_path)).Reload().Tensors("custom_scalars__config__")
    (category,) = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0]).category
    assert [chart.title for chart in category.chart] == ["loss", "error (%)"]
    for chart in category.chart:
        tags = [f"{group}/{chart.title}" for group in ("train_epoch", "val")]
        patterns = chart.multiline.tag
        assert [[bool(re.match(p, tag)) for tag in tags] for p in patterns] == [[True, False], [False, True]]
        assert not any(re.match(p, f"{tag}_2") for p in patterns for tag in tags)


@pytest.mark.parametrize("error", [RuntimeError("the run failed"), Stopped(15)])
def test_a_run_that_did_not_finish_keeps_its_row(tmp_path, error):
    """A failed run has its hparams, its metrics and the status failed. A killed run has no status."""
    board = TensorBoard(tmp_path, "a: 1", {"seed": 3})
    board.epoch(of_epoch(1, best=True))
    board.epoch(of_epoch(2))
    killed = EventAccumulator(str(tmp_path)).Reload()
    assert hparams(killed, "session_start_info").session_start_info.hparams["seed"].number_value == 3
    assert [event.value for event in killed.Scalars("best_val/loss")] == [1.0]
    board.close(error)
    ended = EventAccumulator(str(tmp_path)).Reload()
    assert hparams(ended, "session_end_info").session_end_info.status == STATUS_FAILURE


def test_a_full_disk_at_the_end_hides_no_failure(tmp_path):
    """A full disk at the end does not hide the error that ended a run, but fails a successful run."""
    board = TensorBoard(tmp_path, "a: 1", {})
    with files_limited(board.events.file.stat().st_size):
        board.close(RuntimeError("the run failed"))
        with pytest.raises(StorageError):
            board.close(None)


def test_what_was_told_is_on_the_disk_after_close(tmp_path):
    """Windows before an error are written."""
    board = TensorBoard(tmp_path, "a: 1", {})
    board.window(WindowReport(7, 2.5, 0.1, 1.0, 1.0, 0, 1.0, 0.0))
    board.close(RuntimeError("the run failed"))
    (event,) = EventAccumulator(str(tmp_path)).Reload().Scalars("train/loss")
    assert (event.step, event.value) == (7, 2.5)
