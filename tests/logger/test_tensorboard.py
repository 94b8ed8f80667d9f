"""TensorBoard gets exactly the tags that are promised, in the run's own file, with the numbers of the other records."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.pr_curve.plugin_data_pb2 import PrCurvePluginData

from microstep import build_trainer, compose
from microstep.config import experiment_of
from microstep.logger import TensorBoard

TRAIN = ["loss", "lr", "grad_norm", "loss_scale", "skipped_steps", "samples_per_second", "data_wait_fraction"]
METRICS = ["loss", "accuracy", "f1_macro", "f1_weighted"]
PICTURES = [f"{split}/{name}" for split in ("val", "test") for name in ("confusion_matrix", "worst_mistakes")]
CURVES = [f"test/pr/{digit}" for digit in range(10)]
EVERYTHING = {"scalars": 0, "images": 0, "tensors": 0}


@pytest.fixture(scope="module")
def events(trained) -> EventAccumulator:
    """All events of the run."""
    return EventAccumulator(str(trained), EVERYTHING).Reload()


def raw(directory: Path) -> list:
    """Return the events as they lie in the directory's only events file."""
    (file,) = directory.glob("events.out.tfevents.*")
    return list(EventFileLoader(str(file)).Load())


def hparams(events: EventAccumulator, part: str) -> HParamsPluginData:
    return HParamsPluginData.FromString(events.PluginTagToContent("hparams")[f"_hparams_/{part}"])


def test_the_tags_are_those_that_are_promised(events):
    """Scalars by window and by epoch, pictures, curves, the config: none is missing and none is strewn in."""
    tags = events.Tags()
    by_group = {"train": TRAIN, "val": METRICS, "test": METRICS}
    assert set(tags["scalars"]) == {f"{group}/{name}" for group, names in by_group.items() for name in names}
    assert set(tags["images"]) == {"train/pictures", *PICTURES}
    assert set(tags["tensors"]) == {"config/text_summary", *CURVES}
    assert {name for name, content in tags.items() if content} == {"scalars", "images", "tensors"}


def test_windows_are_one_event_each_every_log_every_steps(trained):
    """Of 69 windows each fifth is told of, in a single event of seven values."""
    windows = [e for e in raw(trained) if any(v.tag == "train/loss" for v in e.summary.value)]
    assert [event.step for event in windows] == list(range(5, 70, 5))
    for event in windows:
        assert [value.tag for value in event.summary.value] == [f"train/{name}" for name in TRAIN]


def test_what_a_window_says_is_plausible(events):
    """The loss falls, the norm is positive, nothing is scaled or skipped in fp32, the wait is a share."""
    values = {name: np.array([event.value for event in events.Scalars(f"train/{name}")]) for name in TRAIN}
    assert values["loss"][-1] < values["loss"][0]
    assert (values["grad_norm"] > 0).all()
    assert (values["loss_scale"] == 1).all()
    assert (values["skipped_steps"] == 0).all()
    assert (values["samples_per_second"] > 0).all()
    assert ((values["data_wait_fraction"] >= 0) & (values["data_wait_fraction"] < 1)).all()


def test_the_rate_is_that_of_the_step(events):
    """Warm-up over the first six of 69 steps, then half a cosine, as the schedule says for each step taken."""
    for event in events.Scalars("train/lr"):
        step = event.step - 1
        factor = (step + 1) / 7 if step < 6 else 0.5 * (1 + np.cos(np.pi * (step - 6) / 63))
        assert event.value == pytest.approx(0.03 * factor, rel=1e-5)


def test_validation_is_by_epoch_and_the_test_once(events, trained):
    """Three validations at steps 1, 2 and 3; one test, at the best epoch, whose numbers are run.json's."""
    record = json.loads((trained / "run.json").read_text())["metrics"]
    for name in METRICS:
        assert [event.step for event in events.Scalars(f"val/{name}")] == [1, 2, 3]
        (test,) = events.Scalars(f"test/{name}")
        assert (test.step, test.value) == (record["best"]["epoch"], np.float32(record["test"][name]))


def test_the_config_is_there_as_text(events, trained):
    """A code block that is config.yaml, line by line."""
    (event,) = events.Tensors("config/text_summary")
    text = event.tensor_proto.string_val[0].decode()
    lines = [line.removeprefix("    ") for line in text.splitlines()]
    assert yaml.safe_load("\n".join(lines)) == yaml.safe_load((trained / "config.yaml").read_text())
    assert all(line.startswith("    ") for line in text.splitlines())


