"""Splits the command line of a sweep into its jobs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, Sweep
from omegaconf import DictConfig

from microstep.config.compose import Composer
from microstep.config.experiment import extract_experiment
from microstep.config.overrides import check_exclusive_keys, drop_hydra_node, expand_repeats
from microstep.config.search_space import Dimension, SearchSpace, is_study_key, read_search_space, read_two_settings
from microstep.errors import ConfigError


def compose_jobs(composer: Composer, overrides: Sequence[str]) -> list[DictConfig]:
    """Return the checked config of every job of a sweep; of one job if a sweeper of Hydra's chooses the values."""
    typed = [composer.parse(o) for o in overrides]
    check_exclusive_keys(typed)  # here as well, so that the error names what was typed, not one job of it
    sweeper = composer.compose_base(overrides).hydra.sweeper
    if not lists_its_jobs(sweeper):
        check_swept_values(typed)
        return [composer.compose_job([example(o) for o in typed])]
    parsed = add_sweeper_params(composer, sweeper, typed)
    check_swept_values(parsed, are_listed=True)
    swept = {o.key_or_group for o in parsed if o.is_sweep_override()}
    jobs = [compose_swept(composer, job, swept) for job in BasicSweeper.split_arguments(parsed, None)[0]]
    for job in jobs:
        job.hydra.job.config.override_dirname.exclude_keys += sorted({o.key_or_group for o in parsed} - swept)
    return jobs


@dataclass(frozen=True)
class ComposedStudy:
    """Holds the settings of a study, and what it chooses from."""

    settings: DictConfig
    space: SearchSpace
    examples: list[DictConfig]  #: checked configs that have each value of the space once

    @property
    def decides(self) -> bool:
        """Whether it is until=decided, not a search."""
        return "max_seeds" in self.settings


def compose_study(composer: Composer, overrides: Sequence[str]) -> ComposedStudy | None:
    """Return the study that chooses the jobs of a sweep; None if they are listed."""
    base, typed = composer.compose_base(overrides), [composer.parse(o) for o in overrides]
    check_study_keys(typed, base)
    if find_study_key(typed, base) is None:
        return None
    check_exclusive_keys(typed)
    parsed = add_sweeper_params(composer, base.hydra.sweeper, typed)
    check_swept_values(parsed)
    whole = composer.compose_with_study([example(o) for o in parsed])
    if whole.search is not None:
        settings, space = whole.search, read_search_space(parsed, whole.search, whole.seed)
    else:
        settings, space = whole.decide, read_two_settings(parsed, whole.seed)
    examples = [compose_trial(composer, space, job) for job in space.example_jobs()]
    if whole.search is None:
        check_different(examples, space.dimensions[0])
    return ComposedStudy(settings, space, examples)


def check_different(configs: Sequence[DictConfig], dimension: Dimension) -> None:
    first, second = (extract_experiment(drop_hydra_node(config)) for config in configs)
    if first == second:
        typed, remedy = f"{dimension.key}={dimension.typed}", "compare settings that can change a result"
        raise ConfigError(typed, "both are the same experiment", remedy)


def compose_trial(composer: Composer, space: SearchSpace, overrides: Sequence[str]) -> DictConfig:
    """Return the checked config of one job of a study, which is named by the keys that the study varies."""
    job = compose_swept(composer, overrides, space.swept_keys)
    fixed = {word.lstrip("+").partition("=")[0] for word in space.fixed}
    job.hydra.job.config.override_dirname.exclude_keys += sorted(fixed)
    return job


def find_study_key(typed: Sequence[Override], base: DictConfig) -> str | None:
    """Return what makes a sweep a study, as it is typed: `search=tpe` or `until=decided`; None if nothing does."""
    until = next((o.value() for o in typed if o.key_or_group == "until"), base.until)
    found = {"search": base.search and base.search.sampler, "until": until}
    return next((f"{key}={value}" for key, value in found.items() if value is not None), None)


def check_study_keys(typed: Sequence[Override], base: DictConfig) -> None:
    """Raise ConfigError if a key of a study has several values, or belongs to another study than the one chosen."""
    chosen = find_study_key(typed, base) or ""
    for override in typed:
        key, word = str(override.key_or_group), override.input_line or ""
        if is_study_key(word) and override.is_sweep_override():
            raise ConfigError(word, "it takes one value", "give one")
        decides = key.partition(".")[0] in ("until", "decide") and override.value() is not None
        if decides and chosen.startswith("search="):
            raise ConfigError(word, f"{chosen} chooses the runs", "leave out one of the two")
        if decides and not chosen:
            raise ConfigError(word, "it belongs to until=decided", "add until=decided")
        if key.startswith("search.") and base.search is None:
            raise ConfigError(word, "it belongs to a search", "add search=tpe or search=random")


def add_sweeper_params(composer: Composer, sweeper: DictConfig, typed: Sequence[Override]) -> list[Override]:
    """Return the overrides of a yaml's `hydra.sweeper.params`, and the typed ones after them."""
    params = expand_repeats([f"{key}={value}" for key, value in (sweeper.params or {}).items()])
    return [*map(composer.parse, params), *typed]


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
        value = override.value()
        if isinstance(value, ChoiceSweep) and any(isinstance(one, Sweep) for one in value.list):
            raise ConfigError(override.input_line or "", "an interval is no value of a list", "give one or the other")
        if override.is_discrete_sweep() and not list(override.sweep_iterator()):
            remedy = "give at least one; --help lists the options of a group"
            raise ConfigError(override.input_line or "", "it has no value", remedy)
        if are_listed and isinstance(value, IntervalSweep):
            remedy = f"list them: {override.key_or_group}=0.1,0.01, or let a sampler choose: search=tpe"
            raise ConfigError(override.input_line or "", "a sweep takes single values", remedy)


def example(override: Override) -> str:
    value = override.value()
    if isinstance(value, IntervalSweep):
        return f"{override.get_key_element()}={value.start}"
    if not override.is_sweep_override():
        return override.input_line or ""
    return f"{override.get_key_element()}={next(override.sweep_string_iterator())}"
