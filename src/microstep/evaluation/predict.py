"""Predicts images without labels with a saved run, or with exported weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import interpolate

from microstep.components.dataset.decoding import Decoder
from microstep.components.dataset.files import ImageFiles
from microstep.components.dataset.unlabeled import (
    ReadableBatches,
    ReadResults,
    find_unlabeled_images,
    make_input_workers,
    read_input,
)
from microstep.config.allowlist import Allowlist
from microstep.errors import ConfigError, DataError, escape_unprintable
from microstep.evaluation.classifier import IMAGE_RUN_REMEDY, Classifier, load_classifier, load_exported_classifier
from microstep.evaluation.contact_sheet import draw_contact_sheet, fit_thumbnail, shown_indices
from microstep.evaluation.evaluate import Overrides, get_report_directory
from microstep.evaluation.predictions import ClassifiedImages, format_predictions_csv, warn_errors
from microstep.training.device import torch_errors
from microstep.training.evaluation_loop import iter_outputs
from microstep.types.data import Answer
from microstep.utils.files import storage_errors, write_atomic
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.tensors import finite_rows


@dataclass(frozen=True)
class PredictedInput:
    """Predictions of a saved run for images without labels."""

    classified: ClassifiedImages
    directory: Path  #: directory of predictions.csv and contact_sheet.png
    epoch: int  #: epoch of the checkpoint


def predict_input(
    run_dir: Path,
    input_path: str,
    checkpoint: str,
    allowlist: Allowlist,
    device: str | None,
    bars: ProgressBars,
    overrides: Overrides | None = None,
) -> PredictedInput:
    """Classify images with the model, image size, normalization and precision of a run.

    Writes `reports/input-<folder>/predictions.csv` and `contact_sheet.png` into the run directory, and replaces those
    of an earlier call with that folder name. An image that cannot be read gets a warning and an empty row.

    Args:
        input_path: a folder, searched recursively, or one image. For the other arguments see `load_classifier`.

    Raises:
        ConfigError: if the run does not predict images; see also `load_classifier`.
        DataError: if there are no images, or none can be read.
        StorageError: if the files cannot be written.
    """
    load = partial(load_classifier, run_dir, allowlist, device, checkpoint, overrides)
    return predict(load, input_path, lambda name: get_report_directory(run_dir, f"input-{name}", checkpoint), bars)


def predict_with_weights(
    file: Path,
    input_path: str,
    allowlist: Allowlist,
    device: str | None,
    bars: ProgressBars,
    overrides: Overrides | None = None,
) -> PredictedInput:
    """Classify images with a model.safetensors alone; write to `outputs/predictions/<folder>`. See `predict_input`."""
    load = partial(load_exported_classifier, file, allowlist, device, overrides)
    return predict(load, input_path, lambda name: Path("outputs", "predictions", name), bars)


@torch_errors()
def predict(
    load: Callable[[], Classifier], input_path: str, directory_of: Callable[[str], Path], bars: ProgressBars
) -> PredictedInput:
    files = find_unlabeled_images(input_path, Decoder(1, 1, 3))  # first: a misspelt folder is reported at once
    name = Path(input_path).resolve().name or "root"
    directory, classifier = directory_of(name), load()
    files = replace(files, decoder=classifier.decoder)
    results = read_input(make_input_workers(files, classifier.num_workers), len(files))
    classified = classify_images(classifier, files, bars.samples(results, "images", len(files), lambda one: 1, dict))
    write_prediction_files(classified, files, classifier, directory, name)
    warn_errors(classified)
    return PredictedInput(classified, directory, classifier.epoch)


def classify_images(classifier: Classifier, files: ImageFiles, read: ReadResults) -> ClassifiedImages:
    """Return the predictions of the model."""
    size, device = classifier.batch_size, classifier.device
    batches = ReadableBatches(read, size, files.shape, classifier.normalizer, device)
    errors, answers = batches.unreadable_reasons, dict[int, Answer]()
    for batch, logits in iter_outputs(classifier.model, batches, classifier.precision):
        if logits.shape[1:] != (classifier.outputs,):
            reason = f"the outputs are of shape {tuple(logits.shape)}, not N × {classifier.outputs}"
            raise ConfigError(f"input={files.root}", reason, IMAGE_RUN_REMEDY)
        finite, rows = finite_rows(logits).cpu(), batch.indices.cpu()
        errors |= dict.fromkeys(rows[~finite].tolist(), "the model's outputs are not finite")
        answers |= zip(rows[finite].tolist(), classifier.task.answer(logits.cpu()[finite]), strict=True)
    if len(errors) == len(files):
        raise no_prediction_error(files, errors)
    return ClassifiedImages(files.files.tolist(), answers, errors)


def no_prediction_error(files: ImageFiles, errors: Mapping[int, str]) -> DataError:
    first, others = escape_unprintable(f"input={files.root / files.get_name(0)}"), len(files) - 1
    note = f" (the {others:,} others failed, too)" if others else ""
    return DataError(first, f"{errors[0]}{note}", "give images that can be read, or another run")


def write_prediction_files(
    classified: ClassifiedImages, files: ImageFiles, classifier: Classifier, directory: Path, name: str
) -> None:
    """Write the table and the contact sheet, each atomically, after both are complete in memory."""
    indices = shown_indices(len(classified.rows))
    thumbnails = read_thumbnails(files, [classified.rows[index] for index in indices], classifier)
    sheet = draw_contact_sheet(classified, indices, thumbnails, name)
    table = format_predictions_csv(classified)
    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / "contact_sheet.png", sheet)
    write_atomic(directory / "predictions.csv", table)


def read_thumbnails(files: ImageFiles, rows: Sequence[int], classifier: Classifier) -> np.ndarray:
    """Return the images in the size of thumbnails. Those that the data set itself decodes show the model's pixels."""
    height, width = fit_thumbnail(*files.shape[1:])
    if isinstance(files.decoder, Decoder):
        return replace(files, decoder=replace(files.decoder, height=height, width=width)).read(rows)
    normalizer, pixels = classifier.normalizer, torch.from_numpy(files.read(rows)).to(classifier.device)
    return interpolate(255 * normalizer.invert(normalizer(pixels)), (height, width)).byte().numpy()
