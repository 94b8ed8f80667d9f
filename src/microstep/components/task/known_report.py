"""Writes the report of a task with unknown targets (NaN)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

import microstep.utils.plotting as plotting
from microstep.components.task.classification.plots import MAX_MISTAKES, MISTAKE_NAME_LETTERS, draw_samples
from microstep.components.task.classification.report import write_samples
from microstep.errors import escape_unprintable
from microstep.types.data import Predictions, Report, SupportsAnswers
from microstep.utils.json_files import write_json
from microstep.utils.tables import csv_bytes, format_table
from microstep.utils.text import truncate_middle

MAX_PANELS, PANEL_INCHES = 4, 4.2  #: of a scatter plot


def write_report(
    predictions: Predictions,
    table: Mapping[str, Sequence[object]],
    targets: Sequence[str],
    task: SupportsAnswers,
    sample_scores: tuple[str, Tensor],
    directory: Path,
) -> Report:
    """Write all files of `reports/<split>/` about N samples.

    Args:
        table: columns of report.txt, .json and .csv, the names first.
        targets: cells of predictions.csv (N).
        task: answers the outputs.
        sample_scores: name and values (N), the higher the better; NaN leaves a sample out.
    """
    rows = list(zip(*table.values(), strict=True))
    cells = [list(table), *([f"{v:.5g}" if isinstance(v, float) else str(v) for v in row] for row in rows)]
    text = "\n".join(format_table([list(map(escape_unprintable, row)) for row in cells], "<>"))
    write_json(directory / "report.json", [dict(zip(table, row, strict=True)) for row in rows])
    (directory / "report.txt").write_text(text + "\n", encoding="utf-8")
    (directory / "report.csv").write_bytes(csv_bytes(cells))
    answers, (name, values), file = task.answer(predictions.outputs), sample_scores, directory / "worst_mistakes.png"
    answered = {column: [answer.cells[column] for answer in answers] for column in answers[0].cells}
    write_samples(predictions, {"target": targets, **answered}, sample_scores, directory)
    worst = values.nan_to_num(torch.inf).argsort(stable=True)[:MAX_MISTAKES].tolist()
    shown = [(answers[row].caption, targets[row]) for row in worst]
    captions = ["\ntrue: ".join(truncate_middle(text, MISTAKE_NAME_LETTERS) for text in pair) for pair in shown]
    headline = f"{directory.name}: the worst {name.replace('_', ' ').removeprefix('negative ')} first"
    return Report(text, {file.stem: file} if draw_samples(predictions, worst, captions, headline, file) else {})


@plotting.plain_text()
def draw_scatter(targets: Tensor, values: Tensor, names: Sequence[str], file: Path) -> None:
    """Draw predicted against true numbers (N × C) for the first columns; the diagonal is perfect."""
    panels = min(len(names), MAX_PANELS)
    figure = plotting.new_figure(PANEL_INCHES * panels, PANEL_INCHES)
    panel_axes = figure.subplots(1, panels, squeeze=False)[0]
    for axes, name, true, value in zip(panel_axes, names, targets.T, values.T, strict=False):
        shown = torch.cat([true, value]).nan_to_num(float(true.nanmean()))
        limits = float(shown.min()), float(shown.max())  # of both axes, so that the diagonal is one
        axes.plot(limits, limits, color=plotting.GREY, linewidth=1, linestyle="--")
        axes.scatter(true, value, s=9, alpha=0.5, color=plotting.BLUE, linewidths=0)
        title = f"{file.parent.name}: {truncate_middle(escape_unprintable(name), 40)}"
        axes.set(xlabel="true", ylabel="predicted", title=title)
    file.write_bytes(plotting.png_bytes(figure))
