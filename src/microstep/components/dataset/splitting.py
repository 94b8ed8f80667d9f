"""Stratified splitting of labels into a part to keep and a part to hold out."""

from collections.abc import Sequence

import numpy as np
from sklearn.model_selection import train_test_split

from microstep.components.dataset.images import Int64Array
from microstep.errors import DataError


def split_stratified(
    labels: Int64Array, held_out: int, seed: int, subject: str, class_names: Sequence[str]
) -> tuple[Int64Array, Int64Array]:
    """Return the sorted rows to keep and the sorted rows to hold out, with each class in proportion.

    Raise a DataError if a class would be missing from one of the parts. `subject` is the setting that it names, such as
    `dataset.val_samples=180`.
    """
    counts = np.bincount(labels)
    samples, classes = len(labels), np.count_nonzero(counts)
    for rare in np.flatnonzero(counts == 1).tolist():
        reason = f"class {class_names[rare]} has one sample only, which can't be on both sides"
        raise DataError(subject, reason, "give every class two samples at least")
    if not classes <= held_out <= samples - classes:
        reason = f"of {samples:,} samples in {classes} classes it leaves a part without some class"
        raise DataError(subject, reason, f"hold out between {classes} and {samples - classes:,} samples")
    parts = train_test_split(np.arange(samples), test_size=held_out, stratify=labels, random_state=seed)
    for part in parts:
        for missing in np.setdiff1d(labels, labels[part]).tolist():
            reason = f"class {class_names[missing]} has {counts[missing]} samples: one part would have none"
            raise DataError(subject, reason, "hold out another number, or give that class more samples")
    return np.sort(parts[0]), np.sort(parts[1])
