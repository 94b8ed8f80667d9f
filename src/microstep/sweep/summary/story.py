"""The content of a summary: the best setting, effects of the keys, curves, costs and failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from microstep.sweep.summary import tables
from microstep.sweep.summary.effects import MainEffect, compute_main_effects, find_accum_confounding
from microstep.sweep.summary.formatting import counted, spread
from microstep.sweep.summary.reading import STATUSES
from microstep.sweep.summary.study import SweepTable
from microstep.utils.text import truncate_middle

MAX_LEVELS_LISTED, LISTED_LEVEL_LETTERS = 8, 24  #: number and length of the values shown for a swept key
SHARED_GROUPS = {
    "dataset": "data",
    "model": "model",
    "precision": "precision",
    "optimizer": "optimizer",
}  #: group → label


@dataclass(frozen=True)
class Section:
    """A part of the summary under a title; the templates leave out what is empty."""

    title: str
    table: tables.Table | None = None
    remarks: tuple[str, ...] = ()
    warning: str = ""
    command_note: str = ""
    command: str = ""

    @property
    def name(self) -> str:
        """The section's anchor in the page, and the name of its charts."""
        return self.title.split()[0].lower()


@dataclass(frozen=True)
class Summary:
    """Everything that the templates show, except charts."""

    name: str
    command: str
    counts: str
    verdict: str
    caution: str  #: on what the verdict can't tell; empty if there is nothing to add
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]


def summarize(sweep: SweepTable) -> Summary:
    """Return the content of a sweep's summary."""
    facts, sections = tuple(facts_of(sweep)), tuple(sections_of(sweep))
    return Summary(sweep.name, sweep.command, counts(sweep), make_verdict(sweep), caution(sweep), facts, sections)


def counts(sweep: SweepTable) -> str:
    """Return the number of runs of each status."""
    found = Counter(run.status for run in sweep.runs)
    parts = ", ".join(f"{found[status]:,} {status}" for status in STATUSES if found[status])
    return f"{counted(len(sweep.runs), 'run')}: {parts}." if parts else "No run yet."


def make_verdict(sweep: SweepTable) -> str:
    """Return a sentence on the best setting."""
    if not sweep.settings:
        return "No run has finished yet: there is nothing to compare."
    best = sweep.settings[0]
    test = f"; test {spread(best.test)}" if best.test else ""
    runs = counted(len(best.runs), "run")
    return f"Best by validation: {best.label}, {sweep.monitor} {spread(best.val)} over {runs}{test}."


def caution(sweep: SweepTable) -> str:
    """Return a sentence if the runs don't tell the best setting from the second."""
    if len(sweep.settings) < 2:
        return ""
    best, second = (setting.val for setting in sweep.settings[:2])
    deviations = [sample.deviation for sample in (best, second) if sample.deviation is not None]
    if not deviations:
        return "Each setting has one run: how much of this is the seed can't be told. seed=0,1,2 would tell."
    if abs(best.mean - second.mean) <= max(deviations):
        return "The second lies within the spread of its runs: these runs alone don't tell the two apart."
    return ""


def facts_of(sweep: SweepTable) -> Iterator[tuple[str, str]]:
    """Yield what all runs have in common, the swept keys and the training time, each with its name."""
    if sweep.monitor:
        yield "ranked on", f"validation {sweep.monitor}, {tables.format_better_direction(sweep)}"
    for group, label in SHARED_GROUPS.items():
        options = {option for run in sweep.runs if (option := run.choice(group))}
        if len(options) == 1 and group not in sweep.keys:
            yield label, options.pop()
    for key in sweep.keys:
        yield f"{key}, swept", format_levels(sweep.levels(key))
    if seconds := [value for run in sweep.scored if (value := run.number("train_seconds")) is not None]:
        yield "training", f"{sum(seconds):,.0f} s in {counted(len(seconds), 'run')}"


def format_levels(levels: Sequence[str]) -> str:
    """Return the first values of a key, long ones shortened."""
    names = ", ".join(truncate_middle(level, LISTED_LEVEL_LETTERS) for level in levels[:MAX_LEVELS_LISTED])
    return f"{names} and {len(levels) - MAX_LEVELS_LISTED:,} more" if len(levels) > MAX_LEVELS_LISTED else names


def sections_of(sweep: SweepTable) -> Iterator[Section]:
    """Yield the sections that have something to show."""
    if sweep.settings:
        yield Section("Leaderboard", tables.make_leaderboard_table(sweep))
    yield from make_effects_section(sweep)
    if sweep.monitor and any(run.number("epoch") for run in sweep.runs):
        yield Section("Curves")
    if sweep.settings:
        yield Section(f"Speed against {sweep.monitor}", tables.make_costs_table(sweep))
    yield from failures(sweep)
    if sweep.runs:
        yield Section("Runs", tables.make_all_runs_table(sweep))


def make_effects_section(sweep: SweepTable) -> Iterator[Section]:
    """Yield the effect of each key, the runs it leaves out, and the effect of `accum` on the batch size."""
    found, note = compute_main_effects(sweep), find_accum_confounding(sweep)
    table = tables.make_effects_table(found, sweep) if any(effect.matches for effect in found) else None
    remarks = tuple(remark for effect in found for remark in remarks_on(effect)) if sweep.scored else ()
    section = Section("Main effects", table, remarks)
    if note:
        sizes = ", ".join(map(str, note.sizes))
        warning = f"accum changed the effective batch size as well ({sizes}): the effect shown is the batch size's too."
        told_apart = "The same batch, cut differently, tells the two apart:"
        section = Section("Main effects", table, remarks, warning, told_apart, note.command)
    if table or remarks or note:
        yield section


def remarks_on(effect: MainEffect) -> Iterator[str]:
    """Yield the values and runs that an effect leaves out."""
    if effect.absent:
        yield f"{effect.key}: no run has finished at {', '.join(effect.absent)}."
    if not effect.matches:
        yield f"{effect.key}: no main effect, for no combination of the other keys has finished at all of its values."
    elif effect.used < effect.finished:
        left = effect.finished - effect.used
        yield (
            f"{effect.key}: the grid is incomplete. The effect is over {effect.used} of {effect.finished} finished "
            f"runs, those that have a partner at every value; {counted(left, 'other')} would tilt it."
        )


def failures(sweep: SweepTable) -> Iterator[Section]:
    """Yield the runs without a result or without a rank, and the command that runs the former again."""
    failed = [run for run in sweep.runs if not run.finished]
    others = ", ".join(run.name for run in sweep.runs if run.finished and run not in sweep.scored)
    remarks = (f"Not ranked, for they are chosen by another metric: {others}.",) if others else ()
    note, command = "The same command runs just these; it skips what is finished:", sweep.command if failed else ""
    if failed or others:
        yield Section("Failures", tables.failures(failed) if failed else None, remarks, "", note, command)
