"""Reads what a study chooses from: the lists, intervals and ranges on its command line."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from omegaconf import DictConfig

from microstep.config.experiment import REPEAT_KEYS, STUDY_KEYS
from microstep.errors import ConfigError


@dataclass(frozen=True)
class Dimension:
    """A key whose value a study chooses."""

    key: str  #: as typed, with its `+`
    typed: str  #: the values, as typed
    choices: tuple[str, ...] = ()  #: values of a list; empty for numbers between `low` and `high`
    low: float = 0.0  #: an int, as `high`, for whole numbers
    high: float = 0.0
    step: float | None = None  #: between two numbers; None for any number in between
    log: bool = False

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int)

    @property
    def examples(self) -> tuple[str, ...]:
        """Values that stand for all others in a check."""
        return self.choices or (str(self.low), str(self.high))


@dataclass(frozen=True)
class SearchSpace:
    """Overrides of a study."""

    dimensions: tuple[Dimension, ...]
    repeats: tuple[tuple[str, ...], ...]  #: overrides of each run of a trial, such as its seed
    fixed: tuple[str, ...]  #: overrides of all runs

    @cached_property
    def swept_keys(self) -> set[str]:
        repeated = {word.partition("=")[0] for word in self.repeats[0]}
        return {dimension.key.lstrip("+") for dimension in self.dimensions} | repeated

    def example_jobs(self) -> Iterator[list[str]]:
        """Yield overrides of jobs in which each value occurs once: all can then be checked before the first run."""
        first = {dimension.key: dimension.examples[0] for dimension in self.dimensions}
        yield self.make_job(first, self.repeats[0])
        for dimension in self.dimensions:
            for value in dimension.examples[1:]:
                yield self.make_job({**first, dimension.key: value}, self.repeats[0])
        yield from (self.make_job(first, repeat) for repeat in self.repeats[1:])

    def make_job(self, values: dict[str, str], repeat: Sequence[str]) -> list[str]:
        return [*self.fixed, *(f"{key}={value}" for key, value in values.items()), *repeat]


def read_search_space(overrides: Sequence[Override], settings: DictConfig, seed: int) -> SearchSpace:
    """Return the space of a search. `seed` is that of the config, from which `search.seeds` counts.

    Keys in `REPEAT_KEYS` with several values are not searched: every trial runs with each of them.
    """
    swept = [o for o in overrides if o.is_sweep_override()]
    repeated = {o.key_or_group: o for o in swept if o.key_or_group in REPEAT_KEYS}
    dimensions = tuple(read_dimension(o) for o in swept if o.key_or_group not in repeated)
    if not dimensions:
        remedy = "give some: model=mlp,small_cnn 'optimizer.lr=tag(log,interval(1e-3,1))'"
        raise ConfigError(f"search={settings.sampler}", "no key has several values to choose from", remedy)
    axes = [[f"{key}={value}" for value in o.sweep_string_iterator()] for key, o in repeated.items()]
    if settings.seeds > 1:
        if "seed" in repeated:
            remedy = "give one of the two"
            raise ConfigError(f"search.seeds={settings.seeds}", "seed= lists the seeds already", remedy)
        axes.append([f"seed={seed + number}" for number in range(settings.seeds)])
    return SearchSpace(dimensions, tuple(product(*axes)), find_fixed(overrides, [axis[0] for axis in axes]))


def read_two_settings(overrides: Sequence[Override], seed: int) -> SearchSpace:
    """Return the two settings of until=decided, with the first seed."""
    swept = [o for o in overrides if o.is_sweep_override()]
    settings = tuple(read_dimension(o) for o in swept)
    if len(swept) != 1 or len(settings[0].choices) != 2 or swept[0].key_or_group in REPEAT_KEYS:
        typed = " ".join(["until=decided", *(o.input_line or "" for o in swept)])
        reason, remedy = "it compares two settings, seed by seed", "give one key two values, such as precision=amp,fp32"
        raise ConfigError(typed, reason, f"{remedy}; decide.max_seeds=20 limits the seeds")
    return SearchSpace(settings, ((f"seed={seed}",),), find_fixed(overrides, ["seed="]))


def find_fixed(overrides: Sequence[Override], repeated: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides that all runs have, as typed: not those of the study itself, or of repeated keys."""
    keys = {word.partition("=")[0] for word in repeated}
    fixed = [o for o in overrides if not o.is_sweep_override() and o.key_or_group not in keys]
    return tuple(word for o in fixed if not is_study_key(word := o.input_line or ""))


def is_study_key(word: str) -> bool:
    """Return True for an override of a study itself, which no run gets."""
    return word.lstrip("+").partition("=")[0].partition(".")[0] in STUDY_KEYS


def read_dimension(override: Override) -> Dimension:
    value, key, text = override.value(), override.get_key_element(), override.get_value_string()
    tags = getattr(value, "tags", ())
    for tag in tags:
        if tag != "log":
            raise ConfigError(override.input_line or key, f"no such tag: {tag}", "write tag(log,interval(…))")
    if isinstance(value, IntervalSweep):
        low, high, log = value.start or 0.0, value.end or 0.0, "log" in tags
        if not low < high or (log and low <= 0):
            reason = "an interval begins below its end" + (", and above 0 with tag(log,…)" if log else "")
            ends = f"{high:g},{low:g}" if low > high and (high > 0 or not log) else "0.1,1"
            raise ConfigError(override.input_line or key, reason, f"write {key}=interval({ends})")
        return Dimension(key, text, (), low, high, None, log)
    if isinstance(value, RangeSweep) and not value.shuffle:
        steps = list(value.range())
        return Dimension(key, text, (), steps[0], steps[-1], value.step)
    return Dimension(key, text, tuple(override.sweep_string_iterator()))
