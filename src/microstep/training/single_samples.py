"""Refuses micro-batches of one sample if BatchNorm can't be trained on them."""

import torch
from omegaconf import DictConfig
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from microstep.config.experiment import is_canonical, micro_batch_size, size_key
from microstep.errors import ConfigError
from microstep.training.loaders import Loaders
from microstep.training.run_info import find_training_modules

NO_VARIANCE = "Expected more than 1 value per channel"  #: how BatchNorm's error begins


def check_single_samples(config: DictConfig, model: nn.Module, loaders: Loaders) -> None:
    """Raise ConfigError if an epoch has a micro-batch of one sample, and the model can't be trained on it."""
    samples, size = loaders.samples, micro_batch_size(config)
    windows = list(loaders.accumulation.windows(range(samples)))
    if all(len(one) > 1 for window in windows for one in window.micro_batches) or trains_on_one(model, loaders):
        return
    cut = {sum(map(len, window.micro_batches)) for window in windows} if is_canonical(config) else {samples}
    better = next((larger for larger in range(size + 1, samples) if all(n % larger != 1 for n in cut)), samples)
    key, factor = size_key(config)
    reason = f"{samples:,} samples leave a micro-batch of one, and BatchNorm needs more than 1 value per channel"
    remedy = f"choose {key}={better * factor}, or a model without BatchNorm (of resnet18: model.norm=group)"
    raise ConfigError(f"{key}={config[key]}", reason, remedy)


def trains_on_one(model: nn.Module, loaders: Loaders) -> bool:
    """Return whether BatchNorm accepts one sample: its feature maps have more than one pixel. Nothing is changed."""
    if not any(isinstance(module, _BatchNorm) for module in find_training_modules(model)):
        return True
    plan, buffers = loaders.plan_epoch(epoch=1), {name: buffer.clone() for name, buffer in model.named_buffers()}
    inputs = plan.fetch(plan.request(range(1))).inputs.to(next(model.parameters()).device)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            functional_call(model.train(), buffers, inputs)
    except Exception as error:  # any other error is left to training
        return not str(error).startswith(NO_VARIANCE)
    return True
