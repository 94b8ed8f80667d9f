"""Final weights of a run."""

import json
from pathlib import Path

import torch
from torch import Tensor


def last_weights(run_dir: Path) -> dict[str, Tensor]:
    """Return the last checkpoint's state dict."""
    manifest = json.loads((run_dir / "checkpoints" / "manifest.json").read_text())
    state = torch.load(run_dir / "checkpoints" / manifest["last"]["file"], weights_only=True)
    return dict(state["model"])


def relative(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest relative difference of any tensor."""
    return max(((one[name] - other[name]).norm() / other[name].norm()).item() for name in other)


def identical(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Return whether all bits are equal."""
    return all(torch.equal(one[name], other[name]) for name in other)
