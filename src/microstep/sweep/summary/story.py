"""The content of a summary: the best setting, effects of the keys, curves, costs and failures."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from microstep.run.record import short_text, short_texts
from microstep.run.saved_run import find_training_differences
from microstep.sweep.summary import tables
from microstep.sweep.summary.best import UNDECIDED, UNKNOWN, compare_with_best
from microstep.sweep.summary.effects import MainEffect, compute_main_effects, find_accum_confounding
from microstep.sweep.summary.folds import find_folded_settings, make_fold_remarks, make_folds_table
from microstep.sweep.summary.reading import STATUSES
from microstep.sweep.summary.search import MIN_TRIALS, compute_importance, read_trials
from microstep.sweep.summary.study import SweepTable
from microstep.sweep.summary.tables import format_sample
from microstep.utils.text import format_count, truncate_middle

MAX_LEVELS_LISTED, LISTED_LEVEL_LETTERS = 8, 24  #: number and length of the values shown for a swept key
#: Config groups whose options are shown if all runs share them, with their labels.
SHARED_GROUPS = {"dataset": "data", "model": "model", "precision": "precision", "optimizer": "optimizer"}


@dataclass(frozen=True)
class Section:
    """A part of the summary under a title; the templates leave out empty values."""

    title: str
    table: tables.Table | None = None
    remarks: tuple[str, ...] = ()
    warning: str = ""
    command_note: str = ""
    command: str = ""

    @property
    def name(self) -> str:
        """Anchor of the section in the page, and name of its charts."""
        return self.title.split()[0].lower()


def summarize(sweep: SweepTable) -> dict[str, Any]:
    return {
        "name": sweep.name,
        "command": sweep.command,
        "counts": count_statuses(sweep),
        "verdict": make_verdict(sweep),
        "caution": make_caution(sweep),
        "facts": list(list_facts(sweep)),
        "sections": list(make_sections(sweep)),
    }


def count_statuses(sweep: SweepTable) -> str:
    counts = Counter(run.status for run in sweep.runs)
    parts = ", ".join(f"{counts[status]:,} {status}" for status in STATUSES if counts[status])
    return f"{format_count(len(sweep.runs), 'run')}: {parts}." if parts else "No run yet."


def make_verdict(sweep: SweepTable) -> str:
    if not sweep.groups:
        return "No run has finished yet: there is nothing to compare."
    best = sweep.groups[0]
    test = f"; test {format_sample(best.test)}" if best.test else ""
    runs = format_count(len(best.runs), "run")
    return f"Best by validation: {best.label}, {sweep.monitor} {format_sample(best.val)} over {runs}{test}."


def make_caution(sweep: SweepTable) -> str:
    """Return a sentence if the runs don't distinguish the best setting from others."""
    if len(sweep.groups) < 2:
        return ""
    best, second = (group.val for group in sweep.groups[:2])
    stds = [sample.std for sample in (best, second) if sample.std is not None]
    if not stds:
        remedy = "search.seeds=3 measures it" if sweep.is_search else "Add seed=0,1,2 to measure it"
        return f"Each setting has one run, so the effect of the seed is unknown. {remedy}."
    words = compare_with_best(sweep)
    if undecided := words.count(UNDECIDED):
        return f"These runs don't tell {format_count(undecided, 'other setting')} apart from the best."
    if words[1] == UNKNOWN and abs(best.mean - second.mean) <= max(stds):
        return "The second lies within the spread of its runs: these runs alone don't tell the two apart."
    return ""


def list_facts(sweep: SweepTable) -> Iterator[tuple[str, str]]:
    if sweep.monitor:
        yield "ranked on", f"validation {sweep.monitor}, {tables.format_better_direction(sweep)}"
    splits = {split for run in sweep.scored_runs for split in run.record.splits}
    if splits and "test" not in splits:
        yield "test split", "none"
    for group, label in SHARED_GROUPS.items():
        options = {option for run in sweep.runs if (option := run.record.choices.get(group))}
        if len(options) == 1 and group not in sweep.keys:
            yield label, options.pop()
    if training := find_training_differences([run.saved for run in sweep.scored_runs]):
        yield "not trained by the same", "; ".join(map(" ".join, training.items()))
    searched = short_texts(sweep.study.get("keys"))
    for key in sweep.keys:
        yield f"{key}, swept", searched.get(key) or format_levels(sweep.levels(key))
    if verdict := short_text(sweep.study.get("verdict")):
        yield "verdict at any time", verdict
    numbers = [run.record.numbers.get("train_seconds") for run in sweep.scored_runs]
    if seconds := [value for value in numbers if value is not None]:
        yield "training", f"{sum(seconds):,.0f} s in {format_count(len(seconds), 'run')}"


