"""Everything that a result depends on, bit for bit: saved in checkpoints and compared on resume."""

import json
import platform
import subprocess
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from omegaconf import DictConfig

from microstep.components.precision.presets import PRESETS
from microstep.config.allowlist import find_targets
from microstep.config.experiment import (
    DATA_KEYS,
    RESUMABLE_KEYS,
    drop_keys,
    extract_experiment,
    micro_batch_size,
    precision_is_measured,
)
from microstep.config.targets import current, original, renamed
from microstep.training import device as machine
from microstep.training.components import Components
from microstep.training.source import digest_files, find_packages, find_source_files

SEEDING = "by micro-batch"  #: what dropout is seeded by; by window in 0.1.0
Found = tuple[str | None, int | None]  #: precision and size of micro-batches, if the run chose them
PACKAGES = ("microstep", "torch", "torchvision", "numpy", "scikit-learn", "hydra-core", "omegaconf")


def compute_identity(
    config: DictConfig, components: Components, files: Mapping[str, str] | None, world_size: int = 1
) -> dict[str, Any]:
    """Return the identity of a run; `files` are those that it began with, None if it begins now."""
    data, found = components.dataset.fingerprint, (chosen_precision(config, components), components.loaders.found_size)
    files = digest_files(config) if files is None else files
    return {
        "experiment": experiment_hash(config, data, found, files),
        "files": files,
        "config": config_hash(config),
        "source": source_hash(config),
        "data": data,
        "classes": list(components.dataset.facts.get("class_names", ())),
        "precision": dict(components.precision.describe()),
        "seeding": SEEDING,
        "processes": world_size,
        **environment(components.device),
        "versions": get_package_versions(("timm",) if "timm" in str(config.model.get("_target_")) else ()),
    }


def environment(device: torch.device) -> dict[str, Any]:
    return {
        "device": machine.get_device_kind(device),
        "machine": machine.describe_processor(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "versions": get_package_versions(),
    }


def hashed(config: DictConfig) -> dict[str, Any]:
    """Return the experiment with the component names of version 0.1.0, so that the hashes of older runs match."""
    return dict(renamed(extract_experiment(config), original))


def config_hash(config: DictConfig, kept: Collection[str] = ()) -> str:
    described = drop_keys(hashed(config), RESUMABLE_KEYS.difference(kept))
    return sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def experiment_hash(
    config: DictConfig, data_fingerprint: str, found: Found = (None, None), files: Mapping[str, str] | None = None
) -> str:
    """Return a SHA-256 of experiment, data and source, of what the run has found and of files, not their names."""
    files = digest_files(config) if files is None else files
    experiment = drop_keys(hashed(config), DATA_KEYS.union(files))
    described: dict[str, Any] = {"experiment": experiment, "data": data_fingerprint, "source": source_hash(config)}
    described |= {"files": files} if files else {}
    chosen = zip(("precision", "micro_batch_size"), found, strict=True)
    described |= {name: value for name, value in chosen if value is not None}
    return sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def chosen_precision(config: DictConfig, components: Components) -> str | None:
    """Return the precision that a measurement or the device chose; None if the config names it."""
    return None if None in possible_precisions(config) else str(components.precision.name)


def possible_precisions(config: DictConfig, elsewhere: bool = False) -> tuple[str | None, ...]:
    """Return the precisions that a measurement or the device may choose, `elsewhere` any device; or None alone."""
    amp = current(str(config.precision.get("_target_"))) == current("microstep.components.precision.amp")
    if precision_is_measured(config) or (amp and elsewhere and config.device == "auto"):
        return tuple(PRESETS)
    on_cuda = torch.cuda.is_available() if config.device == "auto" else config.device.startswith("cuda")
    return ("fp16" if on_cuda else "bf16",) if amp else (None,)


def recommendation_key(config: DictConfig, device: torch.device, data_fingerprint: str) -> dict[str, Any]:
    """Return what a recommended precision depends on; not the seed, so that all seeds have one precision."""
    files, others = digest_files(config), {"seed", "optimizer.lr", "scheduler", "precision", "effective_batch_size"}
    others |= {"stop", "monitor", "validate_every_steps"}
    parts = drop_keys(extract_experiment(config), RESUMABLE_KEYS | others | files.keys())
    measured = {"batch_size": micro_batch_size(config), "data": data_fingerprint, "source": source_hash(config)}
    return {**parts, **measured, "files": files, **environment(device)}


def source_hash(config: DictConfig) -> str:
    packages = find_packages(frozenset(find_targets(extract_experiment(config))))
    return sha256("".join(map(package_hash, packages)).encode()).hexdigest()


@cache
def package_hash(package: str) -> str:
    """Return a SHA-256 of the source of a top-level package or module; the name only if it is installed."""
    files = find_source_files(package)
    return sha256(b"".join(name.encode() + f.read_bytes() for name, f in files)).hexdigest() if files else package


def get_package_versions(others: Collection[str] = ()) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *others):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def format_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences that may change bits, in words; config and data are checked elsewhere."""
    names = ("device", "machine", "processes", "threads", "deterministic", "precision")
    before = {"processes": 1, **before}  # 0.1.0 did not write it
    differences = [f"{name} {now[name]} (was {before.get(name)})" for name in names if before.get(name) != now[name]]
    if before.get("source") != now["source"]:
        differences.append("the source")
    known = dict(before.get("versions") or {})
    return differences + [
        f"{name} {v} (was {known.get(name)})" for name, v in now["versions"].items() if known.get(name) != v
    ]


def read_git_state() -> dict[str, Any]:
    """Return the commit of the working directory and whether it has changes; None for both outside a repository."""

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = ask("status", "--porcelain")
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}
