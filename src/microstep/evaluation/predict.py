"""Classifies images without labels with a saved run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from microstep.components.dataset import ImageDataset
from microstep.components.dataset.decoding import Decoder
from microstep.components.dataset.files import ImageFiles
from microstep.components.dataset.normalization import Normalizer
from microstep.components.dataset.unlabeled import (
    ReadableBatches,
    find_unlabeled_images,
    make_input_workers,
    read_input,
)
from microstep.components.dataset.workers import loader_errors, worker_count
from microstep.components.task import Classification
from microstep.config.allowlist import Allowlist
from microstep.errors import ConfigError, DataError, escape_unprintable
from microstep.evaluation.contact_sheet import draw_contact_sheet, fit_thumbnail, shown_indices
from microstep.evaluation.evaluate import get_report_directory, load_run
from microstep.evaluation.predictions import ClassifiedImages, format_predictions_csv, top_classes, warn_unreadable
from microstep.training.components import Components
from microstep.training.evaluation_loop import iter_outputs
from microstep.utils.files import storage_errors, write_atomic
from microstep.utils.progress_bar import ProgressBars

IMAGE_RUN_REMEDY = "give a run that classifies grey or colour pictures"


@dataclass(frozen=True)
class PredictedInput:
    """Predictions for some images."""

    answers: ClassifiedImages
    directory: Path  #: directory of the table and the contact sheet
    epoch: int  #: epoch of the checkpoint


@loader_errors()
def predict_input(
    run_dir: Path, input_path: str, checkpoint: str, allowlist: Allowlist, device: str | None, bars: ProgressBars
) -> PredictedInput:
    """Classify images with the model, image size, normalization and precision of a run.

    Writes `reports/input-<folder>/predictions.csv` and `contact_sheet.png` into the run directory, in place of those
    of an earlier call with that folder name. An image that cannot be read gets a warning and a row without classes.

    Args:
        input_path: a folder, searched recursively, or one image. For the others see `microstep.again.load_run`.

    Raises:
        ConfigError: if the run does not classify images; see also `load_run`.
        DataError: if there are no images, or none can be read.
        StorageError: if nothing can be written.
    """
    pictures = find_unlabeled_images(
        input_path, Decoder(1, 1, 3)
    )  # first, so that a misspelt folder is reported at once
    config, parts, epoch = load_run(run_dir, allowlist, device, checkpoint)
    dataset, task = check_classifies_images(parts, input_path)
    pictures = replace(pictures, decoder=make_decoder(dataset, input_path))
    answers = classify_images(parts, dataset, task, pictures, worker_count(config.num_workers), bars)
    name = Path(input_path).resolve().name or "root"
    directory = get_report_directory(run_dir, f"input-{name}", checkpoint)
    write_prediction_files(answers, pictures, directory, name)
    warn_unreadable(answers)
    return PredictedInput(answers, directory, epoch)


def check_classifies_images(components: Components, input_path: str) -> tuple[ImageDataset, Classification]:
    """Return the dataset and task of a run, after checking that it classifies images."""
    if not isinstance(components.dataset, ImageDataset):
        raise ConfigError(f"input={input_path}", "the run's data are no pictures", IMAGE_RUN_REMEDY)
    if not isinstance(components.task, Classification):
        raise ConfigError(
            f"input={input_path}",
            f"the run's task is {type(components.task).__name__}, no Classification",
            IMAGE_RUN_REMEDY,
        )
    return components.dataset, components.task


def make_decoder(dataset: ImageDataset, input_path: str) -> Decoder:
    """Return a decoder that gives files the image shape of a dataset."""
    train = dataset.pictures["train"]
    channels, height, width = train.shape
    if channels not in (1, 3):
        raise ConfigError(f"input={input_path}", f"the run's pictures have {channels} channels", IMAGE_RUN_REMEDY)
    return train.decoder if isinstance(train, ImageFiles) else Decoder(height, width, channels)


def classify_images(
    components: Components,
    dataset: ImageDataset,
    task: Classification,
    files: ImageFiles,
    processes: int,
    bars: ProgressBars,
) -> ClassifiedImages:
    """Return the predictions of the model. Loader processes read the images, under a progress bar.

    The images are bytes in which 255 is 1.0, whatever the scale of the run's own data; they get its normalization.
    """
    own, count = dataset.normalisation, len(files)
    normaliser = Normalizer(files.scale, own.mean, own.std, components.device)
    read = bars.samples(read_input(make_input_workers(files, processes), count), "pictures", count, lambda one: 1, dict)
    batches = ReadableBatches(read, components.loaders.eval_batch_size, files.shape, normaliser, components.device)
    found = [
        (b.indices.cpu(), *top_classes(outputs))
        for b, outputs in iter_outputs(components.model, batches, components.precision)
    ]
    if not found:
        raise no_readable_image_error(files, batches.unreadable)
    rows, classes, confidence = (torch.cat(column) for column in zip(*found, strict=True))
    return ClassifiedImages(files.files.tolist(), task.class_names, rows, classes, confidence, batches.unreadable)


def no_readable_image_error(files: ImageFiles, unreadable: Mapping[int, str]) -> DataError:
    """Return the error if no image can be read, with the reason of the first."""
    first, others = escape_unprintable(f"input={files.root / files.name(0)}"), len(files) - 1
    note = f" (nor can the {others:,} others be)" if others else ""
    return DataError(first, f"{unreadable[0]}{note}", "give pictures that can be read")


def write_prediction_files(classified: ClassifiedImages, files: ImageFiles, directory: Path, name: str) -> None:
    """Write both files, each atomically, once both have been made."""
    shown = shown_indices(len(classified.rows))
    height, width = fit_thumbnail(*files.shape[1:])
    small = replace(files, decoder=replace(files.decoder, height=height, width=width))
    sheet, table = (
        draw_contact_sheet(classified, shown, small.read(classified.rows[shown].tolist()), name),
        format_predictions_csv(classified),
    )
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / "contact_sheet.png", sheet)
    write_atomic(directory / "predictions.csv", table)
