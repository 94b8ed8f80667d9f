"""Stratified splitting of labels into a part to keep and parts to hold out."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from warnings import catch_warnings

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, train_test_split

from microstep.components.dataset.images import ImageSource, Int64Array, Targets
from microstep.components.dataset.strata import strata_of
from microstep.errors import ConfigError, DataError
from microstep.utils.text import format_names

log = logging.getLogger("microstep.notice")


def split_stratified(
    targets: Targets, held_out: int, seed: int, subject: str, class_names: Sequence[str]
) -> tuple[Int64Array, Int64Array]:
    """Return the sorted rows to keep and the sorted rows to hold out, with each class in proportion.

    Raise a DataError if a class would be missing from one of the parts. `subject` is the setting that it names, such as
    `dataset.val_samples=180`.
    """
    labels = strata_of(targets)
    class_names = class_names if labels is targets else [f"stratum {n}" for n in range(len(labels))]
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


def split_rare(labels: Int64Array, sizes: Sequence[int], seed: int) -> list[Int64Array]:
    """Return the sorted rows of parts of about these sizes, then the rows that are left.

    Each class is in proportion, but has a row in every part if it has enough. If not, the last parts come first.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    part_of = np.full(len(labels), len(sizes))
    for rows in np.split(by_class, np.cumsum(np.bincount(labels))[:-1]):
        start = 0
        for part, size in enumerate(sizes):
            most = max(0, len(rows) - start - (len(sizes) - part))  # leaves one row for each later part
            end = start + min(most, max(1, round(size * len(rows) / len(labels))))
            part_of[rows[start:end]] = part
            start = end
    return [np.flatnonzero(part_of == part) for part in range(len(sizes) + 1)]


def split_by_fractions(train: ImageSource, fractions: Mapping[str, float], seed: int) -> dict[str, ImageSource]:
    """Return the images that are left as `train`, and a part of them for each fraction that is not 0.

    Each class is in proportion. If a class is too small for that, it goes where it can, with a warning. Groups are not
    divided, so their parts are only about as large as asked.
    """
    check_fractions(fractions)
    sizes = {name: round(fraction * len(train)) for name, fraction in fractions.items() if fraction}
    if getattr(train, "groups", None) is not None:
        return hold_out_groups(train, sizes, seed, format_fractions(fractions))
    splits = {"train": train}
    try:
        for name, size in sizes.items():
            rest = splits["train"]
            kept, held_out = split_stratified(rest.labels, size, seed, name, rest.class_names)
            splits |= {"train": rest.select(kept), name: rest.select(held_out)}
    except DataError:
        parts = split_rare(strata_of(train.labels), [*sizes.values()], seed)
        splits = {name: train.select(rows) for name, rows in zip([*sizes, "train"], parts, strict=True)}
        warn_small_classes(splits, fractions)
    return splits


def hold_out_groups(train: ImageSource, sizes: Mapping[str, int], seed: int, subject: str) -> dict[str, ImageSource]:
    """Return the images that are left as `train`, and a part of about each size. Each group is in one of them."""
    splits = {"train": train}
    for name, size in sizes.items():
        rest = splits["train"]
        count = min(round(len(rest) / max(1, size)), len(np.unique(rest.groups)))  # type: ignore[attr-defined]
        folds = make_folds(rest, max(2, count), seed, subject)
        splits |= hold_out(rest, min(folds, key=lambda rows: abs(len(rows) - size)), name)
    return splits


def hold_out(train: ImageSource, rows: Int64Array, name: str) -> dict[str, ImageSource]:
    return {"train": train.select(np.setdiff1d(np.arange(len(train)), rows)), name: train.select(rows)}


def hold_out_fold(train: ImageSource, folds: int, fold: int, seed: int, repeat: int) -> dict[str, ImageSource]:
    """Return the images of a fold as `val`, and the others as `train`. Each repeat is another division into folds."""
    derived = int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0]) if repeat else seed
    return hold_out(train, make_folds(train, folds, derived, f"dataset.folds={folds}")[fold], "val")


def make_folds(train: ImageSource, count: int, seed: int, subject: str) -> list[Int64Array]:
    """Return the sorted rows of each of so many equal parts, with each class in proportion as far as groups allow."""
    groups, strata, folds = getattr(train, "groups", None), strata_of(train.labels), []
    splitter = (StratifiedKFold if groups is None else StratifiedGroupKFold)(count, shuffle=True, random_state=seed)
    with catch_warnings(action="ignore"), suppress(ValueError):  # some class, or every one, is smaller than `count`
        folds = [rows for _, rows in splitter.split(np.zeros(len(train)), strata, groups)]
    if not folds or not all(map(len, folds)):
        most = np.bincount(np.unique(strata, return_inverse=True)[1]).max() if groups is None else len(set(groups))
        raise DataError(subject, f"there are too few samples or groups for {count} parts", f"{most} are the most")
    return folds


def check_fractions(fractions: Mapping[str, float]) -> None:
    if fractions.get("val") == 0:
        remedy = "give a share, such as 0.1, or a folder val/"
        raise ConfigError("dataset.val_fraction=0", "the best checkpoint is chosen by validation", remedy)
    if min(fractions.values(), default=0) < 0 or sum(fractions.values()) >= 1:
        remedy = "give fractions from 0 with a sum below 1"
        raise ConfigError(format_fractions(fractions), "they leave no images to train on", remedy)


def format_fractions(fractions: Mapping[str, float]) -> str:
    return ", ".join(f"dataset.{name}_fraction={fraction}" for name, fraction in fractions.items())


def warn_small_classes(splits: Mapping[str, ImageSource], fractions: Mapping[str, float]) -> None:
    notes = ["some classes are too small for these fractions, so each split gets at least one image of each class"]
    for name, split in splits.items():
        names = split.class_names if split.labels.dtype == np.int64 else ()
        absent = [label for n, label in enumerate(names) if n not in split.labels]
        notes += [f"{name} has none of {format_names(absent)}"] if absent else []
    log.warning("%s: %s", format_fractions(fractions), "; ".join(notes))
