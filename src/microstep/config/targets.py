"""Names of the components in configs of every version.

A config keeps each `_target_` as it was written. A target is imported, looked up and compared by its current name, and
hashed by its original one.
"""

import re
from collections.abc import Callable
from typing import Any

COMPONENTS = "microstep.components"
CLASSIFICATION = f"{COMPONENTS}.task.Classification"
#: The components that configs of 0.1.0 name, by group.
NAMES = {
    "accumulation": ("Fixed",),
    "augment": ("crop_flip", "cutmix", "cutout", "mixup", "none", "randaugment"),
    "dataset": ("cifar", "digits", "image_folder", "mnist", "synthetic"),
    "model": ("SmallCNN", "mlp", "resnet18", "torchvision_model"),
    "precision": ("amp", "auto", "bf16", "fp16", "full", "tf32"),
    "sampler": ("Balanced", "Shuffle"),
    "scheduler": ("constant", "cosine", "onecycle"),
    "step": ("SAMStep", "StandardStep"),
    "task": ("Classification",),
}
#: `microstep.<group>.<…>.<name>`, with or without a module between group and name.
SPELLING = re.compile(r"microstep\.(?P<moved>components\.)?(?P<group>\w+)\.(?:\w+\.)*(?P<name>\w+)")


def match_component(target: str) -> re.Match[str] | None:
    match = SPELLING.fullmatch(target)
    return match if match and match["name"] in NAMES.get(match["group"], ()) else None


def current(target: str) -> str:
    """Return the name that a component is imported by; any other target unchanged."""
    match = match_component(target)
    return f"{COMPONENTS}.{match['group']}.{match['name']}" if match else target


def original(target: str) -> str:
    """Return the name that a component had in 0.1.0, so that hashes stay valid; any other target unchanged."""
    match = match_component(target)
    return f"microstep.{match['group']}.{match['name']}" if match and match["moved"] else target


def renamed(node: Any, name: Callable[[str], str]) -> Any:
    """Return a plain structure with `name` applied to every `_target_` at any depth."""
    if isinstance(node, list):
        return [renamed(value, name) for value in node]
    if not isinstance(node, dict):
        return node
    copy = {key: renamed(value, name) for key, value in node.items()}
    if isinstance(target := copy.get("_target_"), str):
        copy["_target_"] = name(target)
    return copy
