"""Verdict, tables, numbers and contact sheet of a replayed step."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, isfinite

import torch
from torch import Tensor

from microstep.components.task.classification.plots import draw_image_grid
from microstep.diagnostics.replay.observer import WindowObserver
from microstep.diagnostics.result import CheckResult
from microstep.run.progress import Progress
from microstep.utils.plotting import plain_text, png_bytes
from microstep.utils.tables import format_fields, format_table
from microstep.utils.text import truncate_middle

MAX_ROWS, MAX_IMAGES, COLUMNS = 20, 64, 8  #: that are shown; replay.json has all
MAX_PEAK, MAX_UPDATE = 1e3, 1.0  #: of inputs in units of the usual one, of updates in units of the weights' norm


@dataclass(frozen=True)
class ReplayedStep:
    """An optimizer step that was taken again. Norms are by layer."""

    position: str
    progress: Progress  #: after it
    seen: WindowObserver
    is_finite_unscaled: bool  #: whether loss and gradient are finite without the loss scale
    weights: Sequence[Mapping[str, float]]  #: norms before the step before, if it was repeated, and before this one
    updates: Sequence[Mapping[str, float]]  #: norms of these two


def norms_by_layer(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    norms = dict[str, float]()
    for name, tensor in tensors.items():
        layer = name.rpartition(".")[0] or name
        norms[layer] = hypot(norms.get(layer, 0.0), tensor.norm().item())
    return norms


def find_fault(step: ReplayedStep) -> tuple[str, str, Sequence[int]]:
    """Return the kind of fault, empty if there is none, a sentence, and the rows of its samples."""
    seen, samples = step.seen, step.seen.samples
    _, text, rows = seen.origin or (0, "the loss or its gradient, of an operation that is not known", ())
    usual = torch.tensor([s.peak for s in samples]).nanmedian().clamp(1).item()
    if corrupt := [row for row, s in enumerate(samples) if not s.peak <= MAX_PEAK * usual]:
        return "data", f"The data: an input reaches {samples[corrupt[0]].peak:.4g} before any layer", corrupt
    if step.is_finite_unscaled and not seen.is_finite:
        return "loss scale", f"Only the loss scale of {seen.scale:g} overflows, which skips the step ({text})", ()
    totals = ([hypot(*norms.values()) for norms in each] for each in (step.updates, step.weights))
    ratios = [update / (weights or 1) for update, weights in zip(*totals, strict=True)]
    if not max(ratios) < MAX_UPDATE:
        which = "the update" if max(ratios) == ratios[1] else "the update of the step before"
        text = f"The learning rate: {which} is {max(ratios):.4g} times as large as the weights"
        return "learning rate", f"{text}; lower optimizer.lr, or set max_grad_norm", ()
    if not seen.is_finite or step.progress.skipped_in_a_row:  # by SAM, the gradient at the perturbed weights
        return "operation", f"Not finite: {text}", rows or [n for n, s in enumerate(samples) if not isfinite(s.loss)]
    return "", f"The step is sound: loss {seen.loss:.4g}, gradient {seen.grad_norm:.4g}, and all values are finite", ()


@plain_text()
def make_result(step: ReplayedStep) -> CheckResult:
    seen, (kind, verdict, faulty) = step.seen, find_fault(step)
    order = sorted(enumerate(seen.samples), key=lambda s: (s[0] not in faulty, isfinite(s[1].loss), -s[1].loss))
    samples, gradients = [each for _, each in order], norms_by_layer(seen.gradients)
    weights, update = step.weights[1], step.updates[1]
    losses = [(f"{s.name} ({s.label})", (s.loss, s.gradient)) for s in samples]
    verdict += "; sample " * bool(faulty) + ", ".join(name for name, _ in losses[: len(faulty)][:MAX_ROWS])
    layers = {name: (gradients.get(name, 0.0), norm, update[name] / (norm or 1)) for name, norm in weights.items()}
    rows = {"step": step.position, "loss": f"{seen.loss:.6g}", "gradient norm": f"{seen.grad_norm:.4g}"}
    rows |= {"learning rate": f"{step.progress.lr:g}", "skipped": "yes" if step.progress.skipped_in_a_row else "no"}
    text = [format_fields(rows), "", *format_numbers("layer gradient weights update/weights", layers.items())]
    text += ["", *format_numbers("sample loss gradient/outputs", losses)]
    numbers = rows | {"fault": kind, "loss": seen.loss, "layers": layers, "samples": losses}
    shown = samples[:MAX_IMAGES]
    found = [sample.image for sample in shown if sample.image is not None]
    captions = [f"{truncate_middle(s.label, 22)}: {s.loss:.3g}\n{truncate_middle(s.name, 26)}" for s in shown]
    sheet = draw_image_grid(torch.stack(found), captions, step.position, min(COLUMNS, len(found))) if found else None
    images = {"images": png_bytes(sheet)} if sheet else {}
    return CheckResult("\n".join(text), verdict, numbers, images, passed=kind in ("", "loss scale"))


def format_numbers(header: str, rows: Iterable[tuple[str, Sequence[float]]]) -> list[str]:
    shown = [[truncate_middle(name, 44), *(f"{value:.3g}" for value in values)] for name, values in [*rows][:MAX_ROWS]]
    return format_table([header.split(), *shown], "<>")
