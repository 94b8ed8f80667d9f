"""Groups the runs of a sweep by folds, and makes the part of the summary about them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from microstep.config.experiment import REPEAT_KEYS, flatten
from microstep.config.names import job_name
from microstep.run.record import number, short_text
from microstep.sweep.summary.reading import SweepRun
from microstep.sweep.summary.study import Sample, SweepTable
from microstep.sweep.summary.tables import Table, format_number, format_sample
from microstep.utils.json_files import read_json_or_empty
from microstep.utils.text import format_count, format_names

POOLED_FILE = "pooled.json"
MAX_FOLDS, MAX_COLUMNS = 1000, 8  #: number of folds; settings in the table


@dataclass(frozen=True)
class FoldedSetting:
    """The runs of a setting that is trained on folds."""

    label: str
    sweep: Path
    report: str  #: directory of the pooled report, in that of the sweep
    folds: int
    runs: dict[tuple[int, int], dict[int, SweepRun]] = field(default_factory=dict)  #: by (repeat, seed), then fold

    @property
    def directory(self) -> Path:
        return self.sweep / self.report

    @property
    def missing(self) -> list[str]:
        """Folds without a finished run."""
        return [
            f"fold {fold} of repeat {repeat}, seed {seed} ({found[fold].status if fold in found else 'missing'})"
            for (repeat, seed), found in self.runs.items()
            for fold in range(self.folds)
            if fold not in found or found[fold].status != "finished"
        ]


def find_folded_settings(sweep: SweepTable) -> list[FoldedSetting]:
    """Return the settings of a sweep over folds, in the order of their first runs. A study's folds are not pooled."""
    settings: dict[tuple[str, ...], FoldedSetting] = {}
    for run in sweep.runs if "dataset.fold" in sweep.keys and not sweep.study else ():
        values = {**dict(flatten(run.saved.plain_config)), **run.overrides}
        numbers = [str(values.get(key, 0)) for key in ("dataset.folds", "dataset.fold", "dataset.repeat", "seed")]
        if run.status == "stale" or not all(map(str.isdecimal, numbers)) or int(numbers[0]) > MAX_FOLDS:
            continue
        folds, fold, repeat, seed = map(int, numbers)
        words = [f"{key}={value}" for key, value in sweep.rows[run.name].items() if key not in REPEAT_KEYS]
        report = "reports/out_of_fold" + (f"/{job_name(words)}" if words else "")
        new = FoldedSetting(" ".join(words) or "the one setting", run.saved.directory.parent, report, folds)
        settings.setdefault((numbers[0], *words), new).runs.setdefault((repeat, seed), {})[fold] = run
    return list(settings.values())


def make_folds_table(settings: Sequence[FoldedSetting], sweep: SweepTable) -> Table:
    caption = (
        f"Validation {sweep.monitor} of the best checkpoints by fold: mean ± sample standard deviation over repeats "
        f"and seeds. At most {MAX_COLUMNS} columns."
    )
    columns = {setting.label: list(setting.runs.values()) for setting in settings}
    if len(settings) == 1:
        seeds = {seed for _, seed in settings[0].runs}
        columns = {
            f"repeat {repeat}" + f", seed {seed}" * (len(seeds) > 1): [runs]
            for (repeat, seed), runs in settings[0].runs.items()
        }
    columns = dict([*columns.items()][:MAX_COLUMNS])

    def make_cell(fold: int, repeats: Sequence[Mapping[int, SweepRun]]) -> str:
        runs = [found[fold] for found in repeats if fold in found and found[fold] in sweep.scored_runs]
        return format_sample(Sample(tuple(map(sweep.get_score, runs))) if runs else None)

    folds = range(max(setting.folds for setting in settings))
    rows = ((str(fold), *(make_cell(fold, repeats) for repeats in columns.values())) for fold in folds)
    return Table(caption, ("fold", *columns), tuple(rows))


def make_fold_remarks(settings: Sequence[FoldedSetting]) -> Iterator[str]:
    """Yield a sentence on the pooled report of each setting, or on what it lacks."""
    for setting in settings:
        pooled = read_json_or_empty(setting.directory / POOLED_FILE)
        score, samples, suspects = (number(pooled.get(name)) for name in ("score", "samples", "suspects"))
        if setting.missing:
            yield f"{setting.label}: no pooled report, because it lacks {format_names(setting.missing)}."
        elif score is not None and samples is not None:
            told = f"{short_text(pooled.get('metric'))} {format_number(score)} over {samples:,.0f} samples"
            more = "" if not suspects else f"; {suspects:,.0f} labels may be wrong: {setting.report}/suspects.csv"
            if suspects is None and pooled.get("metric") == "accuracy":
                more = "; pip install 'microstep[labels]' to find labels that may be wrong"
            told = f"{told}, {format_count(len(setting.runs), 'time')} each{more}"
            yield f"{setting.label}: out of fold, with the last weights, {told}."
