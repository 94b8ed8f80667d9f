"""timm's classification models (Wightman, PyTorch Image Models, 2019)."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from microstep.components.model.metadata import parse_normalization
from microstep.components.model.torchvision_models import check_model_name, check_options, wrap_model
from microstep.components.model.weights import DEFAULT_WEIGHTS, read_weights_file, strip_wrapper_prefixes
from microstep.errors import ConfigError, DataError, format_error
from microstep.utils.files import expand_home


def timm_model(
    name: str,
    input_shape: Sequence[int],
    num_classes: int,
    weights: str | None = None,
    freeze: str | None = None,
    load_weights: bool = True,
    **options: Any,
) -> nn.Module:
    """Return one of timm's classification models: N × C × H × W → N × num_classes.

    Arguments, head, `normalization` and errors are as for `torchvision_model`, with timm's names, weights and options
    of `create_model`, such as `img_size`. A name may have a tag. Raise ConfigError also if timm is not installed.
    """
    from microstep.components.model import pretrained
    from microstep.components.model.image_size import check_image_size

    try:
        timm = import_module("timm")
    except ModuleNotFoundError as error:
        raise ConfigError("model=timm", f"{error}", "pip install 'microstep[timm]'") from None
    check_model_name(name, [*timm.list_models(), *timm.list_pretrained()], "timm")
    check_options(freeze, weights, options)
    channels = 3 if input_shape[0] == 1 else input_shape[0]
    build = partial(timm.create_model, name, in_chans=channels, **options)
    model, head, normalization = build(num_classes=num_classes), frozenset[str](), None
    if load_weights and channels == 3:
        usual = max(model.pretrained_cfg["input_size"][1:])
        check_image_size(model, name, usual, usual, *input_shape[1:])
    if weights is not None:
        head = pretrained.find_head_names(model, build, num_classes)
        normalization = tuple(model.pretrained_cfg["mean"]), tuple(model.pretrained_cfg["std"])
        if load_weights:
            content, metadata = read_timm_weights(build, weights)
            pretrained.load_backbone(model, head, name, content, f"model.weights={weights}")
            normalization = normalization if weights == DEFAULT_WEIGHTS else parse_normalization(metadata)
    return wrap_model(model, head, freeze, normalization, input_shape[0])


def read_timm_weights(build: Callable[..., nn.Module], weights: str) -> tuple[OrderedDict[str, Tensor], Any]:
    """Return the state dict and metadata of a file, or those that timm loads. The random state is unchanged."""
    subject = f"model.weights={weights}"
    if weights != DEFAULT_WEIGHTS:
        return read_weights_file(Path(expand_home(weights)), subject)
    try:
        with torch.random.fork_rng(devices=[]):
            return strip_wrapper_prefixes(build(pretrained=True).state_dict()), {}
    except Exception as error:  # the client of the hub raises many kinds
        raise DataError(subject, f"timm can't load them: {format_error(error)}", "give model.weights=FILE") from None
