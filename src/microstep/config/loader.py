"""Hydra's loader of configs, which reads the yamls of each choice of options once."""

from copy import deepcopy
from functools import cached_property
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig


class CachingLoader(ConfigLoaderImpl):
    """Composes the config of each choice of options once. Other overrides are values, which are set in a copy."""

    @cached_property
    def composed(self) -> dict[tuple[Any, ...], DictConfig]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"composed": {}}  # a launcher sends the loader with each job

    def _load_configuration_impl(self, config_name: str | None, overrides: list[str], *modes: Any, **more: Any) -> Any:
        parsed = OverridesParser.create().parse_overrides(overrides)
        values = [o for o in parsed if o.type is OverrideType.CHANGE and not o.is_sweep_override() and self.is_value(o)]
        options = [str(o.input_line) for o in parsed if o not in values]
        compose, key = super()._load_configuration_impl, (config_name, *options, *modes, *more.values())
        self.composed[key] = composed = self.composed.get(key) or compose(config_name, options, *modes, **more)
        if composed.hydra.searchpath:  # its groups are unknown here
            return compose(config_name, overrides, *modes, **more)
        config, typed = deepcopy(composed), [o for o in parsed if not o.is_hydra_override()]
        self._apply_overrides_to_config(values, config)
        config.hydra.overrides.task = [o.input_line for o in typed]
        config.hydra.overrides.hydra = [o.input_line for o in parsed if o not in typed]
        config.hydra.job.override_dirname = get_overrides_dirname(typed, **config.hydra.job.config.override_dirname)
        return config

    def is_value(self, override: Override) -> bool:
        is_own = override.key_or_group == "hydra.sweep.subdir" or not override.is_hydra_override()
        return is_own and not self.repository.group_exists(override.key_or_group)
