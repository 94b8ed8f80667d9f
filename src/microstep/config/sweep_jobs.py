"""Splits the command line of a sweep into its jobs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig

from microstep.config.compose import Composer
from microstep.config.overrides import check_exclusive_keys
from microstep.config.search_space import SearchSpace, is_search_key, read_search_space
from microstep.errors import ConfigError


def compose_jobs(composer: Composer, overrides: Sequence[str]) -> list[DictConfig]:
    """Return the checked config of every job of a sweep; of one job if a sweeper of Hydra's chooses the values."""
    typed = [composer.parse(o) for o in overrides]
    check_exclusive_keys(typed)  # here as well, so that the error names what was typed, not one job of it
    sweeper = composer.compose_base(overrides).hydra.sweeper
    if not lists_its_jobs(sweeper):
        check_swept_values(typed)
        return [composer.compose_job([example(o) for o in typed])]
    parsed = [*(composer.parse(f"{key}={value}") for key, value in (sweeper.params or {}).items()), *typed]
    check_swept_values(parsed, are_listed=True)
    swept = {o.key_or_group for o in parsed if o.is_sweep_override()}
    jobs = [compose_swept(composer, job, swept) for job in BasicSweeper.split_arguments(parsed, None)[0]]
    for job in jobs:
        job.hydra.job.config.override_dirname.exclude_keys += sorted({o.key_or_group for o in parsed} - swept)
    return jobs


@dataclass(frozen=True)
class ComposedStudy:
    """What a study chooses from, with its settings."""

    settings: DictConfig
    space: SearchSpace
    examples: list[DictConfig]  #: checked configs that have each value of the space once

    def compose(self, composer: Composer, overrides: Sequence[str]) -> DictConfig:
        """Return the checked config of one of its jobs, which is named by the keys that the study varies."""
        job = compose_swept(composer, overrides, self.space.swept_keys)
        fixed = {word.lstrip("+").partition("=")[0] for word in self.space.fixed}
        job.hydra.job.config.override_dirname.exclude_keys += sorted(fixed)
        return job


def compose_study(composer: Composer, overrides: Sequence[str]) -> ComposedStudy | None:
    """Return the study that chooses the jobs of a sweep; None if they are listed."""
    base, typed = composer.compose_base(overrides), [composer.parse(o) for o in overrides]
    for word in (o.input_line or "" for o in typed if o.is_sweep_override() and is_search_key(str(o.key_or_group))):
        raise ConfigError(word, "a search has one value of its own keys", "give one")
    if base.search is None:
        return None
    check_exclusive_keys(typed)
    parsed = [*(composer.parse(f"{key}={value}") for key, value in (base.hydra.sweeper.params or {}).items()), *typed]
    check_swept_values(parsed)
    whole = composer.compose_with_search([example(o) for o in parsed])
    space = read_search_space(parsed, whole.search, whole.seed)
    study = ComposedStudy(whole.search, space, [])
    study.examples.extend(study.compose(composer, words) for words in space.example_jobs())
    return study


def lists_its_jobs(sweeper: DictConfig) -> bool:
    """Return True for Hydra's default sweeper, whose jobs are known before they start."""
    return str(sweeper._target_) == f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"


def compose_swept(composer: Composer, overrides: Sequence[str], swept: set[str]) -> DictConfig:
    """Return the config of one job of a sweep. An error about a key of a swept group names the job's option."""
    try:
        return composer.compose_job(overrides)
    except ConfigError as error:
        subject, reason, remedy = error.args
        groups = swept & {subject.partition(".")[0], "experiment"}
        options = [o for o in overrides if o.lstrip("+").partition("=")[0] in groups]
        raise ConfigError(" with ".join([subject, *options]), reason, remedy) from None


def check_swept_values(overrides: Iterable[Override], are_listed: bool = False) -> None:
    """Raise ConfigError for no value, and for an interval to sample from if the values are listed."""
    for override in overrides:
        if override.is_discrete_sweep() and not list(override.sweep_iterator()):
            remedy = "give at least one; --help lists the options of a group"
            raise ConfigError(override.input_line or "", "it has no value", remedy)
        if are_listed and isinstance(override.value(), IntervalSweep):
            remedy = f"list them: {override.key_or_group}=0.1,0.01, or let a sweeper choose: hydra/sweeper=NAME"
            raise ConfigError(override.input_line or "", "a sweep takes single values", remedy)


def example(override: Override) -> str:
    value = override.value()
    if isinstance(value, IntervalSweep):
        return f"{override.get_key_element()}={value.start}"
    if not override.is_sweep_override():
        return override.input_line or ""
    return f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
