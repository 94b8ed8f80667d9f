"""Terminal output of a run besides progress bars: one line per epoch, a table of results at the end."""

import logging
import shlex
from collections.abc import Mapping

from microstep.types.events import EpochReport, Results, WindowReport
from microstep.utils.tables import format_fields
from microstep.utils.terminal import called, print_above_bars, print_and_log
from microstep.utils.text import display_path

log = logging.getLogger(__name__)
COMPILED = "{first_seconds:.1f} s for the first window of each size ({first_windows}), then {later_seconds:.3g} s each"


class Console:
    """Prints the epochs and the results, and logs them to train.log. Epochs are not printed if bars show them."""

    def __init__(self, bars_shown: bool) -> None:
        self.bars_shown = bars_shown

    def window(self, report: WindowReport) -> None: ...

    def epoch(self, report: EpochReport) -> None:
        line = format_epoch(report)
        log.info(line)
        if not self.bars_shown:
            print_above_bars(line)
        if report.stopped is not None:
            print_and_log(f"stopped after epoch {report.epoch} of {report.epochs}: {report.stopped}")

    def finish(self, results: Results) -> None:
        print_and_log(format_results(results))

    def close(self, error: BaseException | None) -> None: ...


def format_epoch(report: EpochReport) -> str:
    shown = dict(list(report.train.items())[:2]), report.shown_val
    train, val = (" ".join(f"{name} {value:.4f}" for name, value in metrics.items()) for metrics in shown)
    epoch = f"epoch {report.epoch:>{len(str(report.epochs))}}/{report.epochs}"
    rate = f"{report.samples_per_second:,.0f} samples/s"
    return f"{epoch}  train {train}  val {val}  {rate}  {report.seconds:.1f} s{'  best' if report.best else ''}"


def format_results(results: Results) -> str:
    split = "test" if results.test else "val"  # of the printed report
    run = shlex.quote(display_path(results.run_dir))
    enclosing = (parent for parent in results.run_dir.parents if parent.name == "outputs")
    logs = shlex.quote(display_path(next(enclosing, results.run_dir.parent)))  # with the runs to compare
    skipped = f", {results.skipped_steps} skipped for overflow" if results.skipped_steps else ""
    rows = {
        "test": format_metrics(results.test) or "none: the data have no test split, so the report is of val",
        "val": format_metrics(results.val),
        "best checkpoint": f"epoch {results.best_epoch}, chosen by validation",
        "trained": f"{results.optimizer_steps:,} optimizer steps in {results.train_seconds:.1f} s{skipped}",
        **({"compiled": COMPILED.format(**results.compiling)} if results.compiling else {}),
        "run directory": run,
    }
    again = f"{called('evaluate')} run={run} split={split}"
    commands = {"again, any split": again, "curves and images": f"tensorboard --logdir {logs}"}
    return "\n".join([format_report(results.splits[split].report.text, rows), "", "next:", format_fields(commands)])


def format_report(report: str, rows: Mapping[str, str]) -> str:
    return "\n".join(["", report.rstrip(), "", format_fields(rows)])


def format_metrics(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
