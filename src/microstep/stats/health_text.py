"""The health report, as compute_stats.py prints it: short where all is well."""

from __future__ import annotations

from collections.abc import Sequence

from microstep.stats.duplicates import Duplicates
from microstep.stats.health import FEW, Health
from microstep.stats.text import rest

LISTED = 10  #: lines of a list, beyond which the rest is counted


def health_text(health: Health, options: Sequence[str]) -> str:
    """Return what is wrong, and what is not, with lists cut short.

    Args:
        options: the official splits that there are.
    """
    looked = ", ".join(
        f"{split}{'' if n == of else f': {n:,} of {of:,} pictures'}" for split, (n, of) in health.checked.items()
    )
    lines = [f"  health of {looked}"]
    for kind, listed in findings(health).items():
        lines += [f"    {kind}", *(f"      {one}" for one in listed[:LISTED]), *rest(len(listed) - LISTED, "      ")]
    if well := soundness(health):
        lines.append(f"    no {', no '.join(well)}")
    return "\n".join([*lines, *(f"    {advice}" for advice in advices(health, options))])


def findings(health: Health) -> dict[str, list[str]]:
    """Return what was found, kind by kind."""
    kinds = {
        f"unreadable: {len(health.unreadable):,}": list(map(str, health.unreadable)),
        duplicates_head(health): [group_text(one) for one in sorted(health.duplicates, key=lambda one: not one.leak)],
        f"pictures of one colour: {len(health.constant):,}": list(map(str, health.constant)),
        f"classes with fewer than {FEW} training pictures: {len(health.few):,}": [
            f"{name}: {count}" for name, count in health.few.items()
        ],
    }
    for split, names in health.absent.items():
        kinds[f"classes absent in {split}: {len(names):,}"] = list(names)
    return {kind: listed for kind, listed in kinds.items() if listed}


def group_text(group: Duplicates) -> str:
    """Return duplicates in one line, with their labels where these differ."""
    names = [str(member) for member in group.members[:LISTED]]
    more = [f"{len(group.members) - LISTED:,} more"] if len(group.members) > LISTED else []
    labels = ", ".join(dict.fromkeys(member.label for member in group.members))
    return " = ".join([*names, *more]) + (f" (labels differ: {labels})" if group.conflicting else "")


def duplicates_head(health: Health) -> str:
    """Return how many groups of duplicates there are, of which kind."""
    groups = health.groups()
    kinds = [f"{count:,} within {split}" for split, count in groups["within"].items() if count]
    kinds += [f"{groups['across']:,} across splits, which are leaks"] if groups["across"] else []
    kinds += [f"{groups['conflicting']:,} with different labels"] if groups["conflicting"] else []
    return f"groups of duplicates, the same pixels at this size: {len(health.duplicates):,} ({', '.join(kinds)})"


def soundness(health: Health) -> list[str]:
    """Return what there is nothing of."""
    kinds = {
        "unreadable files": health.unreadable,
        "duplicates": health.duplicates,
        "pictures of one colour": health.constant,
        f"class with fewer than {FEW} training pictures": health.few or health.absent.get("train"),
    }
    return [kind for kind, found in kinds.items() if not found]


def advices(health: Health, options: Sequence[str]) -> list[str]:
    """Return what to add to see more."""
    found = [] if health.whole else ["only the pictures drawn were looked at: leave ratio out for all of them"]
    if len(health.checked) < len(options):
        found.append(f"to find leaks between splits: split={','.join(options)}")
    return found
