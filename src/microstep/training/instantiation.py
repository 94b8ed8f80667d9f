"""Builds the `_target_` of a group. All of them are built here, after the allowlist has been checked."""

import re
from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any, TypeVar

from hydra.errors import HydraException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from microstep.components.dataset import ImageDataset
from microstep.components.model.freezing import freeze_parameters
from microstep.config.allowlist import ALLOW_ALL, Allowlist
from microstep.config.experiment import DATA_PATH_KEYS, LATER
from microstep.config.targets import current, renamed
from microstep.errors import ConfigError, MicrostepError
from microstep.types.protocols import Dataset
from microstep.utils.files import expand_home

T = TypeVar("T")
#: Raised by constructors if arguments are wrong.
CONSTRUCTOR_ERRORS = (TypeError, ValueError, LookupError, AttributeError, OSError, HydraException)


def build_component(
    config: DictConfig, group: str, protocol: type[T], allowlist: Allowlist = ALLOW_ALL, **available: Any
) -> T:
    """Build a group's `_target_` from its config and from those `available` values that its signature names.

    `model.freeze` is applied to the model here, unless its signature names it.

    Raises:
        ConfigError: if the allowlist or the constructor refuses it, the result doesn't conform to `protocol`, or
            `model.freeze` matches nothing.
    """
    node = OmegaConf.to_container(OmegaConf.select(config, group), resolve=True)
    allowlist(node, group)
    target = node.get("_target_") if isinstance(node, dict) else None
    try:
        parameters = signature(get_object(current(str(target)))).parameters
        arguments = {name: value for name, value in available.items() if name in parameters}
        settings = constructor_settings(renamed(node, current), group, parameters)
        freeze = settings.pop("freeze", None) if group == "model" and "freeze" not in parameters else None
        component: T = instantiate(settings, **arguments, _convert_="all")
    except (HydraException, ImportError) as error:
        raise constructor_error(group, str(target), error) from error
    is_images = protocol is Dataset and isinstance(component, ImageDataset)  # before 3.12 isinstance would read them
    if not is_images and not isinstance(component, protocol):
        raise ConfigError(f"{group}._target_={target}", f"it makes no {protocol.__name__}", "name a target that does")
    if isinstance(component, nn.Module) and freeze is not None:
        freeze_parameters(component, str(freeze))
    return component


def constructor_settings(node: Mapping[str, Any], group: str, parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the settings for a constructor with these parameters, with the home directory for `~` in paths.

    Later keys that it does not name are left out at their default, so that `GROUP._target_=…` names older components.
    """
    named = node.keys() if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) else parameters.keys()
    kept = {key: value for key, value in node.items() if key in named or (f"{group}.{key}", value) not in LATER.items()}
    paths = {key: value for key, value in kept.items() if f"{group}.{key}" in DATA_PATH_KEYS and isinstance(value, str)}
    return kept | {key: expand_home(path) for key, path in paths.items()}


def constructor_error(group: str, target: str, error: Exception) -> MicrostepError:
    """Return the error of a constructor as a ConfigError; a MicrostepError is returned unchanged."""
    cause = error.__cause__ or error
    if isinstance(cause, MicrostepError):
        return cause
    if isinstance(cause, ImportError):
        extra = group.removeprefix("logger.") if target.startswith("microstep.components.logger.") else None
        remedy = f"pip install 'microstep[{extra}]'" if extra else "correct the name, or put its file on PYTHONPATH"
        return ConfigError(f"{group}._target_={target}", f"it can't be imported: {cause}", remedy)
    if not isinstance(cause, CONSTRUCTOR_ERRORS):
        raise cause
    reason = " ".join(str(cause).split())
    key = re.match(r"(\w+=\S+?):? ", reason)  # our constructors begin with the refused key
    subject = f"{group}.{key[1]}" if key else f"{group} ({target})"
    return ConfigError(subject, reason[key.end() :] if key else reason, f"see the keys of conf/{group}/")
