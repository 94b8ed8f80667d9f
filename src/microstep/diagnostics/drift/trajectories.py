"""Distances between the weights of trainings, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from omegaconf import DictConfig

from microstep.components.dataset.sharing import share_datasets
from microstep.diagnostics.drift.training import Distance, DriftTraining, measure_distance, start_training
from microstep.diagnostics.variants import FP64, change_config, check_window_fits, get_effective_batch_size
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.terminal import silenced

#: What is compared with what, which gives the unit.
PAIRS = {"cuts": ("cut", "whole"), "seeds": ("seed", "whole"), "cuts_fp64": ("cut_fp64", "whole_fp64")}


@dataclass(frozen=True)
class Trajectories:
    """What became of trainings that ran side by side, by epoch."""

    apart: Mapping[str, Sequence[Distance]]  #: by pair
    metrics: Mapping[str, Sequence[Mapping[str, float]]]  #: of the validation split, by training


def make_compared_configs(config: DictConfig) -> Mapping[str, DictConfig]:
    """Return what is trained beside the typed experiment: it uncut, that with the next seed, both cuts in fp64.

    Every key but those that make the difference is as it was typed; the typed config stays as it is.
    """
    whole = change_config(config, accum=1, batch_size=get_effective_batch_size(config))
    return {
        "whole": whole,
        "seed": change_config(whole, seed=config.seed + 1),
        "cut_fp64": change_config(config, precision=FP64),
        "whole_fp64": change_config(whole, precision=FP64),
    }


def start_trainings(config: DictConfig) -> Mapping[str, DriftTraining]:
    """Return the trainings, data that can be shared read once; those in fp64 only where that isn't what was typed.

    Raises:
        ConfigError: for what a training would refuse, or a window that is larger than the training split.
    """
    with share_datasets():
        cut = start_training("cut", config)
        check_window_fits(config, len(cut.parts.dataset.splits["train"]))
        exact = cut.parts.precision.dtype == torch.float64
        others = {
            name: other for name, other in make_compared_configs(config).items() if not (exact and "fp64" in name)
        }
        with silenced():  # the first has said what there is to be warned of
            chosen = cut.parts.precision.name  # by precision=auto, which might choose otherwise for another batch
            return {"cut": cut} | {name: start_training(name, other, chosen) for name, other in others.items()}


def train_together(trainings: Mapping[str, DriftTraining], epochs: int, bars: ProgressBars) -> Trajectories:
    """Train all of them, epoch by epoch, and compare them after each.

    Raises:
        Diverged: the loss or its gradient is no longer finite in one of them.
    """
    pairs = {pair: names for pair, names in PAIRS.items() if trainings.keys() >= set(names)}
    distances: dict[str, list[Distance]] = {pair: [] for pair in pairs}
    metrics: dict[str, list[dict[str, float]]] = {name: [] for name in trainings}
    for epoch in bars.epochs(range(1, epochs + 1), 0, epochs):
        for one in trainings.values():
            one.train(epoch, bars)
        seen = {name: one.validate() for name, one in trainings.items()}
        for pair, (a, b) in pairs.items():
            distances[pair].append(measure_distance(trainings[a], trainings[b], seen[a], seen[b]))
        for name, rows in metrics.items():
            rows.append(seen[name].metrics)
    return Trajectories(distances, metrics)


ROUNDING_TOLERANCE = 1e-10  #: what rounding in fp64 stays below over an epoch


@dataclass(frozen=True)
class DriftResult:
    """Distances by epoch, and whose they are."""

    course: Trajectories
    precision: str
    micro_batch: int
    accum: int
    seed: int
    samples: int  #: of the validation split
    inexact: Sequence[str]  #: what the model's layers make of a cut, in words

    @property
    def epochs(self) -> int:
        """How many epochs were trained."""
        return len(self.course.apart["cuts"])

    @property
    def whole(self) -> int:
        """Samples of the uncut batch."""
        return self.micro_batch * self.accum

    @property
    def in_fp64(self) -> Sequence[Distance]:
        """The cuts in fp64, where rounding is out of the way: the typed ones, where that is what was typed."""
        return self.course.apart.get("cuts_fp64", self.course.apart["cuts"])

    @property
    def counted(self) -> bool:
        """Say whether the task tells what it takes a sample for."""
        return self.in_fp64[0].predictions is not None

    @property
    def rounding(self) -> bool:
        """Say whether rounding is all that takes the cuts apart.

        The first epoch tells: what isn't rounding is there from the first step, and rounding hasn't had the time to
        grow that it has over a whole training.
        """
        return self.in_fp64[0].weights <= ROUNDING_TOLERANCE

    def numbers(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return {
            "precision": self.precision,
            "cuts": [[self.micro_batch, self.accum], [self.whole, 1]],
            "seeds": [self.seed, self.seed + 1],
            "epochs": self.epochs,
            "validation_samples": self.samples,
            "rounding_alone": self.rounding,
            "inexact_layers": list(self.inexact),
            "apart": {pair: transpose_rows([asdict(one) for one in rows]) for pair, rows in self.course.apart.items()},
            "metrics": {name: transpose_rows(rows) for name, rows in self.course.metrics.items()},
        }

    def curves(self) -> dict[str, Sequence[float]]:
        """Return what TensorBoard draws: a chart for weights, outputs and predictions, a line for each pair."""
        kinds = ("weights", "outputs", *(("predictions",) if self.counted else ()))
        return {
            f"{kind}_apart/{pair}": [float(getattr(one, kind)) for one in rows]
            for kind in kinds
            for pair, rows in self.course.apart.items()
        }


def transpose_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return rows as columns; a column of columns stays one."""
    return {
        key: transpose_rows(values) if isinstance(values[0], dict) else values
        for key, values in collect_columns(rows).items()
    }


def collect_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of each key."""
    return {key: [row[key] for row in rows] for key in rows[0]}
