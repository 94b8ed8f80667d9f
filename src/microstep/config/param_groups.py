"""Reads `param_groups`: parameters with optimizer options of their own. Imports no torch."""

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from microstep.config.experiment import described
from microstep.config.overrides import check_type_name, suggest_names, type_name
from microstep.config.signatures import find_signature
from microstep.errors import ConfigError, truncate

#: Groups of `param_groups=norm_bias`; None matches parameters with one dimension.
NORM_BIAS = [{"match": None, "weight_decay": 0.0}]


def read_param_groups(config: DictConfig) -> list[dict[str, Any]]:
    """Return the checked groups: a regular expression, `match`, and options of the optimizer each."""
    if config.get("param_groups") is None:
        return []
    value = described(config)["param_groups"]
    groups = NORM_BIAS if value == "norm_bias" else value
    if not isinstance(groups, list) or not all(isinstance(one, dict) and "match" in one for one in groups):
        remedy = "give norm_bias, or a list such as '[{match:bias,weight_decay:0}]'"
        raise ConfigError(f"param_groups={value}", "it is no list of groups with a match each", remedy)
    for number, group in enumerate(groups):
        for name in group:
            check_option(f"param_groups.{number}.{name}", group[name], str(config.optimizer.get("_target_")))
    return groups


def check_option(key: str, value: Any, optimizer: str) -> None:
    name, subject, signature = key.rpartition(".")[2], f"{key}={value}", find_signature(optimizer)
    if name == "match":
        try:
            re.compile("" if value is None else value)
        except (re.error, TypeError) as error:
            raise ConfigError(subject, f"it is no regular expression: {error}", "correct it") from None
    elif signature and not signature.accepts_any_keyword:
        options = sorted(signature.parameters.keys() - {"params"})
        if name not in options:
            raise ConfigError(subject, f"{optimizer} has no such option", suggest_names(name, options))
        check_type_name(type_name(value), signature.parameters[name], subject)


def group_parameters(parameters: Mapping[str, Any], groups: list[dict[str, Any]]) -> list[Any]:
    """Return a list of all parameters; if there are groups, a dict for each, after one for the parameters of none.

    A parameter is in the first group that matches its name. Raise ConfigError if a group trains no parameter.
    """
    left, found = dict(parameters), []
    for number, group in enumerate(groups):
        match = group["match"]
        names = [name for name, p in left.items() if (p.ndim <= 1 if match is None else re.search(match, name))]
        if not any(left[name].requires_grad for name in names):
            reason, others = "it matches no trained parameter outside of earlier groups", ", ".join(left) or "none"
            raise ConfigError(f"param_groups.{number}.match={match}", reason, f"there are {truncate(others, 300)}")
        found.append({"params": [left.pop(name) for name in names], **group})  # torch keeps `match`, as a label
    rest = [{"params": [*left.values()]}] if left else []
    return rest + found if groups else [*left.values()]
