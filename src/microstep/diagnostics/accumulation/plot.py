"""Draws the weight of each micro-batch and of each sample."""

from matplotlib.axes import Axes

from microstep.diagnostics.accumulation.measure import WindowMeasurement
from microstep.diagnostics.accumulation.report import AccumulationCheck, format_cut
from microstep.diagnostics.accumulation.sample_weights import SampleWeights
from microstep.utils.plotting import BLUE, INK, LIGHT_BLUE, RED, new_figure, plain_text, png_bytes
from microstep.utils.text import truncate_middle

STYLE = {"axes.labelsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8, "axes.titlesize": 9}
MAX_NUMBERED_BARS = 12
PLOT_TITLE_LETTERS = 100


@plain_text(STYLE)
def draw_accumulation_plot(check: AccumulationCheck) -> bytes:
    """Return a PNG with a column a window: micro-batches, samples, and running statistics if the model has any.

    Bars are measured weights. A black mark is the weight in one large batch; bars that differ from it are red.
    """
    rows = 3 if any(one.running_weights for one in check.windows) else 2
    figure = new_figure(8.4, 0.6 + 2.3 * rows)
    title = f"{check.model} by {check.rule}: what weighs how much in a window"
    figure.suptitle(truncate_middle(title, PLOT_TITLE_LETTERS), fontsize=11)
    grid = figure.subplots(rows, len(check.windows), squeeze=False)
    for column, one in enumerate(check.windows):
        draw_micro_batches(grid[0][column], one)
        draw_samples(grid[1][column], one)
        if rows == 3:
            draw_running(grid[2][column], one.running_weights)
    return png_bytes(figure)


def draw_micro_batches(axes: Axes, measurement: WindowMeasurement) -> None:
    draw_bars(axes, measurement.micro_batch_weights)
    title = f"{measurement.window.name}: {format_cut(measurement)}"
    axes.set(title=title, ylabel="weight in the gradient", xlabel="micro-batch (black: what is due)")


def draw_running(axes: Axes, weights: SampleWeights | None) -> None:
    if weights is None:
        axes.set_axis_off()
        return
    draw_bars(axes, weights)
    ylabel = "weight in BatchNorm's\nrunning statistics"
    axes.set(ylabel=ylabel, xlabel="micro-batch (black: in one big batch)")


def draw_samples(axes: Axes, measurement: WindowMeasurement) -> None:
    """Draw a bar a sample. Micro-batches alternate between two shades."""
    weights, sizes = measurement.sample_weights, measurement.window.shape.sizes
    shades = [LIGHT_BLUE if number % 2 else BLUE for number, size in enumerate(sizes) for _ in range(size)]
    colors = [RED if wrong else shade for wrong, shade in zip(weights.is_wrong, shades, strict=True)]
    bar_positions = range(1, len(colors) + 1)
    axes.bar(bar_positions, weights.measured, width=1.0, color=colors, edgecolor="white", linewidth=0.3)
    edges = [0.5, *(n + 0.5 for n in bar_positions)]
    axes.step(edges, [weights.due[0], *weights.due], color=INK, linewidth=1.2)
    axes.set(ylabel="weight in the gradient", xlabel="sample, by its position in the window")
    leave_room(axes, weights)


def draw_bars(axes: Axes, weights: SampleWeights) -> None:
    bar_positions, colors = range(1, len(weights.due) + 1), [RED if wrong else BLUE for wrong in weights.is_wrong]
    bars = axes.bar(bar_positions, weights.measured, color=colors, width=0.8)
    for bar_position, due in zip(bar_positions, weights.due, strict=True):
        axes.plot([bar_position - 0.45, bar_position + 0.45], [due, due], color=INK, linewidth=1.6)
    leave_room(axes, weights)
    if len(bar_positions) <= MAX_NUMBERED_BARS:
        axes.set_xticks(bar_positions)
        axes.bar_label(bars, fmt="{:.3f}", padding=3, fontsize=8)


def leave_room(axes: Axes, weights: SampleWeights) -> None:
    """Start the axis at zero, with room for the values, and remove the frame."""
    axes.set_ylim(0, 1.22 * max(*weights.measured, *weights.due))
    axes.spines[["top", "right"]].set_visible(False)
