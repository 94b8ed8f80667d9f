"""A signal and the record of a run agree on whether the run is finished."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from microstep.cli.start import resume_remedy
from microstep.errors import Stopped


def record(directory: Path, **content: object) -> None:
    (directory / "run.json").write_text(json.dumps(content))


@pytest.mark.parametrize("before", [{}, {"status": "finished"}])
def test_a_signal_after_the_end_is_ignored(tmp_path: Path, before: dict) -> None:
    """Of a new run, and of one that is resumed for more epochs."""
    record(tmp_path, **before)
    with resume_remedy(tmp_path):
        record(tmp_path, status="finished", resumed=[{}])
        raise Stopped(signal.SIGTERM)


@pytest.mark.parametrize("before", [{}, {"status": "interrupted"}, {"status": "finished"}])
def test_a_signal_before_the_start_is_not(tmp_path: Path, before: dict) -> None:
    """While more epochs of a finished run are prepared, its record still says finished: the signal stops them."""
    record(tmp_path, **before)
    with pytest.raises(Stopped) as caught, resume_remedy(tmp_path):
        raise Stopped(signal.SIGTERM)
    assert caught.value.remedy.endswith(f"resume={tmp_path}")
