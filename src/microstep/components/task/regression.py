"""Regression: one or several numbers a sample."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import microstep.components.task.known_targets as known
from microstep.errors import ConfigError
from microstep.types.data import Answer, Mix, Predictions, Report

DIRECTIONS: known.Directions = {"loss": "min", "mae": "min", "rmse": "min", "r2": "max"}


class Regression:
    """Regression of numbers, which are standardized over the training split: outputs and loss are in these units.

    Args:
        class_names: names of the numbers; empty if there is one.
        train_targets: float32, N or N × C; NaN means unknown.
        device: device of the outputs and targets.
        loss: null or `mse`, `huber` (Huber, Annals of Mathematical Statistics 35, 1964), or a callable from N × C
            outputs and targets to losses, N × C or N.
        delta: error above which huber is linear, in standard deviations.
        fitted: means and standard deviations; None takes those of `train_targets`.

    Raises:
        ConfigError: if `loss` is another word.
        DataError: if the targets are no numbers, or a training sample has no known one.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        train_targets: Tensor,
        device: torch.device,
        loss: Callable[[Tensor, Tensor], Tensor] | str | None = None,
        delta: float = 1.0,
        fitted: Mapping[str, Any] | None = None,
    ) -> None:
        losses: dict[str, Callable[..., Tensor]] = {"mse": F.mse_loss, "huber": partial(F.huber_loss, delta=delta)}
        loss = loss or "mse"
        if isinstance(loss, str) and loss not in losses:
            raise ConfigError(f"task.loss={loss}", "no such option", f"the options are {', '.join(losses)}")
        self.loss = partial(losses[loss], reduction="none") if isinstance(loss, str) else loss
        self.fitted, self.device = fitted or standardization(train_targets), device
        self.outputs, self.names = len(self.fitted["mean"]), tuple(class_names) or ("prediction",)
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.mean, self.std = (torch.tensor(self.fitted[k], dtype=dtype, device=device) for k in ("mean", "std"))

    weight = staticmethod(known.weigh_samples)

    def loss_sum(self, outputs: Tensor, targets: Tensor, mix: Mix | None = None) -> Tensor:
        mix = None if mix is None else Mix(self.standardize(mix.targets), mix.share)
        return known.sum_known_losses(self.loss, outputs, self.standardize(targets), mix)

    def standardize(self, targets: Tensor) -> Tensor:
        return (known.as_columns(targets).to(self.mean.dtype) - self.mean) / self.std

    def to_units(self, outputs: Tensor) -> Tensor:
        """Return the outputs of the model in the units of the targets (N × C, float64 on the CPU)."""
        return known.as_columns(outputs).cpu().double() * self.std.cpu() + self.mean.cpu()

    def predict(self, outputs: Tensor) -> dict[str, Tensor]:
        return {"prediction": self.to_units(outputs)}

    def metrics(self) -> known.KnownTargetMetrics:
        """Return loss, mae, rmse and r2; of several numbers the last three are means, in their own units."""
        return known.KnownTargetMetrics("r2", DIRECTIONS, (5, self.outputs), self.add_errors, self.score, self.device)

    def add_errors(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the number of known targets, and sums of |error|, error², target, target²: 5 × C, standardized."""
        values = self.standardize(targets)
        terms = [torch.ones_like(values), (outputs - values).abs(), (outputs - values) ** 2, values, values**2]
        return torch.stack(terms).where(~values.isnan(), 0).sum(1)

    def score(self, sums: Tensor) -> dict[str, float]:
        return {name: values.nanmean().item() for name, values in self.score_columns(sums).items()}

    def score_columns(self, sums: Tensor) -> dict[str, Tensor]:
        """Return mae, rmse and r2 of each number (C); NaN for one that is never known."""
        (absolute, squares, mean, mean_square), std = sums[1:] / sums[0], self.std.cpu()
        r2 = 1 - squares / (mean_square - mean**2).clamp(min=1e-9)  # finite for a constant
        return {"mae": absolute * std, "rmse": squares.sqrt() * std, "r2": r2}

    def answer(self, outputs: Tensor) -> list[Answer]:
        rows = [dict(zip(self.names, row, strict=True)) for row in self.to_units(outputs).tolist()]
        texts = ({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
        return [Answer(cells, ", ".join(f"{float(cell):.4g}" for cell in cells.values())) for cells in texts]

    def report(self, predictions: Predictions, directory: Path) -> Report:
        """Write a report. The score of a sample is its mean absolute error, negated."""
        from microstep.components.task.known_report import draw_scatter, write_report  # imports matplotlib

        values, targets = self.to_units(predictions.outputs), known.as_columns(predictions.targets).cpu().double()
        sums = self.add_errors(known.as_columns(predictions.outputs).to(self.mean), predictions.targets.to(self.mean))
        scores = {"known": sums[0].long(), **self.score_columns(sums.cpu())}
        table = {"number": list(self.names)} | {name: column.tolist() for name, column in scores.items()}
        cells = ["|".join(f"{value:.6g}" for value in row) for row in targets.tolist()]
        errors = "negative_absolute_error", -(values - targets).abs().nanmean(1)
        report = write_report(predictions, table, cells, self, errors, directory)
        draw_scatter(targets, values, self.names, file := directory / "scatter.png")
        return replace(report, images={file.stem: file, **report.images})


def standardization(targets: Tensor) -> dict[str, list[float]]:
    """Return mean and standard deviation of each column, over known targets; 1 for a constant one."""
    known.check_train_targets(targets, "regression", "numbers", targets.is_floating_point())
    columns = known.as_columns(targets).double()
    std = (columns - columns.nanmean(0)).square().nanmean(0).sqrt()
    return {"mean": columns.nanmean(0).tolist(), "std": std.where(std > 0, 1).tolist()}
