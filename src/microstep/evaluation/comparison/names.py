"""Settings in which groups of runs differ, and names for the groups made of these."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from microstep.config.experiment import flatten
from microstep.errors import escape_unprintable
from microstep.evaluation.comparison.groups import RunGroup
from microstep.utils.text import truncate_middle

ABSENT = "null"  #: stands for a missing value
MAX_NAME_LETTERS, MAX_VALUE_LETTERS = 60, 40
Differences = dict[str, tuple[str, str]]


def name_groups(groups: Sequence[RunGroup]) -> list[str]:
    """Return distinct names such as `model=mlp optimizer.lr=0.1`, of the settings in which groups differ.

    The last group is the baseline. A group with its settings and checkpoint is named `run`. If names are long, the last
    settings that are not needed to tell them apart are left out.
    """
    found = [find_brief_differences(group, groups[-1]) for group in groups]
    keys = [key for key in dict.fromkeys(chain(*found)) if is_own_setting(key, groups)]
    keys.sort(key="checkpoint".__eq__)
    values = {key: next(pairs[key][1] for pairs in found if key in pairs) for key in keys}
    rows = []
    for group, pairs in zip(groups, found, strict=True):
        absent = dict.fromkeys(find_setting_differences(group, groups[-1]), ABSENT)
        own = {key: value for key, (value, _) in pairs.items()} | {"seed": str(group.first.seed)}
        rows.append(values | absent | own)
    if all(len(group.runs) == 1 for group in groups) and len({row["seed"] for row in rows}) > 1:
        keys.append("seed")
    names = [[join_settings(row, keys[:count]) for row in rows] for count in range(len(keys), -1, -1)]
    distinct = [one for one in names if len({*one}) == len(one)]
    short = [one for one in distinct if max(map(len, one)) <= MAX_NAME_LETTERS]
    *run_names, name = [*short[:1], *distinct[-1:], names[0]][0]
    same = f"{name} (run)" if name else "run"
    return [*(same if one == name else one for one in run_names), name or "baseline"]


def join_settings(row: dict[str, str], keys: Sequence[str]) -> str:
    pairs = [(key.removeprefix("files."), row[key]) for key in keys if row[key] != ABSENT]
    return " ".join(f"{key}={escape_unprintable(truncate_middle(value, MAX_VALUE_LETTERS))}" for key, value in pairs)


def is_own_setting(key: str, groups: Sequence[RunGroup]) -> bool:
    """Return False if a key's value follows from another's, as `accumulation.micro_batches` does from `accum`."""
    values = (dict(flatten(group.first.saved.plain_config)).get(key) for group in groups)
    return key != "effective batch" and not any(str(value).startswith("${") for value in values)


def find_setting_differences(run: RunGroup, baseline: RunGroup) -> Differences:
    """Return the values in which two groups differ, by dotted key, with the effective batch size and the checkpoint."""
    runs = (run.first, baseline.first)
    added = [{"effective batch": one.effective_batch_size, "checkpoint": one.checkpoint} for one in runs]
    sides = [dict(flatten({**one.settings, **more})) for one, more in zip(runs, added, strict=True)]
    pairs = {key: (format_setting(sides[0].get(key)), format_setting(sides[1].get(key))) for key in sides[0] | sides[1]}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def find_brief_differences(run: RunGroup, baseline: RunGroup) -> Differences:
    """Return the differences in short: for a config group with another target, only the keys that both have."""
    found = find_setting_differences(run, baseline)
    others = sorted(key.removesuffix("._target_") for key in found if key.endswith("._target_"))
    kept = {
        key: pair
        for key, pair in found.items()
        if not key.endswith("._target_") and (key.rpartition(".")[0] not in others or ABSENT not in pair)
    }
    options = {component: (get_option(run, component), get_option(baseline, component)) for component in others}
    return {name: pair if pair[0] != pair[1] else found[f"{name}._target_"] for name, pair in options.items()} | kept


def get_option(group: RunGroup, component: str) -> str:
    target = dict(flatten(group.first.settings)).get(f"{component}._target_")
    return group.first.saved.record.choices.get(component) or str(target).rpartition(".")[2]


def format_setting(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ABSENT if value is None else str(value)
