"""Checks of the keys that cut a window into micro-batches."""

import math

from omegaconf import DictConfig, OmegaConf

from microstep.config.choices import MICRO_BATCH_CHECKS
from microstep.config.experiment import finds_batch_size, is_canonical, micro_batch_size, size_key
from microstep.config.processes import find_run_world
from microstep.config.schema import TrainConfig
from microstep.errors import ConfigError


def check_batch(config: DictConfig) -> None:
    """Raise ConfigError if two of these keys contradict each other."""
    check_found_batch_size(config)
    micro_batch_size(config)
    check_accum_matches(config)
    check_reduction(config)
    check_norm_samples(config)
    if config.check is None:
        find_run_world(config)


def is_foreign(config: DictConfig, group: str) -> bool:
    """Return True if a group's `_target_` is neither ours nor torch's."""
    target = OmegaConf.select(config, f"{group}._target_", throw_on_resolution_failure=False, throw_on_missing=False)
    return target is not None and not str(target).startswith(("microstep.", "torch."))


def check_accum_matches(config: DictConfig) -> None:
    count = config.accumulation.get("micro_batches", config.accum)
    if count != config.accum:
        subject = f"accumulation.micro_batches={count}"
        raise ConfigError(subject, f"accum={config.accum} sets it", f"write accum={count}")


def check_reduction(config: DictConfig) -> None:
    """Check that nothing contradicts `reduction=canonical`, and that `atom` is not given without it."""
    if not is_canonical(config):
        if config.atom != TrainConfig.atom:
            raise ConfigError(f"atom={config.atom}", "only reduction=canonical has atoms", "add it, or leave out atom=")
    elif not config.deterministic:
        raise ConfigError("deterministic=false", "reduction=canonical promises equal bits", "leave out one of the two")
    elif finds_batch_size(config):
        raise ConfigError("accumulation=auto", "reduction=canonical computes in atoms", "leave out one of the two")
    elif config.check in MICRO_BATCH_CHECKS:
        reason = "it compares cuts, and reduction=canonical computes all of them alike"
        raise ConfigError(f"check={config.check}", reason, "leave out one of the two")
    elif is_foreign(config, "strategy"):
        raise ConfigError("reduction=canonical", "your own strategy adds up gradients", "choose strategy=single or ddp")


def check_found_batch_size(config: DictConfig) -> None:
    if finds_batch_size(config) and config.effective_batch_size is None:
        raise ConfigError("accumulation=auto", "it cuts a batch of a given size", "add effective_batch_size=64")
    if finds_batch_size(config) and config.accum != 1:
        raise ConfigError(f"accum={config.accum}", "accumulation=auto finds it", "leave out one of the two")


def check_norm_samples(config: DictConfig) -> None:
    """Check that groups of ghost normalization divide a micro-batch: otherwise the result depends on the cut."""
    size, samples = micro_batch_size(config), config.model.get("norm_samples", 1)
    if config.model.get("norm") != "ghost" or size % samples == 0:
        return
    key, factor = size_key(config)
    reason = f"{key}={config[key]} makes micro-batches of {size}, which it doesn't divide"
    larger = math.ceil(size / samples) * samples * factor
    raise ConfigError(f"model.norm_samples={samples}", reason, f"choose a divisor, or {key}={larger}")
