"""check=resume: compares training with and without saving, rebuilding and loading in between."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from itertools import islice
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from microstep.components.dataset.sharing import share_datasets
from microstep.diagnostics.drift.training import DriftTraining, start_training
from microstep.diagnostics.result import CheckResult
from microstep.diagnostics.variants import change_config, subject_rows
from microstep.run.checkpoints.archive import PLAIN_TYPES, serialize_state, snapshot
from microstep.training.components import collect_state, load_state, named_components
from microstep.training.evaluation_loop import averaged_model
from microstep.training.training_loop import train_epoch
from microstep.utils.tables import format_fields
from microstep.utils.terminal import silenced

EPOCHS, EPOCH_WINDOWS = 4, 4  #: of each training; an epoch is cut short
RESUMED_AFTER = (2, 8, 14)  #: windows: within an epoch, between two, and late, when an average has begun
WINDOWS = EPOCHS * EPOCH_WINDOWS
REMEDY = "let state_dict() return it as tensors and plain values, and load_state_dict() restore it"
UNKNOWN = "no component is seen to lose anything: look for state outside them, and for unseeded random numbers"


def run_resume_check(config: DictConfig) -> CheckResult:
    """Train some windows straight through and with resumes in between; pass if no bit differs."""
    config = change_config(config, epochs=EPOCHS, steps=None)
    with share_datasets():
        straight = start_training("straight", config, steps_per_epoch=EPOCH_WINDOWS)
        with silenced():
            resumed, lost = train_with_resumes(straight, config)
            train_until(straight, WINDOWS)
    summary = subject_rows(config, straight.components.dataset, straight.components.model)
    return make_result(summary, straight, resumed, lost)


def train_with_resumes(fresh: DriftTraining, config: DictConfig) -> tuple[DriftTraining, dict[str, list[str]]]:
    """Train a copy of a training, saved and loaded in between. Return it, and what its components lost."""
    resumed, lost = save_and_load(fresh, config), dict[str, list[str]]()
    for windows in RESUMED_AFTER:
        train_until(resumed, windows)
        before, resumed = resumed, save_and_load(resumed, config)
        lost |= find_lost(before, resumed)
    train_until(resumed, WINDOWS)
    return resumed, lost


def make_result(
    summary: dict[str, str], straight: DriftTraining, resumed: DriftTraining, lost: dict[str, list[str]]
) -> CheckResult:
    states = [collect_state(each.components, each.optimization) for each in (straight, resumed)]
    one, other = ({name: digest(state) for name, state in each.items()} for each in states)
    different = [name for name in one if one[name] != other.get(name)]
    summary |= {"windows": f"{WINDOWS} in {EPOCHS} short epochs, resumed after {', '.join(map(str, RESUMED_AFTER))}"}
    summary |= {f"{name} state": "differs" if name in different else f"the same: {one[name][:12]}…" for name in one}
    verdict = verdict_text(named_components(straight.components, straight.optimization), different, lost)
    numbers = {"exact": not different, "straight": one, "resumed": other, "lost": lost}
    return CheckResult(format_fields(summary), verdict, numbers, passed=not different)


def train_until(training: DriftTraining, windows: int) -> None:
    """Train until the run has this number of windows. After each epoch, prepare the average as for a validation."""
    components, optimization, progress = training.components, training.optimization, training.progress
    size, passes = min(EPOCH_WINDOWS, components.steps), getattr(optimization.step, "passes", 1)
    while progress.windows < windows:
        epoch, left = progress.epoch + 1, min(size - progress.window, windows - progress.windows)
        loaded = islice(components.loaders.train(epoch, progress.window, passes), left)
        train_epoch(epoch, loaded, components, optimization, progress)
        if progress.window == size:
            averaged_model(components.model, optimization.average)
            progress.epoch, progress.window = epoch, 0


def save_and_load(training: DriftTraining, config: DictConfig) -> DriftTraining:
    """Return a training that is built anew and continues from a checkpoint of the other."""
    content = BytesIO(serialize_state(snapshot(collect_state(training.components, training.optimization))))
    rebuilt = start_training(training.name, config, training.components.precision.name, EPOCH_WINDOWS)
    load_state(rebuilt.components, rebuilt.optimization, torch.load(content, map_location="cpu", weights_only=True))
    rebuilt.progress = replace(training.progress)
    return rebuilt


def find_lost(before: DriftTraining, after: DriftTraining) -> dict[str, list[str]]:
    """Return the attributes of each component that a resume did not restore."""
    had, has = (named_components(each.components, each.optimization) for each in (before, after))
    memories = {name: (memory_of(part), memory_of(has[name])) for name, part in had.items()}
    lost = {name: [k for k in one if digest(one[k]) != digest(two.get(k))] for name, (one, two) in memories.items()}
    return {name: keys for name, keys in lost.items() if keys}


def memory_of(part: Any) -> dict[str, Any]:
    """Return the attributes of a component; of a module or another part of torch, its state."""
    if isinstance(part, nn.Module) or type(part).__module__.startswith("torch."):
        return dict(part.state_dict())
    return getattr(part, "__dict__", {})


def digest(value: Any) -> str:
    """Return a SHA-256 of tensors and plain values, also those in collections. Other objects count as equal."""
    leaves, structure = tree_flatten(value)
    found = sha256(repr([structure, *(leaf if isinstance(leaf, PLAIN_TYPES) else None for leaf in leaves)]).encode())
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            found.update(f"{leaf.dtype}{leaf.shape}".encode())
            found.update(leaf.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def verdict_text(parts: Mapping[str, Any], different: Collection[str], lost: Mapping[str, Collection[str]]) -> str:
    found = "; ".join(f"{name} ({type(parts[name]).__name__}) loses {', '.join(lost[name])}" for name in lost)
    cause = f"{found} at a resume: {REMEDY}" if lost else UNKNOWN
    if different:
        return f"Not exact: after {WINDOWS} windows {', '.join(different)} differ; {cause}."
    caution = f"; but if more windows need it, {cause}" if lost else ""
    return f"Exact: after {WINDOWS} windows and {len(RESUMED_AFTER)} resumes, no bit differs{caution}."
