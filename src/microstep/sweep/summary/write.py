"""Writes the files of a summary."""

from pathlib import Path

from microstep.sweep.summary.reading import read_sweep
from microstep.sweep.summary.story import summarize
from microstep.sweep.summary.study import tabulate
from microstep.sweep.summary.tables import format_summary_csv
from microstep.utils.files import write_atomic


def write_summary(directory: Path, html: bool = True) -> None:
    """Write summary.csv, summary.md and summary.html of a sweep from the files in its directory.

    The same files make the same bytes. Damaged files of a run don't stop it, and texts in them stay texts. Without
    `html`, the files take milliseconds; the charts of summary.html take a second or two. Raise ConfigError if
    sweep.json can't be read, StorageError if a file can't be written; each is then either unchanged or complete.
    """
    from microstep.sweep.summary.rendering import render  # jinja2 is imported only if a summary is written

    sweep = tabulate(read_sweep(directory))
    summary = summarize(sweep)
    write_atomic(directory / "summary.csv", format_summary_csv(sweep), durable=False)
    write_atomic(directory / "summary.md", render("summary.md.j2", summary=summary).encode(), durable=False)
    if html:
        from microstep.sweep.summary.charts import draw_charts  # matplotlib takes long to import
        from microstep.sweep.summary.svg import SERIES

        labels = [group.label for group in sweep.groups]
        page = render("summary.html.j2", summary=summary, charts=draw_charts(sweep), labels=labels, colours=len(SERIES))
        write_atomic(directory / "summary.html", page.encode(), durable=False)
