"""Composes overrides to a checked config, without torch."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from hydra import version
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from microstep.config.experiment import STUDY_KEYS, VERBATIM_KEYS
from microstep.config.loader import CachingLoader
from microstep.config.names import sweep_name
from microstep.config.overrides import (
    check_exclusive_keys,
    check_group_options,
    check_override,
    check_plain_overrides,
    drop_hydra_node,
    drop_nodes,
    quote_verbatim,
    suggest_names,
)
from microstep.config.processes import plan_processes
from microstep.config.schema import register_schemas
from microstep.config.search_path import CONF, search_path
from microstep.config.validation import check_config
from microstep.errors import ConfigError
from microstep.utils.files import expand_home

SEARCH_PATH_KEY = "hydra.searchpath"  #: directories with further options
BASE_KEYS = {SEARCH_PATH_KEY, "hydra.mode"}  #: keys that decide how the other overrides are composed
SWEEPER_PARAMS_KEY = "hydra.sweeper.params"
#: Hydra's errors; the last two are those of a key that is typed below `hydra.sweeper.params`, which is null.
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, AttributeError, AssertionError)
SPACE_EXAMPLES = "interval(0.1,1), tag(log,interval(1e-3,1)), int(interval(8,64)), range(8,65,8)"
OMITTED_LINES = ("full_key:", "object_type=", "reference_type=", "raised while composing config:")


def compose(overrides: Sequence[str] = (), config_dir: Path | str = CONF, config_name: str = "train") -> DictConfig:
    """Compose and check the config of one job, for use from Python.

    Options are searched for in ./conf, then in `config_dir`, then in the package's own conf/.

    Args:
        overrides: as on the command line: `["precision=amp", "accum=2"]`.
        config_dir: a directory of yamls.
        config_name: `train`, `evaluate` or `compute_stats`.

    Returns:
        The config, without Hydra's own node.

    Raises:
        ConfigError: naming the first invalid override, the reason, and the nearest names or the options.
    """
    if not (directory := Path(config_dir)).is_dir():
        raise ConfigError(f"config_dir={config_dir}", "no such directory", "give one that holds yamls")
    with Composer.open(directory, config_name) as composer:
        return drop_hydra_node(composer.compose_job([quote_verbatim(o) for o in overrides]))


class Composer:
    """Composes and checks the jobs of one command line. Make one with `open`."""

    def __init__(self, config_name: str, hydra: Hydra) -> None:
        self.config_name, self.hydra = config_name, hydra
        self.loader = hydra.config_loader

    @classmethod
    @contextmanager
    def open(
        cls, config_dir: Path, config_name: str, extra_config_dir: Path | None = None, job_name: str = "microstep"
    ) -> Iterator[Composer]:
        """Yield a composer over the yamls of `search_path`. Hydra's global state is restored afterwards."""
        register_schemas()
        version.setbase("1.3")
        before = get_gh_backup()
        GlobalHydra.instance().clear()
        try:
            hydra = Hydra(job_name, CachingLoader(search_path(config_dir, extra_config_dir)))
            GlobalHydra.instance().initialize(hydra)
            yield cls(config_name, hydra)
        finally:
            restore_gh_from_backup(before)

    def compose_job(self, overrides: Sequence[str]) -> DictConfig:
        """Return one job's checked config, including Hydra's own node, without the settings of a study."""
        return drop_nodes(self.compose_with_study(overrides), *STUDY_KEYS)

    def compose_with_study(self, overrides: Sequence[str]) -> DictConfig:
        _, values = self.split_overrides(overrides)
        check_exclusive_keys(values)
        base = self.compose_base(overrides)
        for override in values:
            check_override(override, base)
        job = self.compose_unchecked(overrides)
        plan_processes(job)
        check_config(drop_hydra_node(job))
        for key in VERBATIM_KEYS.intersection(job):
            job[key] = job[key] and expand_home(job[key])
        sweep_name(job.get("sweep"))
        return job

    def compose_resumed(self, run: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """Return a run's config with overrides, which are checked against that config, not against the defaults."""
        options, values = self.split_overrides(overrides)
        base, job = self.compose_base(overrides), run.copy()
        for override in options:
            OmegaConf.update(job, override.key_or_group, base.get(override.key_or_group), merge=False)
        for override in values:
            check_override(override, job)
            OmegaConf.update(job, override.key_or_group, override.value(), force_add=override.is_add())
        check_config(job)
        return job

    def split_overrides(self, overrides: Sequence[str]) -> tuple[list[Override], list[Override]]:
        """Return a job's choices of options, and its values without those of Hydra's own node."""
        parsed = [self.parse(o) for o in overrides]
        check_plain_overrides(parsed)
        options = [o for o in parsed if self.is_group(o)]
        check_group_options(options)
        return options, [o for o in parsed if o not in options and not o.is_hydra_override()]

    def parse(self, override: str) -> Override:
        try:
            return OverridesParser.create(config_loader=self.loader).parse_overrides([override])[0]
        except HydraException:
            if sweep := re.search(r"=\W*(tag|interval|range|choice|int|float)\(", override):
                reason, remedy = f"{sweep[1]}(…) can't be read", f"examples: {SPACE_EXAMPLES}"
                raise ConfigError(override, reason, remedy) from None
            remedy = "quote values that hold , = ( ) or spaces"
            raise ConfigError(override, "not of the form key=value", remedy) from None

    def compose_base(self, overrides: Sequence[str]) -> DictConfig:
        """Return the config of the options that have one value, against which other overrides are checked."""
        typed = [self.parse(o) for o in overrides]
        named = [o for o in typed if self.is_group(o) and isinstance(o.value(), str | list)]
        return self.compose_unchecked([str(o.input_line) for o in typed if o in named or o.key_or_group in BASE_KEYS])

    def compose_unchecked(self, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        other_data = self.config_name == "evaluate" and any(o.startswith("dataset=") for o in overrides)
        name = "evaluate_other" if other_data else self.config_name
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", f"provider={SEARCH_PATH_KEY}")  # Hydra's warning of a missing one
                return self.hydra.compose_config(name, list(overrides), mode, from_shell=False)
        except YAMLError as error:
            raise ConfigError("conf", " ".join(str(error).split()), "correct the yaml") from None
        except UserWarning as warning:
            missing = str(warning).partition("path=")[2].removesuffix(" is not available.")
            subject = f"{SEARCH_PATH_KEY}=[{missing}]"
            raise ConfigError(subject, "no such directory or package", "give one that holds yamls") from None
        except COMPOSITION_ERRORS as error:
            parsed = [self.parse(o) for o in overrides]
            for override in parsed if all(o.key_or_group != SEARCH_PATH_KEY for o in parsed) else ():
                self.check_option(override)
            raise translate_error(error, overrides) from None

    @cached_property
    def groups(self) -> frozenset[str]:  # listing them reads the directories of all yamls
        return frozenset([*self.loader.list_groups(""), *(f"hydra/{n}" for n in self.loader.list_groups("hydra"))])

    def is_group(self, override: Override) -> bool:
        return override.package is not None or override.key_or_group in self.groups

    def check_option(self, override: Override) -> None:
        options = self.loader.get_group_options(override.key_or_group, ObjectType.CONFIG)
        for one in value if isinstance(value := override.value(), list) else [value]:
            if self.is_group(override) and one not in [*options, None]:
                raise ConfigError(f"{override.key_or_group}={one}", "no such option", suggest_names(str(one), options))


def translate_error(error: Exception, overrides: Sequence[str]) -> ConfigError:
    if params := [o for o in overrides if o.lstrip("+").startswith(SWEEPER_PARAMS_KEY)]:
        return ConfigError(params[0], "a sweeper takes its params from a yaml", "type what they hold: -m KEY=A,B")
    lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines()]
    reason = " ".join(line for line in lines if not any(omitted in line for omitted in OMITTED_LINES))
    keys = [line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")]
    subject = next(iter(keys), None) or " ".join(overrides) or "conf"
    if subject == "search":  # a name, as on the command line
        return ConfigError("search", reason, "write search: {sampler: tpe}, or override /search: tpe in defaults")
    return ConfigError(subject, reason or type(error).__name__, "correct the yaml or the command line")
