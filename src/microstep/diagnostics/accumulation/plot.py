"""The weight of each micro-batch and of each sample, drawn."""

from __future__ import annotations

from matplotlib.axes import Axes

from microstep.diagnostics.accumulation.measure import WindowMeasurement
from microstep.diagnostics.accumulation.report import AccumulationCheck, format_cut
from microstep.diagnostics.accumulation.sample_weights import SampleWeights
from microstep.utils.plotting import BLUE, INK, LIGHT_BLUE, RED, new_figure, plain_text, png_bytes
from microstep.utils.text import truncate_middle

STYLE = {"axes.labelsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8, "axes.titlesize": 9}
MAX_NUMBERED_BARS = 12  #: micro-batches up to which each bar bears its number
PLOT_TITLE_LETTERS = 100  #: letters


@plain_text(STYLE)
def draw_accumulation_plot(check: AccumulationCheck) -> bytes:
    """Return a PNG: a column a window; micro-batches, samples, and BatchNorm's running statistics where there are some.

    What is drawn was measured; a black mark is what the weight should be, red what isn't that.
    """
    rows = 3 if any(one.running for one in check.windows) else 2
    figure = new_figure(8.4, 0.6 + 2.3 * rows)
    title = f"{check.model} by {check.rule}: what weighs how much in a window"
    figure.suptitle(truncate_middle(title, PLOT_TITLE_LETTERS), fontsize=11)
    grid = figure.subplots(rows, len(check.windows), squeeze=False)
    for column, one in enumerate(check.windows):
        draw_micro_batches(grid[0][column], one)
        draw_samples(grid[1][column], one)
        if rows == 3:
            draw_running(grid[2][column], one.running)
    return png_bytes(figure)


def draw_micro_batches(axes: Axes, measurement: WindowMeasurement) -> None:
    """Draw what each micro-batch weighs in the gradient."""
    draw_bars(axes, measurement.micro_batches)
    title = f"{measurement.window.name}: {format_cut(measurement)}"
    axes.set(title=title, ylabel="weight in the gradient", xlabel="micro-batch (black: what is due)")


def draw_running(axes: Axes, shares: SampleWeights | None) -> None:
    """Draw what each micro-batch weighs in a running mean."""
    if shares is None:
        axes.set_axis_off()
        return
    draw_bars(axes, shares)
    ylabel = "weight in BatchNorm's\nrunning statistics"
    axes.set(ylabel=ylabel, xlabel="micro-batch (black: in one big batch)")


def draw_samples(axes: Axes, measurement: WindowMeasurement) -> None:
    """Draw a bar a sample, micro-batches in turn a shade apart."""
    shades = [
        LIGHT_BLUE if number % 2 else BLUE for number, n in enumerate(measurement.window.shape.sizes) for _ in range(n)
    ]
    tones = [RED if wrong else shade for wrong, shade in zip(measurement.samples.wrong, shades, strict=True)]
    bar_positions = range(1, len(tones) + 1)
    axes.bar(bar_positions, measurement.samples.measured, width=1.0, color=tones, edgecolor="white", linewidth=0.3)
    axes.step(
        [0.5, *(n + 0.5 for n in bar_positions)],
        [measurement.samples.due[0], *measurement.samples.due],
        color=INK,
        linewidth=1.2,
    )
    axes.set(ylabel="weight in the gradient", xlabel="sample, by its place in the window")
    leave_room(axes, measurement.samples)


def draw_bars(axes: Axes, shares: SampleWeights) -> None:
    """Draw bars with their numbers, and a mark where each should end."""
    bar_positions, tones = range(1, len(shares.due) + 1), [RED if wrong else BLUE for wrong in shares.wrong]
    axes.bar(bar_positions, shares.measured, color=tones, width=0.8)
    for bar_position, due in zip(bar_positions, shares.due, strict=True):
        axes.plot([bar_position - 0.45, bar_position + 0.45], [due, due], color=INK, linewidth=1.6)
    leave_room(axes, shares)
    if len(bar_positions) <= MAX_NUMBERED_BARS:
        axes.set_xticks(bar_positions)
        for bar_position, weight in zip(bar_positions, shares.measured, strict=True):
            axes.annotate(
                f"{weight:.3f}", (bar_position, weight), (0, 3), textcoords="offset points", ha="center", fontsize=8
            )


def leave_room(axes: Axes, shares: SampleWeights) -> None:
    """Begin at zero, leave room for the numbers, draw no box."""
    axes.set_ylim(0, 1.22 * max(*shares.measured, *shares.due))
    axes.spines[["top", "right"]].set_visible(False)
