"""Classifies images without labels with a saved run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from microstep.components.dataset import ImageDataset
from microstep.components.dataset.decoding import Decoder
from microstep.components.dataset.files import ImageFiles
from microstep.components.dataset.loader_processes import loader_errors
from microstep.components.dataset.normalization import Normalizer
from microstep.components.dataset.unlabeled import (
    ReadableBatches,
    ReadResults,
    find_unlabeled_images,
    make_input_workers,
    read_input,
)
from microstep.components.dataset.workers import worker_count
from microstep.components.task import Classification
from microstep.config.allowlist import Allowlist
from microstep.errors import ConfigError, DataError, escape_unprintable
from microstep.evaluation.contact_sheet import draw_contact_sheet, fit_thumbnail, shown_indices
from microstep.evaluation.evaluate import get_report_directory, load_run
from microstep.evaluation.predictions import ClassifiedImages, format_predictions_csv, top_classes, warn_errors
from microstep.training.components import Components
from microstep.training.device import determinism_errors
from microstep.training.evaluation_loop import iter_outputs
from microstep.utils.files import storage_errors, write_atomic
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.tensors import finite_rows

IMAGE_RUN_REMEDY = "give a run that classifies grayscale or color images"


@dataclass(frozen=True)
class PredictedInput:
    """Predictions of a saved run for images without labels."""

    classified: ClassifiedImages
    directory: Path  #: directory of predictions.csv and contact_sheet.png
    epoch: int  #: epoch of the checkpoint


@loader_errors()
@determinism_errors()
def predict_input(
    run_dir: Path, input_path: str, checkpoint: str, allowlist: Allowlist, device: str | None, bars: ProgressBars
) -> PredictedInput:
    """Classify images with the model, image size, normalization and precision of a run.

    Writes `reports/input-<folder>/predictions.csv` and `contact_sheet.png` into the run directory, and replaces those
    of an earlier call with that folder name. An image that cannot be read gets a warning and a row without classes.

    Args:
        input_path: a folder, searched recursively, or one image. For the other arguments see `load_run`.

    Raises:
        ConfigError: if the run does not classify images; see also `load_run`.
        DataError: if there are no images, or none can be read.
        StorageError: if the files cannot be written.
    """
    files = find_unlabeled_images(input_path, Decoder(1, 1, 3))  # first: a misspelt folder is reported at once
    name = Path(input_path).resolve().name or "root"
    directory = get_report_directory(run_dir, f"input-{name}", checkpoint)
    config, components, epoch = load_run(run_dir, allowlist, device, checkpoint)
    dataset, task = check_classifies_images(components, input_path)
    files = replace(files, decoder=make_decoder(dataset, input_path))
    results = read_input(make_input_workers(files, worker_count(config.num_workers)), len(files))
    read = bars.samples(results, "images", len(files), lambda one: 1, dict)
    classified = classify_images(components, dataset, task, files, read)
    write_prediction_files(classified, files, directory, name)
    warn_errors(classified)
    return PredictedInput(classified, directory, epoch)


def check_classifies_images(components: Components, input_path: str) -> tuple[ImageDataset, Classification]:
    dataset, task, subject = components.dataset, components.task, f"input={input_path}"
    if not isinstance(dataset, ImageDataset):
        raise ConfigError(subject, "the run's data are not images", IMAGE_RUN_REMEDY)
    if not isinstance(task, Classification):
        raise ConfigError(subject, f"the run's task is {type(task).__name__}, not Classification", IMAGE_RUN_REMEDY)
    return dataset, task


def make_decoder(dataset: ImageDataset, input_path: str) -> Decoder:
    train = dataset.image_sources["train"]
    channels, height, width = train.shape
    if channels not in (1, 3):
        raise ConfigError(f"input={input_path}", f"the run's images have {channels} channels", IMAGE_RUN_REMEDY)
    return train.decoder if isinstance(train, ImageFiles) else Decoder(height, width, channels)


def classify_images(
    components: Components, dataset: ImageDataset, task: Classification, files: ImageFiles, read: ReadResults
) -> ClassifiedImages:
    """Return the predictions of the model. 255 in a file is 1.0, even if the run's data have another scale."""
    normalization = dataset.normalization
    normalizer = Normalizer(files.scale, normalization.mean, normalization.std, components.device)
    batches = ReadableBatches(read, components.loaders.eval_batch_size, files.shape, normalizer, components.device)
    errors, found = batches.unreadable_reasons, []
    for batch, logits in iter_outputs(components.model, batches, components.precision):
        finite, rows = finite_rows(logits).cpu(), batch.indices.cpu()
        errors |= dict.fromkeys(rows[~finite].tolist(), "the model's outputs are not finite")
        found.append([column[finite] for column in (rows, *top_classes(logits))])
    if len(errors) == len(files):
        raise no_prediction_error(files, errors)
    rows, classes, confidence = (torch.cat(column) for column in zip(*found, strict=True))
    return ClassifiedImages(files.files.tolist(), task.class_names, rows, classes, confidence, errors)


def no_prediction_error(files: ImageFiles, errors: Mapping[int, str]) -> DataError:
    first, others = escape_unprintable(f"input={files.root / files.get_name(0)}"), len(files) - 1
    note = f" (the {others:,} others failed, too)" if others else ""
    return DataError(first, f"{errors[0]}{note}", "give images that can be read, or another run")


def write_prediction_files(classified: ClassifiedImages, files: ImageFiles, directory: Path, name: str) -> None:
    """Write the table and the contact sheet, each atomically, after both are complete in memory."""
    indices = shown_indices(len(classified.rows))
    height, width = fit_thumbnail(*files.shape[1:])
    small = replace(files, decoder=replace(files.decoder, height=height, width=width))
    sheet = draw_contact_sheet(classified, indices, small.read(classified.rows[indices].tolist()), name)
    table = format_predictions_csv(classified)
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / "contact_sheet.png", sheet)
    write_atomic(directory / "predictions.csv", table)
