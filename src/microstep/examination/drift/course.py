"""Trainings side by side, compared after each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from omegaconf import DictConfig

from microstep.components.dataset.sharing import sharing
from microstep.examination.drift.apart import Apart, apart
from microstep.examination.drift.training import Training, begin
from microstep.examination.experiments import FP64, changed, effective, refuse_large_windows
from microstep.utils.progress_bar import Bars
from microstep.utils.terminal import quietly

#: What is compared with what, which gives the unit.
PAIRS = {"cuts": ("cut", "whole"), "seeds": ("seed", "whole"), "cuts_fp64": ("cut_fp64", "whole_fp64")}


@dataclass(frozen=True)
class Course:
    """What became of trainings that ran side by side, by epoch."""

    apart: Mapping[str, Sequence[Apart]]  #: by pair
    metrics: Mapping[str, Sequence[Mapping[str, float]]]  #: of the validation split, by training


def compared(config: DictConfig) -> Mapping[str, DictConfig]:
    """Return what is trained beside the typed experiment: it uncut, that with the next seed, both cuts in fp64.

    Every key but those that make the difference is as it was typed; the typed config stays as it is.
    """
    whole = changed(config, accum=1, batch_size=effective(config))
    return {
        "whole": whole,
        "seed": changed(whole, seed=config.seed + 1),
        "cut_fp64": changed(config, precision=FP64),
        "whole_fp64": changed(whole, precision=FP64),
    }


def trainings_of(config: DictConfig) -> Mapping[str, Training]:
    """Return the trainings, data that can be shared read once; those in fp64 only where that isn't what was typed.

    Raises:
        ConfigError: for what a training would refuse, or a window that is larger than the training split.
    """
    with sharing():
        cut = begin("cut", config)
        refuse_large_windows(config, len(cut.parts.dataset.splits["train"]))
        exact = cut.parts.precision.dtype == torch.float64
        others = {name: other for name, other in compared(config).items() if not (exact and "fp64" in name)}
        with quietly():  # the first has said what there is to be warned of
            chosen = cut.parts.precision.name  # by precision=auto, which might choose otherwise for another batch
            return {"cut": cut} | {name: begin(name, other, chosen) for name, other in others.items()}


def follow(trainings: Mapping[str, Training], epochs: int, bars: Bars) -> Course:
    """Train all of them, epoch by epoch, and compare them after each.

    Raises:
        Diverged: the loss or its gradient is no longer finite in one of them.
    """
    pairs = {pair: names for pair, names in PAIRS.items() if trainings.keys() >= set(names)}
    distances: dict[str, list[Apart]] = {pair: [] for pair in pairs}
    metrics: dict[str, list[dict[str, float]]] = {name: [] for name in trainings}
    for epoch in bars.epochs(range(1, epochs + 1), 0, epochs):
        for one in trainings.values():
            one.train(epoch, bars)
        seen = {name: one.validate() for name, one in trainings.items()}
        for pair, (a, b) in pairs.items():
            distances[pair].append(apart(trainings[a], trainings[b], seen[a], seen[b]))
        for name, rows in metrics.items():
            rows.append(seen[name].metrics)
    return Course(distances, metrics)