@pytest.mark.parametrize("tag", PICTURES)
def test_the_pictures_are_the_reports(events, trained, tag):
    """Pixel by pixel the PNG that lies in reports/."""
    (event,) = events.Images(tag)
    with Image.open(io.BytesIO(event.encoded_image_string)) as shown, Image.open(trained / f"reports/{tag}.png") as own:
        np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), np.asarray(own.convert("RGB")))


def test_training_pictures_are_shown_as_the_model_sees_them(events, tmp_path):
    """The first 32 of epoch 1, eight in a row, each pixel magnified to a square."""
    (event,) = events.Images("train/pictures")
    trainer = build_trainer(compose(["progress=false"]), tmp_path)
    first = next(iter(next(trainer.loaders.train(1)).batches))
    with Image.open(io.BytesIO(event.encoded_image_string)) as shown:
        pixels = np.asarray(shown.convert("L"))
    assert pixels.shape == (4 * 100 + 4, 8 * 100 + 4)  # eight pixels of twelve, and a margin of four
    one = pixels[104:200:12, 204:300:12]  # the third of the second row
    np.testing.assert_allclose(one / 255, trainer.loaders.splits["train"].shown(first.inputs)[10, 0], atol=0.01)


@pytest.mark.parametrize("digit", [0, 8])
def test_the_curves_are_of_the_test_split(events, trained, digit):
    """One class against the rest over all 180 samples: at threshold 0 every sample counts as positive."""
    (event,) = events.Tensors(f"test/pr/{digit}")
    metadata = events.SummaryMetadata(f"test/pr/{digit}").plugin_data
    assert metadata.plugin_name == "pr_curves"
    shape = [dim.size for dim in event.tensor_proto.tensor_shape.dim]
    assert shape == [6, PrCurvePluginData.FromString(metadata.content).num_thresholds]
    positives, negatives = np.array(event.tensor_proto.float_val).reshape(shape)[:2, 0]
    with (trained / "reports" / "test" / "predictions.csv").open() as stream:
        labels = [int(row["label"]) for row in csv.DictReader(stream)]
    assert (positives, negatives) == (labels.count(digit), 180 - labels.count(digit))


def test_hparams_are_in_the_runs_own_file(events, trained):
    """The table's row is part of this run: its settings with their values, and its test metrics by their tags."""
    settings = hparams(events, "session_start_info").session_start_info.hparams
    assert settings["optimizer.lr"].number_value == 0.03
    assert settings["batch_size"].number_value == 64
    assert settings["model"].string_value == "SmallCNN"
    infos = hparams(events, "experiment").experiment
    assert {info.name.tag for info in infos.metric_infos} == {f"test/{name}" for name in METRICS}
    assert {info.name for info in infos.hparam_infos} == set(settings)
    assert [path for path in trained.iterdir() if path.is_dir() and path.name[0].isdigit()] == []


def test_hparams_leave_out_what_can_not_change_a_result(events):
    """Columns in the table are settings of the experiment, in dotted keys; a resume or a bar is none."""
    settings = set(hparams(events, "session_start_info").session_start_info.hparams)
    assert {"seed", "accum", "accumulation.micro_batches", "task.label_smoothing"} <= settings
    assert not settings & {"progress", "log_every_steps", "resume", "sweep", "num_workers"}


def test_settings_of_any_kind_become_a_row(tmp_path):
    """Lists, nulls, truths and nested groups: each gets a value that the table can hold."""
    from microstep import compose

    config = compose(["dataset=fashion_mnist", "model=mlp", "model.hidden=[16,8]", "max_grad_norm=1"])
    board = TensorBoard(tmp_path, "text: 1", experiment_of(config))
    assert board.settings["model.hidden"] == "[16, 8]"
    assert board.settings["effective_batch_size"] == "None"
    assert board.settings["deterministic"] is True
    assert board.settings["max_grad_norm"] == 1.0
    board.close(None)


def test_what_was_told_is_on_the_disk_after_close(tmp_path):
    """Also after an error: the windows up to a failure can be looked at."""
    board = TensorBoard(tmp_path, "a: 1", {})
    board.scalars("train", {"loss": 2.5}, 7)
    board.close(RuntimeError("the run failed"))
    (event,) = EventAccumulator(str(tmp_path)).Reload().Scalars("train/loss")
    assert (event.step, event.value) == (7, 2.5)
