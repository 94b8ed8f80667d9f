"""What a run that is over says of pictures without labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from microstep.again import computed_in, insist_on_same_data, load, report_directory
from microstep.build import build_parts
from microstep.dataset import PictureDataset
from microstep.dataset.decoding import Decoder
from microstep.dataset.files import PictureFiles
from microstep.dataset.normaliser import Normaliser
from microstep.dataset.unlabelled import Readable, readers, reading, unlabelled
from microstep.dataset.workers import explained, worker_count
from microstep.errors import ConfigError, DataError, legible
from microstep.evaluation import predicted
from microstep.files import storing, write_whole
from microstep.gate import Gate
from microstep.logger import Bars
from microstep.parts import Parts
from microstep.run_config import run_config
from microstep.task import Classification
from microstep.task.answers import Answers, predictions_csv, ranked, warn_of_unreadable
from microstep.task.contact_sheet import chosen, contact_sheet, thumbnail_size

REMEDY = "give a run that classifies grey or colour pictures"


@dataclass(frozen=True)
class Predicted:
    """What became of some pictures, and where it was written."""

    answers: Answers
    directory: Path
    epoch: int  #: that the weights are of


@explained()
def predict_input(run_dir: Path, place: str, checkpoint: str, gate: Gate, device: str | None, bars: Bars) -> Predicted:
    """Classify pictures with a run's model, size, normalisation and precision; write a table and a contact sheet.

    A picture that can't be read is warned about and has a row of its own; the others are classified all the same.
    `reports/input-<folder>/predictions.csv` and `contact_sheet.png` replace those of an earlier call of that name.

    Args:
        place: a folder, searched with its folders, or one picture.
        checkpoint: best, last, or model.safetensors: the best as others get it.
        gate: says what the run's config may name.
        device: another device than the run's; None for the run's own.

    Raises:
        ConfigError: where it is no run directory, or no classifier of pictures.
        DataError: where there are no pictures, none can be read, or the run's own data have changed.
        CheckpointRefused: where the checkpoint is missing or damaged, or is not this model's.
        StorageError: where nothing can be written.
    """
    config = run_config(run_dir, gate)
    pictures = unlabelled(place, Decoder(1, 1, 3))  # before anything slow: a misspelt folder is told of at once
    parts = build_parts(config, gate, device, fresh=False, saved_name=computed_in(run_dir))
    insist_on_same_data(run_dir, parts.dataset.fingerprint)
    dataset, task = suited(parts, place)
    pictures = replace(pictures, decoder=decoder_of(dataset, place))
    epoch = load(parts, run_dir, checkpoint)
    answers = classified(parts, dataset, task, pictures, worker_count(config.num_workers), bars)
    name = Path(place).resolve().name or "root"
    directory = report_directory(run_dir, f"input-{name}", checkpoint)
    write(answers, pictures, directory, name)
    warn_of_unreadable(answers)
    return Predicted(answers, directory, epoch)


def suited(parts: Parts, place: str) -> tuple[PictureDataset, Classification]:
    """Return the run's data and task, where it classifies pictures."""
    if not isinstance(parts.dataset, PictureDataset):
        raise ConfigError(f"input={place}", "the run's data are no pictures", REMEDY)
    if not isinstance(parts.task, Classification):
        raise ConfigError(f"input={place}", f"the run's task is {type(parts.task).__name__}, no Classification", REMEDY)
    return parts.dataset, parts.task


def decoder_of(dataset: PictureDataset, place: str) -> Decoder:
    """Return how files become pictures as the run's own are."""
    train = dataset.pictures["train"]
    channels, height, width = train.shape
    if channels not in (1, 3):
        raise ConfigError(f"input={place}", f"the run's pictures have {channels} channels", REMEDY)
    return train.decoder if isinstance(train, PictureFiles) else Decoder(height, width, channels)


def classified(
    parts: Parts, dataset: PictureDataset, task: Classification, pictures: PictureFiles, processes: int, bars: Bars
) -> Answers:
    """Return what the model says; loader processes read the pictures, under a bar.

    The normalisation is the run's own, applied to bytes of which 255 means 1.0, whatever its data's scale.
    """
    own, count = dataset.normalisation, len(pictures)
    normaliser = Normaliser(pictures.scale, own.mean, own.std, parts.device)
    read = bars.samples(reading(readers(pictures, processes), count), "pictures", count, lambda one: 1, dict)
    batches = Readable(read, parts.loaders.eval_batch_size, pictures.shape, normaliser, parts.device)
    found = [(b.indices.cpu(), *ranked(outputs)) for b, outputs in predicted(parts.model, batches, parts.precision)]
    if not found:
        raise none_readable(pictures, batches.unreadable)
    rows, classes, confidence = (torch.cat(column) for column in zip(*found, strict=True))
    return Answers(pictures.files.tolist(), task.class_names, rows, classes, confidence, batches.unreadable)


def none_readable(pictures: PictureFiles, unreadable: Mapping[int, str]) -> DataError:
    """Return what to raise where no picture can be read: the first one's reason stands for all."""
    first, others = legible(f"input={pictures.root / pictures.name(0)}"), len(pictures) - 1
    note = f" (nor can the {others:,} others be)" if others else ""
    return DataError(first, f"{unreadable[0]}{note}", "give pictures that can be read")


def write(answers: Answers, pictures: PictureFiles, directory: Path, name: str) -> None:
    """Write both files, each whole, once both are made."""
    shown = chosen(len(answers.rows))
    height, width = thumbnail_size(*pictures.shape[1:])
    small = replace(pictures, decoder=replace(pictures.decoder, height=height, width=width))
    sheet, table = (
        contact_sheet(answers, shown, small.read(answers.rows[shown].tolist()), name),
        predictions_csv(answers),
    )
    with storing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / "contact_sheet.png", sheet)
    write_whole(directory / "predictions.csv", table)
