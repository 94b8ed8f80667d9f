"""From pictures in memory to a resident data set: stratified splits, normalisation, a fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from microstep.dataset.resident import ResidentDataset, ResidentSplit
from microstep.errors import DataError
from microstep.statistics import ChannelStatistics, chunks

Bytes = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Labels = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(frozen=True)
class Images:
    """A split as its makers publish it.

    Raises:
        DataError: where pictures and labels don't match, labels are out of range, or there are none.
    """

    pixels: Bytes  #: N × C × H × W
    labels: Labels  #: N
    class_names: tuple[str, ...]
    scale: float = 255.0  #: the pixel value that means 1.0
    indices: Labels | None = None  #: N: each picture's place in what was published, where it isn't 0, 1, 2, …

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 4:
            reason = f"the pictures are {self.pixels.dtype} of shape {self.pixels.shape}"
            raise DataError("dataset", reason, "give uint8, N × C × H × W")
        if self.labels.dtype != np.int64 or self.labels.ndim != 1:
            reason = f"the labels are {self.labels.dtype} of shape {self.labels.shape}"
            raise DataError("dataset", reason, "give int64, one a picture")
        if not len(self.labels) or len(self.pixels) != len(self.labels):
            reason = f"{len(self.pixels)} pictures and {len(self.labels)} labels"
            raise DataError("dataset", reason, "a split needs as many labels as pictures, and at least one")
        least, most = self.labels.min(), self.labels.max()
        if least < 0 or most >= len(self.class_names):
            reason = f"labels run from {least} to {most}, and there are {len(self.class_names)} classes"
            raise DataError("dataset", reason, "the files may be damaged or another data set's")

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, rows: Labels) -> Images:
        """Return some of the pictures; they keep their indices."""
        indices = rows if self.indices is None else self.indices[rows]
        return replace(self, pixels=self.pixels[rows], labels=self.labels[rows], indices=indices)


def resident_dataset(
    train: Images,
    test: Images,
    device: torch.device,
    val_samples: int,
    split_seed: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> ResidentDataset:
    """Carve a stratified validation split from the official training set and put all three on the device.

    Args:
        mean, std: per channel, of pixels over their scale; where null, the training split's own, computed exactly.
    """
    kept, held_out = stratified(train.labels, val_samples, split_seed, "dataset.val_samples")
    parts = {"train": train.at(kept), "val": train.at(held_out), "test": test.at(np.arange(len(test)))}
    mean, std = normalisation(mean, std, parts["train"])
    splits = {name: ResidentSplit(*tensors(part), train.scale, mean, std, device) for name, part in parts.items()}
    facts = {
        "class_names": train.class_names,
        "num_classes": len(train.class_names),
        "input_shape": tuple(train.pixels.shape[1:]),
        "train_targets": splits["train"].targets,
    }
    return ResidentDataset(splits, facts, fingerprint(parts), summary(parts, mean, std))


def tensors(images: Images) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return pixels, labels and indices as tensors."""
    assert images.indices is not None
    return torch.from_numpy(images.pixels), torch.from_numpy(images.labels), torch.from_numpy(images.indices)


def stratified(labels: Labels, held_out: int, seed: int, key: str) -> tuple[Labels, Labels]:
    """Return the sorted rows that are kept and those held out, each class in proportion.

    Raises:
        DataError: where so many can't be held out with every class in both parts.
    """
    samples, classes = len(labels), len(np.unique(labels))
    if not classes <= held_out <= samples - classes:
        reason = f"of {samples:,} samples in {classes} classes it leaves a part without some class"
        raise DataError(f"{key}={held_out}", reason, f"choose between {classes} and {samples - classes:,}")
    try:
        parts = train_test_split(np.arange(len(labels)), test_size=held_out, stratify=labels, random_state=seed)
    except ValueError as error:
        raise DataError(f"{key}={held_out}", str(error), "choose another number") from None
    return np.sort(parts[0]), np.sort(parts[1])


def normalisation(
    mean: Sequence[float] | None, std: Sequence[float] | None, train: Images
) -> tuple[Sequence[float], Sequence[float]]:
    """Return mean and deviation as given, or the pixels' own; a constant channel is left unscaled.

    Raises:
        DataError: where they are not one number a channel, or a deviation is not positive.
    """
    if mean is None or std is None:
        own = ChannelStatistics.streamed(chunks(train.pixels), train.scale)
        mean = own.mean if mean is None else mean
        std = [s or 1.0 for s in own.std] if std is None else std
    channels = train.pixels.shape[1]
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise DataError(f"dataset.{key}={list(values)}", f"the pictures have {channels} channels", "give one each")
    if min(std) <= 0:
        raise DataError(f"dataset.std={list(std)}", "a deviation is not positive", "leave it null: it is computed")
    return mean, std


def fingerprint(parts: Mapping[str, Images]) -> str:
    """Return a SHA-256 over every split's pictures, labels and indices."""
    digest = sha256()
    for name, part in parts.items():
        digest.update(f"{name} {part.pixels.shape} {part.class_names}".encode())
        for array in (part.pixels, part.labels, part.indices):
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def summary(parts: Mapping[str, Images], mean: Sequence[float], std: Sequence[float]) -> str:
    """Return the data set in one line."""
    counts = " / ".join(f"{len(part):,} {name}" for name, part in parts.items())
    size = " × ".join(map(str, parts["train"].pixels.shape[1:]))
    numbers = f"mean {', '.join(f'{m:.4f}' for m in mean)}, std {', '.join(f'{s:.4f}' for s in std)}"
    return f"{counts}; {size}, resident; {numbers}"
