"""What was found: the distances, and what they are due to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from microstep.examination.drift.apart import Apart
from microstep.examination.drift.course import Course

EXACT = 1e-10  #: what rounding in fp64 stays below over an epoch


@dataclass(frozen=True)
class Drift:
    """Distances by epoch, and whose they are."""

    course: Course
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
    def in_fp64(self) -> Sequence[Apart]:
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
        return self.in_fp64[0].weights <= EXACT

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
            "apart": {pair: by_epoch([asdict(one) for one in rows]) for pair, rows in self.course.apart.items()},
            "metrics": {name: by_epoch(rows) for name, rows in self.course.metrics.items()},
        }

    def curves(self) -> dict[str, Sequence[float]]:
        """Return what TensorBoard draws: a chart for weights, outputs and predictions, a line for each pair."""
        kinds = ("weights", "outputs", *(("predictions",) if self.counted else ()))
        return {
            f"{kind}_apart/{pair}": [float(getattr(one, kind)) for one in rows]
            for kind in kinds
            for pair, rows in self.course.apart.items()
        }


def by_epoch(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return rows as columns; a column of columns stays one."""
    return {key: by_epoch(values) if isinstance(values[0], dict) else values for key, values in columns(rows).items()}


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the values of each key."""
    return {key: [row[key] for row in rows] for key in rows[0]}