def format_levels(levels: Sequence[str]) -> str:
    names = ", ".join(truncate_middle(level, LISTED_LEVEL_LETTERS) for level in levels[:MAX_LEVELS_LISTED])
    return f"{names} and {len(levels) - MAX_LEVELS_LISTED:,} more" if len(levels) > MAX_LEVELS_LISTED else names


def make_sections(sweep: SweepTable) -> Iterator[Section]:
    if sweep.groups:
        yield Section("Leaderboard", tables.make_leaderboard_table(sweep))
    yield from make_search_section(sweep) if sweep.is_search else make_effects_section(sweep)
    if settings := find_folded_settings(sweep):
        yield Section("Folds", make_folds_table(settings, sweep), tuple(make_fold_remarks(settings)))
    if sweep.monitor and any(run.record.numbers.get("epoch") for run in sweep.runs):
        yield Section("Curves")
    if sweep.groups:
        yield Section(f"Speed against {sweep.monitor}", tables.make_costs_table(sweep))
    yield from make_failures_section(sweep)
    if sweep.runs:
        yield Section("Runs", tables.make_all_runs_table(sweep))


def make_search_section(sweep: SweepTable) -> Iterator[Section]:
    shares = ", ".join(f"{key} {share:.2f}" for key, share in compute_importance(read_trials(sweep)).items())
    none = f"The importance of keys needs Optuna, two keys with several values, and {MIN_TRIALS} trials with a score."
    told = f"Importance, the share of a key in the variance of the scores (fANOVA): {shares}."
    yield Section("Search", remarks=(told if shares else none,))


def make_effects_section(sweep: SweepTable) -> Iterator[Section]:
    effects, confounding = compute_main_effects(sweep), find_accum_confounding(sweep)
    table = tables.make_effects_table(effects, sweep) if any(effect.matches for effect in effects) else None
    remarks = tuple(remark for effect in effects for remark in make_remarks(effect)) if sweep.scored_runs else ()
    if confounding:
        sizes = ", ".join(map(str, confounding.sizes))
        warning = f"accum changed the effective batch size as well ({sizes}), so the effect shown is of both."
        note = "This command separates the two, with one effective batch size for all runs:"
        yield Section("Main effects", table, remarks, warning, note, confounding.command)
    elif table or remarks:
        yield Section("Main effects", table, remarks)


def make_remarks(effect: MainEffect) -> Iterator[str]:
    if effect.absent:
        yield f"{effect.key}: no run has finished at {', '.join(effect.absent)}."
    if not effect.matches:
        reason = "no combination of the other keys has finished at all of its values"
        yield f"{effect.key}: no main effect, because {reason}."
    elif effect.num_used < effect.num_finished:
        others = format_count(effect.num_finished - effect.num_used, "other")
        yield (
            f"{effect.key}: the grid is incomplete. The effect is over {effect.num_used} of {effect.num_finished} "
            f"finished runs, those that have a partner at every value; {others} would bias it."
        )


def make_failures_section(sweep: SweepTable) -> Iterator[Section]:
    failed = [run for run in sweep.runs if run.status not in ("finished", "pruned")]
    unranked = ", ".join(run.name for run in sweep.runs if run.status == "finished" and run not in sweep.scored_runs)
    remarks = (f"Not ranked, because their checkpoints were chosen by another metric: {unranked}.",) if unranked else ()
    can_run = [run for run in failed if not (sweep.study and run.record.is_result)]  # a trial that diverged has ended
    note, command = "The same command runs just these; it skips what is finished:", sweep.command if can_run else ""
    if failed or unranked:
        yield Section("Failures", tables.make_failures_table(failed) if failed else None, remarks, "", note, command)
