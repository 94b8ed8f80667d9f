"""What is said of a run whose loss or gradient is no longer finite."""

from __future__ import annotations

import logging

import torch

from microstep.errors import Diverged
from microstep.run.progress import Place
from microstep.types.data import LoadedWindow, StepResult

log = logging.getLogger(__name__)
SHOWN = 12  #: samples that the line names; train.log has all


def diverged(epoch: int, window: LoadedWindow, result: StepResult, precision: str, saved: Place | None) -> Diverged:
    """Return the error, which names the samples of the window by their place in the official data; it reads them again.

    Args:
        saved: where the last checkpoint stands; None where none are made.
    """
    indices = torch.cat([batch.indices.cpu() for batch in window.batches]).tolist()
    where = f"epoch {epoch}, step {window.number + 1}"
    log.error("%s is made of samples %s", where, indices)
    named = ", ".join(map(str, indices[:SHOWN])) + (
        f", … ({len(indices)}, all in train.log)" if indices[SHOWN:] else ""
    )
    loss, norm = result.loss.item(), result.grad_norm
    reason = f"the loss ({loss:.4g}) or its gradient ({norm:.4g}) is not finite in {precision}, over samples {named}"
    kept = f"the checkpoint of {saved} is kept" if saved != Place() else "no checkpoint was written yet"
    note = "" if saved is None else f"; {kept}"
    return Diverged(where, reason, f"lower optimizer.lr or set max_grad_norm{note}")
