"""What the terminal shows besides bars: the summary at the start, a line an epoch, the table at the end."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from pathlib import Path

from microstep.types.events import EpochReport, Results, WindowReport
from microstep.utils.tables import format_fields
from microstep.utils.terminal import called, print_above_bars, print_and_log
from microstep.utils.text import display_path

log = logging.getLogger(__name__)


class Console:
    """Prints an epoch's line where no bars are shown, and the closing table; train.log gets all of it."""

    def __init__(self, bars_shown: bool) -> None:
        self.bars_shown = bars_shown

    def window(self, report: WindowReport) -> None:
        """The bars show steps."""

    def epoch(self, report: EpochReport) -> None:
        """Say the epoch in one line."""
        line = format_epoch(report)
        log.info(line)
        if not self.bars_shown:
            print_above_bars(line)

    def finish(self, results: Results) -> None:
        """Say what the run came to, and what to type next."""
        print_and_log(format_results(results))

    def close(self, error: BaseException | None) -> None:
        """Nothing is held open."""


def format_epoch(report: EpochReport) -> str:
    """Return an epoch in one line."""
    train, val = (" ".join(f"{n} {v:.4f}" for n, v in list(m.items())[:2]) for m in (report.train, report.val))
    epoch_text = f"epoch {report.epoch:>{len(str(report.epochs))}}/{report.epochs}"
    rate = f"{report.samples_per_second:,.0f} samples/s"
    return f"{epoch_text}  train {train}  val {val}  {rate}  {report.seconds:.1f} s{'  best' if report.best else ''}"


def format_results(results: Results) -> str:
    """Return the closing table: the test report, where it lies, the next commands."""
    test = results.splits["test"]
    run = shlex.quote(display_path(results.run_dir))
    logs = shlex.quote(display_path(find_logdir(results.run_dir)))
    facts = {
        "test": format_metrics(test.metrics),
        "val": format_metrics(results.val),
        "best checkpoint": f"epoch {results.best_epoch}, chosen by validation",
        "trained": (
            f"{results.optimizer_steps:,} optimizer steps in {results.train_seconds:.1f} "
            f"s{format_skipped_steps(results)}"
        ),
        "run directory": run,
    }
    commands = {
        "again, any split": f"{called('evaluate')} run={run} split=test",
        "curves and pictures": f"tensorboard --logdir {logs}",
    }
    return "\n".join([format_report(test.report.text, facts), "", "next:", format_fields(commands)])


def find_logdir(run_dir: Path) -> Path:
    """Return the directory whose runs are to be compared: `outputs` where the run is below one."""
    return next((parent for parent in run_dir.parents if parent.name == "outputs"), run_dir.parent)


def format_report(report: str, rows: Mapping[str, str]) -> str:
    """Return a report with a table under it."""
    return "\n".join(["", report.rstrip(), "", format_fields(rows)])


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Return metrics in one line."""
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def format_skipped_steps(results: Results) -> str:
    """Return a remark on skipped steps, where there were any."""
    return f", {results.skipped_steps} skipped for overflow" if results.skipped_steps else ""
