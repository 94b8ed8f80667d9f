"""From what was typed to a checked config, without torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra import version
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # it cuts a sweep into jobs
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from microstep.config.experiment import VERBATIM_KEYS
from microstep.config.names import sweep_name
from microstep.config.overrides import (
    check_batch_size_keys,
    check_group_option,
    check_override,
    check_plain_override,
    drop_hydra_node,
    example,
    refuse_intervals,
    suggest_names,
)
from microstep.config.schema import register_schemas
from microstep.config.search_path import CONF, search_path
from microstep.config.validation import check_config
from microstep.errors import ConfigError

SEARCHED = "hydra.searchpath"  #: directories that may give further options
OVERRIDE_PATTERN = re.compile(r"(?P<prefix>\+{0,2})(?P<key>[^=+~]+)=(?P<value>.*)", re.DOTALL)


def quote_verbatim(override: str) -> str:
    """Quote a value that means itself, a path above all: commas, `=`, spaces and parentheses then do as well."""
    match = OVERRIDE_PATTERN.fullmatch(override)
    if not match or match["key"] not in VERBATIM_KEYS or match["value"] in ("", "null"):
        return override
    if re.fullmatch(r"""(['"]).*\1""", match["value"], re.DOTALL):  # quoted already
        return override
    return f"{match['prefix']}{match['key']}={QuotedString(match['value'], Quote.single).with_quotes()}"


def compose(overrides: Sequence[str] = (), config_dir: Path | str = CONF, config_name: str = "train") -> DictConfig:
    """Return the checked config of one job, for use from Python.

    Args:
        overrides: as on the command line: `["precision=amp", "accum=2"]`.
        config_dir: a conf/ that is looked at before ours, as that of a program. Options of ./conf come before both.

    Raises:
        ConfigError: naming the override that can't be right, why, and the nearest names or the options.
    """
    if not (program := Path(config_dir)).is_dir():
        raise ConfigError(f"config_dir={config_dir}", "no such directory", "give one that holds yamls")
    with Composer.opened(program, config_name) as composer:
        return drop_hydra_node(composer.job([quote_verbatim(o) for o in overrides]))


class Composer:
    """Composes and checks the jobs of one command line. Make one with `opened`."""

    def __init__(self, config_name: str, hydra: Hydra) -> None:
        self.config_name, self.hydra = config_name, hydra
        self.loader = hydra.config_loader
        self.bases: dict[tuple[str, ...], DictConfig] = {}

    @classmethod
    @contextmanager
    def opened(
        cls, config_dir: Path, config_name: str, extra_config_dir: Path | None = None, job_name: str = "microstep"
    ) -> Iterator[Composer]:
        """Yield a composer over the yamls of `search_path`; Hydra's global state is put back afterwards."""
        register_schemas()
        version.setbase("1.3")
        before = get_gh_backup()
        GlobalHydra.instance().clear()
        try:
            yield cls(config_name, Hydra.create_main_hydra2(job_name, search_path(config_dir, extra_config_dir)))
        finally:
            restore_gh_from_backup(before)

    def jobs(self, overrides: Sequence[str]) -> list[DictConfig]:
        """Return the checked config of every job of a sweep; of one job if a sweeper of Hydra's chooses the values."""
        parsed = [self.parse(o) for o in overrides]
        check_batch_size_keys(parsed)  # here as well, so that the error names what was typed, not one job of it
        named = [o for o in parsed if self.is_group(o) and isinstance(o.value(), str)]
        sweeper = self.base(named, parsed).hydra.sweeper
        if not lists_its_jobs(sweeper):
            return [self.job([example(o) for o in parsed])]
        for override in parsed:
            refuse_intervals(override)
        parsed = [*(self.parse(f"{key}={value}") for key, value in (sweeper.params or {}).items()), *parsed]
        return [self.job(job) for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]

    def multirun(self, overrides: Sequence[str]) -> DictConfig:
        """Return the config that Hydra's launchers and sweepers are given; its task's part is not for use."""
        return self.load([*overrides, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)

    def job(self, overrides: Sequence[str]) -> DictConfig:
        """Return one job's checked config, Hydra's own node included."""
        choices, values = self.divided(overrides)
        check_batch_size_keys(values)
        base = self.base(choices, map(self.parse, overrides))
        for override in values:
            check_override(override, base)
        job = self.load(overrides)
        check_config(drop_hydra_node(job))
        sweep_name(job.get("sweep"))
        return job

    def amended(self, run: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """Return a run's own config with what was typed, which is held against it and not against the defaults."""
        choices, values = self.divided(overrides)
        base, job = self.base(choices, map(self.parse, overrides)), run.copy()
        for override in choices:
            OmegaConf.update(job, override.key_or_group, base.get(override.key_or_group), merge=False)
        for override in values:
            check_override(override, job)
            OmegaConf.update(job, override.key_or_group, override.value(), force_add=override.is_add())
        check_config(job)
        return job

    def divided(self, overrides: Sequence[str]) -> tuple[list[Override], list[Override]]:
        """Return a single job's choices of options, and the values that it sets; Hydra's own values are left out."""
        parsed = [self.parse(o) for o in overrides]
        for override in parsed:
            check_plain_override(override)
        choices = [o for o in parsed if self.is_group(o)]
        for override in choices:
            check_group_option(override)
        return choices, [o for o in parsed if o not in choices and not o.is_hydra_override()]

    def parse(self, override: str) -> Override:
        """Return the parsed override."""
        try:
            return OverridesParser.create(config_loader=self.loader).parse_override(override)
        except HydraException:
            raise ConfigError(
                override, "not of the form key=value", "quote values that hold , = ( ) or spaces"
            ) from None

    def base(self, choices: Sequence[Override], typed: Iterable[Override]) -> DictConfig:
        """Return the config that the choices alone make: the schema of everything else that was typed."""
        lines = tuple(str(o.input_line) for o in (*choices, *(o for o in typed if o.key_or_group == SEARCHED)))
        if lines not in self.bases:
            self.bases[lines] = self.load(lines)
        return self.bases[lines]

    def load(self, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        try:
            return self.hydra.compose_config(self.config_name, list(overrides), mode, from_shell=False)
        except YAMLError as error:
            raise ConfigError("conf", " ".join(str(error).split()), "mend the yaml") from None
        except (HydraException, OmegaConfBaseException) as error:
            parsed = [self.parse(o) for o in overrides]
            for override in parsed if all(o.key_or_group != SEARCHED for o in parsed) else ():
                self.refuse_unknown_option(override)
            raise translate_error(error, overrides) from None

    def is_group(self, override: Override) -> bool:
        return override.package is not None or override.key_or_group in self.groups()

    def groups(self) -> list[str]:
        top = self.loader.list_groups("")
        return [*top, *(f"hydra/{name}" for name in self.loader.list_groups("hydra"))]

    def refuse_unknown_option(self, override: Override) -> None:
        """Refuse an option that its group doesn't have."""
        options = self.loader.get_group_options(override.key_or_group, ObjectType.CONFIG)
        if self.is_group(override) and override.value() not in [*options, None]:
            subject = f"{override.key_or_group}={override.value()}"
            raise ConfigError(subject, "no such option", suggest_names(str(override.value()), options))


def lists_its_jobs(sweeper: DictConfig) -> bool:
    """Say whether a sweeper is Hydra's default one, whose jobs are known before they start."""
    return str(sweeper._target_) == f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"


OMITTED_LINES = ("full_key:", "object_type=", "reference_type=", "raised while composing config:")


def translate_error(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Return Hydra's or OmegaConf's refusal as one line: its reason, and the key where it names one."""
    lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines()]
    reason = " ".join(line for line in lines if not any(aside in line for aside in OMITTED_LINES))
    named = [line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")]
    subject = next(iter(named), None) or " ".join(overrides) or "conf"
    return ConfigError(subject, reason or type(error).__name__, "mend the yaml or the command line")
