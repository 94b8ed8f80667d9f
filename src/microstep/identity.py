"""What the result of a run depends on, bit for bit: kept in its checkpoints, and what a resume is held against."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from microstep import machine
from microstep.config import RESUMABLE_KEYS, experiment_of, without
from microstep.parts import Parts

PACKAGES = ("microstep", "torch", "torchvision", "numpy", "scikit-learn", "hydra-core", "omegaconf")


def identity(config: DictConfig, parts: Parts) -> dict[str, Any]:
    """Return what the result depends on: what a checkpoint holds, and a resume is held against."""
    return {
        "experiment": experiment_hash(config, parts.dataset.fingerprint),
        "config": config_hash(config),
        "source": source_hash(),
        "data": parts.dataset.fingerprint,
        "classes": list(parts.dataset.facts.get("class_names", ())),
        "precision": dict(parts.precision.describe()),
        **surroundings(parts.device),
    }


def surroundings(device: torch.device) -> dict[str, Any]:
    """Return what has to be the same for a run to be the same, bit for bit, besides the experiment."""
    return {
        "device": machine.name_of(device),
        "machine": machine.processor(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "versions": versions(),
    }


def config_hash(config: DictConfig) -> str:
    """Return a SHA-256 over the experiment, less what a resume may change."""
    described = without(experiment_of(config), RESUMABLE_KEYS)
    return sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def experiment_hash(config: DictConfig, data_fingerprint: str) -> str:
    """Return a SHA-256 over what the result depends on: the experiment, the data, the source."""
    described = {"experiment": experiment_of(config), "data": data_fingerprint, "source": source_hash()}
    return sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


@cache
def source_hash() -> str:
    """Return a SHA-256 over this package's source."""
    root = Path(__file__).parent
    files = sorted(root.rglob("*.py"))
    return sha256(b"".join(str(f.relative_to(root)).encode() + f.read_bytes() for f in files)).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs of what the bits depend on besides config and data, in words."""
    names = ("device", "machine", "threads", "deterministic", "precision")
    told = [f"{name} {now[name]} (was {before.get(name)})" for name in names if before.get(name) != now[name]]
    if before.get("source") != now["source"]:
        told.append("microstep's own source")
    known = dict(before.get("versions") or {})
    return told + [f"{name} {v} (was {known.get(name)})" for name, v in now["versions"].items() if known.get(name) != v]
