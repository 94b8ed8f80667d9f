"""Trains several variants side by side and measures their distances, epoch by epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from omegaconf import DictConfig

from microstep.components.dataset.sharing import share_datasets
from microstep.config.experiment import effective_batch_size
from microstep.diagnostics.drift.training import Distance, DriftTraining, measure_distance, start_training
from microstep.diagnostics.variants import FP64, change_config, check_window_fits
from microstep.utils.progress_bar import ProgressBars
from microstep.utils.terminal import silenced

#: Trainings to compare; distances are relative to the second one.
PAIRS = {"cuts": ("cut", "whole"), "seeds": ("seed", "whole"), "cuts_fp64": ("cut_fp64", "whole_fp64")}


@dataclass(frozen=True)
class Trajectories:
    """Distances and metrics of trainings that ran side by side, by epoch."""

    distances: Mapping[str, Sequence[Distance]]  #: by pair
    metrics: Mapping[str, Sequence[Mapping[str, float]]]  #: of the validation split, by training


def make_compared_configs(config: DictConfig) -> Mapping[str, DictConfig]:
    """Return the configs to compare with `config`: uncut, uncut with the next seed, and both cuts in fp64."""
    whole = change_config(config, accum=1, batch_size=effective_batch_size(config))
    return {
        "whole": whole,
        "seed": change_config(whole, seed=config.seed + 1),
        "cut_fp64": change_config(config, precision=FP64),
        "whole_fp64": change_config(whole, precision=FP64),
    }


def start_trainings(config: DictConfig) -> Mapping[str, DriftTraining]:
    """Build the trainings, with shared data. Those in fp64 are left out if the experiment itself is in fp64."""
    with share_datasets():
        cut = start_training("cut", config)
        check_window_fits(config, cut.components.loaders.samples)
        exact = cut.components.precision.dtype == torch.float64
        others = {name: c for name, c in make_compared_configs(config).items() if not (exact and "fp64" in name)}
        with silenced():  # the first training has printed all warnings
            precision = cut.components.precision.name  # precision=auto might choose another one for another batch size
            return {"cut": cut} | {name: start_training(name, other, precision) for name, other in others.items()}


def train_together(trainings: Mapping[str, DriftTraining], epochs: int, bars: ProgressBars) -> Trajectories:
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


ROUNDING_TOLERANCE = 1e-10  #: upper limit of what rounding in fp64 causes within an epoch


@dataclass(frozen=True)
class DriftResult:
    """The distances by epoch, with the settings of the experiment."""

    trajectories: Trajectories
    precision: str
    micro_batch: int
    accum: int
    seed: int
    samples: int  #: of the validation split
    inexact_reasons: Sequence[str]  #: for each kind of layer that depends on the micro-batch, a sentence

    @property
    def distances(self) -> Mapping[str, Sequence[Distance]]:
        return self.trajectories.distances

    @property
    def epochs(self) -> int:
        return len(self.distances["cuts"])

    @property
    def whole(self) -> int:
        return self.micro_batch * self.accum

    @property
    def in_fp64(self) -> Sequence[Distance]:
        """The distances between the cuts in fp64, where rounding is negligible."""
        return self.distances.get("cuts_fp64", self.distances["cuts"])

    @property
    def counts_predictions(self) -> bool:
        return self.in_fp64[0].predictions is not None

    @property
    def is_rounding_only(self) -> bool:
        """Whether the cuts differ by rounding only. The first epoch decides, before rounding has grown."""
        return self.in_fp64[0].weights <= ROUNDING_TOLERANCE

    def to_dict(self) -> dict[str, Any]:
        return {
            "precision": self.precision,
            "cuts": [[self.micro_batch, self.accum], [self.whole, 1]],
            "seeds": [self.seed, self.seed + 1],
            "epochs": self.epochs,
            "validation_samples": self.samples,
            "rounding_alone": self.is_rounding_only,
            "inexact_layers": list(self.inexact_reasons),
            "apart": {pair: transpose_rows(list(map(asdict, rows))) for pair, rows in self.distances.items()},
            "metrics": {name: transpose_rows(rows) for name, rows in self.trajectories.metrics.items()},
        }

    def curves(self) -> dict[str, Sequence[float]]:
        quantities = ("weights", "outputs", *(("predictions",) if self.counts_predictions else ()))
        return {
            f"{quantity}_apart/{pair}": [float(getattr(one, quantity)) for one in rows]
            for quantity in quantities
            for pair, rows in self.distances.items()
        }


def transpose_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    return {key: transpose_rows(c) if isinstance(c[0], dict) else c for key, c in columns.items()}
