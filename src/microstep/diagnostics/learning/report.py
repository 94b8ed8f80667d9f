"""Formats and draws what check=learning has measured."""

from collections.abc import Mapping
from dataclasses import asdict
from math import inf, isfinite, nan
from typing import Any

from matplotlib.axes import Axes
from omegaconf import DictConfig

from microstep.diagnostics.learning.faults import Measurements, format_left
from microstep.diagnostics.learning.layers import iter_layers
from microstep.diagnostics.learning_rate import RangeTest, draw_smoothed
from microstep.utils.plotting import BLUE, GREEN, GREY, new_figure, png_bytes
from microstep.utils.tables import format_fields, format_table

MOST_LAYERS = 16  #: in the table; the JSON file has all of them
USUAL_UPDATE = 1e-3  #: update-to-weight ratio


def format_verdict(m: Measurements, faults: Mapping[str, str]) -> str:
    text = next(iter(faults.values()), None)
    if text is not None:
        more = f" Also: {', '.join(list(faults)[1:])}." if len(faults) > 1 else ""
        return f"{'It learns, with a fault' if m.learns else 'It does not learn'}: {text}.{more}"
    if not m.learns:
        shown = describe_short(m) if m.one_batch.is_learned else describe_one_batch(m)
        return f"It does not learn: {shown}, and no cause was found."
    slowly = " slowly" if isfinite(m.one_batch.left) else ", near divergence"
    return f"It learns{'' if m.one_batch.is_learned else slowly}: {describe_one_batch(m)}; {describe_short(m)}."


def describe_one_batch(m: Measurements) -> str:
    one = m.one_batch
    return f"after {len(one.losses)} steps on one batch of {one.samples} samples {format_left(one)} is left"


def describe_short(m: Measurements) -> str:
    steps, best, loss = len(m.short.losses), m.short.val_constant_loss, m.short.val_loss
    return (
        f"{steps} steps on the data bring the validation loss from {best:.3g}, that of constant outputs, to {loss:.3g}"
    )


def format_measurements(rows: Mapping[str, str], m: Measurements, test: RangeTest, config: DictConfig) -> str:
    start, short, one = m.start, m.short, m.one_batch
    found = {
        "inputs": f"mean {start.input_mean:.2g}, root mean square {start.input_rms:.2g}",
        "outputs": f"{start.outputs} for {start.distinct_targets} distinct targets",
        "first loss": f"{one.losses[0]:.4g} (chance {one.loss.chance:.4g})",
        "one batch": describe_one_batch(m),
        "short training": describe_short(m),
        "both modes": f"loss {short.train_loss:.4g} in training, {short.eval_loss:.4g} in evaluation (same images)",
        "outputs, targets": format_scores(short.related),
        "neighbors, targets": format_scores(short.neighbors),
        "learning rate": f"{config.optimizer.get('lr')}; the range test suggests {test.suggestion or 'none'}",
    }
    if short.unused:
        found["unused"] = f"{len(short.unused)} parameters, such as {short.unused[0]}: outputs do not depend on them"
    return f"{format_fields({**rows, **found})}\n\n{format_layers(m)}"


def format_scores(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {score:.1f}" for name, score in scores.items()) + " σ from unrelated"


def format_layers(m: Measurements) -> str:
    layers = list(iter_layers(m.short.layers))
    rows = [(name, f"{r.gradient:.1e}", f"{r.update:.1e}", f"{100 * r.dead:.0f} %") for name, r in layers]
    if len(rows) > MOST_LAYERS:
        half = MOST_LAYERS // 2
        rows = [*rows[:half], (f"… {len(rows) - 2 * half} more", "", "", ""), *rows[-half:]]
    return "\n".join(format_table([("layer", "gradient", "update ÷ weights", "dead units"), *rows], "<>"))


def to_numbers(m: Measurements, faults: Mapping[str, str], test: RangeTest) -> dict[str, Any]:
    layers = {
        name: {"gradient": r.gradient, "update": r.update, "dead": r.dead} for name, r in iter_layers(m.short.layers)
    }
    short = {key: value for key, value in vars(m.short).items() if key not in ("layers", "seconds")}
    return {
        "learns": m.learns,
        "faults": dict(faults),
        "start": asdict(m.start),
        "one_batch": asdict(m.one_batch) | {"left": m.one_batch.left},
        "short": short,
        "layers": layers,
        "suggestion": test.suggestion,
    }


def draw_learning(m: Measurements, test: RangeTest) -> bytes:
    """Return a PNG: one batch, the range test, and the gradients and updates of the layers."""
    figure = new_figure(9.6, 6.4)
    (batch, rates), (gradients, updates) = figure.subplots(2, 2)
    draw_one_batch(batch, m)
    draw_rates(rates, test)
    draw_layers(gradients, updates, m)
    return png_bytes(figure)


def draw_one_batch(axes: Axes, m: Measurements) -> None:
    axes.plot(range(1, len(m.one_batch.losses) + 1), m.one_batch.losses, color=BLUE)
    axes.axhline(m.one_batch.loss.chance, color=GREY, linestyle=":", label="chance")
    axes.axhline(m.one_batch.loss.least, color=GREEN, linestyle=":", label="least")
    axes.set(title="one batch, again and again", xlabel="step", ylabel="loss")
    if 0 < m.one_batch.loss.chance < inf and m.one_batch.loss.least >= 0:
        axes.set(ylim=(0, 2 * m.one_batch.loss.chance))
    axes.legend(frameon=False)


def draw_rates(axes: Axes, test: RangeTest) -> None:
    axes.set(title="range test", xlabel="learning rate", ylabel="loss")
    if test.losses:
        draw_smoothed(axes, test)
    if test.suggestion is not None:
        axes.legend(frameon=False)


def draw_layers(gradients: Axes, updates: Axes, m: Measurements) -> None:
    layers = [record for _, record in iter_layers(m.short.layers)]
    places = range(1, len(layers) + 1)
    for axes in (gradients, updates):
        axes.locator_params(axis="x", integer=True)
    gradients.plot(places, [record.gradient or nan for record in layers], "o-", color=BLUE, markersize=3)
    gradients.set(title="gradient by layer", yscale="log", xlabel="layer", ylabel="L2 norm")
    updates.plot(places, [record.update or nan for record in layers], "o-", color=BLUE, markersize=3)
    updates.axhline(USUAL_UPDATE, color=GREY, linestyle=":", label="usual")
    updates.set(title="update ÷ weights by layer", yscale="log", xlabel="layer", ylabel="ratio")
    updates.legend(frameon=False)
