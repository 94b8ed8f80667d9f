"""Everything that a result depends on, bit for bit: saved in checkpoints and compared on resume."""

import json
import platform
import subprocess
import sysconfig
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from microstep.components.precision.presets import PRESETS
from microstep.config.allowlist import find_targets
from microstep.config.experiment import (
    RESUMABLE_KEYS,
    drop_keys,
    extract_experiment,
    micro_batch_size,
    precision_is_measured,
)
from microstep.config.targets import original, renamed
from microstep.training import device as machine
from microstep.training.components import Components

PACKAGES = ("microstep", "torch", "torchvision", "numpy", "scikit-learn", "hydra-core", "omegaconf")


def compute_identity(config: DictConfig, components: Components) -> dict[str, Any]:
    return {
        "experiment": experiment_hash(config, components.dataset.fingerprint, chosen_precision(config, components)),
        "config": config_hash(config),
        "source": source_hash(config),
        "data": components.dataset.fingerprint,
        "classes": list(components.dataset.facts.get("class_names", ())),
        "precision": dict(components.precision.describe()),
        **environment(components.device),
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


def config_hash(config: DictConfig) -> str:
    described = drop_keys(hashed(config), RESUMABLE_KEYS)
    return sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def experiment_hash(config: DictConfig, data_fingerprint: str, precision: str | None = None) -> str:
    """Return a SHA-256 of experiment, data and source; another measured `precision` is another experiment."""
    described = {"experiment": hashed(config), "data": data_fingerprint, "source": source_hash(config)}
    if precision is not None:
        described["precision"] = precision
    return sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()


def chosen_precision(config: DictConfig, components: Components) -> str | None:
    """Return the precision that a measurement chose; None if the config names it."""
    return str(components.precision.name) if precision_is_measured(config) else None


def possible_precisions(config: DictConfig) -> tuple[str | None, ...]:
    return tuple(PRESETS) if precision_is_measured(config) else (None,)


def recommendation_key(config: DictConfig, device: torch.device) -> dict[str, Any]:
    """Return what a recommended precision depends on; not the seed, epochs, learning rate or dataset.root."""
    plain = drop_keys(extract_experiment(config), {"dataset.root", "optimizer.lr"})
    parts = {name: plain[name] for name in ("model", "step", "task", "dataset", "accumulation", "optimizer", "accum")}
    sizes = {"batch_size": micro_batch_size(config), "max_grad_norm": config.max_grad_norm}
    return {**parts, **sizes, "source": source_hash(config), **environment(device)}


def source_hash(config: DictConfig) -> str:
    targets = find_targets(OmegaConf.to_container(config))
    packages = sorted({str(target).partition(".")[0] for target in targets} | {"microstep"})
    return sha256("".join(map(package_hash, packages)).encode()).hexdigest()


@cache
def package_hash(package: str) -> str:
    """Return a SHA-256 of the source of a top-level package or module; the name only if it is installed."""
    found = None
    with suppress(ImportError, ValueError):
        found = find_spec(package)
    origin = Path(found.origin) if found and found.origin and Path(found.origin).is_file() else None
    if origin is None or (package != "microstep" and is_installed(origin)):
        return package
    root, files = origin.parent, sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    return sha256(b"".join(str(f.relative_to(root)).encode() + f.read_bytes() for f in files)).hexdigest()


def is_installed(file: Path) -> bool:
    homes = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(file.resolve().is_relative_to(home) for home in homes)


def get_package_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def format_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences that may change bits, in words; config and data are checked elsewhere."""
    names = ("device", "machine", "threads", "deterministic", "precision")
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
