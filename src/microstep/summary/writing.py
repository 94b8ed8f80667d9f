"""The files of a summary."""

from __future__ import annotations

from pathlib import Path

from microstep.files import write_whole
from microstep.summary.markdown import markdown
from microstep.summary.reading import read_sweep
from microstep.summary.rows import csv_of
from microstep.summary.story import document_of
from microstep.summary.study import study_of


def write_summary(directory: Path, html: bool = True) -> None:
    """Write summary.csv, summary.md and summary.html of a sweep, from the files in its directory.

    The same files make the same bytes. What a run's own files hold can neither stop it nor be more than text in it.

    Args:
        directory: the sweep's, with its sweep.json.
        html: also the page with pictures, which takes a second or two; the others take milliseconds.

    Raises:
        ConfigError: where sweep.json can't be read.
        StorageError: where there is no room; each file is as it was then, or new.
    """
    study = study_of(read_sweep(directory))
    document = document_of(study)
    write_whole(directory / "summary.csv", csv_of(study).encode(), durable=False)
    write_whole(directory / "summary.md", markdown(document).encode(), durable=False)
    if html:
        from microstep.summary.page import page  # matplotlib is dear to import

        write_whole(directory / "summary.html", page(document, study).encode(), durable=False)
